"""Check the noise of ``workflow``: the hash, what it decides, what it must not depend on, and votes in words."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    AGGREGATOR,
    ENV,
    GENERALIST,
    Game,
    close,
    make_plan,
    make_query,
    noise,
    play,
    quorum_of,
    workflow_params,
)
from jax.typing import ArrayLike
from scipy import stats

from jaxmas.environments.noise import below, hashed, message_fate, mix, uniform
from jaxmas.environments.workflow import votes as v

SPACE = ENV.plan_space
MANY = 8192
SEEDS = np.array([0, 1, 2, 0xFFFFFFFF, 0x9E3779B9, 123_456_789], np.uint32)


def uneven(buckets: ArrayLike, bins: int) -> float:
    """Return the p-value of the chi-square test that the buckets are equally likely."""
    return stats.chisquare(np.bincount(np.asarray(buckets).ravel().astype(int), minlength=bins)).pvalue


def dependent(a: ArrayLike, b: ArrayLike, bins: int) -> float:
    """Return the p-value of the chi-square test that two series of buckets are independent."""
    return uneven(np.asarray(a).astype(int) * bins + np.asarray(b).astype(int), bins * bins)


# The hash


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_hash_is_uniform_over_counters(seed: np.uint32, shift: int) -> None:
    words = hashed(jnp.uint32(seed), jnp.arange(2**16))
    assert uneven(words >> shift & 255, 256) > 1e-4


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_hash_is_uniform_over_seeds(shift: int) -> None:
    seeds = jax.random.bits(jax.random.key(0), (2**16,), jnp.uint32)
    for counters in [(0,), (0, 0), (5, 3), (-1, 2), (1, 7, 3)]:
        assert uneven(hashed(seeds, *counters) >> shift & 255, 256) > 1e-4
    assert uneven(hashed(jnp.arange(2**16, dtype=jnp.uint32), 1) >> shift & 255, 256) > 1e-4


@pytest.mark.parametrize("bits", [0, 14, 28])
def test_hash_of_neighbouring_counters_is_independent(bits: int) -> None:
    """Next attempt, next subtask, next tier, next boundary; and the same pair of counters the other way round."""
    seeds = jax.random.bits(jax.random.key(1), (2**15,), jnp.uint32)
    pairs = [
        ((0, 0), (0, 1)),
        ((0, 0), (1, 0)),
        ((2, 5), (5, 2)),
        ((0, 0), (-1, 0)),
        ((1, 0), (2, 0)),
        ((0, 7), (0, 8)),
    ]
    for first, second in pairs:
        a, b = hashed(seeds, *first) >> bits & 15, hashed(seeds, *second) >> bits & 15
        assert dependent(a, b, 16) > 1e-4, (first, second)
    along = hashed(jnp.uint32(7), jnp.arange(2**16)) >> bits & 15
    assert dependent(along[:-1], along[1:], 16) > 1e-4


def test_hash_avalanches() -> None:
    """Each flipped bit of the seed or of the counter flips each bit of the hash about half of the time."""
    words = jax.random.bits(jax.random.key(2), (4096,), jnp.uint32)
    flips = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    for changed in (
        hashed(words, 3)[:, None] ^ hashed(words[:, None] ^ flips, 3),
        hashed(jnp.uint32(9), words, 2)[:, None] ^ hashed(jnp.uint32(9), words[:, None] ^ flips, 2),
    ):
        flipped = np.asarray((changed[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1).mean(0)
        assert np.abs(flipped - 0.5).max() < 0.06
        assert abs(flipped.mean() - 0.5) < 0.003


def test_mix_is_a_bijection() -> None:
    """Undo each of its three rounds."""
    mask = 2**32 - 1

    def unmix(word: int) -> int:
        word ^= word >> 16
        word = word * pow(0x846CA68B, -1, 2**32) & mask
        word ^= (word >> 15) ^ (word >> 30)
        word = word * pow(0x7FEB352D, -1, 2**32) & mask
        return word ^ (word >> 16)

    words = np.random.default_rng(0).integers(0, 2**32, 500, dtype=np.uint32)
    assert [unmix(int(word)) for word in mix(jnp.asarray(words))] == words.tolist()


def test_uniform_and_below() -> None:
    words = jax.random.bits(jax.random.key(3), (2**16,), jnp.uint32)
    numbers = np.asarray(uniform(words))
    assert numbers.min() >= 0 and numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-4
    assert float(uniform(jnp.uint32(2**32 - 1))) < 1
    for bound in (3, 7, 8):
        assert uneven(below(words, bound), bound) > 1e-4


def test_shared_coin_is_fair_given_that_it_is_shared() -> None:
    """Whether a coin is shared and how it falls come from one word."""
    words = hashed(jax.random.bits(jax.random.key(4), (2**18,), jnp.uint32), 1, 5)
    shared = words[np.asarray(uniform(words)) < 0.1]
    assert uneven(mix(shared) >> 26, 64) > 1e-4
    which = mix(mix(shared) + jnp.uint32(1))
    assert dependent(mix(shared) >> 28, which >> 28, 16) > 1e-4
    assert dependent(which >> 28, mix(which) >> 28, 16) > 1e-4


@pytest.mark.parametrize(("loss", "change"), [(0.0, 0.0), (0.3, 0.4), (0.02, 0.05), (1.0, 1.0), (0.0, 1.0)])
def test_message_fate(loss: float, change: float) -> None:
    words = hashed(jnp.uint32(5), jnp.arange(2**17))
    lost, offset = map(np.asarray, message_fate(words, jnp.float32(loss), jnp.float32(change), 8))
    assert close(lost, loss) and close(offset > 0, change)
    assert close(lost & (offset > 0), loss * change)
    if change:
        assert uneven(offset[offset > 0] - 1, 7) > 1e-4


# Messages


def hand_over(**changes) -> tuple[np.ndarray, np.ndarray]:
    """Let agent 1 do the first half of a chain of two and agent 0 the second; return success and the shift."""
    params = workflow_params(size=2 / 8, **changes)
    plan = make_plan(SPACE, (0, 1), task=[0, 1], reads={0: [1]})
    state, metrics = play(params, plan, MANY)
    query, rows = state.query, np.arange(MANY)
    answer = np.log2(np.asarray(state.board.votes)[:, 0, 0]).astype(int) // 4
    sums = np.argsort(np.asarray(params.tables), axis=1)[np.asarray(query.skill)[rows, 0], answer]
    shift = (sums - np.asarray(query.operand)[:, 0] - np.asarray(query.answer)[:, 1]) % 8
    return metrics["success"], shift


@pytest.mark.parametrize("garbled", [0.0, 0.25, 1.0])
def test_a_garbled_message_is_a_shifted_answer(garbled: float) -> None:
    success, shift = hand_over(handoff_noise=garbled)
    assert close(success, 1 - garbled)
    assert np.array_equal(success > 0, shift == 0)
    if garbled:
        assert uneven(shift[shift > 0] - 1, 7) > 1e-4


def test_the_reporter_hears_the_sink_through_the_same_noise() -> None:
    plan = make_plan(SPACE, (0, 1), role=[AGGREGATOR, GENERALIST], reads={0: [1]})
    state, metrics = play(workflow_params(shape="single", handoff_noise=0.3, message_loss=0.2), plan, MANY)
    assert close(metrics["success"], 0.8 * 0.7)
    assert close(np.asarray(state.reported) == -1, 0.2)


def test_own_memory_is_never_garbled_or_lost() -> None:
    _, metrics = play(workflow_params(handoff_noise=1.0, message_loss=1.0), make_plan(SPACE, quorum=2), MANY)
    assert metrics["success"].all()


def test_waiting_does_not_clean_a_message() -> None:
    """Agent 0 looks at one garbled answer again and again: it never changes, and under another plan it is the same."""
    params = workflow_params()
    query = make_query(params, [[1], []], handoff_noise=0.5)
    heard = []
    for seed in range(24):
        plan = make_plan(SPACE, (0, 1), task=[0, 1], reads={0: [1]}, quorum=quorum_of(SPACE, t0=7, t1=3))
        game, inputs = Game(params, query, plan, seed=seed), []
        while not game.state.over:
            game.step()
            inputs.append(int(game.state.work.inputs[0, 0]))
        assert len(inputs) == 3 + 7  # one message of one, then two, then three votes
        assert len(set(inputs)) == 1
        crowd = make_plan(SPACE, (0, 1, 2, 3), task=[0, 1, 0, 0], reads={0: [3, 2, 1], 2: [1]})
        other = Game(params, query, crowd, seed=seed)
        other.step()
        assert int(other.state.work.inputs[0, 0]) == inputs[0]
        heard.append(inputs[0] == int(query.answer[1]) + 1)
    assert 4 < sum(heard) < 20


def perceived_under(params, query, plan) -> dict[tuple[int, int, int, int], int]:
    """Return what each (agent, subtask, attempt, revisions) perceives in one query."""
    game, seen = Game(params, query, plan, seed=3), {}
    while not game.state.over:
        work = game.state.work
        for agent in np.flatnonzero(work.acting):
            revisions = int(game.state.board.revisions[agent])
            attempt = int(agent), int(work.task[agent]), int(work.own_count[agent]), revisions
            assert attempt not in seen
            seen[attempt] = int(work.perceived[agent])
        game.step()
    return seen


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_same_attempt_meets_the_same_noise(rho: float) -> None:
    params = workflow_params(**noise(0.5))
    query = make_query(params, [[1, 2], [3], [4, 5], [6], [], [], []], rho=rho, distractor=0.3)
    alone = perceived_under(params, query, make_plan(SPACE, (0,), quorum=2))
    team = make_plan(SPACE, range(6), task=[-1, -1, 3, 4, 2, -1], reads={1: [0, 2], 4: [3, 5]}, quorum=2)
    team = perceived_under(params, query, team)
    wider = make_plan(SPACE, range(8), reads={1: [7, 2], 3: [4]}, quorum=3)
    wider = perceived_under(params, query, wider)
    for one, other, least in ((alone, team, 6), (team, wider, 12)):
        both = one.keys() & other.keys()
        assert len(both) >= least
        assert all(one[attempt] == other[attempt] for attempt in both)
    operands = np.asarray(query.operand)
    wrong = [token != operands[task] for (_, task, _, _), token in wider.items()]
    assert 0.2 < np.mean(wrong) < 0.8


def test_the_same_attempt_meets_the_same_noise_after_a_revision_elsewhere() -> None:
    """Agent 3 answers a subtask that it had not tried before; in one game it has revised another one."""
    params = workflow_params(**noise(0.5))
    query = make_query(params, [[1, 2], [], []], operand=4)
    perceived: list[list[int]] = []
    for revise in (False, True):
        perceived.append([])
        for seed in range(8):
            early = make_plan(SPACE, range(4), task=[1, 1, 1, 4], quorum=quorum_of(SPACE, t1=3))
            game = Game(params, query, early, seed=seed)
            revisions = jnp.full(8, int(revise), jnp.int32)  # as if it had revised another subtask before
            game.state = dataclasses.replace(
                game.state, board=dataclasses.replace(game.state.board, revisions=revisions)
            )
            game.replan(make_plan(SPACE, range(4), task=[1, 1, 1, 2], quorum=quorum_of(SPACE, t1=3)))
            perceived[-1].append(int(game.state.work.perceived[3]))
    assert perceived[0] == perceived[1]


def test_shared_coins_of_different_subtasks_and_tiers_are_independent() -> None:
    """A coin belongs to (query, subtask, tier), also in a team of one, where there are more tiers than slots."""
    env = type(ENV)(num_agents=1, max_subtasks=8, inbox=1, horizon=16, coordination_interval=16)
    params = workflow_params(env, tier_noise=np.full((3, 4), 0.5))
    query = make_query(params, [[], []], env, rho=1.0, distractor=1.0)
    agree = []
    for seed in range(24):
        right = []
        for task, tier in ((0, 1), (1, 0)):
            game = Game(params, query, make_plan(env.plan_space, (0,), tier=tier, task=task), env, seed=seed)
            assert game.state.work.acting[0] and int(game.state.work.task[0]) == task
            right.append(int(game.state.work.perceived[0]) == int(query.operand[task]))
        agree.append(right[0] == right[1])
    assert 4 < sum(agree) < 20


# Isolation


def trajectory(params, query, plan, *, reader: int, actions=None, seeds=None) -> list[np.ndarray]:
    """Play a query with other agents' actions or noise replaced; return what the reader sees at each step."""
    game, seen = Game(params, query, plan), []
    if seeds is not None:
        mine = jnp.arange(ENV.num_agents) == reader
        game.state = dataclasses.replace(game.state, agent_seeds=jnp.where(mine, game.state.agent_seeds, seeds))
        game.replan(plan)
    while not game.state.over:
        seen.append(np.append(game.observation.features[reader], game.observation.acting[reader]))
        others = {} if actions is None else {f"a{a}": actions[len(seen), a] for a in range(8) if a != reader}
        game.step(**others)
    return [*seen, np.asarray(game.state.reported)]


@pytest.mark.parametrize("case", ["reporter", "reader"])
@pytest.mark.parametrize("loss", [1.0, 0.0])
def test_with_all_messages_lost_nothing_reaches_another(case: str, loss: float) -> None:
    """Other answers and other noise of the others change nothing that the reader sees; without loss they do."""
    params = workflow_params(message_loss=loss, context_load=0.5, read_cost=0.5, **noise(0.4))
    query = make_query(params, [[1, 2], [3, 4], [4], [], []], rho=0.3)
    reader = 0 if case == "reporter" else 3
    reads = {agent: [a for a in range(5) if a != agent] for agent in range(5)}
    plan = make_plan(SPACE, range(5), task=[-1, 1, 2, -1, 4], reads=reads)
    base = trajectory(params, query, plan, reader=reader)
    rng, differs = np.random.default_rng(0), 0
    for _ in range(4):
        other = trajectory(params, query, plan, reader=reader, actions=rng.integers(0, 8, (20, 8)))
        differs += not _same_view(base, other, case)
    if loss:
        assert differs == 0
        seeds = jnp.asarray(rng.integers(0, 2**32, 8, dtype=np.uint32))
        fixed = make_plan(SPACE, range(5), task=[0, 1, 2, 3, 4], reads=reads)
        base = trajectory(params, query, fixed, reader=reader)
        assert _same_view(base, trajectory(params, query, fixed, reader=reader, seeds=seeds), case)
    else:
        assert differs > 0


def _same_view(one: list[np.ndarray], other: list[np.ndarray], case: str) -> bool:
    """Compare all that was seen, and for the reporter what it reported too."""
    last = None if case == "reporter" else -1
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one[:last], other[:last], strict=True))


# Votes in words


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def histogram_words(counts: np.ndarray) -> np.ndarray:
    """Pack counts of 0 … 15 by plain arithmetic."""
    return (counts * 16 ** np.arange(8)).sum(-1).astype(np.uint32)


def test_vote_and_shift(rng) -> None:
    tokens = np.arange(8)
    assert np.asarray(v.vote(jnp.asarray(tokens))).tolist() == [16**token for token in tokens]
    counts = rng.integers(0, 16, (500, 8))
    for offset in range(8):
        shifted = v.shift_tokens(jnp.asarray(histogram_words(counts)), jnp.full(500, offset, jnp.uint32))
        assert np.array_equal(shifted, histogram_words(np.roll(counts, offset, axis=1)))


@pytest.mark.parametrize("sources", [1, 2, 9, 17])
def test_pooled(rng, sources: int) -> None:
    counts = rng.integers(0, 16, (300, sources, 8))
    counts[0] = 15
    words = jnp.asarray(histogram_words(counts))
    assert np.array_equal(v.pooled(words), counts.sum(1))
    assert np.array_equal(v.pooled(words.T, axis=0), counts.sum(1))


def test_pooled_crowd(rng) -> None:
    counts = rng.integers(0, 16, (4369, 3, 8))
    counts[:, 0] = 15
    assert np.array_equal(v.pooled_crowd(jnp.asarray(histogram_words(counts))), counts.sum(0))


def test_plurality(rng) -> None:
    counts = rng.integers(0, 4, (4000, 8))
    ties = rng.integers(0, 2**32, 4000, dtype=np.uint32)
    token, top = map(np.asarray, v.plurality(jnp.asarray(counts), jnp.asarray(ties)))
    assert np.array_equal(top, counts.max(1))
    assert np.array_equal(counts[np.arange(4000), token], top)
    for size in (2, 3, 8):
        tied = np.zeros((8, 8), int)
        tied[:, rng.permutation(8)[:size]] = 5
        winners = np.asarray(v.plurality(jnp.asarray(tied), jnp.arange(8, dtype=jnp.uint32))[0])
        wins = np.bincount(winners, minlength=8)[tied[0] > 0]
        assert (wins > 0).all()
        if size in (2, 8):
            assert len(set(wins.tolist())) == 1


@pytest.mark.parametrize("tasks", [1, 8, 32, 64, 128])
def test_pack_and_spread(rng, tasks: int) -> None:
    bits = rng.random((5, 7, tasks)) < 0.5
    words = v.pack(jnp.asarray(bits))
    assert words.shape == (5, 7, -(-tasks // 32))
    for task in range(tasks):
        assert np.array_equal(np.asarray(words[..., task // 32]) >> (task % 32) & 1, bits[..., task])
    assert np.array_equal(np.asarray(v.spread(words, v.lanes(tasks))).reshape(bits.shape), bits)


def unpacked(votes: ArrayLike, tasks: int) -> np.ndarray:
    """Return the counts that bit planes stand for."""
    planes = np.asarray(votes)
    bit = [(planes[..., task // 32] >> (task % 32)) & 1 for task in range(tasks)]
    return (np.stack(bit, -1).astype(int) * np.array([1, 2, 4])[:, *[None] * (planes.ndim - 1)]).sum(0)


@pytest.mark.parametrize("tasks", [8, 64])
def test_bit_sliced_counts(rng, tasks: int) -> None:
    a, b, least = rng.integers(0, 8, (200, tasks)), rng.integers(0, 8, (200, tasks)), rng.integers(0, 8, tasks)
    packed_a, packed_b = v.pack_counts(jnp.asarray(a)), v.pack_counts(jnp.asarray(b))
    assert packed_a.shape == (3, 200, -(-tasks // 32))
    assert np.array_equal(unpacked(packed_a, tasks), a)
    assert np.array_equal(unpacked(v.add_saturating(packed_a, packed_b), tasks), np.minimum(a + b, 7))
    for rows in (1, 3, 9):  # up to an inbox of eight and oneself
        total = np.minimum((a % 3)[:rows].sum(0), 7)
        packed = v.pack_counts(jnp.asarray(a[:rows] % 3))
        assert np.array_equal(unpacked(v.sum_saturating(packed, axis=0), tasks), total)
    enough = v.spread(v.at_least(packed_a, v.pack_counts(jnp.asarray(least))), v.lanes(tasks))
    assert np.array_equal(np.asarray(enough).reshape(200, tasks), a >= least)
    some = v.spread(v.any_vote(packed_a), v.lanes(tasks))
    assert np.array_equal(np.asarray(some).reshape(200, tasks), a > 0)
