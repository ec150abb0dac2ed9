"""References that learn without a network, on probes and by hand, and the cascade of tiers in mid-query."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.algorithms.bandit import BanditConfig, Router, context, fitted
from jaxmas.algorithms.cheap_first import CheapFirst
from jaxmas.algorithms.neighbours import Nearest, NeighboursConfig
from jaxmas.algorithms.workflow_plans import num_skills
from jaxmas.catalog import TEMPLATES
from jaxmas.errors import JaxmasError
from jaxmas.evaluation import evaluate, query_keys
from jaxmas.policies import RandomPolicy
from jaxmas.rollout import Policies
from jaxmas.training import first_state, run_updates


@functools.cache
def trained(config: Any, scenario: str) -> tuple[Any, Any, Any, float]:
    """Return environment, numbers, state, and the reward on test queries."""
    env, params = jaxmas.make(scenario)
    start = Policies(RandomPolicy(env), None, *jaxmas.load_executor("act", env, params))
    state = first_state(config, env, params, jax.random.key(0), start)
    state, logs = run_updates(config, env, params, start, state, config.updates)
    assert np.isfinite(logs["reward"]).all()
    meta, weights = config.designer(env, state, greedy=True)
    outcomes = evaluate(env, params, meta, weights, start.executor, start.executor_params, query_keys("test", 64))
    return env, params, state, float(outcomes["reward"].mean())


CONTEXTUAL = [BanditConfig(updates=16, queries=32), NeighboursConfig(updates=16, queries=8, plans=4, neighbours=8)]


@pytest.mark.parametrize("config", CONTEXTUAL, ids=lambda config: config.called)
def test_routers_find_the_plan_of_each_query(config: Any) -> None:
    """On the probe the visible number tells which plan pays."""
    env, params, state, reward = trained(config, "probe-context-v0")
    assert reward > 0.9
    meta, weights = config.designer(env, state, greedy=True)
    team = env.reset(jax.random.key(1), params)[1]
    (decision,) = meta.explain(weights, team, jax.random.key(2))
    assert decision.what == "plan" and 0.5 < decision.probability <= 1


def test_a_bandit_without_context_cannot() -> None:
    reward = trained(BanditConfig(updates=16, queries=32, sees="nothing"), "probe-context-v0")[3]
    assert reward < 0.75


def test_the_estimate_is_a_ridge_regression() -> None:
    config = CONTEXTUAL[0]
    env, params, state, _ = trained(config, "probe-context-v0")
    team = env.reset(jax.random.key(3), params)[1]
    seen = np.asarray(context(team, "global"), float)
    mean, spread = Router(env, "global", 0.5, True).estimate(fitted(state.params), team)
    for arm in range(len(TEMPLATES[env.family].rows)):
        inverse = np.linalg.inv(np.asarray(state.params["precision"][arm], float))
        assert mean[arm] == pytest.approx(seen @ inverse @ np.asarray(state.params["moment"][arm]), abs=1e-4)
        assert spread[arm] == pytest.approx(0.5 * np.sqrt(seen @ inverse @ seen), abs=1e-4)
    assert np.isclose(np.trace(state.params["precision"][:, -1:, -1:].sum(0)), len(mean) + 16 * 32), "every play counts"


def test_neighbours_by_hand() -> None:
    """Row 1 is best near 0, row 0 near 1; the third query has not been met."""
    env, params = jaxmas.make("probe-context-v0")
    team = env.reset(jax.random.key(0), params)[1]
    size = team.global_features.shape[0]
    memory = {
        "seen": jnp.stack([jnp.zeros(size), jnp.ones(size), jnp.zeros(size)]),
        "earned": jnp.array([[0.1, 0.8], [2.0, 0.0], [0.0, 0.0]]),
        "plays": jnp.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]]),
    }
    nearest = Nearest(env, 1)
    for value, estimate in ((0.1, [0.1, 0.8]), (0.9, [1.0, -np.inf])):
        there = dataclasses.replace(team, global_features=jnp.full(size, value))
        assert nearest.estimate(memory, there).tolist() == pytest.approx(estimate)
    both = Nearest(env, 5).estimate(memory, team)
    assert both.tolist() == pytest.approx([2.1 / 3, 0.8])


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        (BanditConfig, {"ridge": 0.0}, "bandit: ridge is 0"),
        (BanditConfig, {"deviation": -1.0}, "bandit: deviation is -1"),
        (NeighboursConfig, {"neighbours": 0}, "neighbours: neighbours is 0"),
    ],
)
def test_settings_that_cannot_be(config: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(JaxmasError, match=words):
        config(**options)


def test_dearer_votes_come_where_cheap_ones_disagree() -> None:
    made: tuple[Any, Any] = jaxmas.make("workflow-mixed-v0", num_agents=16, coordination_interval=3)
    env, params = made
    team = env.reset(jax.random.key(5), params)[1]
    policy, at = CheapFirst(env), num_skills(team) + 4
    first, stage, _ = policy.apply(None, policy.init(), team, jax.random.key(0))
    assert not np.asarray(first.tier).any() and not np.asarray(stage).any()
    tasks = int(team.task_mask.sum())
    assert tasks > 1

    def seen(votes: float, agreement: float) -> Any:
        """Return what is seen once the last subtask has votes."""
        tokens = team.task_tokens.at[tasks - 1, at].set(votes).at[tasks - 1, at + 1].set(agreement)
        return dataclasses.replace(team, task_tokens=tokens)

    for votes, agreement, raised in ((0.0, 0.0, 0), (1.0, 1.0, 0), (1.0, 0.5, 1)):
        plan, stage, _ = policy.apply(None, policy.init(), seen(votes, agreement), jax.random.key(0))
        assert stage.tolist() == [raised * (task == tasks - 1) for task in range(env.max_subtasks)]
        there = np.asarray(plan.active & (plan.task == tasks - 1))
        assert there.any() and set(np.asarray(plan.tier)[there].tolist()) == {raised}
        assert not np.asarray(plan.tier)[np.asarray(plan.active) & ~there].any()
        assert int(plan.quorum[tasks - 1]) == 3 + 2 * raised
    last, _, _ = policy.apply(None, jnp.full(env.max_subtasks, 2), seen(1.0, 0.1), jax.random.key(0))
    assert set(np.asarray(last.tier)[np.asarray(last.active)].tolist()) == {2}, "there is no dearer tier"
