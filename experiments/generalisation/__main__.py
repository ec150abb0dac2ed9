"""``python -m jaxmas.experiments.generalisation``."""

from jaxmas.experiments import generalisation
from jaxmas.experiments.generalisation.systems import Settings
from jaxmas.experiments.generalisation.tables import write
from jaxmas.experiments.study import command_line, run_study


def main(settings: Settings) -> None:
    """Run the study."""
    run_study(settings, write)


if __name__ == "__main__":
    command_line(Settings, main, generalisation.__doc__)
