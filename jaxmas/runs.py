"""Run directories: what was run (``config.json``), what happened (``log.jsonl``), and where it stands (checkpoints)."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

import jaxmas
from jaxmas.anchors import params_hash
from jaxmas.checkpoints import Checkpoints, atomic_write_json
from jaxmas.errors import JaxmasError
from jaxmas.policies import RandomPolicy
from jaxmas.registry import ALGORITHMS, EXECUTORS
from jaxmas.rollout import Policies
from jaxmas.types import Environment, Executor, MetaPolicy

PACKAGES = ("jaxmas", "jax", "jaxlib", "flax", "optax", "distrax", "numpy")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Everything that decides a run's outcome, and where it was made."""

    scenario: str
    num_agents: int
    coordination_interval: int
    executor: str
    algorithm: str
    config: dict[str, Any]
    seed: int
    params: str
    """Hash of the scenario's numbers."""
    provenance: dict[str, Any]
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 of the files that the scenario was made of, by option."""


@dataclasses.dataclass(frozen=True)
class LoadedPolicy:
    """A meta-policy with its parameters and a name for tables."""

    name: str
    meta: MetaPolicy
    meta_params: Any
    executor: tuple[Executor, Any] | None = None
    """The executor that was trained with it, and its parameters; None where any will do."""


@functools.cache
def provenance() -> dict[str, Any]:
    """Return package versions, git commit and device."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    device = jax.devices()[0]
    return {
        "versions": versions,
        "python": platform.python_version(),
        "commit": _commit(),
        "device": f"{device.platform}: {device.device_kind}",
    }


def checksums(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of every file."""
    return {name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for name, file in files.items()}


def _commit() -> str | None:
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def write_record(out: Path, record: RunRecord) -> None:
    """Write ``config.json``."""
    atomic_write_json(out / "config.json", dataclasses.asdict(record))


def read_record(out: Path) -> RunRecord:
    """Read ``config.json``; anything unreadable is one clear error."""
    path = out / "config.json"
    if not path.is_file():
        raise JaxmasError(f"{out} is no run directory: it has no config.json; make one with jaxmas train … --out {out}")
    try:
        record = RunRecord(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise JaxmasError(f"{path} cannot be read ({error}); train the run again") from error
    return dataclasses.replace(record, config=with_defaults(record.algorithm, record.config))


def plain(config: Any) -> dict[str, Any]:
    """Return an algorithm's settings as JSON keeps them."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def with_defaults(algorithm: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that were kept; those that the algorithm got later stood at their defaults."""
    return plain(ALGORITHMS[algorithm]()) | dict(settings)


def algorithm_config(record: RunRecord) -> Any:
    """Return the algorithm's configuration that a run was made with."""
    make = ALGORITHMS[record.algorithm]
    unknown = sorted(set(record.config) - {field.name for field in dataclasses.fields(make)})
    if unknown:
        raise JaxmasError(
            f"{record.algorithm} has no setting {unknown[0]}: the run is of another version; train it again"
        )
    return make(**record.config)


def load_policy(spec: str, env: Environment, params: Any, *, greedy: bool = True) -> LoadedPolicy:
    """Return the meta-policy behind ``strategy:NAME`` or a run directory.

    A learned policy may meet another number of agents than it was trained with, not another kind of environment. A run
    that trained executors brings them along; one that trained no designer brings the one that planned for it.
    """
    if spec.startswith("strategy:"):
        name = spec.removeprefix("strategy:")
        return LoadedPolicy(name, jaxmas.make_strategy(name, env, params), None)
    out = Path(spec)
    if not out.exists():
        raise JaxmasError(f"policy {spec!r} is neither strategy:NAME nor a run directory; see jaxmas list")
    record, config, state = _restore(out, env, params)
    return trained_policy(f"{record.algorithm} ({out.name})", config, state, env, params, greedy=greedy)


def trained_policy(
    name: str, config: Any, state: Any, env: Environment, params: Any, *, greedy: bool = True
) -> LoadedPolicy:
    """Return the meta-policy of a run's state; where the run trained none, the one that planned for it."""
    designer = config.designer(env, state, greedy)
    if designer is None:
        planner = load_policy(config.plans_by, env, params, greedy=greedy)
        designer = planner.meta, planner.meta_params
    meta, weights = designer
    return LoadedPolicy(name, meta, weights, config.executor(env, state))


def load_executor(spec: str, env: Environment, params: Any) -> tuple[Executor, Any]:
    """Return the executor behind a registered name or the directory of a run that trained one."""
    if spec in EXECUTORS.names() or not (Path(spec) / "config.json").is_file():
        return jaxmas.load_executor(spec, env, params)
    record, config, state = _restore(Path(spec), env, params)
    executor = config.executor(env, state)
    if executor is None:
        raise JaxmasError(f"{spec} trained no executor ({record.algorithm} keeps them frozen); name a run that did")
    return executor


def starting_policies(config: Any, executor: str, env: Environment, params: Any) -> Policies:
    """Return who a run begins with: the executor named, and who plans where the algorithm does not learn to."""
    plans_by = getattr(config, "plans_by", "")
    planner = load_policy(plans_by, env, params) if plans_by else LoadedPolicy("", RandomPolicy(env), None)
    return Policies(planner.meta, planner.meta_params, *load_executor(executor, env, params))


def _restore(out: Path, env: Environment, params: Any) -> tuple[RunRecord, Any, Any]:
    """Return a run's record, its algorithm and its last state."""
    record = read_record(out)
    config = algorithm_config(record)
    shapes = jax.eval_shape(lambda: config.initial_state(env, params, jax.random.key(0)))
    restored = Checkpoints(out).restore_latest(shapes)
    if restored is None:
        raise JaxmasError(f"{out} has no checkpoint yet; let jaxmas train … --out {out} --resume write one")
    return record, config, restored[1]


def check_world(record: RunRecord, params: Any) -> None:
    """Refuse to resume a run in a world with other numbers than it began in."""
    if record.params != params_hash(params):
        raise JaxmasError(
            f"the run began in another version of {record.scenario} (parameters {record.params}, "
            f"now {params_hash(params)}); start a new one in another --out"
        )
