"""The plan of a sweep: its trials, and which of them are trained by one program. ``sweep.json`` keeps it."""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxmas import training
from jaxmas.checkpoints import atomic_write_text
from jaxmas.errors import JaxmasError, refuse
from jaxmas.headroom import World
from jaxmas.runs import starting_policies
from jaxmas.sweeps.batches import traceable
from jaxmas.sweeps.spec import Spec

FILE = "sweep.json"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run of a sweep."""

    name: str
    settings: dict[str, Any]
    """The swept ones."""
    seed: int


@dataclasses.dataclass(frozen=True)
class Program:
    """Trials that one compiled program trains."""

    traced: tuple[str, ...]
    """Settings that it takes as numbers; in all others its trials agree."""
    trials: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep as it is carried out."""

    spec: Spec
    trials: dict[str, Trial]
    programs: dict[str, Program]
    refused: dict[str, str]
    """Why trials cannot be run, by trial."""


def make_plan(spec: Spec) -> Plan:
    """Divide a sweep into programs.

    Raises:
        JaxmasError: where the world cannot be made, or the settings of every trial are refused.
    """
    world = spec.setting.build()
    training.check_finite(world.params)
    trials = {trial.name: trial for trial in _trials(spec)}
    numbers = [name for name, values in spec.swept.items() if isinstance(values[0], float) and len(values) > 1]
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    refused: dict[str, str] = {}
    for trial in trials.values():
        try:
            spec.config(trial.settings)
        except JaxmasError as error:
            refused[trial.name] = str(error)
        else:
            alike = tuple(value for name, value in trial.settings.items() if name not in numbers)
            groups.setdefault(alike, []).append(trial)
    programs: list[Program] = []
    for group in groups.values():
        try:
            programs += _programs(spec, world, group, numbers)
        except Exception as error:  # whatever these settings come to in this world, other trials go on
            kind = "" if isinstance(error, JaxmasError) else f"{type(error).__name__}: "
            refused |= {trial.name: kind + " ".join(str(error).split())[:300] for trial in group}
    refuse(not programs, f"the settings of every trial are refused: {next(iter(refused.values()), '')}")
    return Plan(spec, trials, {f"{index:03d}": program for index, program in enumerate(programs)}, refused)


def _trials(spec: Spec) -> Iterator[Trial]:
    """Yield the trials in order; their names are numbered, as values may look alike once they are part of a path."""
    for index, (settings, seed) in enumerate(itertools.product(spec.combinations(), spec.seeds)):
        parts = [f"{index:04d}", *(f"{name}-{value}" for name, value in settings.items())]
        name = re.sub(r"[^\w.+-]", "-", "_".join(parts))[:120]
        yield Trial(f"{name}_seed-{seed}", settings, seed)


def _programs(spec: Spec, world: World, group: Sequence[Trial], numbers: Sequence[str]) -> Iterator[Program]:
    """Yield the programs of trials that agree in all but numbers."""
    config = spec.config(group[0].settings)
    start = starting_policies(config, spec.setting.executor_name, world.env, world.params)
    traced = traceable(config, world.env, world.params, start, numbers, training.CHUNK)
    apart: dict[tuple[Any, ...], list[str]] = {}
    for trial in group:
        alike = tuple(trial.settings[name] for name in numbers if name not in traced)
        apart.setdefault(alike, []).append(trial.name)
    for names in apart.values():
        size = spec.per_program or len(names)
        for begun in range(0, len(names), size):
            yield Program(traced, tuple(names[begun : begun + size]))


def write_plan(out: Path, plan: Plan) -> None:
    """Write ``sweep.json``, in the order of the specification."""
    atomic_write_text(out / FILE, json.dumps(dataclasses.asdict(plan), indent=1) + "\n")


def read_plan(out: Path) -> Plan:
    """Read ``sweep.json``; anything unreadable is one clear error."""
    try:
        kept = json.loads((out / FILE).read_text())
        spec = Spec.from_json(kept["spec"])
        trials = {name: Trial(**trial) for name, trial in kept["trials"].items()}
        programs = {
            name: Program(tuple(program["traced"]), tuple(program["trials"]))
            for name, program in kept["programs"].items()
        }
        return Plan(spec, trials, programs, kept["refused"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise JaxmasError(f"{out / FILE} cannot be read ({error}); begin the sweep again in another --out") from error
