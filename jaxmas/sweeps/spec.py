"""The specification of a sweep: a TOML file, checked down to the type of every setting before anything is written."""

import dataclasses
import itertools
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxmas.catalog import ALGORITHMS
from jaxmas.errors import JaxmasError, did_you_mean, refuse
from jaxmas.experiments.compare import Setting
from jaxmas.schema import Check, expect, number, one_of, shown, text, whole

KEYS: dict[str, Check] = {
    "scenario": text(100),
    "algorithm": text(100),
    "num_agents": whole(1),
    "coordination_interval": whole(1),
    "executor": text(1000),
    "episodes": whole(2),
    "per_program": whole(1),
}
"""What stands above the tables, ``seeds`` besides."""
TABLES = ("files", "fixed", "sweep", "slurm")
MOST = 100_000
"""Trials of a sweep."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """A sweep: every combination of the swept values, with every seed."""

    scenario: str
    algorithm: str
    seeds: tuple[int, ...]
    fixed: dict[str, Any]
    swept: dict[str, tuple[Any, ...]]
    num_agents: int | None = None
    coordination_interval: int | None = None
    executor: str | None = None
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """What the scenario is made of, by option; absolute paths."""
    episodes: int = 2048
    """Test queries that every trial's policy is evaluated on."""
    per_program: int | None = None
    """At most so many trials in one program: fewer need less memory and keep more workers busy."""
    slurm: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    """Parameters of the jobs, for submitit."""

    @property
    def setting(self) -> Setting:
        """Return the scenario with its sizes and executor."""
        files = {name: Path(file) for name, file in self.files.items()}
        return Setting(self.scenario, self.num_agents, self.coordination_interval, self.executor, files)

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yield the swept values of every trial but its seed; the last setting varies fastest."""
        for values in itertools.product(*self.swept.values()):
            yield dict(zip(self.swept, values, strict=True))

    def config(self, swept: Mapping[str, Any]) -> Any:
        """Return the algorithm's settings; the algorithm refuses what cannot be by a ``JaxmasError``."""
        return ALGORITHMS[self.algorithm](**self.fixed | dict(swept))

    def to_json(self) -> dict[str, Any]:
        """Return the specification as JSON keeps it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Spec":
        """Return the specification that ``to_json`` gave."""
        swept = {name: tuple(values) for name, values in kept["swept"].items()}
        return cls(**{**kept, "seeds": tuple(kept["seeds"]), "swept": swept})


def read(path: Path) -> Spec:
    """Read a specification; each mistake is one line that says where it stands.

    Raises:
        JaxmasError: where the file cannot be read, or says what cannot be.
    """
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise JaxmasError(
            f"{path} cannot be read ({error.strerror}); name a TOML file that specifies a sweep"
        ) from error
    except ValueError as error:
        raise JaxmasError(f"{path} is no TOML ({error}); docs/sweeps.md shows one") from error
    try:
        return _parsed(table, path.resolve().parent)
    except JaxmasError as error:
        raise JaxmasError(f"{path}: {error}") from error


def _parsed(table: dict[str, Any], folder: Path) -> Spec:
    known = [*KEYS, "seeds", *TABLES]
    for name, value in table.items():
        refuse(name not in known, f"{shown(name)} does not belong here; {did_you_mean(name, known)}")
        expect(isinstance(value, dict) == (name in TABLES), value, name, "a table" if name in TABLES else "a value")
        KEYS.get(name, lambda value, where: None)(value, name)
    for name in ("scenario", "algorithm", "seeds"):
        refuse(name not in table, f"{name} is missing; it has to be there")
    fixed, swept = table.get("fixed", {}), table.get("sweep", {})
    both = next((name for name in swept if name in fixed), None)
    refuse(both is not None, f"{both} stands in [fixed] and in [sweep]; keep one")
    check = _SettingsCheck(table["algorithm"])
    files = table.get("files", {})
    for name, value in files.items():
        text(1000)(value, f"files.{name}")
        refuse(not (folder / value).is_file(), f"files.{name} is {shown(value)}; there is no such file")
    spec = Spec(
        seeds=_seeds(table["seeds"]),
        fixed={name: check(name, value, f"fixed.{name}") for name, value in fixed.items()},
        swept={name: _values(check, name, values) for name, values in swept.items()},
        files={name: str(folder / value) for name, value in files.items()},
        slurm=table.get("slurm", {}),
        **{name: table[name] for name in KEYS if name in table},
    )
    count = len(spec.seeds) * sum(1 for _ in itertools.islice(spec.combinations(), MOST + 1))
    refuse(count > MOST, f"the sweep has more than {MOST:,} trials; make it smaller")
    return spec


def _seeds(value: Any) -> tuple[int, ...]:
    """Return the seeds: those that are listed, or so many from 0."""
    if not isinstance(value, list):
        whole(1, MOST)(value, "seeds")
        return tuple(range(value))
    _check_list(value, "seeds")
    for place, seed in enumerate(value):
        whole(0, 2**31 - 1)(seed, f"seeds[{place}]")
    return tuple(value)


def _values(check: "_SettingsCheck", name: str, values: Any) -> tuple[Any, ...]:
    where = f"sweep.{name}"
    refuse(not isinstance(values, list), f"{where} is {shown(values)}; list its values, or put it into [fixed]")
    checked = [check(name, value, f"{where}[{place}]") for place, value in enumerate(values)]
    _check_list(checked, where)
    return tuple(checked)


def _check_list(values: list[Any], where: str) -> None:
    refuse(not values, f"{where} is empty; give at least one value")
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    refuse(twice is not None, f"{where} gives {shown(twice)} twice; keep one")


class _SettingsCheck:
    """Checks values against the types of an algorithm's settings."""

    def __init__(self, algorithm: str):
        kind = ALGORITHMS[algorithm]
        hints = typing.get_type_hints(kind)
        self.algorithm = algorithm
        self.hints = {field.name: hints[field.name] for field in dataclasses.fields(kind)}

    def __call__(self, name: str, value: Any, where: str) -> Any:
        """Return a value as the setting has it, a whole number as a float where that is its type."""
        known = did_you_mean(name, self.hints)
        refuse(name not in self.hints, f"{where}: {self.algorithm} has no setting {name!r}; {known}")
        hint = self.hints[name]
        if hint is float:
            number(-1e38, 1e38)(value, where)
            return float(value)
        if hint is int:
            whole(-(10**12))(value, where)
        elif typing.get_origin(hint) is typing.Literal:
            one_of(*typing.get_args(hint))(value, where)
        else:
            expect(isinstance(value, hint), value, where, {bool: "true or false", str: "a text"}.get(hint, str(hint)))
        return value
