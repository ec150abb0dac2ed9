"""What the agents and the designer see."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmas.environments.noise import below, hashed, uniform
from jaxmas.environments.workflow import votes as v
from jaxmas.environments.workflow.query import MAX_PARENTS, Query
from jaxmas.environments.workflow.work import Board, Team, Work
from jaxmas.pytrees import pytree
from jaxmas.types import TeamObservation

GLOBAL_FEATURES = (
    "deadline",
    "rho",
    "handoff_noise",
    "size",
    "depth",
    "difficulty",
    "hardest",
    "skills",
    "time",
)
"""The few visible numbers of a query that a simple rule may decide on."""


def feature_size(num_skills: int) -> int:
    """Return the number of an agent's features."""
    return (2 + MAX_PARENTS) * v.VOCABULARY + MAX_PARENTS + num_skills + (num_skills + 3) + 1


def agent_features(query: Query, team: Team, work: Work, num_tiers: int) -> Float[Array, "num_agents features"]:
    """Return one row per agent: operand, parents' answers and their support, peers' votes, skill, role, tier."""
    skills = team.noise.shape[1]
    tokens = jnp.arange(v.VOCABULARY)
    operand = work.perceived[:, None] == tokens
    parents = (work.inputs[:, :, None] == tokens + 1).reshape(len(work.task), -1)
    peers = work.peers / jnp.maximum(jnp.sum(work.peers, axis=1, keepdims=True), 1)
    skill = query.skill[work.task][:, None] == jnp.arange(skills)
    role = team.role[:, None] == jnp.arange(skills + 3)
    tier = team.tier[:, None] / max(num_tiers - 1, 1)
    parts = (operand, parents, work.support, peers, skill, role, tier)
    return jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=1)


def senders(team: Team) -> Bool[Array, "num_agents"]:
    """Return the members whose votes somebody pays to read, and the reporter: what a designer can learn of."""
    agents = team.active.shape[0]
    sent = jnp.zeros(agents, bool).at[jnp.where(team.reads >= 0, team.reads, agents)].set(True, mode="drop")
    return (sent | (jnp.arange(agents) == team.reporter)) & team.active


def progress(board: Board, team: Team) -> Float[Array, "tasks 2"]:
    """Return the votes on each subtask that somebody pays to read, per member, and their agreement."""
    words = jnp.where(senders(team)[:, None], board.votes, 0)
    counts = v.pooled_crowd(words).astype(jnp.float32)
    total = jnp.sum(counts, axis=-1)
    agreement = jnp.max(counts, axis=-1) / jnp.maximum(total, 1)
    return jnp.stack([jnp.minimum(total / v.MAX_COUNT, 4), agreement], axis=-1)


@pytree
class Brief:
    """What the designer is told of a query when it arrives: its blurred traits and its graph; never an operand."""

    tokens: Float[Array, "tasks brief_features"]
    features: Float[Array, "8"]
    """``GLOBAL_FEATURES`` without the time."""


def brief(env, query: Query, params) -> Brief:
    """Brief the designer."""
    skill, difficulty, rho, handoff = misperceived(query, params)
    tokens = jnp.concatenate(
        [
            (skill[:, None] == jnp.arange(env.num_skills)).astype(jnp.float32),
            difficulty[:, None],
            (query.height / jnp.maximum(query.depth, 1))[:, None],
            jnp.sum(query.parents >= 0, axis=1, keepdims=True) / MAX_PARENTS,
            (jnp.arange(env.max_subtasks) == 0)[:, None],
        ],
        axis=1,
    )
    tokens = jnp.where(query.mask[:, None], tokens, 0.0)
    size, seen = jnp.sum(query.mask), tokens[:, env.num_skills]
    features = (
        query.deadline / env.horizon,
        rho,
        handoff,
        size / env.max_subtasks,
        query.depth / env.horizon,
        jnp.sum(seen) / size,
        jnp.max(seen),
        jnp.sum(jnp.max(tokens[:, : env.num_skills], axis=0)) / env.num_skills,
    )
    return Brief(tokens, jnp.stack([jnp.asarray(value, jnp.float32) for value in features]))


def team_observation(env, state, params) -> TeamObservation:
    """Return what the designer may see: its brief, and the progress that somebody pays to report."""
    query = state.query
    past = jnp.concatenate([progress(state.board, state.team)[None], state.progress])
    seen = past[jnp.clip(params.designer_delay, 0, state.progress.shape[0] - 1)]
    tokens = jnp.concatenate([state.brief.tokens, jnp.where(query.mask[:, None], seen, 0.0)], axis=1)
    return TeamObservation(
        task_tokens=tokens,
        task_mask=query.mask,
        task_parents=query.parents,
        agent_tokens=_agent_tokens(env, state),
        agent_mask=jnp.ones(env.num_agents, bool),
        pair_features=jnp.zeros((env.num_agents, env.max_subtasks, 0)),
        global_features=jnp.append(state.brief.features, state.step / env.horizon),
    )


def misperceived(query: Query, params):
    """Return skill, difficulty, ρ and hand-off noise as the designer sees them in this query."""
    tasks = query.mask.shape[0]
    index = jnp.arange(tasks)
    noise = params.designer_noise
    words = hashed(query.blur, index)
    other = (query.skill + 1 + below(hashed(words, 1), params.mismatch.shape[1] - 1).astype(jnp.int32)) % (
        params.mismatch.shape[1]
    )
    skill = jnp.where(uniform(words) < noise, other, query.skill)
    difficulty = query.difficulty * (1 + noise * (2 * uniform(hashed(words, 2)) - 1))
    wobble = 2 * uniform(hashed(query.blur, jnp.array([-1, -2]))) - 1
    rho = jnp.clip(query.rho + noise * wobble[0], 0, 1)
    handoff = jnp.clip(query.handoff_noise + noise * wobble[1], 0, 1)
    return skill, difficulty, rho, handoff


AGENT_TOKENS = ("active", "tier", "attempts", "agreement", "readers", "slot", "wave1", "wave2", "wave4", "wave8")
"""What the columns of agent tokens are."""


def _agent_tokens(env, state) -> Float[Array, "num_agents agent_features"]:
    """Return one row per slot: activity, tier, attempts, agreement, how many read it, and which slot it is."""
    n = env.num_agents
    reads = state.team.reads
    readers = jnp.zeros(n).at[jnp.where(reads >= 0, reads, n)].add(1.0, mode="drop")
    slot = jnp.arange(n)
    waves = jnp.sin(slot[:, None] / jnp.array([1.0, 2.0, 4.0, 8.0]))
    columns = [
        state.team.active,
        state.team.tier / max(env.num_tiers - 1, 1),
        state.totals.attempts / env.horizon,
        _agreement(state.board, state.team),
        readers / env.inbox,
        slot / n,
    ]
    return jnp.concatenate([jnp.stack([column.astype(jnp.float32) for column in columns], axis=1), waves], axis=1)


def _agreement(board: Board, team: Team) -> Float[Array, "num_agents"]:
    """Return the share of each sender's votes that the senders' plurality shares; 0 before the first vote."""
    words = jnp.where(senders(team)[:, None], board.votes, 0)
    winner = jnp.argmax(v.pooled_crowd(words), axis=-1).astype(jnp.uint32)
    shared = jnp.sum((words >> (4 * winner)) & 15, axis=1)
    total = jnp.sum(v.size(words), axis=1)
    return shared / jnp.maximum(total, 1)
