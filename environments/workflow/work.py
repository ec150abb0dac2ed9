"""One agent's step, for all agents at once: what is visible, what to work on, what it perceives, what it says.

The functions stand in the order they run. Nothing here grows with agents × agents: an agent looks at its own votes
and at those of its inbox, and at contents only for the subtask it has chosen and that subtask's parents.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxmas.environments.noise import below, hashed, message_fate, mix, uniform
from jaxmas.environments.workflow import votes as v
from jaxmas.environments.workflow.query import Query
from jaxmas.pytrees import pytree

COIN, TIE = 1, 2
"""What a hash of the query seed is for: shared coins, ties."""
_NO_PARENT = 0
_INDEX_BITS = 13
_INDEX = 2**_INDEX_BITS - 1
_REVISION_STRIDE = v.MAX_COUNT + 1
_FEW_WORDS = 4
"""Up to here (128 subtasks) ranking every subtask is faster than settling match and novelty on whole words."""


@pytree
class Team:
    """The plan as the agents carry it out, with what follows from it at each step."""

    active: Bool[Array, "num_agents"]
    role: Int[Array, "num_agents"]
    tier: Int[Array, "num_agents"]
    task: Int[Array, "num_agents"]
    share: Int[Array, "num_agents"]
    """How many votes the agent gives its assigned subtask."""
    reads: Int[Array, "num_agents inbox"]
    quorum: UInt32[Array, "3 words"]
    """In bit planes, as the votes are counted."""
    critic: Bool[Array, "num_agents"]
    aggregator: Bool[Array, "num_agents"]
    noise: Float[Array, "num_agents skills"]
    """Factor on a subtask's difficulty: tier × role × own ability."""
    preference: Int[Array, "num_agents skills"]
    """0 … 15: how well the role matches the skill."""
    reporter: Int[Array, ""]


@pytree
class Board:
    """Everything the agents have answered so far."""

    votes: UInt32[Array, "num_agents tasks"]
    """Histogram words: an agent's own votes on each subtask."""
    counts: UInt32[Array, "3 num_agents words"]
    """The number of those votes, in bit planes."""
    reviewed: UInt32[Array, "num_agents words"]
    """Subtasks that a critic has been through."""
    last_task: Int[Array, "num_agents"]
    last_inputs: Int[Array, "num_agents"]
    """The parents' answers behind the last attempt, packed."""
    done: Int[Array, "num_agents"]
    """Number of different subtasks attempted."""
    revisions: Int[Array, "num_agents"]


@pytree
class Work:
    """What each agent is about to do."""

    task: Int[Array, "num_agents"]
    acting: Bool[Array, "num_agents"]
    revising: Bool[Array, "num_agents"]
    perceived: Int[Array, "num_agents"]
    """The operand, as seen through the noise."""
    inputs: Int[Array, "num_agents parents"]
    """The plurality of each parent's visible votes, plus one; 0 where nothing is visible."""
    support: Float[Array, "num_agents parents"]
    """That plurality's share of the visible votes."""
    peers: Int[Array, "num_agents 8"]
    """Visible votes on the subtask itself."""
    messages: Int[Array, "num_agents"]
    """Senders in the inbox that have voted on anything."""
    own_count: Int[Array, "num_agents"]


def next_work(query: Query, team: Team, board: Board, params, seed, agent_seeds, step: Int[Array, ""]) -> Work:
    """Let every agent look around, choose a subtask, gather its inputs and perceive its operand."""
    visible, others = visible_counts(team.reads, board.counts)
    fresh_task, has_fresh = choose(query, team, board, visible, others, agent_seeds, step)
    task = jnp.where(has_fresh, fresh_task, board.last_task)
    known = task >= 0
    task = jnp.maximum(task, 0)
    inputs, support, peers, own_count = read_votes(query, team, board, params, seed, agent_seeds, task)
    messages = count_messages(team.reads, board.done)
    changed = (pack_inputs(inputs) != board.last_inputs) & (board.last_task == task) & (own_count > 0)
    may = (team.task < 0) | (team.task == task)
    revising = known & changed & may & team.active & ~team.critic & ~team.aggregator
    held = count_topics(others) + board.done
    perceived = perceive(query, team, board, params, seed, agent_seeds, task, own_count, held)
    return Work(task, has_fresh | revising, revising, perceived, inputs, support, peers, messages, own_count)


def visible_counts(
    reads: Int[Array, "num_agents inbox"], counts: UInt32[Array, "3 num_agents words"]
) -> tuple[UInt32[Array, "3 num_agents words"], UInt32[Array, "num_agents words"]]:
    """Count, subtask by subtask, the votes that each agent sees; also where others have voted."""
    nobody = jnp.zeros_like(counts[:, :1])
    sent = jnp.concatenate([counts, nobody], axis=1)[:, jnp.where(reads < 0, len(reads), reads)]
    received = v.sum_saturating(sent, axis=1)
    return v.add_saturating(received, counts), v.any_vote(received)


def choose(
    query: Query,
    team: Team,
    board: Board,
    visible: UInt32[Array, "3 num_agents words"],
    others: UInt32[Array, "num_agents words"],
    agent_seeds: UInt32[Array, "num_agents"],
    step: Int[Array, ""],
) -> tuple[Int[Array, "num_agents"], Bool[Array, "num_agents"]]:
    """Pick the best open subtask: skill match first, then one not yet tried, then chance.

    A subtask is open when each parent shows its quorum and it does not show its own; where the deadline presses, one
    vote is enough. A critic's subtasks are those that others answered and that it has not reviewed. An agent with an
    assigned task waits for it, gives it its share of the votes and does nothing else.
    """
    words = query.needs.shape[1]
    pressed = v.pack(query.height >= query.deadline - step)
    missing = ~(v.at_least(visible, team.quorum) | (v.any_vote(visible) & pressed))
    missing = missing if words <= _FEW_WORDS else v.settled(missing)
    mine = v.any_vote(board.counts)
    wanted = jnp.where(team.critic[:, None], others & ~mine & ~board.reviewed, missing) & v.pack(query.mask)
    pick = _pick_small if words <= _FEW_WORDS else _pick_large
    best = pick(query, team, missing, wanted, mine, agent_seeds)
    best = jnp.where(team.active & ~team.aggregator & ~_served(team, board), best, 0)
    return (best - 1) & _INDEX, best > 0


def _served(team: Team, board: Board) -> Bool[Array, "num_agents"]:
    """Return who has given its assigned subtask its share of the votes."""
    own = jnp.take_along_axis(board.votes, jnp.maximum(team.task, 0)[:, None], axis=1)[:, 0]
    return (team.task >= 0) & ~team.critic & (v.size(own) >= team.share.astype(jnp.uint32))


def _pick_small(query: Query, team: Team, missing, wanted, mine, agent_seeds) -> Int[Array, "num_agents"]:
    """Return the best open subtask's rank, 0 for none, by ranking them all."""
    tasks, words = query.needs.shape
    width = v.lanes(tasks)
    needs = query.needs.reshape(words, width, words)
    blocked = functools.reduce(
        jnp.bitwise_or, [needs[:, :, word] & missing[:, word, None, None] for word in range(words)]
    )
    index = jnp.arange(tasks).reshape(words, width)
    assigned = team.task[:, None, None]
    is_open = (v.spread(wanted, width) != 0) & (blocked == 0) & ((assigned < 0) | (assigned == index))
    rank = _rank(query.skill.reshape(words, width), index, team, v.spread(~mine, width), agent_seeds)
    return jnp.max(jnp.where(is_open, rank, 0), axis=(1, 2))


def _rank(skill, index, team: Team, untried, agent_seeds) -> Int[Array, "num_agents words lanes"]:
    """Order subtasks by match (4 bits), not yet tried (1), chance (12); the lowest bits name the subtask."""
    skills = team.preference.shape[1]
    match = functools.reduce(
        jnp.add, [jnp.where(skill == s, team.preference[:, s, None, None], 0) for s in range(skills)]
    )
    order = (match << 1 | untried.astype(jnp.int32)) << 12 | _chance(agent_seeds[:, None, None], index)
    return (order << _INDEX_BITS | index) + 1


def _chance(agent_seeds: UInt32[Array, "*s"], index: Int[Array, "*t"]) -> Int[Array, "*u"]:
    """Return twelve bits that order equals, different for each agent."""
    return (((agent_seeds ^ index.astype(jnp.uint32)) * jnp.uint32(0x7FEB352D)) >> 20).astype(jnp.int32)


def _pick_large(query: Query, team: Team, missing, wanted, mine, agent_seeds) -> Int[Array, "num_agents"]:
    """Return what orders the open subtasks of the best kind, 0 for none: the same choice, word by word.

    Ranking every subtask against all words of missing ones grows with tasks². Here match and novelty are settled on
    whole words, and only chance is compared subtask by subtask.
    """
    tasks, words = query.needs.shape
    width = v.lanes(tasks)
    is_open = v.settled(wanted & ~_blocked(query, missing) & _assigned(team.task, words))
    kinds = [v.pack(query.skill == skill) for skill in range(team.preference.shape[1])]
    has = [jnp.any((is_open & kind) != 0, axis=1) for kind in kinds]
    match = [jnp.where(some, team.preference[:, skill], -1) for skill, some in enumerate(has)]
    best = functools.reduce(jnp.maximum, match)
    fitting = [jnp.where((match[skill] == best)[:, None], kind, 0) for skill, kind in enumerate(kinds)]
    chosen = is_open & functools.reduce(jnp.bitwise_or, fitting)
    untried = chosen & ~mine
    chosen = jnp.where(jnp.any(untried != 0, axis=1, keepdims=True), untried, chosen)
    return _by_chance(v.settled(chosen), width, agent_seeds)


def _assigned(task: Int[Array, "num_agents"], words: int) -> UInt32[Array, "num_agents words"]:
    """Return the subtasks that each agent's plan allows: its own, or all."""
    bit = jnp.uint32(1) << (task % v.WORD).astype(jnp.uint32)
    own = jnp.where(task[:, None] // v.WORD == jnp.arange(words), bit[:, None], 0)
    return jnp.where(task[:, None] < 0, jnp.bitwise_not(jnp.uint32(0)), own)


def _blocked(query: Query, missing: UInt32[Array, "num_agents words"]) -> UInt32[Array, "num_agents words"]:
    """Return the subtasks with a parent among the missing ones.

    Agents and subtasks change places: a word then holds one subtask for 32 agents, and a parent is one look-up for
    all of them.
    """
    lacking = v.by_task(missing)
    each = [jnp.where(row >= 0, lacking[:, jnp.maximum(row, 0)], 0) for row in query.parents.T]
    return v.by_agent(v.settled(functools.reduce(jnp.bitwise_or, each)), len(missing))


def _by_chance(chosen, width: int, agent_seeds: UInt32[Array, "num_agents"]) -> Int[Array, "num_agents"]:
    """Return chance (12 bits) above the index of the chosen subtask that has most of it, plus one; 0 for none."""
    lane = jnp.arange(width)
    best = jnp.zeros((len(chosen), width), jnp.int32)
    for word in range(chosen.shape[1]):
        index = lane + word * width
        rank = _chance(agent_seeds[:, None], index) << _INDEX_BITS | index
        flag = (chosen[:, word, None] >> lane.astype(jnp.uint32)) & 1
        best = jnp.maximum(best, jnp.where(flag != 0, rank + 1, 0))
    return jnp.max(best, axis=1)


def read_votes(query: Query, team: Team, board: Board, params, seed, agent_seeds, task: Int[Array, "num_agents"]):
    """Gather the votes that each agent sees on its subtask and on that subtask's parents.

    Messages are lost or garbled by a hash of (query, sender, reader, subtask); the agent's own votes are not.
    """
    topics = jnp.concatenate([task[:, None], query.parents[task]], axis=1)
    sent = sent_votes(board, jnp.arange(len(task)), team.reads, topics)
    sender_seeds = agent_seeds[jnp.maximum(team.reads, 0)]
    words = deliver(sent, agent_seeds, sender_seeds, topics, query, params)
    counts = v.pooled(words, axis=1)
    token, top = v.plurality(counts[:, 1:], hashed(seed, TIE, jnp.maximum(topics[:, 1:], 0)))
    inputs = jnp.where(top > 0, token + 1, _NO_PARENT)
    support = top / jnp.maximum(jnp.sum(counts[:, 1:], axis=-1), 1)
    return inputs, support, counts[:, 0], v.size(sent[:, 0, 0]).astype(jnp.int32)


def count_messages(reads: Int[Array, "num_agents inbox"], done: Int[Array, "num_agents"]) -> Int[Array, "num_agents"]:
    """Return how many of an agent's senders have something to say.

    It reads all of them at every attempt, to the point or not, and those that are lost are sent and paid for too.
    """
    return jnp.sum((reads >= 0) & (done[jnp.maximum(reads, 0)] > 0), axis=1)


def count_topics(others: UInt32[Array, "num_agents words"]) -> Int[Array, "num_agents"]:
    """Return how many subtasks an agent has read about: several colleagues' votes on one are one histogram to hold."""
    return jnp.sum(jax.lax.population_count(others), axis=1, dtype=jnp.uint32).astype(jnp.int32)


def sent_votes(
    board: Board, reader: Int[Array, "*s"], reads: Int[Array, "*s inbox"], topics: Int[Array, "*s topics"]
) -> UInt32[Array, "*s senders topics"]:
    """Return the histogram words of a reader itself and of its inbox on some subtasks; -1 is nobody, or nothing."""
    senders, topics = jnp.concatenate([reader[..., None], reads], axis=-1)[..., None], topics[..., None, :]
    place = jnp.maximum(senders, 0) * board.votes.shape[1] + jnp.maximum(topics, 0)
    return jnp.where((senders >= 0) & (topics >= 0), board.votes.reshape(-1)[place], 0)


def deliver(sent, reader_seed, sender_seeds, topics, query: Query, params) -> UInt32[Array, "*s senders topics"]:
    """Pass on what the inbox sent: some is lost, some garbled, by a hash of (query, sender, reader, subtask)."""
    pair = reader_seed[..., None] + mix(sender_seeds)
    fate = hashed(pair[..., None], jnp.maximum(topics, 0)[..., None, :])
    lost, offset = message_fate(fate, params.message_loss, query.handoff_noise, v.VOCABULARY)
    own, others = sent[..., :1, :], sent[..., 1:, :]
    return jnp.concatenate([own, jnp.where(lost, 0, v.shift_tokens(others, offset))], axis=-2)


def pack_inputs(inputs: Int[Array, "num_agents parents"]) -> Int[Array, "num_agents"]:
    """Pack the parents' answers that an attempt rests on into one number."""
    return jnp.sum(inputs << (4 * jnp.arange(inputs.shape[1])), axis=1)


def perceive(query: Query, team: Team, board: Board, params, seed, agent_seeds, task, own_count, held):
    """See the operand through the noise.

    ε = clip(δ · tier · role · (1 + load · held), 0, ε_max), where an agent holds in mind the subtasks that it has read
    about and those that it has done. With probability ρ all attempts of a tier on a subtask share one coin, else each
    has its own; a share ``distractor`` of the mistakes is the same one.
    """
    skills = team.noise.shape[1]
    skill, tier = query.skill[task], team.tier
    factor = sum(jnp.where(skill == s, team.noise[:, s], 0) for s in range(skills))
    load = 1 + params.context_load * held
    chance = jnp.clip(query.difficulty[task] * factor * load, 0, params.max_noise)
    common = hashed(seed, COIN, task, tier)
    attempt = own_count + _REVISION_STRIDE * jnp.where(task == board.last_task, board.revisions, 0)
    own = hashed(agent_seeds, task, attempt)
    coin = jnp.where(uniform(common) < query.rho, mix(common), own)
    wrong, which = uniform(coin) < chance, mix(coin + jnp.uint32(1))
    distracted = uniform(which) < query.distractor
    offset = jnp.where(distracted, query.distraction[task], 1 + below(mix(which), v.VOCABULARY - 1).astype(jnp.int32))
    return (query.operand[task] + jnp.where(wrong, offset, 0)) % v.VOCABULARY


def record(
    board: Board, work: Work, team: Team, answer: Int[Array, "num_agents"], counted: Bool[Array, "num_agents"]
) -> Board:
    """Write the answers down. A revision withdraws the votes that rested on the old inputs."""
    agent = jnp.arange(len(answer))
    current = board.votes[agent, work.task]
    after = jnp.where(work.revising, 0, current) + v.vote(answer)
    votes = board.votes.at[agent, work.task].set(jnp.where(counted, after, current))
    count = jnp.where(work.revising, 1, jnp.minimum(work.own_count + 1, v.MAX_COUNT))
    words = jnp.arange(board.reviewed.shape[1])
    bit = jnp.uint32(1) << (work.task % v.WORD).astype(jnp.uint32)
    mark = jnp.where(work.task[:, None] // v.WORD == words, bit[:, None], 0)
    written = [
        (plane & ~mark) | jnp.where((count[:, None] >> place) & 1, mark, 0) for place, plane in enumerate(board.counts)
    ]
    counts = jnp.where(counted[:, None], jnp.stack(written), board.counts)
    looked = work.acting & team.critic
    return Board(
        votes=votes,
        counts=counts,
        reviewed=jnp.where(looked[:, None], board.reviewed | mark, board.reviewed),
        last_task=jnp.where(work.acting, work.task, board.last_task),
        last_inputs=jnp.where(work.acting, pack_inputs(work.inputs), board.last_inputs),
        done=board.done + (counted & (work.own_count == 0)),
        revisions=jnp.where(
            work.acting, jnp.where(work.task == board.last_task, board.revisions, 0) + work.revising, board.revisions
        ),
    )
