"""Shifts in mid-training: the world that changes, recovery and regret, and what is kept of an interrupted study."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmas import evaluation
from jaxmas.algorithms.metaagent_x import TrainState
from jaxmas.co_training import optimisers
from jaxmas.errors import JaxmasError
from jaxmas.experiments.shift import runs, tables
from jaxmas.experiments.shift.measures import average, recovery, regret
from jaxmas.experiments.shift.runs import Case, cases_of, keep, kept, new_world, old_world, restarted, run_all
from jaxmas.experiments.shift.worlds import FACTOR, MODES, SHIFTS, Settings, config_of

QUERIES = np.array([0, 100, 200, 300])


def test_recovery_by_hand() -> None:
    """From 0.2 to a reference of 0.6, nine tenths of the way are 0.56."""
    assert recovery(QUERIES, np.array([0.2, 0.5, 0.57, 0.4]), 0.6) == 200
    assert recovery(QUERIES, np.array([0.2, 0.5, 0.55, 0.55]), 0.6) is None
    assert recovery(QUERIES, np.array([0.7, 0.5, 0.5, 0.5]), 0.6) == 0


def test_regret_by_hand() -> None:
    """Trapezia below 0.6: 100 queries each at mean gaps of 0.3, 0.1 and 0, on two test queries alike."""
    scores = np.array([0.2, 0.4, 0.6, 0.6])
    assert average(QUERIES, scores) == pytest.approx(0.6 - 40 / 300)
    by_query = average(QUERIES, np.stack([scores, scores], axis=1))
    assert regret(300, by_query[None], np.array([[0.5, 0.5], [0.7, 0.7]]))["mean"] == pytest.approx(40.0)
    above = regret(300, np.array([[0.7, 0.8]]), np.array([[0.6, 0.7]]))
    assert above["mean"] == pytest.approx(-30.0)
    assert above["ci95"] == pytest.approx([-30.0, -30.0])


def test_shifts_change_what_they_are_called() -> None:
    old = old_world().params

    def changed(shift: str, announced: bool) -> set[str]:
        new = jax.tree.leaves(new_world(shift, announced).params)
        leaves = zip(jax.tree_util.tree_leaves_with_path(old), new, strict=True)
        return {jax.tree_util.keystr(path) for (path, was), now in leaves if not np.array_equal(was, now)}

    assert {shift: changed(shift, True) for shift in SHIFTS} == {
        "skills": {".tables"},
        "noise": {".mix.difficulty"},
        "pool": {".tier_noise"},
    }
    assert {shift: changed(shift, False) for shift in SHIFTS} == {
        "skills": {".tables"},
        "noise": {".tier_noise"},
        "pool": {".tier_noise"},
    }
    tables_now = np.asarray(new_world("skills", announced=True).params.tables)
    assert (tables_now[:2] == np.asarray(old.tables)[1::-1]).all()
    assert (tables_now[2:] == np.asarray(old.tables)[2:]).all()


def test_noise_is_one_world_told_or_not() -> None:
    """What agents perceive is the same to the bit, and worse than before; only what the designer sees differs."""
    env: Any = old_world().env
    agents = jnp.ones(env.num_agents, jnp.int32)
    plan = dataclasses.replace(env.plan_space.empty(), active=agents > 0, tier=agents)

    @jax.jit
    @jax.vmap
    def look(key, params):
        state, team = env.reset(key, params)
        state, _ = env.coordinate(key, state, plan, params)
        mistaken = state.work.perceived != state.query.operand[state.work.task]
        return mistaken & state.work.acting, team.task_tokens[:, env.num_skills]

    def of(params):
        same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (64, *leaf.shape)), params)
        return map(np.asarray, look(evaluation.query_keys("test", 64), same))

    before, seen_before = of(old_world().params)
    untold, seen_untold = of(new_world("noise", announced=False).params)
    told, seen_told = of(new_world("noise", announced=True).params)
    assert (untold == told).all()
    assert untold.sum() > 1.3 * before.sum()
    assert (seen_untold == seen_before).all()
    assert seen_told == pytest.approx(FACTOR * seen_before)


def test_what_is_run() -> None:
    cases = {case.name: case for case in cases_of(Settings())}
    assert len(cases) == 1 + len(SHIFTS) * (1 + 2 * len(MODES))
    assert {name for name, case in cases.items() if case.restarts} == {
        f"{shift}-announced-{learns}" for shift in ("skills", "pool") for learns in MODES
    }
    with pytest.raises(JaxmasError, match="unknown shift 'weather'"):
        Settings(shifts=("weather",))
    with pytest.raises(JaxmasError, match="multiple of every"):
        Settings(updates=6, every=4)


def test_announced_starts_the_schedules_again() -> None:
    config = config_of("coupled", Settings())
    weights = {"designer": jnp.zeros(2), "executor": jnp.zeros(3)}
    moments = {side: rule.init(weights[side]) for side, rule in optimisers(config).items()}
    later = jax.tree.map(lambda leaf: leaf + 1, moments)
    again = restarted(config, TrainState(weights, later, {}, jax.random.key(0), jnp.int32(7)))
    assert int(again.update) == 0
    assert all(map(np.array_equal, *map(jax.tree.leaves, (again.optimiser, moments))))
    assert again.params is weights


def fake(case: Case, settings: Settings, seed: int) -> dict:
    """Return a run as if it had been made: it falls to 0.2 and climbs."""
    queries = list(range(0, 48 * case.updates + 1, 48 * settings.every))
    scores = np.linspace(0.2, 0.5 if case.mode == MODES["both"] else 0.3, len(queries))
    by_query = scores[:, None] + np.array([-0.1, 0.1])
    rows = {"first": by_query[0], "last": by_query[-1], "average": average(np.array(queries), by_query)}
    return {
        "provenance": {"commit": "c", "device": "d"},
        "cpu_seconds": 6.0,
        "queries": queries,
        "reward": scores.tolist(),
        "training_reward": scores[1:].tolist(),
        **{name: row.tolist() for name, row in rows.items()},
    }


def test_an_interrupted_study_goes_on(tmp_path, monkeypatch) -> None:
    """What is kept is not run again, and the table is of what is kept."""
    settings = Settings(shifts=("pool",), seeds=2, updates=4, every=2, test=2, out=tmp_path, runs=tmp_path / "runs")
    cases = cases_of(settings)
    for case in cases[:3]:
        keep(case, settings, 100, fake(case, settings, 100))
    ran = []

    def run(case, settings, seed):
        ran.append((case.name, seed))
        return fake(case, settings, seed)

    monkeypatch.setattr(runs, "run", run)
    fixed = {"before": {"name": "a", "old world": [0.4, 0.6], "new world": [0.1, 0.3]}}
    fixed["after"] = {"name": "b", "new world": [0.5, 0.6]}
    monkeypatch.setattr(tables, "strategies", lambda shift, settings: fixed)
    run_all(settings, lambda: tables.write(settings))
    assert ran == [(case.name, 100) for case in cases[3:]] + [(case.name, 101) for case in cases]
    run_all(settings, lambda: None)
    assert len(ran) == len(cases) * 2 - 3
    result = json.loads((tmp_path / "shift.json").read_text())
    rows = result["shifts"]["pool"]["rows"]
    assert rows["both, announced"]["recovery"]["per_seed"] == [192, 192]
    assert rows["coordination, announced"]["recovery"] == {
        "per_seed": [None, None],
        "recovered": 0,
        "queries": {"mean": 192.0, "ci95": [192.0, 192.0]},
    }
    assert rows["both, announced"]["regret"]["mean"] == pytest.approx(192 * 0.15)
    assert rows["strategy chosen before: a"]["recovery"]["per_seed"] == [None]
    assert rows["strategy chosen after: b"]["recovery"]["per_seed"] == [0]
    text = (tmp_path / "shift.md").read_text()
    assert "| both, announced | 2 | 0.500 [0.400, 0.600] | 0.200" in text
    assert (tmp_path / "shift_pool.png").exists()
    with pytest.raises(JaxmasError, match="other sizes or settings"):
        kept(cases[0], dataclasses.replace(settings, test=3))
