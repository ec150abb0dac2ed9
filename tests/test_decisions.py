"""Check by hand and against plain loops how decisions are gathered, scored and given their advantages."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.decisions import Decisions, Rows, advantages, as_table, at_rows, gather, mean_over, merge, score
from jaxmas.executors import GRUExecutor, MLPExecutor, PerRole, feature_size
from jaxmas.groups import GroupSizes, play_groups
from jaxmas.learning import decision_gae, gae, group_normalised, kl_estimate, leave_one_out
from jaxmas.policies import RandomPolicy
from jaxmas.rollout import ExecutorStep, Policies
from jaxmas.types import Observation

# --- equations


def test_advantages_of_decisions_by_hand() -> None:
    """Decisions at steps 0 and 2 of four, γ = λ = 1/2, valued 10 and 20.

    The later one earns 4 + 8/2 = 8 and was valued 20: A = −12. The earlier earns 1 + 2/2 = 2 and hands over 20/4 = 5;
    it was valued 10: δ = −3, and A = −3 + (1/4) (1/2) (−12) = −4.5.
    """
    rewards, values = jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([10.0, 99.0, 20.0, 99.0])
    found = decision_gae(rewards, values, jnp.array([True, False, True, False]), 0.5, 0.5)
    assert found[0] == -4.5 and found[2] == -12


def test_what_comes_before_the_first_decision_is_no_ones() -> None:
    values, decided = jnp.array([0.0, 3.0, 0.0]), jnp.array([False, True, False])
    for early in (0.0, 100.0):
        assert decision_gae(jnp.array([early, 1.0, 1.0]), values, decided, 1.0, 1.0)[1] == 1 + 1 - 3


def test_where_every_step_is_a_decision_it_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    rewards, values = (jnp.asarray(rng.normal(size=7), jnp.float32) for _ in range(2))
    discounts, after = jnp.full(7, 0.9).at[-1].set(0.0), jnp.append(values[1:], 0.0)
    plain = gae(rewards, discounts, values, after, jnp.ones(7), 0.8)
    assert np.allclose(decision_gae(rewards, values, jnp.ones(7, bool), 0.9, 0.8), plain, atol=1e-5)


def test_without_values_they_are_the_rewards_from_a_step_on() -> None:
    """The first of two agents that decide at all steps: 1 + (2 + 4/2)/2 = 3; without a future, 1."""
    rewards, decided = jnp.array([[1.0, 0.0], [2.0, 0.0], [4.0, 8.0]]), jnp.ones((3, 2), bool)
    nothing = jnp.zeros_like(rewards)
    assert decision_gae(rewards, nothing, decided, 0.5, 1.0).tolist() == [[3, 2], [4, 4], [4, 8]]
    assert decision_gae(rewards, nothing, decided, 0.0, 1.0).tolist() == rewards.tolist()


def slow_advantages(rewards: Any, values: Any, at: list[int], discount: float, trace: float) -> dict[int, float]:
    """Return the advantage of one agent's decisions ``at`` some steps, straight from the definition."""
    found, later = {}, 0.0
    for index in reversed(range(len(at))):
        here, last = at[index], index == len(at) - 1
        ahead = len(rewards) if last else at[index + 1]
        earned = sum(discount ** (time - here) * rewards[time] for time in range(here, ahead))
        fades = discount ** (ahead - here)
        later = earned + fades * (0 if last else values[ahead]) - values[here] + fades * trace * later
        found[here] = later
    return found


def test_advantages_of_decisions_at_any_steps() -> None:
    """Many agents side by side, from none to all of whose steps are decisions; values elsewhere are no numbers."""
    rng = np.random.default_rng(1)
    decided = rng.random((9, 64)) < np.linspace(0, 1, 64)
    rewards, values = rng.normal(size=(2, 9, 64)).astype(np.float32)
    shown = jnp.asarray(np.where(decided, values, np.nan))
    found = np.asarray(decision_gae(jnp.asarray(rewards), shown, jnp.asarray(decided), 0.9, 0.7))
    for agent in range(64):
        at = np.flatnonzero(decided[:, agent]).tolist()
        expected = slow_advantages(rewards[:, agent], values[:, agent], at, 0.9, 0.7)
        assert np.allclose(found[at, agent], [expected[step] for step in at], atol=1e-4)


def test_divergence_estimate_by_hand() -> None:
    """For d = ln 2 it is 2 − 1 − ln 2; over draws from p its mean is KL(p‖q), here with p = (½, ½), q = (¼, ¾)."""
    assert np.allclose(kl_estimate(jnp.array([0.0, jnp.log(2.0)])), [0, 1 - np.log(2)], atol=1e-6)
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    expected = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert np.sum(p * np.asarray(kl_estimate(jnp.log(jnp.asarray(q / p))))) == pytest.approx(expected, abs=1e-6)
    assert (kl_estimate(jnp.linspace(-3, 3, 13)) >= 0).all()


REWARDS = jnp.array([[1.0, 3.0, 5.0, 100.0], [7.0, 9.0, 2.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
COUNTS = jnp.array([[True, True, True, False], [False, True, False, False], [False] * 4])


def test_against_the_others_that_count_by_hand() -> None:
    """The others of 1 have a mean of 4, of 3 a mean of 3, of 5 a mean of 2; who is alone, or does not count, gets 0."""
    assert leave_one_out(REWARDS, COUNTS).tolist() == [[-3, 0, 3, 0], [0] * 4, [0] * 4]
    assert np.allclose(leave_one_out(REWARDS, jnp.ones_like(COUNTS)), leave_one_out(REWARDS), atol=1e-5)


def test_within_a_group_of_those_that_count_by_hand() -> None:
    """(1, 3, 5) has mean 3 and variance 8/3: ±2 are ±√(3/2) deviations."""
    expected = np.array([[-1, 0, 1, 0], [0] * 4, [0] * 4]) * np.sqrt(3 / 2)
    assert np.allclose(group_normalised(REWARDS, COUNTS), expected, atol=1e-5)
    assert np.array_equal(group_normalised(REWARDS, jnp.ones_like(COUNTS)), group_normalised(REWARDS))


# --- gathering

GROUPS, BOUNDARIES, INTERVAL, AGENTS = (3, 2, 2), 2, 3, 2
EPISODES, TIME = 12, BOUNDARIES * INTERVAL
PLACES = EPISODES * TIME * AGENTS
ENOUGH = TIME * AGENTS
"""The capacity with which every decision finds a row."""


def record(seed: int = 0, share: float = 0.4) -> tuple[ExecutorStep, np.ndarray, dict[str, np.ndarray]]:
    """Return steps in which every number is another one, who decided ``[episodes, time, agents]``, and those numbers.

    Episodes end at different times, the last one latest; an agent may seem to act after that.
    """
    rng = np.random.default_rng(seed)
    mask = rng.random((EPISODES, TIME, AGENTS)) < share
    live = np.arange(TIME) < rng.integers(1, TIME + 1, EPISODES)[:, None]
    live[-1] = True
    names = ("features", "action", "log_prob", "agent_reward", "role", "legal")
    table: dict[str, Any] = {
        name: 1000 * index + np.arange(PLACES).reshape(mask.shape) for index, name in enumerate(names)
    }
    table["reward"] = 7000 + np.arange(EPISODES * TIME).reshape(EPISODES, TIME)
    axes = (*GROUPS, BOUNDARIES, INTERVAL)
    parts = {name: values.reshape(*axes, *values.shape[2:]) for name, values in table.items()}
    return _stacked(parts, mask.reshape(*axes, AGENTS), live.reshape(axes)), mask & live[..., None], table


def _step(now: dict[str, Any], mask: Any, live: Any) -> ExecutorStep:
    observation = Observation(
        features=jnp.stack([now["features"], -now["features"]], axis=-1).astype(jnp.float32),
        role=now["role"],
        tier=now["role"],
        action_mask=now["legal"][:, None] % 2 == jnp.arange(2),
        acting=mask,
    )
    log_prob, agent_reward, reward = (
        jnp.asarray(values, jnp.float32) for values in (-now["log_prob"], now["agent_reward"], now["reward"])
    )
    return ExecutorStep(observation, now["action"], log_prob, mask, reward, agent_reward, live)


_stacked = jax.jit(functools.reduce(lambda step, _: jax.vmap(step), range(5), _step))


@functools.cache
def gathering(capacity: int, sequence: int | None = None):
    return jax.jit(functools.partial(gather, capacity=capacity, sequence=sequence))


def check_rows(rows: Rows, decided: np.ndarray, table: dict[str, np.ndarray]) -> None:
    """Check that all that stands in a row is from its own place."""
    at = tuple(np.asarray(index) for index in (rows.episode, rows.step, rows.agent))
    assert not (rows.acting & ~decided[at]).any()
    assert np.array_equal(rows.observation.features, np.stack([table["features"][at], -table["features"][at]], -1))
    assert np.array_equal(rows.observation.role, table["role"][at])
    assert np.array_equal(rows.observation.action_mask, table["legal"][at][..., None] % 2 == [0, 1])
    assert np.array_equal(rows.action, table["action"][at])
    assert np.array_equal(rows.log_prob, -table["log_prob"][at])


def check_rewards(decisions: Decisions, table: dict[str, np.ndarray]) -> None:
    assert np.array_equal(decisions.rewards.team, table["reward"].reshape(*GROUPS, TIME))
    assert np.array_equal(decisions.rewards.agent, table["agent_reward"].reshape(*GROUPS, TIME, AGENTS))


def places(rows: Rows) -> list[tuple[int, int, int]]:
    """Return where the decisions in the rows were made."""
    at = (np.asarray(index)[np.asarray(rows.acting)].tolist() for index in (rows.episode, rows.step, rows.agent))
    return list(zip(*at, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_every_decision_has_a_row_of_its_own(share: float) -> None:
    steps, decided, table = record(share=share)
    decisions = gathering(ENOUGH)(steps)
    rows = decisions.rows
    assert rows.action.shape == (PLACES, 1)
    expected = [
        (episode, step, agent)
        for episode in range(EPISODES)
        for step in range(TIME)
        for agent in range(AGENTS)
        if decided[episode, step, agent]
    ]
    assert places(rows) == expected
    assert int(decisions.count) == len(expected)
    check_rows(rows, decided, table)
    check_rewards(decisions, table)


@pytest.mark.parametrize("sequence", [1, 2, TIME, TIME + 3])
@pytest.mark.parametrize("share", [0.0, 0.15, 1.0])
def test_every_agent_that_decided_has_its_first_decisions(share: float, sequence: int) -> None:
    steps, decided, table = record(share=share)
    length = min(sequence, TIME)
    decisions = gathering(AGENTS * length, sequence)(steps)
    rows = decisions.rows
    assert rows.action.shape == (EPISODES * AGENTS, length)
    row = 0
    for episode in range(EPISODES):
        for agent in range(AGENTS):
            mine = np.flatnonzero(decided[episode, :, agent])[:length]
            if mine.size:
                assert rows.acting[row].tolist() == [True] * mine.size + [False] * (length - mine.size)
                assert rows.step[row, : mine.size].tolist() == mine.tolist()
                assert (rows.episode[row] == episode).all() and (rows.agent[row] == agent).all()
                row += 1
    assert not rows.acting[row:].any()
    assert int(decisions.count) == decided.sum()
    check_rows(rows, decided, table)
    check_rewards(decisions, table)


@pytest.mark.parametrize("seed", range(4))
def test_beyond_the_capacity_decisions_are_taken_at_even_distances(seed: int) -> None:
    steps, decided, table = record(seed, share=0.7)
    decisions = gathering(2)(steps)
    rows, count = decisions.rows, int(decided.sum())
    assert count > 2 * EPISODES
    assert rows.acting.all() and rows.action.shape == (2 * EPISODES, 1)
    found, every = places(rows), [tuple(place) for place in np.argwhere(decided).tolist()]
    rank = [every.index(place) for place in found]
    assert len(set(rank)) == 2 * EPISODES
    gaps = np.diff([*rank, count + rank[0]])
    assert rank[0] == 0 and gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    assert int(decisions.count) == count
    check_rows(rows, decided, table)
    check_rewards(decisions, table)


def test_beyond_the_capacity_agents_are_taken_at_even_distances() -> None:
    steps, decided, table = record(share=0.9)
    decisions = gathering(TIME, TIME)(steps)
    rows, every = decisions.rows, np.argwhere(decided.any(axis=1)).tolist()
    assert len(every) > EPISODES
    found = np.stack([rows.episode[:, 0], rows.agent[:, 0]], axis=1).tolist()
    rank = [every.index(place) for place in found]
    assert len(set(rank)) == EPISODES and rank == [int(index * len(every) / EPISODES) for index in range(EPISODES)]
    assert int(decisions.count) == decided.sum() > rows.acting.sum()
    check_rows(rows, decided, table)
    check_rewards(decisions, table)


@pytest.mark.parametrize("sequence", [None, 3])
def test_parts_are_merged_in_their_order(sequence: int | None) -> None:
    """Two parts of three queries each become six; a row of the second part finds its own episode's rewards."""
    records = [record(seed, share=0.5) for seed in (0, 1)]
    parts = [gathering(3 * AGENTS, sequence)(steps) for steps, _, _ in records]
    merged = merge(jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))
    rows, split = merged.rows, len(parts[0].rows.action)
    assert merged.rewards.team.shape == (6, 2, 2, TIME)
    assert merged.rewards.agent.shape == (6, 2, 2, TIME, AGENTS)
    assert int(merged.count) == sum(int(part.count) for part in parts)
    own = at_rows(rows, merged.rewards.agent.reshape(-1, TIME, AGENTS))
    for index, part in enumerate(parts):
        half = slice(index * split, (index + 1) * split)
        assert np.array_equal(rows.episode[half], part.rows.episode + index * EPISODES)
        assert np.array_equal(own[half], at_rows(part.rows, part.rewards.agent.reshape(-1, TIME, AGENTS)))
        assert np.array_equal(merged.rewards.team[index * 3 : index * 3 + 3], part.rewards.team)
    both = np.concatenate([decided for _, decided, _ in records])
    assert not (rows.acting & ~both[rows.episode, rows.step, rows.agent]).any()


# --- padding, and what is made of rows


def test_a_table_holds_each_decision_once_and_no_padding() -> None:
    """The last place of all is where padding points: let it be a decision."""
    steps, _, _ = record(share=1.0)
    rows = gathering(ENOUGH)(steps).rows
    assert not rows.acting.all()
    table = np.asarray(as_table(rows, jnp.where(rows.acting, 1.0, jnp.nan), (EPISODES, TIME, AGENTS)))
    assert sorted(places(rows)) == [tuple(place) for place in np.argwhere(table == 1).tolist()]
    assert table.sum() == rows.acting.sum() and table[-1, -1, -1] == 1


@pytest.mark.parametrize("sequence", [None, 2, TIME])
@pytest.mark.parametrize("capacity", [1, 3, ENOUGH])
def test_advantages_at_rows(sequence: int | None, capacity: int) -> None:
    """Against a loop over each agent's own decisions; those that found no row are as if they had not been made."""
    steps, _, _ = record(5, share=0.5)
    rows = gathering(capacity, sequence)(steps).rows
    rng = np.random.default_rng(2)
    values = rng.normal(size=rows.action.shape).astype(np.float32)
    rewards = rng.normal(size=(EPISODES, TIME, AGENTS)).astype(np.float32)
    shown = jnp.where(rows.acting, values, jnp.nan)
    found = np.asarray(advantages(rows, shown, jnp.asarray(rewards), 0.9, 0.7))
    assert np.isfinite(found).all()
    at = np.stack([rows.episode, rows.step, rows.agent], axis=-1)
    worth = np.zeros(rewards.shape)
    worth[tuple(at[rows.acting].T)] = values[rows.acting]
    for episode in range(EPISODES):
        for agent in range(AGENTS):
            mine = np.asarray(rows.acting & (rows.episode == episode) & (rows.agent == agent))
            expected = slow_advantages(
                rewards[episode, :, agent], worth[episode, :, agent], sorted(at[mine][:, 1].tolist()), 0.9, 0.7
            )
            assert np.allclose(found[mine], [expected[step] for step in at[mine][:, 1].tolist()], atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_means_are_over_decisions_only(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps, _, _ = record(seed, share=[0.0, 0.1, 0.5, 1.0][seed])
    rows = gathering(ENOUGH, 2 if seed == 1 else None)(steps).rows
    acting, some = np.asarray(rows.acting), rng.random(rows.action.shape) < 0.3
    values = rng.normal(size=rows.action.shape).astype(np.float32)
    shown = jnp.where(rows.acting, values, jnp.nan)
    for chosen in (acting, acting & some):
        expected = values[chosen].mean() if chosen.any() else 0.0
        assert float(mean_over(rows, shown, jnp.asarray(chosen))) == pytest.approx(expected, abs=1e-6)
    slope = jax.grad(lambda values: mean_over(rows, values))(jnp.asarray(values))
    assert np.allclose(slope, acting / max(acting.sum(), 1))


# --- decisions that were played


@pytest.mark.parametrize(
    ("scenario", "network", "capacity"),
    [
        ("signal-cue-v0", MLPExecutor(4, (8,)), 4),
        ("signal-memory-v0", PerRole(GRUExecutor(2, 8), 2), 8),
        ("workflow-mixed-v0", GRUExecutor(9, 8), 12),
    ],
    ids=["mlp", "gru-per-role", "gru-that-waits"],
)
def test_rows_score_as_they_were_played(scenario: str, network: Any, capacity: int) -> None:
    agents = 4 if scenario.startswith("workflow") else None
    env, params = jaxmas.make(scenario, num_agents=agents)
    leaves, tree = jax.tree.flatten(network.initial_params(jax.random.key(0), feature_size(env, params)))
    rng = np.random.default_rng(0)
    weights = tree.unflatten([leaf + jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves])
    policies = Policies(RandomPolicy(env), None, network, weights)
    sequence = 4 if network.recurrent else None
    collect = functools.partial(gather, capacity=capacity, sequence=sequence)

    @jax.jit
    def play_and_score(query_key, play_key):
        _, parts = play_groups(env, params, policies, query_key, play_key, GroupSizes(8, 1, 2), collect=collect)
        decisions = merge(parts)
        return decisions, *score(network, weights, decisions.rows)

    decisions, log_prob, entropy = play_and_score(jax.random.key(1), jax.random.key(2))
    acting = np.asarray(decisions.rows.acting)
    assert acting.sum() > 15
    assert np.allclose(log_prob[acting], decisions.rows.log_prob[acting], atol=1e-4)
    assert log_prob[acting].std() > 0.1
    assert (entropy[acting] >= 0).all() and (entropy[acting] <= np.log(env.num_actions) + 1e-5).all()
    if scenario.startswith("workflow"):
        assert not acting.all() and (acting.sum(axis=1) > 1).any()
