"""Training runs: chunks of compiled updates, a log line and a checkpoint after each, resumable to the bit."""

import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

import jaxmas
from jaxmas.anchors import params_hash
from jaxmas.catalog import SCENARIOS
from jaxmas.checkpoints import Checkpoints, atomic_write_text
from jaxmas.devices import check_same, from_first, is_first, local, mesh_of, over, put, whole
from jaxmas.errors import JaxmasError
from jaxmas.groups import GroupSizes
from jaxmas.rollout import Policies, scan_up_to
from jaxmas.runs import (
    RunRecord,
    check_world,
    checksums,
    plain,
    provenance,
    read_record,
    starting_policies,
    write_record,
)
from jaxmas.types import Environment, Executor, MetaPolicy

CHUNK = 20
"""Updates between log lines and checkpoints; a run's length need not be a multiple."""


@runtime_checkable
class Algorithm(Protocol):
    """What is registered as an algorithm: its settings, a frozen dataclass, with what makes a run of them.

    A setting ``plans_by``, if there is one, names who plans where the algorithm does not learn to: ``strategy:NAME`` or
    the directory of a run.
    """

    @property
    def updates(self) -> int:
        """Return how many updates a run has."""
        ...

    @property
    def sizes(self) -> GroupSizes:
        """Return what is played in an update."""
        ...

    def initial_state(self, env: Environment, params: Any, key: Any, start: Policies | None = None) -> Any:
        """Return the state before the first update, with at least ``params`` and ``update``.

        ``start`` is who a run begins with; without it the state has the same shapes.
        """
        ...

    def update(self, env: Environment, params: Any, start: Policies, state: Any) -> tuple[Any, dict[str, Any]]:
        """Play and learn once; return the next state and what is logged, at least ``reward``."""
        ...

    def designer(self, env: Environment, state: Any, greedy: bool = False) -> tuple[MetaPolicy, Any] | None:
        """Return the trained meta-policy and its parameters; None where none is trained."""
        ...

    def executor(self, env: Environment, state: Any) -> tuple[Executor, Any] | None:
        """Return the trained executor and its parameters; None where executors are frozen."""
        ...


def train(  # noqa: PLR0913
    scenario: str,
    algorithm: str,
    config: Algorithm,
    *,
    out: Path,
    seed: int = 0,
    num_agents: int | None = None,
    coordination_interval: int | None = None,
    executor: str | None = None,
    files: Mapping[str, Path] | None = None,
    resume: bool = False,
    devices: int = 1,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Path:
    """Train, or go on training, and return the run directory; ``files`` are what the scenario is made of.

    The queries of an update are shared out over so many ``devices`` of every process; the first process writes.

    Raises:
        JaxmasError: where the directory holds another run, or a run and ``resume`` is not set, and where the queries
            cannot be shared out.
    """
    mesh = mesh_of(devices)
    config.sizes.check_devices(1 if mesh is None else mesh.size)
    sizes = {"num_agents": num_agents, "coordination_interval": coordination_interval}
    env, params = jaxmas.make(scenario, **sizes, **(files or {}))
    executor = executor or SCENARIOS[scenario].executor
    start = starting_policies(config, executor, env, params)
    record = record_of(scenario, algorithm, config, env, params, executor, seed, files or {})
    check_same(record, devices)
    out = Path(out)

    def fresh() -> Any:
        return first_state(config, env, params, jax.random.key(seed), start)

    state = from_first(lambda: _open(out, record, fresh, params, resume), fresh)
    state, params, start = put((state, params, start), mesh)
    checkpoints = Checkpoints(out)
    while int(state.update) < config.updates:
        began = time.perf_counter()
        updates = min(CHUNK, config.updates - int(state.update))
        with over(mesh):
            state, logs = run_updates(config, env, params, start, state, updates)
        row = log_row(config, int(state.update), state.params, logs, time.perf_counter() - began)
        if is_first():
            checkpoints.save(int(state.update), local(state))
            append_row(out / "log.jsonl", row)
        report(row)
    return out


def record_of(
    scenario: str,
    algorithm: str,
    config: Algorithm,
    env: Environment,
    params: Any,
    executor: str,
    seed: int,
    files: Mapping[str, Path],
) -> RunRecord:
    """Return what decides a run's outcome."""
    return RunRecord(
        scenario=scenario,
        num_agents=env.num_agents,
        coordination_interval=env.coordination_interval,
        executor=executor,
        algorithm=algorithm,
        config=plain(config),
        seed=seed,
        params=params_hash(params),
        provenance=provenance(),
        files=checksums(files),
    )


@functools.partial(jax.jit, static_argnames=("config", "env"))
def first_state(config: Algorithm, env: Environment, params: Any, key: Any, start: Policies | None = None) -> Any:
    """Return the algorithm's initial state, made by one program instead of one per layer."""
    return config.initial_state(env, params, key, start)


def run_updates(
    config: Algorithm, env: Environment, params: Any, start: Policies, state: Any, updates: int
) -> tuple[Any, dict[str, Any]]:
    """Run updates by chunks, one program for any number of them; logs are stacked over updates."""
    logs = []
    for begun in range(0, updates, CHUNK):
        count = min(CHUNK, updates - begun)
        state, chunk = run_up_to(config, env, params, start, state, count, CHUNK)
        logs.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf[:count]), chunk))
    return state, jax.tree.map(lambda *parts: np.concatenate(parts), *logs)


def repeat(config: Algorithm, env: Environment, params: Any, start: Policies, state: Any, updates: Any, most: int):
    """Run ``updates`` of at ``most`` so many; return the state and the logs, stacked, with zeros beyond."""
    # Traced once, though its result's shape is asked for before.
    step = jax.jit(lambda state, _: config.update(env, params, start, state))
    return whole(scan_up_to(step, state, jnp.arange(most), updates))


run_up_to = jax.jit(repeat, static_argnames=("config", "env", "most"))
"""The compiled program that training repeats."""


def _open(out: Path, record: RunRecord, fresh: Callable[[], Any], params: Any, resume: bool) -> Any:
    """Return the state to go on from: fresh in an empty place, the last good checkpoint with ``resume``."""
    if not (out / "config.json").exists():
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise JaxmasError(f"{out} exists and is no run directory; choose another --out")
        check_finite(params)
        state = fresh()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JaxmasError(f"{out} cannot be made ({error.strerror}); choose another --out") from error
        write_record(out, record)
        return state
    if not resume:
        raise JaxmasError(f"{out} already holds a run; go on with it by --resume or choose another --out")
    before = read_record(out)
    fields = ("scenario", "num_agents", "coordination_interval", "executor", "algorithm", "seed", "config", "files")
    for field in fields:
        was, now = getattr(before, field), getattr(record, field)
        if was != now:
            raise JaxmasError(f"{out} was begun with {field} {was}, not {now}; resume it with the same settings")
    check_world(before, params)
    restored = Checkpoints(out).restore_latest(jax.eval_shape(fresh))
    if restored is None:
        return fresh()
    truncate_log(out / "log.jsonl", restored[0])
    return restored[1]


def check_finite(params: Any) -> None:
    """Refuse a world with a number that is none, before anything is written."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not np.all(np.isfinite(np.asarray(leaf))):
            name = jax.tree_util.keystr(path).lstrip(".")
            raise JaxmasError(f"the world's parameter {name} is not finite; every entry has to be a finite number")


def log_row(config: Algorithm, update: int, weights: Any, logs: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return one log line: means over the chunk that ends with an update.

    Raises:
        JaxmasError: where the reward or the weights are no numbers any more.
    """
    means = {name: _mean(values) for name, values in logs.items()}
    if not np.isfinite(logs["reward"]).all():
        raise JaxmasError(f"the reward became {means['reward']} at update {update}; lower the learning rate")
    if not all(np.all(np.isfinite(np.asarray(leaf))) for leaf in jax.tree.leaves(weights)):
        raise JaxmasError(f"the weights are not finite any more at update {update}; lower the learning rate")
    queries = update * config.sizes.queries
    plans = queries * config.sizes.designs
    counts = {"update": update, "queries": queries, "plans": plans, "plays": plans * config.sizes.executions}
    return {**counts, **means, "seconds": round(seconds, 3)}


def _mean(values: np.ndarray) -> float | None:
    """Return the mean over updates that have a value: NaN is none, such as the entropy of a side that stood still."""
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if known.size else None


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a line to a log."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def truncate_log(path: Path, update: int) -> None:
    """Drop log lines after a checkpoint: the work behind them is done again."""
    rows = [row for row in read_log(path) if row["update"] <= update]
    atomic_write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the log's lines; a half-written last one, as a killed run leaves it, is passed over."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
