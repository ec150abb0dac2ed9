"""Check ``workflow`` against closed forms and references, from the real environment, and its rules one by one."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    AGGREGATOR,
    CRITIC,
    ENV,
    GENERALIST,
    PASS,
    SKILLS,
    TIERS,
    Game,
    close,
    compiled,
    longest_ways,
    make_plan,
    make_query,
    noise,
    play,
    player,
    quorum_of,
    same,
    skill_tables,
    solved,
    workflow_params,
)
from scipy import stats

from jaxmas.environments.workflow import votes as v
from jaxmas.environments.workflow.query import SHAPES, sample_query

SPACE = ENV.plan_space
MANY = 8192


def mix_of(**changes):
    """Return the query mix with changes, as ``workflow_params`` takes them."""
    return workflow_params(**changes).mix


def majority(n: int, p: float) -> float:
    """Return the chance that more than half of n independent votes are right."""
    return float(stats.binom.sf(n // 2, n, p))


def everyone_to(reporter: int, members: range) -> dict[int, list[int]]:
    """Let one member read all the others, and nobody else read anyone."""
    return {reporter: [member for member in members if member != reporter]}


# Closed forms


@pytest.mark.parametrize(("epsilon", "error"), [(0.1, 0.0), (0.4, 0.0), (0.8, 0.0), (0.2, 0.15)])
def test_chain_of_one_agent(epsilon: float, error: float) -> None:
    """c′ = c·p + (1−c)(1−p)/(V−1) at every step: each mistake is uniform, so a wrong sum can come right again."""
    state, metrics = play(workflow_params(**noise(epsilon)), make_plan(SPACE), MANY, error=error)
    p, correct = (1 - epsilon) * (1 - error) + epsilon * error / 7, 1.0
    votes, answer = np.asarray(state.board.votes)[:, 0], np.asarray(state.query.answer)
    for subtask in reversed(range(8)):
        correct = correct * p + (1 - correct) * (1 - p) / 7
        assert close(votes[:, subtask] == 1 << 4 * answer[:, subtask], correct), subtask
    assert close(metrics["success"], correct)
    assert (metrics["attempts"] == 8).all() and (metrics["cost"] == 8).all() and (metrics["latency"] == 0.5).all()


@pytest.mark.parametrize(
    ("n", "p", "rho"),
    [(1, 0.7, 0.5), (3, 0.7, 0), (5, 0.6, 0), (7, 0.8, 0), (5, 0.3, 0), (3, 0.7, 0.35), (7, 0.6, 0.35), (7, 0.6, 1)],
)
def test_plurality_with_two_possible_answers(n: int, p: float, rho: float) -> None:
    """With shared coins success is ρ·p + (1−ρ)·Majority(N, p)."""
    params = workflow_params(shape="single", distractor=1.0, rho=rho, **noise(1 - p))
    plan = make_plan(SPACE, range(n), reads=everyone_to(0, range(n)), quorum=n)
    _, metrics = play(params, plan, MANY, seed=n)
    assert close(metrics["success"], rho * p + (1 - rho) * majority(n, p))
    assert (metrics["latency"] == 1 / 16).all()


def test_another_tier_does_not_share_the_mistake() -> None:
    params = workflow_params(shape="single", distractor=1.0, rho=1.0, **noise(0.3))
    reads = everyone_to(0, range(3))
    _, alike = play(params, make_plan(SPACE, range(3), tier=1, reads=reads, quorum=3), MANY)
    _, mixed = play(params, make_plan(SPACE, range(3), tier=[0, 1, 2], reads=reads, quorum=3), MANY)
    assert close(alike["success"], 0.7)
    assert close(mixed["success"], majority(3, 0.7))


@pytest.mark.parametrize("n", [3, 5])
def test_isolated_copies_equal_one_agent_that_samples_as_often(n: int) -> None:
    """Also with ties and many wrong answers; the copies are only faster. An aggregator changes nothing."""
    params = workflow_params(shape="single", distractor=0.4, rho=0.2, **noise(0.55))
    copies = make_plan(SPACE, range(n), reads=everyone_to(0, range(n)), quorum=n)
    team = range(n + 1)
    gathered = make_plan(SPACE, team, role=[GENERALIST] * n + [AGGREGATOR], reads=everyone_to(n, team), quorum=n)
    alone = make_plan(SPACE, (0,), quorum=n)
    outcomes = [play(params, plan, MANY, seed=seed)[1] for seed, plan in enumerate((alone, copies, gathered))]
    rates = [np.mean(metrics["success"]) for metrics in outcomes]
    error = math.sqrt(2 * rates[0] * (1 - rates[0]) / MANY)
    assert max(rates) - min(rates) < 4 * error
    assert rates[0] > 0.45 + 4 * error  # more than one attempt is worth
    for metrics in outcomes:
        assert (metrics["cost"] == n).all() and (metrics["attempts"] == n).all()
    assert [float(metrics["latency"].max() * 16) for metrics in outcomes] == [n, 1, 1]


def test_noise_is_difficulty_times_tier_times_role_times_context() -> None:
    """ε = clip(δ · tier · mismatch · ability · (1 + load · (read about + done)), 0, ε_max), in first attempts."""
    tiers = np.array([[0.3], [0.2], [0.1]]) * np.ones(SKILLS)
    mismatch = np.ones((SKILLS + 3, SKILLS))
    mismatch[0] = 1.5
    ability = np.ones((8, SKILLS))
    ability[2] = 0.5
    world = {"tier_noise": tiers, "mismatch": mismatch, "ability": ability, "shape": "single"}
    for member, role, tier, difficulty, limit, expected in (
        (0, GENERALIST, 0, 1.0, 1.0, 0.3),
        (0, GENERALIST, 2, 2.0, 1.0, 0.2),
        (0, 0, 1, 1.0, 1.0, 0.3),
        (2, GENERALIST, 0, 1.0, 1.0, 0.15),
        (0, 0, 0, 2.0, 0.6, 0.6),
    ):
        params = workflow_params(difficulty=difficulty, max_noise=limit, **world)
        _, metrics = play(params, make_plan(SPACE, (member,), role=role, tier=tier), MANY)
        assert close(metrics["success"], 1 - expected)
    loaded = workflow_params(size=2 / 8, context_load=0.5, **noise(0.3))
    state, relay = play(loaded, make_plan(SPACE, (0, 1), task=[0, 1], reads={0: [1]}), MANY)
    _, alone = play(loaded, make_plan(SPACE), MANY)
    for metrics in (relay, alone):  # one subtask read about, or one done before
        assert close(metrics["success"], 0.7 * 0.55 + 0.3 * 0.45 / 7)
    assert (np.asarray(state.totals.messages) == 1).all()


def test_context_counts_the_subtasks_read_about_not_the_messages() -> None:
    """Three colleagues at one subtask are three messages to pay for and one histogram to hold; at two, two."""
    blind = np.where(np.arange(SKILLS + 3)[:, None] == 0, 1.0, 0.0) * np.ones(SKILLS)
    for shape, size, tasks, held in (("chain", 2, [1, 1, 1], 1), ("wide", 3, [1, 1, 2], 2)):
        params = workflow_params(shape=shape, size=size / 8, context_load=0.5, mismatch=blind, **noise(0.3))
        plan = make_plan(SPACE, range(4), role=[0, 1, 1, 1], task=[0, *tasks], reads={0: [1, 2, 3]})
        state, metrics = play(params, plan, MANY)
        assert (np.asarray(state.totals.messages) == 3).all()
        assert close(metrics["success"], 1 - 0.3 * (1 + 0.5 * held))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_faulty_and_adversarial_slots(share: float) -> None:
    quiet: dict[str, Any] = {"shape": "single"}
    _, faulty = play(workflow_params(faulty=share, **quiet), make_plan(SPACE), MANY)
    assert close(faulty["success"], 1 - share * 7 / 8)
    state, adversarial = play(workflow_params(adversarial=share, **quiet), make_plan(SPACE, range(3)), MANY)
    assert close(adversarial["success"], 1 - share)
    query = state.query
    agreed = (np.asarray(query.answer[:, 0]) + np.asarray(query.distraction[:, 0])) % 8
    bad = adversarial["success"] == 0
    assert np.array_equal(np.asarray(state.reported)[bad], agreed[bad])


def test_adversaries_agree() -> None:
    """Two adversaries outvote three honest agents of which each errs its own way."""
    params = workflow_params(shape="single", adversarial=np.array([0, 0, 0, 1, 1, 0, 0, 0.0]), **noise(1.0))
    plan = make_plan(SPACE, range(5), reads=everyone_to(0, range(5)), quorum=5)
    state, _ = play(params, plan, MANY)
    agreed = (np.asarray(state.query.answer[:, 0]) + np.asarray(state.query.distraction[:, 0])) % 8
    three, two = 6 / 7**3, 6 * 3 * 5 / 7**3  # honest votes on one other token: these win, or tie
    assert close(np.asarray(state.reported) == agreed, 1 - three - two / 2)


# Queries

BIG = 64
sample_8 = jax.jit(jax.vmap(lambda key, mix: sample_query(key, mix, jnp.asarray(skill_tables()), 8, 64), (0, None)))
sample_64 = jax.jit(jax.vmap(lambda key, mix: sample_query(key, mix, jnp.asarray(skill_tables()), 64, 512), (0, None)))


def queries(most: int, count: int, **changes):
    """Draw queries, as one pytree of numpy arrays."""
    sampler = {8: sample_8, BIG: sample_64}[most]
    changes = {"size": (0.25, 1.0), "slack": (0.0, 3.0)} | changes
    drawn = sampler(jax.random.split(jax.random.key(1), count), mix_of(**changes))
    return jax.tree.map(np.asarray, drawn)


def each(batch):
    """Take a batch of queries apart."""
    count = len(batch.mask)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], batch) for i in range(count)]


def check_structure(query) -> None:
    """Compare a query with numpy: order, reach, longest ways, answers, flags, deadline."""
    size, parents = int(query.mask.sum()), query.parents
    assert query.mask[:size].all() and (parents[size:] == -1).all()
    leads = np.zeros(len(parents), bool)
    leads[0] = True
    for subtask in range(size):
        above = parents[subtask][parents[subtask] >= 0]
        assert leads[subtask]
        assert (above > subtask).all() and (above < size).all() and len(set(above)) == len(above)
        leads[above] = True
    height = longest_ways(parents)
    assert np.array_equal(query.height[:size], height[:size])
    assert query.depth == height[:size].max() + 1
    answer = solved(skill_tables(), query.skill, query.operand, parents)
    assert np.array_equal(query.answer[:size], answer[:size])
    assert query.depth <= query.deadline <= query.depth + 3
    flags = (parents[:, :, None] == np.arange(len(parents))).any(1)
    assert np.array_equal(query.needs, np.asarray(v.pack(jnp.asarray(flags))))
    assert (query.distraction > 0).all() and (query.distraction < 8).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [8, BIG])
def test_graphs_and_their_answers(shape: str, size: int) -> None:
    width = 0.5 if (shape, size) == ("chain", BIG) else 0.0
    for query in each(queries(size, 64, shape=shape, width=width)):
        check_structure(query)
        count, parents = int(query.mask.sum()), (query.parents >= 0).sum(1)
        assert SHAPES[query.shape] == shape
        assert (count == 1) == (shape == "single")
        if shape == "chain" and not width:
            assert query.depth == count
        if shape == "wide":
            assert (parents[1:] <= 1).all() and parents[0] == min(parents[0], count - 1) >= min(2, count - 1)
        if shape == "tree":
            assert query.depth <= 1 + math.log2(count + 1)


def test_a_deep_chain() -> None:
    for query in each(queries(BIG, 8, shape="chain", size=1.0)):
        check_structure(query)


def test_random_graphs_branch_and_join() -> None:
    batch = queries(BIG, 256, shape="random", size=1.0)
    assert ((batch.parents >= 0).sum(2).max(1) == 3).mean() > 0.9
    feeds = np.stack([np.bincount(parents[parents >= 0], minlength=BIG) for parents in batch.parents])
    assert (feeds.max(1) >= 2).mean() > 0.9
    assert batch.depth.max() <= 40


def test_skills_and_other_traits_are_spread() -> None:
    batch = queries(8, 4096, shape="chain", size=1.0, difficulty=(0.2, 0.6), rho=(0.1, 0.5), skill_focus=(0.0, 0.0))
    for values, bins in ((batch.skill, SKILLS), (batch.operand, 8), (batch.distraction - 1, 7), (batch.answer, 8)):
        assert stats.chisquare(np.bincount(values.ravel(), minlength=bins)).pvalue > 1e-4
    assert stats.chisquare(np.bincount(batch.deadline - batch.depth, minlength=4)).pvalue > 1e-4
    for values, (low, high) in ((batch.rho, (0.1, 0.5)), (batch.difficulty[:, 0], (0.2, 0.6))):
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-4
    assert abs(np.corrcoef(batch.rho, batch.difficulty[:, 0])[0, 1]) < 4 / math.sqrt(4096)


def test_skills_beside_the_main_one_are_any() -> None:
    batch = queries(8, 4096, shape="chain", size=1.0, skill_focus=(0.5, 0.5))
    assert stats.chisquare(np.bincount(batch.skill[:, 0], minlength=SKILLS)).pvalue > 1e-4


def test_distinct_keys_give_distinct_queries() -> None:
    batch = queries(8, 1024, shape="random", difficulty=(0.1, 0.9))
    rows = np.concatenate([batch.operand, batch.skill, batch.parents.reshape(1024, -1), batch.difficulty], axis=1)
    assert len(np.unique(rows, axis=0)) == 1024
    assert len(np.unique(batch.blur)) == 1024
    state, _ = play(workflow_params(), make_plan(SPACE), MANY)
    assert len(np.unique(np.asarray(state.agent_seeds))) > 8 * MANY - 10  # birthdays: half a pair expected


# Rules


QUIET = workflow_params()


def test_a_child_waits_for_its_parents_quorum() -> None:
    query = make_query(QUIET, [[1], [2], []])
    assert Game(QUIET, query, make_plan(SPACE, quorum=quorum_of(SPACE, t2=3))).finish() == [
        {0: 2}, {0: 2}, {0: 2}, {0: 1}, {0: 0}
    ]  # fmt: skip
    plan = make_plan(SPACE, (0, 1), task=[0, 1], reads={0: [1]}, quorum=quorum_of(SPACE, t1=2))
    assert Game(QUIET, make_query(QUIET, [[1], []]), plan).finish() == [{1: 1}, {1: 1}, {0: 0}]


def test_two_readers_pool_their_votes_for_a_quorum() -> None:
    """Each sees the other's vote beside its own, so two attempts each would be one too many."""
    plan = make_plan(SPACE, (0, 1), reads={0: [1], 1: [0]}, quorum=quorum_of(SPACE, t1=2))
    steps = Game(QUIET, make_query(QUIET, [[1], []]), plan).finish()
    assert steps == [{0: 1, 1: 1}, {0: 0, 1: 0}]


@pytest.mark.parametrize(("quorum", "each"), [(1, [1, 1, 1]), (3, [1, 1, 1]), (4, [2, 2, 2]), (7, [3, 3, 3])])
def test_members_at_one_subtask_divide_its_quorum(quorum: int, each: list[int]) -> None:
    """None of them reads another: the plan alone says how many votes each gives, rounded up."""
    plan = make_plan(SPACE, range(4), task=[0, 1, 1, 1], reads={0: [1, 2, 3]}, quorum=quorum_of(SPACE, t1=quorum))
    game = Game(QUIET, make_query(QUIET, [[1], []]), plan)
    assert len(game.finish()) == each[0] + 1
    assert [int(v.size(game.state.board.votes[agent, 1])) for agent in (1, 2, 3)] == each


def test_a_critic_at_a_subtask_takes_no_share_of_its_quorum() -> None:
    plan = make_plan(
        SPACE, range(3), role=[GENERALIST, GENERALIST, CRITIC], task=[0, 1, 1], reads={0: [1, 2], 2: [1]},
        quorum=quorum_of(SPACE, t1=3),
    )  # fmt: skip
    assert Game(QUIET, make_query(QUIET, [[1], []]), plan).state.team.share.tolist()[:3] == [1, 3, 0]


def test_a_pressing_deadline_lowers_the_quorum_to_one() -> None:
    query = make_query(QUIET, [[1], [2], []], deadline=4)
    assert Game(QUIET, query, make_plan(SPACE, quorum=5)).finish() == [{0: 2}, {0: 2}, {0: 1}, {0: 0}]
    tight = make_query(QUIET, [[1], [2], []], deadline=3)
    game = Game(QUIET, tight, make_plan(SPACE, quorum=5))
    assert game.finish() == [{0: 2}, {0: 1}, {0: 0}]
    assert game.timestep.metrics["success"] == 1


def test_the_deadline_ends_the_query() -> None:
    game = Game(QUIET, make_query(QUIET, [[1], [2], []], deadline=2), make_plan(SPACE))
    assert len(game.finish()) == 2
    assert game.timestep.terminated and not game.timestep.truncated
    assert game.state.reported == -1 and game.timestep.reward == 0


def test_skill_match_comes_first() -> None:
    params = workflow_params(mismatch=np.where(np.eye(SKILLS + 3, SKILLS) > 0, 1.0, 3.0))
    query = make_query(params, [[1, 2, 3], [], [], []], skill=np.array([0, 1, 2, 3, 0, 0, 0, 0]))
    plan = make_plan(SPACE, (1, 2, 3), role=[3, 1, 2])
    assert Game(params, query, plan).step() == {1: 3, 2: 1, 3: 2}


def revision_game(quorum_sink: int, **costs) -> Game:
    """Let agent 0 answer the parent, agent 3 the sink, and two critics the parent after that; nobody reads agent 3."""
    params = workflow_params(**costs)
    plan = make_plan(
        SPACE,
        range(4),
        role=[GENERALIST, CRITIC, CRITIC, GENERALIST],
        task=[1, 1, 1, 0],
        reads={1: [0], 2: [0], 3: [0, 1, 2]},
        quorum=quorum_of(SPACE, t0=quorum_sink),
    )
    return Game(params, make_query(params, [[1], []]), plan)


def objections(game: Game) -> dict[str, int]:
    """Let both critics give the same wrong answer."""
    wrong = (int(game.state.query.answer[1]) + 1) % 8
    return {"a1": wrong, "a2": wrong}


def test_a_changed_parent_is_answered_anew_at_a_cost() -> None:
    """Right first, then outvoted: the sink's vote follows, the old one is withdrawn, both are paid for."""
    game = revision_game(1)
    assert game.step() == {0: 1}
    assert game.step(**objections(game)) == {1: 1, 2: 1, 3: 0}
    assert game.votes(3, 0) == {int(game.state.query.answer[0]): 1}
    assert game.step() == {3: 0}
    assert game.state.over
    params, query = game.params, game.state.query
    sums = (int(query.operand[0]) + int(query.answer[1]) + 1) % 8
    assert game.votes(3, 0) == {int(params.tables[query.skill[0], sums]): 1}
    assert game.state.board.revisions[3] == 1
    assert game.state.totals.cost == 5
    assert game.state.board.done[3] == 1


def test_votes_that_rest_on_old_inputs_do_not_stay() -> None:
    game = revision_game(3)
    game.step()
    while not game.state.over:
        game.step(**objections(game))
    assert int(game.state.query.answer[0]) not in game.votes(3, 0)
    assert sum(game.votes(3, 0).values()) == 3


def test_passing_on_a_revision_keeps_the_votes() -> None:
    game = revision_game(1)
    game.step()
    game.step(**objections(game))
    while not game.state.over:
        game.step(a3=PASS)
    assert game.votes(3, 0) == {int(game.state.query.answer[0]): 1}
    assert game.state.totals.cost == 5


def test_own_rewards_by_hand() -> None:
    """A right vote earns 1, a wrong one nothing, but a critic's costs 1; who passes or waits gets nothing."""
    game = revision_game(3)
    sink, parent = (int(answer) for answer in game.state.query.answer[:2])
    assert game.step(a0=parent) == {0: 1}
    assert game.timestep.agent_reward.tolist() == [1] + 7 * [0]
    assert game.step(a1=PASS, a2=(parent + 1) % 8, a3=(sink + 1) % 8) == {1: 1, 2: 1, 3: 0}
    assert game.timestep.agent_reward.tolist() == [0, 0, -1, 0] + 4 * [0]
    game = revision_game(3)
    game.step(a0=(parent + 3) % 8)
    assert not game.timestep.agent_reward.any()
    assert game.step(a1=parent, a2=(parent + 1) % 8, a3=sink) == {1: 1, 2: 1, 3: 0}
    assert game.timestep.agent_reward.tolist() == [0, 1, -1, 1] + 4 * [0]


def test_what_a_faulty_or_adversarial_slot_votes_is_not_its_executors_doing() -> None:
    bad = {"faulty": np.eye(8)[0], "adversarial": np.eye(8)[1]}
    game = revision_game(3, **bad)
    chance_was_right = False
    for seed in range(16):
        game = Game(game.params, game.state.query, game.state.plan, seed=seed)
        parent = int(game.state.query.answer[1])
        assert game.step(a0=parent) == {0: 1}
        chance_was_right |= game.votes(0, 1) == {parent: 1}
        assert not game.timestep.agent_reward.any()
        game.step(a1=PASS, a2=parent, a3=PASS)
        assert len(game.votes(1, 1)) == 1 and parent not in game.votes(1, 1)
        assert game.timestep.agent_reward.tolist() == [0, 0, 1] + 5 * [0]
    assert chance_was_right


def critic_game() -> Game:
    """Let agent 0 work, agent 1 criticise it, and agent 2 report what agent 1 says."""
    roles = [GENERALIST, CRITIC, AGGREGATOR]
    return Game(QUIET, make_query(QUIET, [[1], []]), make_plan(SPACE, range(3), role=roles, reads={1: [0], 2: [1]}))


def test_a_critic_that_agrees_passes() -> None:
    game = critic_game()
    assert game.finish() == [{0: 1}, {0: 0, 1: 1}, {1: 0}]
    assert game.votes(1, 0) == game.votes(1, 1) == {}
    assert game.state.reported == -1  # the aggregator reads only the critic, which kept silent
    assert game.state.totals.cost == 4  # looking is an attempt


def test_a_critic_that_disagrees_votes() -> None:
    game = critic_game()
    right = int(game.state.query.answer[1])
    game.step(a0=(right + 3) % 8)
    game.step()
    assert game.votes(1, 1) == {right: 1}
    game.finish()
    assert game.votes(1, 1) == {right: 1}


def test_a_critic_without_anyone_to_read_has_nothing_to_do() -> None:
    plan = make_plan(SPACE, (0, 1), role=[CRITIC, GENERALIST])
    assert all(0 not in did for did in Game(QUIET, make_query(QUIET, [[1], []]), plan).finish())


def test_the_aggregator_never_works_and_reports() -> None:
    plan = make_plan(SPACE, (0, 1, 5), role=[GENERALIST, GENERALIST, AGGREGATOR], reads={5: [1]})
    game = Game(QUIET, make_query(QUIET, [[1], []]), plan)
    assert game.state.team.reporter == 5
    steps = game.finish()
    assert steps == [{0: 1, 1: 1}, {0: 0, 1: 0}]
    assert game.timestep.metrics["success"] == 1
    alone = Game(QUIET, make_query(QUIET, [[]]), make_plan(SPACE, (3,), role=AGGREGATOR))
    assert alone.finish() == [{}] and alone.state.reported == -1


def test_without_an_aggregator_the_lowest_member_reports() -> None:
    plan = make_plan(SPACE, (2, 4), task=[1, 0], reads={4: [2]})
    inactive = dataclasses.replace(plan, role=plan.role.at[7].set(AGGREGATOR))
    for case in (plan, inactive):
        game = Game(QUIET, make_query(QUIET, [[1], []]), case)
        assert game.state.team.reporter == 2
        game.finish()
        assert game.state.reported == -1  # it does not read agent 4, who knew
    game = Game(QUIET, make_query(QUIET, [[1], []]), make_plan(SPACE, (2, 4), task=[1, 0], reads={4: [2], 2: [4]}))
    game.finish()
    assert game.state.reported == game.state.query.answer[0]


def test_an_assigned_member_does_nothing_else() -> None:
    """Agent 1 waits for the sink though four subtasks are open to it; agent 2's task does not exist."""
    plan = make_plan(SPACE, range(3), task=[-1, 0, 7], reads={1: [0]})
    steps = Game(QUIET, make_query(QUIET, [[1, 2], [3], [4], [], []]), plan).finish()
    assert [sorted(did) for did in steps] == [[0]] * 4 + [[0, 1]]
    assert steps[-1][1] == 0


def test_a_reassigned_member_does_not_revise() -> None:
    game = revision_game(1)
    game.step()
    game.step(**objections(game))
    assert game.state.work.revising[3]
    game.replan(dataclasses.replace(game.state.plan, task=game.state.plan.task.at[3].set(7)))
    while not game.state.over:
        assert 3 not in game.step()


def test_an_episode_that_is_over_stays_and_pays_nothing() -> None:
    params = workflow_params(reward_cost=0.1, reward_latency=0.5, tier_cost=0.5, **noise(0.3))
    game, rewards = Game(params, make_query(params, [[1], []]), make_plan(SPACE, (0, 1), reads={0: [1]})), []
    while not game.state.over:
        assert all(value == 0 for value in rewards)
        game.step()
        rewards.append(float(game.timestep.reward))
    metrics = game.timestep.metrics
    expected = metrics["success"] - 0.1 * metrics["cost"] - 0.5 * metrics["latency"]
    assert rewards[-1] == pytest.approx(float(expected)) and rewards[-1] != 0
    final, last = game.state, game.timestep
    for action in (0, 5, PASS):
        game.step(**{f"a{agent}": action for agent in range(8)})
        assert same(game.state, final)
        assert game.timestep.reward == 0 and game.timestep.terminated
        assert same(game.timestep.metrics, last.metrics) and same(game.timestep.observation, last.observation)
        assert not game.timestep.observation.acting.any()


def test_costs_add_up() -> None:
    """Attempts by tier, messages read, plans and changes."""
    params = workflow_params(
        tier_cost=np.array([1.0, 4.0, 16.0]),
        read_cost=0.5,
        plan_cost=100.0,
        change_cost=1000.0,
        reward_cost_reference=2.0,
    )
    plan = make_plan(SPACE, (0, 1, 2), tier=[2, 1, 0], task=[0, 1, 2], reads={0: [1, 2]})
    game = Game(params, make_query(params, [[1, 2], [], []]), plan)
    changed = 3 * 2 + 2 + 3 + 1  # active and role of three, tier of two, task of three, one inbox
    assert game.state.totals.cost == 100 + 1000 * changed
    game.replan(plan)
    assert game.state.totals.cost == 200 + 1000 * changed
    game.finish()
    assert game.state.totals.cost == 200 + 1000 * changed + 4 + 1 + 16 * (1 + 0.5 * 2)
    metrics = game.timestep.metrics
    assert metrics["cost"] == game.state.totals.cost / 2
    assert metrics["messages"] == 2 and metrics["complexity"] == 3 + 2
    assert metrics["active_agents"] == metrics["acting_agents"] == 3


def test_a_lost_plan_leaves_the_old_rows() -> None:
    env_coordinate = jax.jit(jax.vmap(ENV.coordinate, in_axes=(None, 0, None, None)))
    start = jax.jit(jax.vmap(ENV.start, in_axes=(0, None, None)))
    params = workflow_params(plan_loss=0.4)
    query = make_query(params, [[1], []])
    state, _ = start(jax.random.split(jax.random.key(0), 2048), query, params)
    key = jax.random.key(0)
    first = make_plan(SPACE, range(8), role=0, tier=1, task=0, reads={a: [(a + 1) % 8] for a in range(8)}, quorum=2)
    second = make_plan(SPACE, range(8), role=1, tier=2, task=1, reads={a: [(a + 2) % 8] for a in range(8)}, quorum=3)
    state, _ = env_coordinate(key, state, first, params)
    reached = np.asarray(state.plan.active)
    assert close(reached.ravel(), 0.6)
    for field in ("role", "tier", "task", "reads"):
        old, new = getattr(SPACE.empty(), field), getattr(first, field)
        got = np.asarray(getattr(state.plan, field))
        kept = reached if got.ndim == 2 else reached[..., None]
        assert np.array_equal(got, np.where(kept, new, old))
    assert (np.asarray(state.plan.quorum) == 2).all()
    state, _ = env_coordinate(key, state, second, params)
    again = np.asarray(state.plan.tier) == 2
    assert close(again.ravel(), 0.6) and close((again & reached).ravel(), 0.36)
    assert np.array_equal(np.asarray(state.plan.tier) == 1, reached & ~again)
    assert (np.asarray(state.plan.quorum) == 3).all()


def test_replanning_in_mid_episode_keeps_the_votes() -> None:
    """Agent 1 takes over what agent 0 left half done, reading it."""
    game = Game(QUIET, make_query(QUIET, [[1], [2], []]), make_plan(SPACE, (0,)))
    assert [game.step(), game.step()] == [{0: 2}, {0: 1}]
    before = game.state.board
    game.replan(make_plan(SPACE, (0, 1), role=[AGGREGATOR, GENERALIST], reads={1: [0], 0: [1]}))
    assert same(before, game.state.board)
    assert game.finish() == [{1: 0}]
    assert game.timestep.metrics["success"] == 1


def test_the_same_plan_again_changes_nothing() -> None:
    """Four plan boundaries instead of one, through the roll-out, give the same votes, costs and reports."""
    often = dataclasses.replace(ENV, coordination_interval=4)
    costs: dict[str, Any] = {"reward_cost": 0.1, "reward_latency": 0.5}
    params = workflow_params(
        shape="random", handoff_noise=0.2, message_loss=0.1, context_load=0.1, **noise(0.3), **costs
    )
    plan = make_plan(SPACE, range(4), reads={0: [1, 2, 3], 1: [0], 2: [1, 3]}, quorum=2)
    keys, few = jax.random.split(jax.random.key(0), MANY), 256
    once, one_meta, _ = player(ENV)(keys, params, plan, jnp.float32(0))
    once, one_meta = jax.tree.map(lambda leaf: leaf[:few], (once, one_meta))
    again, meta, steps = player(often, discount=0.5, keep_steps=True)(keys[:few], params, plan, jnp.float32(0))
    for part in ("query", "board", "totals", "reported", "step", "over"):
        assert_near(getattr(once, part), getattr(again, part))
    assert (np.asarray(again.boundary) == 4).all()
    _check_meta_steps(again, one_meta, meta, steps)


def _check_meta_steps(state, one_meta, meta, steps) -> None:
    """Compare semi-Markov sums over the intervals with the executor steps and with one long interval."""
    lasted, latency = np.asarray(meta.steps), np.asarray(state.step)
    assert 1 < latency.min() < latency.max()
    assert np.array_equal(lasted, np.clip(latency[:, None] - 4 * np.arange(4), 0, 4))
    assert np.array_equal(lasted.sum(1), np.asarray(one_meta.steps)[:, 0])
    assert np.array_equal(np.asarray(meta.acting).sum(1), np.asarray(state.totals.attempts).sum(1))
    ended = latency[:, None] <= 4 * np.arange(1, 5)
    assert np.array_equal(meta.terminated, ended)
    assert np.allclose(meta.discount, np.where(ended, 0, 0.5**4))
    last = np.maximum(latency - 1, 0)
    paid = np.asarray(one_meta.reward)[:, 0]
    assert np.abs(paid).min() > 0
    assert np.allclose(np.asarray(meta.reward)[np.arange(len(paid)), last // 4], paid * 0.5 ** (last % 4), atol=1e-6)
    assert np.allclose(np.asarray(meta.reward).sum(1), paid * 0.5 ** (last % 4), atol=1e-6)
    live, mask = (np.asarray(leaf).reshape(len(paid), 16, -1) for leaf in (steps.live, steps.mask))
    assert np.array_equal(live[..., 0], np.arange(16) < latency[:, None])
    assert np.array_equal(mask.sum((1, 2)), np.asarray(state.totals.attempts).sum(1))


def test_a_plan_after_the_end_changes_no_metric() -> None:
    game = Game(QUIET, make_query(QUIET, [[]]), make_plan(SPACE, (0,)))
    game.finish()
    metrics = game.timestep.metrics
    game.replan(make_plan(SPACE, range(5), reads={0: [1, 2]}))
    game.step()
    assert same(metrics, game.timestep.metrics)


def test_the_designer_sees_progress_up_to_now() -> None:
    game = Game(QUIET, make_query(QUIET, [[1], [2], []]), make_plan(SPACE, quorum=2))
    game.step()
    game.step()
    team = compiled(ENV, "observe_team")(game.state, game.params)
    assert np.asarray(team.task_tokens)[2, -2:].tolist() == pytest.approx([2 / 7, 1.0])


def test_a_delay_shows_the_designer_older_progress() -> None:
    seen = []
    for delay in (0, 2):
        params = workflow_params(designer_delay=delay)
        plans = make_plan(SPACE, quorum=1), make_plan(SPACE, range(3), reads={0: [1, 2]}, quorum=2)
        game = Game(params, make_query(params, [[1], [2], [3], [4], []]), plans[0])
        seen.append([])
        for boundary in range(4):
            game.step()
            seen[-1].append(np.asarray(compiled(ENV, "observe_team")(game.state, params).task_tokens)[:, -2:])
            game.replan(plans[boundary % 2])
    now, late = np.stack(seen[0]), np.stack(seen[1])
    assert now[-1].any()
    assert np.array_equal(late[2:], now[:-2]) and not late[:2].any()


# Transformations


def random_world(seed: int = 0):
    """Return a world with all its noises on, a query in it, and a legal random plan with an aggregator."""
    rng = np.random.default_rng(seed)
    params = workflow_params(
        message_loss=0.2,
        context_load=0.1,
        read_cost=0.25,
        change_cost=0.5,
        plan_loss=0.1,
        faulty=rng.uniform(0, 0.3, 8),
        ability=rng.uniform(0.5, 1.5, (8, SKILLS)),
        mismatch=rng.uniform(1, 2, (SKILLS + 3, SKILLS)),
        **noise(0.2),
    )
    query = make_query(
        params, [[1, 2], [3, 4], [4, 5], [6], [], [6], []], seed=seed, rho=0.3, distractor=0.3, handoff_noise=0.3
    )
    plan = jax.tree.map(np.array, SPACE.sample(jax.random.key(seed)))
    plan.role[plan.role == AGGREGATOR] = CRITIC
    plan.active[seed % 8], plan.role[seed % 8] = True, AGGREGATOR
    plan.task[rng.random(8) < 0.7] = -1
    plan.quorum[:] = rng.integers(1, 4, 8)
    return params, query, SPACE.project(jax.tree.map(jnp.asarray, plan))[0]


def permuted(params, plan, order: np.ndarray):
    """Put agent ``order[i]`` into slot i."""
    slot = np.argsort(order)
    reads = np.asarray(plan.reads)[order]
    reads = jnp.asarray(np.where(reads >= 0, slot[np.maximum(reads, 0)], -1).astype(np.int32))
    rows = {field: getattr(plan, field)[order] for field in ("active", "role", "tier", "task")}
    worlds = {field: getattr(params, field)[order] for field in ("ability", "faulty", "adversarial")}
    return dataclasses.replace(params, **worlds), dataclasses.replace(plan, reads=reads, **rows)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_permuting_agents_permutes_results(seed: int) -> None:
    """With their random bits and their reporter."""
    params, query, plan = random_world(seed)
    order = np.random.default_rng(seed).permutation(8)
    moved_params, moved_plan = permuted(params, plan, order)
    one, other = Game(params, query, plan), Game(moved_params, query, moved_plan)
    start = compiled(ENV, "start")(jax.random.key(0), query, params)[0]
    bits = {"agent_seeds": start.agent_seeds[order], "character": start.character[order]}
    other.state = dataclasses.replace(start, **bits)
    other.replan(moved_plan)
    while not one.state.over:
        assert np.array_equal(np.asarray(one.observation.features)[order], other.observation.features)
        one.step()
        other.step()
    assert np.array_equal(np.asarray(one.state.board.votes)[order], other.state.board.votes)
    assert one.state.reported == other.state.reported and other.state.over
    for name, value in one.timestep.metrics.items():
        assert np.allclose(value, other.timestep.metrics[name]), name
    assert one.state.totals.attempts.sum() > 3


def test_vmap_equals_a_loop() -> None:
    worlds = [random_world(seed) for seed in range(4)]
    games = [Game(*world, seed=seed) for seed, world in enumerate(worlds)]
    params, states = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        for trees in ([game.params for game in games], [game.state for game in games])
    )
    step = jax.jit(jax.vmap(ENV.step, in_axes=(None, 0, 0, 0)))
    for _ in range(3):
        actions = jnp.stack([jnp.asarray(game.exact()) for game in games])
        states, timesteps = step(jax.random.key(0), states, actions, params)
        for index, game in enumerate(games):
            game.step()
            both = jax.tree.map(lambda leaf, i=index: leaf[i], (states, timesteps))
            assert_near(both, (game.state, game.timestep))


def test_jit_equals_eager() -> None:
    game = Game(*random_world(5))
    game.step()
    actions = jnp.asarray(game.exact())
    eager = ENV.step(jax.random.key(0), game.state, actions, game.params)
    game.step()
    assert_near(eager, (game.state, game.timestep))


def assert_near(one, other) -> None:
    """Compare integers exactly and numbers to rounding."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(one)]
    for path, *leaves in zip(paths, jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = map(np.asarray, leaves)
        assert np.allclose(a, b, atol=1e-6) if a.dtype.kind == "f" else np.array_equal(a, b), path


def test_everything_is_finite_and_every_query_ends() -> None:
    """Under random plans, in a world of all shapes with all noises at once."""
    for seed in range(3):
        params, _, plan = random_world(seed)
        mix = workflow_params(
            shape_weights=np.ones(5), size=(0.2, 1.0), rho=(0, 0.5), distractor=(0, 1.0), handoff_noise=(0, 0.4),
            slack=(0.0, 4.0), difficulty=(0.1, 3.0), difficulty_spread=0.5, skill_focus=(0.3, 0.3),
        ).mix  # fmt: skip
        world = dataclasses.replace(
            params, mix=mix, designer_noise=jnp.float32(0.5), reward=workflow_params(reward_partial=0.5).reward
        )
        state, metrics = play(world, plan, MANY, seed=seed)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, metrics)) if leaf.dtype.kind == "f")
        assert np.asarray(state.over).all()
        assert (np.asarray(state.step) <= np.asarray(state.query.deadline)).all()
        assert set(np.unique(metrics["success"])) <= {0.0, 1.0}
        assert (metrics["acting_agents"] <= metrics["active_agents"]).all()
        assert (metrics["partial"] <= 1).all() and (metrics["partial"] >= 0).all()
        words = np.asarray(state.board.votes)
        counts = sum(words >> 4 * token & 15 for token in range(8))
        planes = np.asarray(state.board.counts)[..., 0]
        bits = (planes[..., None] >> np.arange(8) & 1).astype(int)
        assert np.array_equal(np.minimum(counts, 7), (bits * np.array([1, 2, 4])[None, :, None, None]).sum(1))


def test_team_observations_of_all_tiers_stay_in_range() -> None:
    params, query, plan = random_world(3)
    game = Game(dataclasses.replace(params, designer_noise=jnp.float32(1.0)), query, plan)
    game.finish()
    team = compiled(ENV, "observe_team")(game.state, game.params)
    for leaf in (team.task_tokens, team.agent_tokens, team.global_features):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() < 10
    assert np.asarray(team.task_mask).tolist() == [True] * 7 + [False]
    assert not np.asarray(team.task_tokens)[7].any()
    assert int(plan.tier.max()) < TIERS
