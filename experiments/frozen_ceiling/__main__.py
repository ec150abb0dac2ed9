"""``python -m jaxmas.experiments.frozen_ceiling``."""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed

import tyro

from jaxmas.errors import JaxmasError, refuse
from jaxmas.experiments import frozen_ceiling
from jaxmas.experiments.frozen_ceiling.run import Settings, part_of, run_system
from jaxmas.experiments.frozen_ceiling.systems import PARTS, SMALL
from jaxmas.experiments.frozen_ceiling.tables import write


def main(settings: Settings) -> None:
    """Run the parts one after the other; tables are written anew whenever a system is done."""
    for name in settings.parts:
        refuse(name not in PARTS, f"unknown part {name!r}; the parts are {', '.join(PARTS)}")
    if settings.small:
        settings = dataclasses.replace(settings, parts=("systems",), only=SMALL)
    for name in settings.parts:
        part = part_of(name, settings)
        refuse(
            not any(only in part.systems for only in settings.only or part.systems),
            f"{name} has no system {', '.join(settings.only)}; its systems are {'; '.join(part.systems)}",
        )
        names = [system for system in part.systems if not settings.only or system in settings.only]
        with ProcessPoolExecutor(settings.workers, multiprocessing.get_context("spawn")) as pool:
            waiting = {pool.submit(run_system, name, system, settings): system for system in names}
            for done in as_completed(waiting):
                print(f"{name}: {waiting[done]}: {done.result()}", flush=True)
                write(name, part, settings)


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings, prog="python -m jaxmas.experiments.frozen_ceiling", description=frozen_ceiling.__doc__))
    except JaxmasError as error:
        raise SystemExit(f"error: {error}") from None
