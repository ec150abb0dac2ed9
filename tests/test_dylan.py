"""DyLAN: importance by hand, who is chosen from a roster, and the ranker in the middle of an episode."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.algorithms.dylan import DylanConfig, Ranker, Roster, among, importance
from jaxmas.errors import JaxmasError
from jaxmas.evaluation import evaluate, query_keys
from jaxmas.plans import Plan
from jaxmas.policies import RandomPolicy, TemplatePolicy
from jaxmas.rollout import MetaStep, Policies
from jaxmas.spaces.graph import team_row
from jaxmas.training import first_state, run_updates


def plan_of(reads: list[list[int]], active: list[bool] | None = None) -> Plan:
    n = len(reads)
    zeros = jnp.zeros(n, jnp.int32)
    return Plan(jnp.array(active or [True] * n), zeros, zeros, zeros - 1, jnp.array(reads), jnp.ones(1, jnp.int32))


@dataclasses.dataclass(frozen=True)
class Names:
    agent_token_names: tuple[str, ...] = ("attempts", "agreement")


def test_importance_by_hand() -> None:
    """0 reads 1 and 2, who agree to 0.9 and 0.3; 1 reads 2 and 3, and 3 has said nothing."""
    env, params = jaxmas.make("workflow-mixed-v0", num_agents=4)
    team = env.reset(jax.random.key(0), params)[1]
    tokens = jnp.array([[1, 0.5], [1, 0.9], [2, 0.3], [0, 0.8]], jnp.float32)
    team = dataclasses.replace(team, agent_tokens=tokens)
    nothing, no = jnp.float32(0), jnp.array(False)
    plan = plan_of([[1, 2], [2, 3], [-1, -1], [0, -1]])
    step = MetaStep(team, plan, {}, nothing, nothing, no, no, team, jnp.int32(1), jnp.int32(1), {})
    one = [0, 0.75, 0.25, 0]  # passed on by the reporter
    two = [0, 0, 0.75, 0]  # all of 1's goes to 2; 2 reads nobody
    assert np.allclose(importance(Names(), 1, step), one, atol=1e-5)
    assert np.allclose(importance(Names(), 2, step), np.add(one, two), atol=1e-5)
    assert np.allclose(importance(Names(), 5, step), np.add(one, two), atol=1e-5)


def test_who_is_left_reads_the_best_of_the_others() -> None:
    plan = plan_of([[1, 2], [0, 2], [3, 0], [1, 2]])
    left = among(plan, jnp.array([True, False, True, True]), jnp.array([0.1, 0.9, 0.2, 0.5]))
    assert left.reads.tolist() == [[3, 2], [-1, -1], [3, 0], [2, 0]]
    assert left.active.tolist() == [True, False, True, True]
    alone = among(plan, jnp.array([False, True, False, False]), jnp.ones(4))
    assert (alone.reads == -1).all()


@functools.cache
def roster() -> tuple[Any, Any, Policies]:
    env, params = jaxmas.make("workflow-roster-v0")
    return env, params, Policies(RandomPolicy(env), None, *jaxmas.load_executor("scripted-95", env, params))


def test_the_faulty_and_the_adversarial_are_left_out() -> None:
    """Nobody tells which members these are: it shows in how little the others agree with them."""
    env, params, start = roster()
    config = DylanConfig(team="mesh", updates=4, queries=32, keep=8)
    state = first_state(config, env, params, jax.random.key(0), start)
    state, logs = run_updates(config, env, params, start, state, 4)
    meta, scores = config.designer(env, state)
    assert isinstance(meta, Roster)
    bad = np.asarray((params.faulty + params.adversarial) > 0)
    kept = np.asarray(meta.kept(scores))
    assert bad.sum() == 5 and kept.sum() == 8 and not (kept & bad).any()
    assert np.isfinite(logs["reward"]).all() and int(state.update) == 4
    queries = query_keys("test", 128)
    play = functools.partial(evaluate, env, params)
    chosen = play(meta, scores, start.executor, start.executor_params, queries)
    everyone = TemplatePolicy(env, team_row("mesh", 16, env))
    full = play(everyone, None, start.executor, start.executor_params, queries)
    assert chosen["active_agents"].max() == 8 and not chosen["plan_violations"].any()
    assert chosen["cost"].mean() < 0.6 * full["cost"].mean()
    assert chosen["success"].mean() > full["success"].mean() - 0.05
    explained = meta.explain(scores, env.reset(jax.random.key(0), params)[1], jax.random.key(1))
    assert [decision.value for decision in explained] == ["kept"] * 8 + ["left out"] * 8
    assert sum(decision.probability for decision in explained) == pytest.approx(1, abs=1e-4)


def test_the_ranker_sends_half_away() -> None:
    env, params = jaxmas.make("workflow-mixed-v0", coordination_interval=2)
    meta = jaxmas.make_strategy("dylan-ranker", env)
    assert isinstance(meta, Ranker)
    team = env.reset(jax.random.key(0), params)[1]
    plan = meta.apply(None, (), team, jax.random.key(0))[0]
    assert plan.active.sum() == 8 and plan.quorum[0] == 1
    tokens = np.zeros((16, 10), np.float32)
    tokens[:8, 0], tokens[:8, 2] = 1, 0.1
    tokens[:8, 3] = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6]
    later = dataclasses.replace(team, agent_tokens=jnp.asarray(tokens))
    plan = meta.apply(None, (), later, jax.random.key(0))[0]
    assert np.flatnonzero(plan.active).tolist() == [1, 3, 5, 7]
    assert sorted(plan.reads[1][plan.reads[1] >= 0].tolist()) == [3, 5, 7]


def test_what_has_no_members_to_rate_is_refused() -> None:
    env, params = jaxmas.make("probe-bandit-v0")
    with pytest.raises(JaxmasError, match="members of probe do not show attempts and agreement"):
        DylanConfig(keep=1).initial_state(env, params, jax.random.key(0))
    env, params, _ = roster()
    with pytest.raises(JaxmasError, match="keep is 17; there are 16 members"):
        DylanConfig(keep=17).initial_state(env, params, jax.random.key(0))
    with pytest.raises(JaxmasError, match="dylan: keep is 0"):
        DylanConfig(keep=0)
