"""``python -m jaxmas.experiments.scaling``."""

import jax

from jaxmas.errors import refuse
from jaxmas.experiments import scaling
from jaxmas.experiments.scaling import axes
from jaxmas.experiments.scaling.measures import moved, references, speed
from jaxmas.experiments.scaling.systems import STUDY, SWEPT_AT, Settings, names_of, of_part
from jaxmas.experiments.scaling.tables import write
from jaxmas.experiments.study import Part, command_line, part_of, run_study


def main(settings: Settings) -> None:
    """Play what needs no training, train, then play elsewhere what was trained; tables follow every step."""
    names = names_of(settings)
    for name in names:
        refuse(name not in STUDY.parts, f"unknown part {name!r}; the parts are {', '.join(STUDY.parts)}")
    for step in (references, speed, trained, moved, swept):
        for name in names:
            step(name, part_of(name, settings), of_part(name, settings))
            print(f"{step.__name__}: {name}", flush=True)
            write(settings)
            # The programs of one size are of no use to the next.
            jax.clear_caches()


def trained(name: str, part: Part, settings: Settings) -> None:
    """Train the systems of a part."""
    run_study(settings, lambda name, part, settings: None)


def swept(name: str, part: Part, settings: Settings) -> None:
    """Sweep what the parts of one size go wrong by; the small version does without."""
    sweep = {f"crowd-{SWEPT_AT}": axes.crowd, f"warehouse-{SWEPT_AT}": axes.radio}.get(name)
    if sweep and not settings.small:
        sweep(name, part, settings)


if __name__ == "__main__":
    command_line(Settings, main, scaling.__doc__)
