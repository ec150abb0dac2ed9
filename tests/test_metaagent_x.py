"""Check co-training: advantages by hand, whose turn it is, what stands still, a game that neither side wins alone."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.algorithms.metaagent_x import (
    MetaAgentXConfig,
    credit,
    designer_rewards,
)
from jaxmas.co_training import learn_executor, optimisers, turns
from jaxmas.decisions import decisions_under, gather, merge, score
from jaxmas.errors import JaxmasError
from jaxmas.executors import feature_size
from jaxmas.groups import play_groups, valid_designs
from jaxmas.logs import log_designs
from jaxmas.policies import TemplatePolicy
from jaxmas.registry import ALGORITHMS
from jaxmas.rollout import Policies
from jaxmas.runs import load_policy, starting_policies
from jaxmas.training import first_state, read_log, run_updates, train
from jaxmas.warm_start import template_rewards

SMALL: dict[str, Any] = {
    "updates": 60,
    "queries": 16,
    "width": 16,
    "executor_width": 16,
    "designer_rate": 1e-2,
    "executor_rate": 1e-2,
    "warm_start": 0,
    "space": "template",
}
SIDES = ("designer", "executor")
COLLECT = functools.partial(gather, capacity=8)


def small(**settings: Any) -> MetaAgentXConfig:
    return MetaAgentXConfig(**(SMALL | settings))


def words(tree: Any) -> list[bytes]:
    return [np.array(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@functools.cache
def trained(scenario: str, played: int, **settings: Any):
    env, params = jaxmas.make(scenario)
    config = small(**settings)
    start = starting_policies(config, "untrained", env, params)
    before = first_state(config, env, params, jax.random.key(0), start)
    after, logs = run_updates(config, env, params, start, before, played)
    return config, before, after, {name: np.asarray(values) for name, values in logs.items()}


# --- credit, by hand

EARNED = jnp.array([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [0.5, 0.5]]])  # 2 queries, 2 designs, 2 executions
VALID = jnp.ones((2, 2), bool)


def test_advantages_by_hand() -> None:
    config = MetaAgentXConfig(designs=2, executions=2, advantage="group")
    of_designer, of_executor = credit(config, EARNED, VALID)
    # Designs earn (0.5, 0) and (1, 0.5): in each pair one is a standard deviation above, one below.
    assert np.allclose(of_designer, [[1, -1], [1, -1]], atol=1e-4)
    # The question's four executions: (1, 0, 0, 0) has mean 1/4 and deviation √3/4.
    first = np.array([3, -1, -1, -1]) / np.sqrt(3)
    assert np.allclose(of_executor.reshape(2, 4), [first, [1, 1, -1, -1]], atol=1e-4)
    of_executor = credit(dataclasses.replace(config, executor_group="design"), EARNED, VALID)[1]
    assert np.allclose(of_executor, [[[1, -1], [0, 0]], [[0, 0], [0, 0]]], atol=1e-4)


def test_advantages_over_the_spread_of_the_batch_by_hand() -> None:
    config = MetaAgentXConfig(designs=2, executions=2, advantage="batch")
    of_designer, of_executor = credit(config, EARNED, VALID)
    # Each design against the other: ±0.5. The variance of (0.5, 0, 1, 0.5) is 1/8.
    assert np.allclose(of_designer, np.array([[0.5, -0.5], [0.5, -0.5]]) / np.sqrt(1 / 8), atol=1e-4)
    # Against the mean of the three others; the variance of all eight is 3/16.
    others = np.array([[1, -1 / 3, -1 / 3, -1 / 3], [1 / 3, 1 / 3, -1 / 3, -1 / 3]])
    assert np.allclose(of_executor.reshape(2, 4), others / np.sqrt(3 / 16), atol=1e-4)


def test_an_invalid_design_earns_least_and_teaches_executors_nothing() -> None:
    valid = jnp.array([[True, False], [True, True]])
    config = MetaAgentXConfig(designs=2, executions=2, advantage="group")
    rewards = designer_rewards(config, EARNED, valid)
    assert np.allclose(rewards, [[0.5, -1], [1, 0.5]])
    assert np.allclose(designer_rewards(dataclasses.replace(config, invalid_reward=3.0), EARNED, valid)[0, 1], 0.5)
    low = jnp.where(EARNED == 0.5, -2.0, EARNED)
    assert np.allclose(designer_rewards(config, low, valid)[0, 1], -2)
    for kind in ("group", "batch"):
        changed = dataclasses.replace(config, advantage=kind)
        of_executor = credit(changed, EARNED, valid)[1]
        assert (of_executor[0, 1] == 0).all()
        nonsense = credit(changed, EARNED.at[0, 1].set(100.0), valid)[1]
        assert np.allclose(nonsense, of_executor)
        assert of_executor[0, 0, 0] > 0 > of_executor[0, 0, 1]
    assert all(np.isfinite(leaf).all() for leaf in credit(config, EARNED, jnp.zeros((2, 2), bool)))


def test_an_executor_follows_the_advantage_of_its_own_execution() -> None:
    """The actions of the one execution with a positive advantage have to become likelier, the others' less."""
    env, params = jaxmas.make("signal-cue-v0")
    config = small(queries=1, designs=2, executions=2, shared_noise=False, executor_entropy=0.0, agent_weight=0.0)
    start = starting_policies(config, "untrained", env, params)
    state = first_state(config, env, params, jax.random.key(0), start)
    executor = config.network_of(env)
    policies = Policies(TemplatePolicy(env, (0,)), None, executor, state.params["executor"])
    keys = jax.random.key(1), jax.random.key(2)
    decisions = merge(play_groups(env, params, policies, *keys, config.sizes, collect=COLLECT)[1])
    advantage = jnp.array([[[-1.0, -1.0], [3.0, -1.0]]])
    rule = optimisers(config)["executor"]

    @jax.jit
    def learn(weights):
        moments = rule.init(weights)
        return learn_executor(config, executor, decisions, advantage, jnp.float32(0), weights, moments, None, rule, 1.0)

    gain = score(executor, learn(state.params["executor"])[0], decisions.rows)[0] - decisions.rows.log_prob
    by_execution = [float(jnp.sum(jnp.where(decisions.rows.episode == index, gain, 0))) for index in range(4)]
    assert by_execution[2] > 0 > sum(by_execution[:2]) + by_execution[3]


def plays_of_one_plan(config: MetaAgentXConfig):
    """Return a function that plays ``signal-cue`` under one fixed plan for all designs."""
    env, params = jaxmas.make("signal-cue-v0")
    executor = config.network_of(env)
    weights = executor.initial_params(jax.random.key(0), feature_size(env, params))
    policies = Policies(TemplatePolicy(env, (0,)), None, executor, weights)
    keys = jax.random.key(1), jax.random.key(2)
    return functools.partial(play_groups, env, params, policies, *keys, config.sizes)


def test_decisions_under_invalid_designs_are_left_out() -> None:
    decisions = merge(plays_of_one_plan(small(queries=2, designs=2, executions=3))(collect=COLLECT)[1])
    rows = decisions_under(decisions, jnp.array([[True, False], [True, True]])).rows
    left_out = decisions.rows.acting & ~rows.acting
    assert set(np.array(rows.episode[left_out])) == {3, 4, 5}  # the second design of the first query
    assert set(np.array(rows.episode[rows.acting])) == {0, 1, 2, *range(6, 12)}


def test_learning_executors_draw_anew_under_every_design() -> None:
    """One fixed plan as two designs under shared noise: the draws are the same only where nobody learns."""
    play = plays_of_one_plan(small(queries=8, designs=2, executions=2))
    alone, learning = play()[0].reward, play(collect=COLLECT)[0].reward
    assert (alone[:, 0] == alone[:, 1]).all()
    assert (learning[:, 0] != learning[:, 1]).any()
    assert (learning[:, :, 0] != learning[:, :, 1]).any()


def test_designs_of_a_strategy_share_nothing() -> None:
    """Who plans by a fixed rule makes the same design again: what varies is chance, so that all of it has to."""
    shared = small(queries=8, designs=2, executions=2)
    by_strategy = dataclasses.replace(shared, mode="executor-only", plans_by="strategy:random")
    for config, same in ((shared, True), (by_strategy, False)):
        reward = plays_of_one_plan(config)()[0].reward
        assert (reward[:, 0] == reward[:, 1]).all() == same


def test_where_the_rewards_vary_by_hand() -> None:
    config, *_ = trained("signal-context-v0", 4, mode="coupled")
    env, params = jaxmas.make("signal-context-v0")
    start = starting_policies(config, "untrained", env, params)
    policies = dataclasses.replace(start, meta=TemplatePolicy(env, (0,)), meta_params=None)
    sizes = dataclasses.replace(config.sizes, queries=2, designs=2, executions=2)
    steps, _ = play_groups(env, params, policies, jax.random.key(0), jax.random.key(1), sizes)
    assert valid_designs(steps).all() and valid_designs(steps).shape == (2, 2)
    told = log_designs(steps, EARNED, jnp.array([[True, False], [True, True]]))
    assert float(told["between_designs"]) == pytest.approx(1 / 16)
    assert float(told["within_designs"]) == pytest.approx(1 / 4 / 4)
    assert float(told["invalid"]) == pytest.approx(1 / 4)
    assert float(told["members"]) == env.num_agents
    assert sum(float(value) for name, value in told.items() if name.startswith("structure_")) == pytest.approx(1)


# --- turns


def test_turns() -> None:
    def who(**settings):
        config = MetaAgentXConfig(**settings)
        every = [turns(config, jnp.int32(update)) for update in range(6)]
        return "".join("ed"[bool(one["designer"])] if one["designer"] != one["executor"] else "b" for one in every)

    assert who(swap_every=1) == "ededed"
    assert who(swap_every=2) == "eeddee"
    assert who(mode="coupled") == "bbbbbb"
    assert who(mode="designer-only") == "dddddd"
    assert who(mode="executor-only") == "eeeeee"


@pytest.mark.parametrize(
    ("settings", "still"),
    [
        ({"mode": "stagewise", "swap_every": 4}, "designer"),
        ({"mode": "designer-only"}, "executor"),
        ({"mode": "executor-only"}, "designer"),
        ({"mode": "coupled"}, None),
        ({"mode": "stagewise", "swap_every": 4, "freeze": "soft"}, None),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_a_frozen_side_does_not_change_by_a_bit(settings: dict[str, Any], still: str | None) -> None:
    """Four updates: with K = 4 all are the executors'."""
    _, before, after, logs = trained("signal-context-v0", 4, **settings)
    for side in SIDES:
        unchanged = words(before.params[side]) == words(after.params[side])
        assert unchanged == (side == still), side
        assert (words(before.optimiser[side]) == words(after.optimiser[side])) == (side == still)
        assert np.isnan(logs[f"{side}_entropy"]).all() == (side == still)
        turn = {"designer": settings["mode"] in ("coupled", "designer-only"), "executor": still != "executor"}[side]
        assert (logs[f"{side}_learns"] == turn).all()
    assert int(after.update) == 4


def test_in_the_designers_turn_executors_stand_still() -> None:
    """K = 4: the four updates from the fifth on are the designer's."""
    config, _, before, _ = trained("signal-context-v0", 4, mode="stagewise", swap_every=4)
    env, params = jaxmas.make("signal-context-v0")
    start = starting_policies(config, "untrained", env, params)
    after, logs = run_updates(config, env, params, start, before, 4)
    for side in SIDES:
        assert (words(before.params[side]) == words(after.params[side])) == (side == "executor")
        assert (words(before.optimiser[side]) == words(after.optimiser[side])) == (side == "executor")
        assert (logs[f"{side}_learns"] == (side == "designer")).all()


def test_learning_rates_fall_to_a_tenth_over_a_sides_own_updates() -> None:
    config = small(mode="stagewise", swap_every=30, updates=100, epochs=1, executor_rate=1.0, designer_rate=1.0)
    weights = jnp.zeros(1)
    for side, updates in (("executor", 60), ("designer", 40)):
        rule = optimisers(config)[side]
        moments = rule.init(weights)
        sizes = []
        for _ in range(updates + 1):
            change, moments = rule.update(jnp.full(1, 0.5), moments)
            sizes.append(abs(float(np.asarray(change)[0])))
        # Adam's steps on a constant gradient are as long as its rate.
        assert sizes[0] == pytest.approx(1.0, rel=1e-3)
        assert sizes[updates // 2] == pytest.approx(0.55, rel=1e-2)
        assert sizes[-1] == pytest.approx(0.1, rel=1e-2)


def test_the_soft_form_moves_the_waiting_side_less() -> None:
    def moved(**settings):
        _, before, after, _ = trained("signal-context-v0", 4, **settings)
        pairs = zip(jax.tree.leaves(before.params["designer"]), jax.tree.leaves(after.params["designer"]), strict=True)
        return sum(float(jnp.sum(jnp.abs(new - old))) for old, new in pairs)

    soft, full = moved(mode="stagewise", swap_every=4, freeze="soft"), moved(mode="coupled")
    assert 0.03 * full < soft < 0.3 * full


# --- learning


@pytest.mark.parametrize("mode", ["stagewise", "coupled"])
def test_together_they_find_a_code(mode: str) -> None:
    """On ``signal-context`` the designer alone sees what is asked, the executors alone can answer."""
    _, _, after, logs = trained("signal-context-v0", 100, mode=mode, updates=100)
    assert logs["reward"][:5].mean() < 0.65
    assert logs["reward"][-5:].mean() > 0.95
    assert int(after.update) == 100
    assert (logs["invalid"] == 0).all()


@pytest.mark.parametrize("mode", ["designer-only", "executor-only"])
def test_alone_neither_does(mode: str) -> None:
    _, _, _, logs = trained("signal-context-v0", 60, mode=mode)
    plays = 16 * 20
    assert abs(logs["reward"][-20:].mean() - 0.5) < 4 * 0.5 / np.sqrt(plays)


def test_invalid_programs_are_counted_and_become_rare() -> None:
    _, _, _, logs = trained("signal-context-v0", 60, space="script-free", mode="designer-only", designer_entropy=0.0)
    assert logs["invalid"][0] > 0.5
    assert logs["invalid"][-5:].mean() < 0.1
    assert np.isfinite(logs["reward"]).all()


def test_the_divergence_holds_both_sides_back() -> None:
    """Near to where they started, at even odds for everything, there is no code to be found."""
    _, before, _, logs = trained("signal-context-v0", 60, mode="coupled", kl=5.0)
    assert logs["reward"][-5:].mean() < 0.7
    assert words(before.start) == words(before.params)
    _, free, _, logs = trained("signal-context-v0", 100, mode="coupled", updates=100)
    assert logs["reward"][55:60].mean() > 0.8
    assert free.start == {}


def test_the_warm_start_imitates_what_earns() -> None:
    """On ``probe-bandit`` one template earns 0.2 and the other 1."""
    env, params = jaxmas.make("probe-bandit-v0")
    config = small(warm_start=100, space="script", warm_temperature=0.2, mode="designer-only")
    start = starting_policies(config, "untrained", env, params)
    policies = dataclasses.replace(start, meta=TemplatePolicy(env), meta_params=None)
    worth = template_rewards(env, params, policies, jax.random.key(0), config.warm_queries)
    assert np.allclose(worth, [0.2, 1.0])
    state = first_state(config, env, params, jax.random.key(0), start)
    designer, weights = config.designer(env, state) or (None, None)
    assert designer is not None
    team = env.reset(jax.random.key(5), params)[1]
    chances = [float(jnp.exp(designer.score(weights, team, designer.space.from_template(row))[0])) for row in (0, 1)]
    law = np.exp(np.array([0.2, 1.0]) / 0.2)
    assert np.allclose(chances, law / law.sum(), atol=0.06)
    cold = first_state(dataclasses.replace(config, warm_start=0), env, params, jax.random.key(0), start)
    assert float(designer.score(cold.params["designer"], team, designer.space.from_template(1))[0]) < np.log(0.3)


# --- runs


def test_a_run_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    """K = 3 does not divide the chunks: a resumed run has to know in the middle of a turn whose turn it is."""
    config = small(updates=50, swap_every=3)
    whole = train("signal-context-v0", "metaagent-x", config, out=tmp_path / "whole")

    class Cut(Exception):
        pass

    def cut(row):
        raise Cut

    with pytest.raises(Cut):
        train("signal-context-v0", "metaagent-x", config, out=tmp_path / "cut", report=cut)
    train("signal-context-v0", "metaagent-x", config, out=tmp_path / "cut", resume=True)
    env, params = jaxmas.make("signal-context-v0")
    loaded = [load_policy(str(tmp_path / name), env, params) for name in ("whole", "cut")]
    assert words(loaded[0].meta_params) == words(loaded[1].meta_params)
    assert loaded[0].executor is not None and loaded[1].executor is not None
    assert words(loaded[0].executor[1]) == words(loaded[1].executor[1])
    rows = read_log(whole / "log.jsonl")
    assert [row["update"] for row in rows] == [20, 40, 50]
    assert rows[0]["plays"] == 20 * 16 * 4 * 4
    assert rows[0]["designer_learns"] + rows[0]["executor_learns"] == pytest.approx(1)


def test_under_a_strategy_only_executors_come_of_it(tmp_path: Path) -> None:
    config = small(updates=4, mode="executor-only", plans_by="strategy:random")
    out = train("signal-cue-v0", "metaagent-x", config, out=tmp_path / "run")
    env, params = jaxmas.make("signal-cue-v0")
    loaded = load_policy(str(out), env, params)
    assert loaded.meta == load_policy("strategy:random", env, params).meta
    assert loaded.executor is not None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"designs": 1}, "designs of at least 2"),
        ({"executions": 1, "executor_group": "design"}, "a group of one execution"),
        ({"plans_by": "strategy:random"}, "plans_by is for executor-only"),
        ({"swap_every": 0}, "swap_every is 0"),
        ({"agent_weight": 1.5}, "agent_weight is 1.5; it has to be 0 to 1"),
        ({"discount": 1.5}, "discount is 1.5; it has to be 0 to 1"),
        ({"warm_temperature": 0.0}, "warm_temperature"),
        ({"designer_rate": float("nan")}, "designer_rate is nan"),
    ],
)
def test_bad_settings_are_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(JaxmasError, match=said) as caught:
        MetaAgentXConfig(**settings)
    assert "\n" not in str(caught.value)


def test_it_is_registered() -> None:
    assert ALGORITHMS["metaagent-x"] is MetaAgentXConfig
