"""Train through a shift, and keep what every run did.

One old world per seed: all that comes after starts from its state. A *run* is one seed of one *case*, which is named
``before``, ``SHIFT-new`` (trained in the new world only) or ``SHIFT-announced-both`` and the like.
"""

import dataclasses
import functools
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmas import evaluation
from jaxmas.anchors import params_hash
from jaxmas.checkpoints import Checkpoints, atomic_write
from jaxmas.co_training import optimisers
from jaxmas.errors import refuse
from jaxmas.experiments import compare, study
from jaxmas.experiments.shift import measures
from jaxmas.experiments.shift.worlds import EXECUTOR, MODES, SCENARIO, SHIFTS, Settings, config_of
from jaxmas.headroom import World
from jaxmas.runs import plain, provenance, starting_policies, trained_policy, with_defaults
from jaxmas.training import first_state, run_updates


@functools.cache
def old_world() -> World:
    """Return the world before any shift."""
    return compare.Setting(SCENARIO, executor=EXECUTOR).build()


def new_world(shift: str, announced: bool) -> World:
    """Return the world after a shift."""
    world = old_world()
    return dataclasses.replace(world, params=SHIFTS[shift].world(world.params, announced))


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained: in which world, who learns, for how long."""

    name: str
    world: World
    mode: str
    updates: int
    restarts: bool = False
    """Start with fresh moments and schedules: the learner knows of the shift, which the designer cannot see."""
    from_old: bool = True
    """Go on from what was trained in the old world."""


def cases_of(settings: Settings) -> list[Case]:
    """Return all cases in the order that they are run in."""
    cases = [Case("before", old_world(), MODES["both"], settings.updates, from_old=False)]
    for shift in settings.chosen:
        unseen = SHIFTS[shift].shown is None
        there = new_world(shift, announced=True)
        cases.append(Case(f"{shift}-new", there, MODES["both"], 2 * settings.updates, from_old=False))
        for learns, mode in MODES.items():
            for announced in (False, True):
                name = f"{shift}-{'announced' if announced else 'unannounced'}-{learns}"
                restarts = announced and unseen
                cases.append(Case(name, new_world(shift, announced), mode, settings.updates, restarts))
    return cases


def run_all(settings: Settings, written: Callable[[], None]) -> None:
    """Run what is not kept, seed by seed; ``written`` is called after each run."""
    for index in range(settings.seeds):
        for case in cases_of(settings):
            seed = study.FIRST_SEED + index
            if str(seed) not in kept(case, settings)["runs"]:
                keep(case, settings, seed, run(case, settings, seed))
                print(f"{case.name}, seed {seed}: done", flush=True)
                written()


def run(case: Case, settings: Settings, seed: int) -> dict[str, Any]:
    """Train one seed of a case; return what it earned on the test queries at every measurement."""
    began, config, world = time.process_time(), config_of(case.mode, settings), case.world
    if case.from_old:
        state = state_at_shift(settings, seed)
    else:
        state = first_state(config, world.env, world.params, jax.random.key(seed), start_of(config))
    state = restarted(config, state) if case.restarts else state
    state, result = trained(case, config, state, settings)
    if case.name == "before":
        checkpoints_of(settings, seed).save(settings.updates, state)
    return {"provenance": provenance(), "cpu_seconds": round(time.process_time() - began, 1), **result}


def trained(case: Case, config: Any, state: Any, settings: Settings) -> tuple[Any, dict[str, Any]]:
    """Return the state after a case's updates, and the rewards of the greedy policy by measurement and test query.

    Kept are the means at every measurement, and query by query the first, the last, and the average over training.
    """
    world, start = case.world, start_of(config)
    keys = evaluation.query_keys("test", settings.test)

    def rewards(state):
        policy = trained_policy(case.name, config, state, world.env, world.params)
        return compare.play(world, policy, keys)["reward"]

    measured, logged = [rewards(state)], []
    for _ in range(case.updates // settings.every):
        state, logs = run_updates(config, world.env, world.params, start, state, settings.every)
        logged.append(float(np.mean(logs["reward"])))
        measured.append(rewards(state))
    queries = np.arange(len(measured)) * settings.every * config.sizes.queries
    scores = np.stack(measured).astype(float)
    by_query = {"first": scores[0], "last": scores[-1], "average": measures.average(queries, scores)}
    return state, {
        "queries": queries.tolist(),
        "reward": scores.mean(axis=1).round(5).tolist(),
        "training_reward": np.round(logged, 5).tolist(),
        **{name: values.round(4).tolist() for name, values in by_query.items()},
    }


def start_of(config: Any) -> Any:
    """Return who all runs begin with; the numbers that shifts change are none of theirs."""
    world = old_world()
    return starting_policies(config, EXECUTOR, world.env, world.params)


def restarted(config: Any, state: Any) -> Any:
    """Return the state with fresh moments, at the start of all schedules."""
    moments = {side: rule.init(state.params[side]) for side, rule in optimisers(config).items()}
    return dataclasses.replace(state, optimiser=moments, update=jnp.int32(0))


def checkpoints_of(settings: Settings, seed: int) -> Checkpoints:
    """Return where the state at the shift is kept."""
    return Checkpoints(settings.runs / settings.name / f"{settings.updates}-updates" / f"seed-{seed}")


def state_at_shift(settings: Settings, seed: int) -> Any:
    """Return what was trained in the old world; where its checkpoint is gone, train it again."""
    case = cases_of(settings)[0]
    config, world = config_of(case.mode, settings), case.world
    fresh = functools.partial(first_state, config, world.env, world.params, jax.random.key(seed), start_of(config))
    restored = checkpoints_of(settings, seed).restore_latest(jax.eval_shape(fresh))
    if restored is None:
        run(case, settings, seed)
        return state_at_shift(settings, seed)
    return restored[1]


def sizes_of(case: Case, settings: Settings) -> dict[str, Any]:
    """Return what decides a case's outcome."""
    config = plain(config_of(case.mode, settings))
    known = {"scenario": SCENARIO, "executor": EXECUTOR, "params": params_hash(case.world.params), "config": config}
    return {**known, "updates": case.updates, "every": settings.every, "test": settings.test}


def file_of(case: Case, settings: Settings) -> Path:
    """Return the file that keeps a case."""
    return settings.out / settings.name / f"{case.name}.json.gz"


def kept(case: Case, settings: Settings) -> dict[str, Any]:
    """Return what is kept of a case, its runs by seed; it has to be of these sizes."""
    file, sizes = file_of(case, settings), sizes_of(case, settings)
    if not file.exists():
        return {**sizes, "runs": {}}
    record = json.loads(gzip.decompress(file.read_bytes()))
    record["config"] = with_defaults("metaagent-x", record["config"])
    refuse(
        any(record[key] != value for key, value in sizes.items()),
        f"{file} keeps {case.name} with other sizes or settings; choose another --out",
    )
    return record


def keep(case: Case, settings: Settings, seed: int, result: dict[str, Any]) -> None:
    """Add a run to what is kept."""
    record = kept(case, settings)
    record["runs"][str(seed)] = result
    atomic_write(file_of(case, settings), gzip.compress(json.dumps(record, separators=(",", ":")).encode(), mtime=0))


def strategies(shift: str, settings: Settings) -> dict[str, Any]:
    """Return the best strategy chosen before and after a shift, and what each earns after it, query by query.

    They plan for the frozen executors. Who keeps the old strategy was told of nothing, who chooses again is.
    """
    world, untold, told = old_world(), new_world(shift, announced=False), new_world(shift, announced=True)
    known: dict[str, Any] = {"params": [params_hash(one.params) for one in (world, untold, told)]}
    known |= {"executor": EXECUTOR, "validation": settings.validation, "test": settings.test}

    def measure() -> dict[str, Any]:
        keys = evaluation.query_keys("test", settings.test)

        def rewards(name: str, where: World) -> list[float]:
            played = compare.play(where, compare.policy_of(f"strategy:{name}", world), keys)
            return np.round(played["reward"].astype(float), 4).tolist()

        before, after = (study.best_strategy(one, settings.validation) for one in (world, told))
        return {
            "before": {"name": before, "old world": rewards(before, world), "new world": rewards(before, untold)},
            "after": {"name": after, "new world": rewards(after, told)},
        }

    return study.remembered(settings.out / settings.name / f"{shift}-strategies.json", known, measure)
