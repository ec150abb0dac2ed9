"""Long chains against the formulas of first-to-ahead-by-k voting, and MAKER's strategies."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.algorithms.maker import MakerPolicy, Race
from jaxmas.environments.longchain import (
    CANDIDATES,
    Longchain,
    LongchainParams,
    Votes,
    law,
    longchain_params,
    play_chain,
    race,
)
from jaxmas.environments.probes import ActExecutor
from jaxmas.errors import JaxmasError
from jaxmas.evaluation import evaluate, query_keys
from jaxmas.experiments import longchain
from jaxmas.experiments.longchain import Settings, clopper_pearson, main

ONE = jnp.ones(1, bool)


def world(num_agents: int | None = None) -> tuple[Longchain, LongchainParams]:
    env, params = jaxmas.make("workflow-longchain-v0", num_agents=num_agents)
    assert isinstance(env, Longchain)
    return env, params


@jax.jit
def _race(key, steps, votes, active, margin):
    return race(key, steps, votes, active, margin)


def decide(seed: int, steps: int, votes: Votes, active: jax.Array, margin: int) -> tuple[np.ndarray, np.ndarray]:
    right, rounds = _race(jax.random.key(seed), jnp.arange(steps), votes, active, margin)
    return np.asarray(right), np.asarray(rounds)


def two_answers(error: float, flagged: float = 0.0, slots: int = 1) -> Votes:
    numbers = ((1 - error) * (1 - flagged), error * (1 - flagged), 0.0, 1.0)
    return Votes(*(jnp.full(slots, number) for number in numbers))


@pytest.mark.parametrize("margin", [1, 2, 3])
def test_a_race_is_the_gamblers_ruin(margin: int) -> None:
    steps, error = 20_000, 0.3
    right, rounds = decide(margin, steps, two_answers(error), ONE, margin)
    expected = Race(1 - error, error)
    wanted = float(expected.success(margin))
    assert np.mean(right) == pytest.approx(wanted, abs=4 * np.sqrt(wanted * (1 - wanted) / steps))
    spread = np.std(rounds) / np.sqrt(steps)
    assert np.mean(rounds) == pytest.approx(float(expected.attempts(margin)), abs=4 * spread + 1e-5)


def test_red_flags_cost_their_attempt_and_nothing_else() -> None:
    steps, flagged = 20_000, 0.4
    right, rounds = decide(0, steps, two_answers(0.3, flagged), ONE, 2)
    unflagged = Race(0.7, 0.3)
    assert np.mean(right) == pytest.approx(float(unflagged.success(2)), abs=0.015)
    assert np.mean(rounds) == pytest.approx(float(unflagged.attempts(2)) / (1 - flagged), rel=0.03)
    votes = Race(0.7 * 0.6, 0.3 * 0.6)
    assert float(votes.attempts(2)) == pytest.approx(float(unflagged.attempts(2)) / 0.6)


def test_spread_mistakes_are_less_of_a_danger() -> None:
    """With the same chance of a mistake, one common wrong answer gets ahead more often than three of a kind do."""
    spread = Votes(jnp.array([0.6]), jnp.array([0.4 / 3]), jnp.array([0.4 / 3]), jnp.ones(1))
    right = [decide(0, 8000, votes, ONE, 3)[0].mean() for votes in (two_answers(0.4), spread)]
    assert right[1] > right[0] + 0.05
    assert float(spread.wrong[0]) == pytest.approx(0.4)


def test_members_vote_side_by_side() -> None:
    """Four at once take fewer rounds and more attempts, and decide no worse; who is off the team does not vote."""
    alone = decide(0, 8000, two_answers(0.3), ONE, 3)
    votes = two_answers(0.3, slots=4)
    together = decide(0, 8000, votes, jnp.ones(4, bool), 3)
    half = decide(0, 8000, votes, jnp.arange(4) < 2, 3)
    assert np.mean(together[0]) == pytest.approx(np.mean(alone[0]), abs=0.03)
    assert np.mean(together[1]) < np.mean(half[1]) < np.mean(alone[1]) < 4 * np.mean(together[1])


def test_a_chain_does_not_hang_on_its_blocks() -> None:
    played = [play_chain(jax.random.key(3), two_answers(0.2), 2, length=1000, block=block) for block in (64, 250, 1000)]
    assert len({(int(wrong), int(rounds)) for wrong, rounds in played}) == 1
    assert int(played[0][0]) > 0
    other = play_chain(jax.random.key(4), two_answers(0.2), 2, length=1000, block=64)
    assert int(other[1]) != int(played[0][1])


def test_memory_does_not_grow_with_the_chain() -> None:
    def held(length: int) -> int:
        program: Any = play_chain.lower(jax.random.key(0), two_answers(0.1), 2, length=length, block=64).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert held(64 * 4096) <= held(64 * 4) + 64 * 1024  # the begins of the blocks are four bytes each


def test_least_margin_by_hand() -> None:
    """At error 0.0022, a million steps are solved nine times of ten with k = 3, and not with k = 2."""
    attempt = Race(1 - 0.0022, 0.0022)
    assert int(attempt.least_margin(2**20 - 1, 0.9)) == 3
    assert float(attempt.chain(3, 2**20 - 1)) > 0.9 > float(attempt.chain(2, 2**20 - 1))
    assert float(attempt.success(1)) == pytest.approx(1 - 0.0022)
    assert float(attempt.attempts(1)) == pytest.approx(1)
    for error, length, wanted in ((0.1, 1000, 0.95), (0.3, 10, 0.5), (0.01, 100_000, 0.99)):
        case = Race(1 - error, error)
        least = int(case.least_margin(length, wanted))
        assert float(case.chain(least, length)) >= wanted - 1e-4
        assert least == 1 or float(case.chain(least - 1, length)) < wanted


def test_maker_takes_the_margin_that_its_tier_needs() -> None:
    env, params = world()
    policy = jaxmas.make_strategy("maker", env, params)
    assert policy == jaxmas.make_strategy("maker", env) and isinstance(policy, MakerPolicy)
    _, team = env.reset(jax.random.key(0), params)
    plans = {}
    for seen in (0.0, 0.5, 1.0):
        shown = dataclasses.replace(team, global_features=jnp.array([seen, 0.0]))
        plans[seen] = policy.apply(None, policy.init(), shown, jax.random.key(1))[0]
        tier = int(plans[seen].tier[0])
        votes = law(params, jnp.float32(2.0 ** (4 * seen - 2)), jnp.array([tier]))
        needed = Race(votes.right, votes.wrong).least_margin(env.length, 0.95)
        assert int(plans[seen].quorum[0]) == int(needed[0])
        assert int(jnp.sum(plans[seen].active)) == 1
    assert int(plans[1.0].quorum[0]) > int(plans[0.0].quorum[0])


def test_the_episode_is_the_chain() -> None:
    """Steps, attempts and cost of an episode are those of its races; success is no wrong step."""
    env, params = world(2)
    meta = jaxmas.make_strategy("ahead-by-2", env)
    outcomes = evaluate(env, params, meta, None, ActExecutor(), None, query_keys("test", 64))
    assert np.array_equal(outcomes["success"] == 1, outcomes["wrong"] == 0)
    assert np.allclose(outcomes["attempts"], outcomes["latency"] * env.length, rtol=1e-5)
    assert np.allclose(outcomes["cost"], outcomes["attempts"] / env.length * params.price[0], rtol=1e-4)
    earned = outcomes["success"] - params.cost_weight * outcomes["cost"] - params.time_weight * outcomes["latency"]
    assert np.allclose(outcomes["reward"], earned, atol=1e-5)


def test_strategies_differ_as_they_should() -> None:
    env, params = world()
    queries = query_keys("test", 128)
    reward, success = {}, {}
    for name in ("random", "one-attempt-strong", "ahead-by-4", "maker"):
        played = evaluate(env, params, jaxmas.make_strategy(name, env, params), None, ActExecutor(), None, queries)
        reward[name], success[name] = played["reward"].mean(), played["success"].mean()
    assert success["one-attempt-strong"] < 0.1
    assert success["maker"] > 0.85
    assert min(reward["maker"], reward["ahead-by-4"]) > reward["random"] + 0.3


def test_answers_are_shared_out() -> None:
    votes = law(longchain_params(), jnp.float32(1.0), jnp.arange(3))
    flagged = 1 - (votes.right + votes.common + (CANDIDATES - 2) * votes.other)
    error = np.array([0.06, 0.02, 0.006])
    assert np.allclose(flagged, error * 0.3 + (1 - error) * 0.01, atol=1e-6)


def test_the_table(tmp_path) -> None:
    settings = Settings(length=2000, error=0.1, margins=(1, 2, 4), chains=20, out=tmp_path)
    result = main(settings)
    for row in result["rows"]:
        low, high = row["success_interval"]
        assert low - 0.1 <= row["success_formula"] <= high + 0.1
        assert row["attempts"] == pytest.approx(row["attempts_formula"], rel=0.05)
    assert [row["chains"] for row in result["rows"]] == [2, 20, 20]
    assert len((tmp_path / "longchain.md").read_text().splitlines()) == len(longchain.HEADER) + 6 + 3
    assert clopper_pearson(0, 10)[0] == 0 and clopper_pearson(0, 10)[1] == pytest.approx(0.3085, abs=1e-3)
    assert clopper_pearson(10, 10)[1] == 1


def test_an_interval_that_does_not_fit_is_refused() -> None:
    with pytest.raises(JaxmasError, match="has to divide the horizon of 11"):
        jaxmas.make("workflow-longchain-v0", coordination_interval=3)
