"""``python -m jaxmas.experiments.designers``."""

from jaxmas.experiments import designers
from jaxmas.experiments.designers.systems import Settings
from jaxmas.experiments.designers.tables import write
from jaxmas.experiments.study import command_line, run_study


def main(settings: Settings) -> None:
    """Run the study."""
    run_study(settings, write)


if __name__ == "__main__":
    command_line(Settings, main, designers.__doc__)
