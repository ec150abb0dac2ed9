"""``python -m jaxmas.experiments.shift``."""

import functools

import tyro

from jaxmas.errors import JaxmasError
from jaxmas.experiments import shift
from jaxmas.experiments.shift.runs import run_all
from jaxmas.experiments.shift.tables import write
from jaxmas.experiments.shift.worlds import Settings, sized


def main(settings: Settings) -> None:
    """Run the study; its table is written anew after every run."""
    settings = sized(settings)
    run_all(settings, functools.partial(write, settings))
    write(settings)


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings, prog="python -m jaxmas.experiments.shift", description=shift.__doc__))
    except JaxmasError as error:
        raise SystemExit(f"error: {error}") from None
