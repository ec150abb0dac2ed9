"""``python -m jaxmas.experiments.scaling``."""

import jax

from jaxmas.errors import refuse
from jaxmas.experiments import scaling
from jaxmas.experiments.scaling import sweeps
from jaxmas.experiments.scaling.measures import moved, references
from jaxmas.experiments.scaling.systems import STUDY, Settings, names_of, of_part
from jaxmas.experiments.scaling.tables import write
from jaxmas.experiments.study import command_line, part_of, run_study


def main(settings: Settings) -> None:
    """Play what needs no training, train, then play elsewhere what was trained; tables follow every step."""
    names = names_of(settings)
    for name in names:
        refuse(name not in STUDY.parts, f"unknown part {name!r}; the parts are {', '.join(STUDY.parts)}")
    for step in (references, trained, moved):
        for name in names:
            step(name, part_of(name, settings), of_part(name, settings))
            print(f"{step.__name__}: {name}", flush=True)
            write(settings)
            # The programs of one size are of no use to the next.
            jax.clear_caches()
    if not settings.small:
        sweeps.crowd(settings)
        sweeps.radio(settings)
        write(settings)


def trained(name, part, settings: Settings) -> None:
    """Train the systems of a part."""
    run_study(settings, lambda name, part, settings: None)


if __name__ == "__main__":
    command_line(Settings, main, scaling.__doc__)
