"""Every system that designs over frozen executors: it trains, deploys, explains itself, and weighs what it says."""

import dataclasses
import functools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.algorithms.agent_prune import AgentPruneConfig
from jaxmas.algorithms.flow_reasoner import FlowReasonerConfig
from jaxmas.algorithms.g_designer import GDesignerConfig
from jaxmas.algorithms.gptswarm import GPTSwarmConfig
from jaxmas.algorithms.masrouter import MasRouterConfig
from jaxmas.algorithms.puppeteer import PuppeteerConfig
from jaxmas.catalog import ALGORITHMS, DESIGN_SPACES, LEARNERS, STRATEGIES
from jaxmas.designers import DesignerConfig, LearnerName, SpaceName, at_the_end
from jaxmas.errors import JaxmasError
from jaxmas.evaluation import evaluate, query_keys
from jaxmas.policies import RandomPolicy
from jaxmas.rollout import MetaStep, Policies, meet, play_query
from jaxmas.spaces.graph import GraphSpace
from jaxmas.training import first_state, run_updates

SYSTEMS = [entry.name for entry in ALGORITHMS if issubclass(entry.value, DesignerConfig)]
SMALL: dict[str, Any] = {"queries": 4, "plans": 4, "width": 8, "updates": 4}


@functools.cache
def world(scenario: str = "workflow-mixed-v0", interval: int | None = None) -> tuple[Any, Any, Policies]:
    env, params = jaxmas.make(scenario, num_agents=4, coordination_interval=interval)
    executor = "scripted" if env.family == "workflow" else "act"
    return env, params, Policies(RandomPolicy(env), None, *jaxmas.load_executor(executor, env, params))


@functools.cache
def trained(
    config: Any, scenario: str = "workflow-mixed-v0", interval: int | None = None
) -> tuple[Any, dict[str, np.ndarray]]:
    env, params, start = world(scenario, interval)
    state = first_state(config, env, params, jax.random.key(0), start)
    return run_updates(config, env, params, start, state, config.updates)


QUICK = ("masrouter", "g-designer")
"""Systems that the fast tests train on a workflow, too; the others' programs take long to compile."""
TRIALS = [(name, "probe-context-v0") for name in SYSTEMS] + [
    pytest.param(name, "workflow-mixed-v0", marks=() if name in QUICK else pytest.mark.slow) for name in SYSTEMS
]


@pytest.mark.parametrize(("name", "scenario"), TRIALS)
def test_every_system_learns_and_explains_itself(name: str, scenario: str) -> None:
    config, interval = ALGORITHMS[name](**SMALL), 4 if (name, scenario[0]) == ("puppeteer", "w") else None
    env, params, start = world(scenario, interval)
    state, logs = trained(config, scenario, interval)
    assert config.called == name
    assert np.isfinite(logs["reward"]).all() and (logs["steps"] > 0).all()
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state.params))
    fresh = first_state(config, env, params, jax.random.key(0), start)
    leaves = jax.tree.leaves(fresh.params), jax.tree.leaves(state.params)
    # On the probe nobody reads anybody: there is nothing to learn about links.
    assert not all(map(np.array_equal, *leaves)) or (config.space == "graph-fixed" and env.family == "probe")
    again, _ = run_updates(config, env, params, start, fresh, config.updates)
    assert all(map(np.array_equal, jax.tree.leaves(again.params), jax.tree.leaves(state.params)))
    meta, weights = config.designer(env, state, greedy=True)
    outcomes = evaluate(env, params, meta, weights, start.executor, start.executor_params, query_keys("test", 8))
    assert np.isfinite(outcomes["reward"]).all()
    assert not outcomes.get("plan_violations", np.zeros(1)).any()
    team = env.reset(jax.random.key(1), params)[1]
    decisions = meta.explain(weights, team, jax.random.key(2))  # type: ignore[attr-defined]
    assert all(decision.what and decision.value and 0 <= decision.probability <= 1 for decision in decisions)
    assert decisions or "graph" in config.space


def test_settings_name_what_is_registered() -> None:
    assert set(typing.get_args(SpaceName)) == set(DESIGN_SPACES.names())
    assert set(typing.get_args(LearnerName)) == set(LEARNERS.names())


@functools.cache
def played() -> MetaStep:
    """Return queries under random plans, re-planned every other step."""
    env, params = jaxmas.make("workflow-mixed-v0", num_agents=4, coordination_interval=2)
    policies = Policies(RandomPolicy(env), None, *jaxmas.load_executor("scripted", env, params))

    @jax.jit
    def play(key):
        episode = meet(env, params, policies, env.reset(key, params)[0], key)
        return play_query(env, params, policies, episode, key)[1]

    return jax.vmap(play)(jax.random.split(jax.random.key(0), 16))


def weighed(config: DesignerConfig) -> np.ndarray:
    return np.asarray(jax.vmap(jax.vmap(config.utility))(played()))


def test_utilities_are_paid_once_at_the_end() -> None:
    steps = played()
    assert steps.reward.shape == (16, 6)
    ended = np.asarray(steps.terminated & (steps.steps > 0))
    assert (ended.sum(axis=1) == 1).all() and (ended.any(axis=0).sum() > 2)
    paid = np.asarray(jax.vmap(jax.vmap(lambda step: at_the_end(step, jnp.float32(1))))(steps))
    assert np.array_equal(paid == 1, ended)
    assert np.allclose(weighed(DesignerConfig()), steps.reward)


def test_masrouter_weighs_success_against_cost() -> None:
    metrics, total = played().metrics, weighed(MasRouterConfig(cost_weight=0.5)).sum(axis=1)
    assert np.allclose(total, metrics["success"][:, -1] - 0.5 * metrics["cost"][:, -1], atol=1e-6)
    with pytest.raises(JaxmasError, match="masrouter: cost_weight is -1"):
        MasRouterConfig(cost_weight=-1.0)


def steps_of(valid: bool) -> MetaStep:
    """Return the plays as those of valid, or invalid, programs."""

    def said(step: MetaStep) -> MetaStep:
        return dataclasses.replace(step, info={"valid": jnp.array(valid)})

    return jax.vmap(jax.vmap(said))(played())


def test_flow_reasoner_weighs_three_parts() -> None:
    config = FlowReasonerConfig(performance=2.0, complexity=0.3, efficiency=0.5, invalid_reward=-3.0)
    total = np.asarray(jax.vmap(jax.vmap(config.utility))(steps_of(True))).sum(axis=1)
    last = {name: np.asarray(values)[:, -1] for name, values in played().metrics.items()}
    assert np.allclose(total, 2 * last["success"] - 0.3 * last["complexity"] - 0.5 * last["cost"], atol=1e-5)
    invalid = np.asarray(jax.vmap(jax.vmap(config.utility))(steps_of(False))).sum(axis=1)
    assert np.allclose(invalid, -3)


@pytest.mark.parametrize(("share", "distils"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_flow_reasoner_distils_first(share: float, distils: int) -> None:
    """What the teacher earned is logged while there is one."""
    _, logs = trained(FlowReasonerConfig(distil_share=share, **SMALL), "probe-context-v0")
    assert np.isfinite(logs["teacher"]).tolist() == [update < distils for update in range(4)]
    with pytest.raises(JaxmasError, match="flow-reasoner: distil_share is 2"):
        FlowReasonerConfig(distil_share=2.0)


def test_a_team_is_a_strategys() -> None:
    env, params, _ = world()
    team = env.reset(jax.random.key(0), params)[1]
    chain = GDesignerConfig(team="chain").policy(env).space
    assert isinstance(chain, GraphSpace)
    wanted = STRATEGIES["chain"](env, None).row
    assert chain.team == wanted
    assert np.array_equal(chain.base(team).reads, GraphSpace(env, team=wanted).base(team).reads)
    with pytest.raises(JaxmasError, match="strategy 'random' has no team of its own"):
        GPTSwarmConfig(team="random").policy(env)
    with pytest.raises(JaxmasError, match="did you mean 'chain'"):
        GPTSwarmConfig(team="chian").policy(env)


def test_links_are_charged() -> None:
    free, dear = weighed(GDesignerConfig()), weighed(GDesignerConfig(link_cost=0.1))
    plans = played().plan
    links = np.asarray((plans.reads >= 0).sum(axis=(2, 3)) / np.maximum(plans.active.sum(axis=2), 1))
    assert np.allclose(free - dear, 0.1 * links, atol=1e-6) and links.any()


def test_the_weakest_links_are_cut() -> None:
    """Of twelve possible links of four members a quarter is left: the likeliest, of the first plan and of the later."""
    env, params, _ = world()
    config = AgentPruneConfig(members=4, keep=0.25, anchor=0.0)
    policy = config.policy(env, greedy=True)
    space, team = policy.space, env.reset(jax.random.key(0), params)[1]
    weights: Any = policy.initial_params(jax.random.key(0), team)
    links = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    weights = {"params": {**weights["params"], "links": jnp.asarray(links)}}
    again = dataclasses.replace(team, global_features=team.global_features.at[-1].set(1))
    for later, shown in enumerate((team, again)):
        outputs, _ = policy.outputs(weights, shown)
        kept = np.asarray(space.mode(outputs, shown))
        scores = np.where(np.eye(4, dtype=bool), -np.inf, links[later])
        assert kept.sum() == 3 and scores[kept].min() > scores[~kept].max()
    drawn = np.asarray(config.policy(env).space.sample(outputs, jax.random.key(0), team))
    assert drawn.sum() > 3  # in training all links are drawn
    with pytest.raises(JaxmasError, match="agent-prune: keep is 2"):
        AgentPruneConfig(keep=2.0)


def test_an_orchestrator_calls_member_after_member() -> None:
    """Every plan has one member more until it stops; who joins reads those before, and the reporter reads all."""
    env, params, _ = world(interval=4)
    config = PuppeteerConfig(**SMALL)
    policy = config.policy(env)
    team = env.reset(jax.random.key(0), params)[1]
    tiers = env.plan_space.num_tiers
    space: Any = policy.space
    plan = policy.init()
    for choice, members in ((1 + 2 * tiers + 1, 1), (0, 1), (1 + 5 * tiers, 2), (1, 3)):
        plan = space.extend(plan, jnp.int32(choice))
        assert plan.active.tolist() == [slot < members for slot in range(4)]
    assert plan.role[:3].tolist() == [2, 5, 0] and plan.tier[:3].tolist() == [1, 0, 0]
    assert sorted(plan.reads[0][plan.reads[0] >= 0].tolist()) == [1, 2]
    assert sorted(plan.reads[2][plan.reads[2] >= 0].tolist()) == [0, 1]
    weights = policy.initial_params(jax.random.key(1), team)
    drawn = [policy.apply(weights, policy.init(), team, jax.random.key(seed))[2]["choice"] for seed in range(20)]
    assert min(map(int, drawn)) > 0  # the first call is not to stop
    outputs, _ = policy.outputs(weights, dataclasses.replace(team, agent_tokens=team.agent_tokens.at[0, 0].set(1)))
    assert outputs[0] > -1
    with pytest.raises(JaxmasError, match="give a --coordination-interval below it"):
        config.policy(world()[0])
