"""``python -m jaxmas.experiments.frozen_ceiling``."""

from jaxmas.experiments import frozen_ceiling
from jaxmas.experiments.frozen_ceiling.systems import Settings
from jaxmas.experiments.frozen_ceiling.tables import write
from jaxmas.experiments.study import command_line, run_study


def main(settings: Settings) -> None:
    """Run the study."""
    run_study(settings, write)


if __name__ == "__main__":
    command_line(Settings, main, frozen_ceiling.__doc__)
