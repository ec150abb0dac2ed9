"""Queries: a directed acyclic graph of subtasks, and the law that draws them.

Subtask 0 is the sink, whose answer is the query's answer; the parents of a subtask have higher numbers. The true
answers follow from the graph:  y_k = T_{s_k}[(x_k + Σ_{p ∈ parents(k)} y_p) mod V].
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from jaxmas.environments.noise import below, hashed, uniform
from jaxmas.environments.workflow.votes import VOCABULARY, pack
from jaxmas.pytrees import pytree

SHAPES = ("single", "chain", "wide", "tree", "random")
MAX_PARENTS = 3


@pytree
class QueryMix:
    """Ranges that a query's traits are drawn from, independently of each other. All ends inclusive."""

    shape_weights: Float[Array, "5"]
    """Relative frequency of each of ``SHAPES``."""
    size: Float[Array, "2"]
    """Number of subtasks, as a share of ``max_subtasks``; single queries have one."""
    width: Float[Array, ""]
    """Least share of the subtasks that forms the branching part of the graph: 0 allows plain chains."""
    difficulty: Float[Array, "2"]
    """Mean difficulty of the query's subtasks."""
    difficulty_spread: Float[Array, ""]
    """Each subtask's difficulty lies within mean · (1 ± spread)."""
    skill_focus: Float[Array, "2"]
    """Chance that a subtask has the query's main skill rather than any skill."""
    rho: Float[Array, "2"]
    """Chance that all attempts of one tier on a subtask share their mistake."""
    distractor: Float[Array, "2"]
    """Share of mistakes that land on one common wrong value."""
    handoff_noise: Float[Array, "2"]
    """Chance that a message is garbled."""
    slack: Float[Array, "2"]
    """Steps that the deadline leaves beyond the depth of the graph."""


@pytree
class Query:
    """One task to solve. ``deadline`` and ``depth`` are in steps, probabilities in [0, 1]."""

    mask: Bool[Array, "tasks"]
    skill: Int[Array, "tasks"]
    difficulty: Float[Array, "tasks"]
    operand: Int[Array, "tasks"]
    parents: Int[Array, "tasks parents"]
    needs: UInt32[Array, "tasks words"]
    """The parents again, as flags packed into words."""
    answer: Int[Array, "tasks"]
    distraction: Int[Array, "tasks"]
    """Offset of the common wrong operand."""
    height: Int[Array, "tasks"]
    """Longest way to the sink, in edges."""
    depth: Int[Array, ""]
    deadline: Int[Array, ""]
    rho: Float[Array, ""]
    distractor: Float[Array, ""]
    handoff_noise: Float[Array, ""]
    shape: Int[Array, ""]
    """Index into ``SHAPES``: a label for analysis, never an observation."""
    blur: UInt32[Array, ""]
    """Seed of what the designer misperceives in this query."""


def sample_query(
    key: PRNGKeyArray, mix: QueryMix, tables: Int[Array, "skills 8"], max_subtasks: int, horizon: int
) -> Query:
    """Draw a query: its traits, then its graph, then its subtasks and their answers."""
    words = jax.random.bits(key, (12 + 6 * max_subtasks,), jnp.uint32)
    traits, per_task = words[:12], words[12:].reshape(6, max_subtasks)
    shape = _categorical(traits[0], mix.shape_weights)
    share = _between(traits[1], mix.size)
    size = jnp.clip(jnp.round(share * max_subtasks), 2, max_subtasks).astype(jnp.int32)
    size = jnp.where(shape == 0, 1, size)
    index = jnp.arange(max_subtasks)
    mask = index < size
    child = _children(shape, size, mix.width, traits[2], per_task[0], max_subtasks)
    parents = _parents(jnp.where(mask & (index > 0), child, -1))
    parents = jnp.where((shape == 4), _extra_parents(parents, size, per_task[1]), parents)
    slack = jnp.floor(_between(traits[3], mix.slack + jnp.array([0.0, 0.999])))
    main = below(traits[4], tables.shape[0])
    focused = uniform(per_task[2]) < _between(traits[10], mix.skill_focus)
    skill = jnp.where(focused, main, below(hashed(per_task[2], 1), tables.shape[0])).astype(jnp.int32)
    jitter = 1 + mix.difficulty_spread * (2 * uniform(per_task[3]) - 1)
    operand = below(per_task[4], VOCABULARY).astype(jnp.int32)
    height, answer = _solve(tables, skill, operand, parents)
    depth = jnp.max(jnp.where(mask, height, 0)) + 1
    return Query(
        mask=mask,
        skill=skill,
        difficulty=_between(traits[5], mix.difficulty) * jitter,
        operand=operand,
        parents=parents,
        needs=pack(jnp.any(parents[:, :, None] == index, axis=1)),
        answer=answer,
        distraction=1 + below(per_task[5], VOCABULARY - 1).astype(jnp.int32),
        height=height,
        depth=depth,
        deadline=jnp.clip(depth + slack.astype(jnp.int32), 1, horizon),
        rho=_between(traits[6], mix.rho),
        distractor=_between(traits[7], mix.distractor),
        handoff_noise=_between(traits[8], mix.handoff_noise),
        shape=shape,
        blur=traits[9],
    )


def _between(word: UInt32[Array, "*s"], ends: Float[Array, "2"]) -> Float[Array, "*s"]:
    return ends[0] + (ends[1] - ends[0]) * uniform(word)


def _categorical(word: UInt32[Array, ""], weights: Float[Array, "n"]) -> Int[Array, ""]:
    cumulative = jnp.cumsum(weights)
    return jnp.sum(uniform(word) * cumulative[-1] >= cumulative[:-1]).astype(jnp.int32)


def _children(
    shape: Int[Array, ""],
    size: Int[Array, ""],
    width: Float[Array, ""],
    word: UInt32[Array, ""],
    coins: UInt32[Array, "tasks"],
    max_subtasks: int,
) -> Int[Array, "tasks"]:
    """Return the subtask that each one feeds.

    The first ``heap`` subtasks form a b-ary heap under the sink; the others lengthen its leaves into chains. A heap
    of one gives a chain, of 1 + b parallel branches with a join, of all a tree. Random graphs mix chain and heap.
    """
    index = jnp.arange(max_subtasks)
    arity = 2 + below(word, 2).astype(jnp.int32)
    heap = jnp.select([shape == 1, shape == 2], [1, 1 + arity], size)
    heap = jnp.clip(jnp.maximum(heap, jnp.floor(width * size).astype(jnp.int32)), 1, size)
    leaves = heap - (heap + arity - 2) // arity
    in_heap = (index - 1) // arity
    spider = jnp.where(index < heap, in_heap, index - leaves)
    mixed = jnp.where(uniform(coins) < 0.65, (index - 1) // 2, index - 1)
    return jnp.where(shape == 4, mixed, spider)


def _parents(child: Int[Array, "tasks"]) -> Int[Array, "tasks 3"]:
    """Invert the child map into parent lists: the up to three lowest subtasks that feed each one."""
    n = child.shape[0]
    index = jnp.arange(n)
    feeds = jnp.where(child[None, :] == index[:, None], index[None, :], n)
    lists = []
    for _ in range(MAX_PARENTS):
        lowest = jnp.min(feeds, axis=1)
        lists.append(jnp.where(lowest < n, lowest, -1))
        feeds = jnp.where(feeds == lowest[:, None], n, feeds)
    return jnp.stack(lists, axis=1)


def _extra_parents(
    parents: Int[Array, "tasks 3"], size: Int[Array, ""], coins: UInt32[Array, "tasks"]
) -> Int[Array, "tasks 3"]:
    """Give every other subtask with a free slot one more parent, where that makes a new edge."""
    index = jnp.arange(parents.shape[0])
    span = jnp.maximum(size - 1 - index, 1)
    extra = index + 1 + (hashed(coins, 1) % span.astype(jnp.uint32)).astype(jnp.int32)
    new = (uniform(coins) < 0.5) & (parents[:, 2] < 0) & (extra < size) & jnp.all(parents != extra[:, None], axis=1)
    last = jnp.arange(MAX_PARENTS) == MAX_PARENTS - 1
    return jnp.where(new[:, None] & last, extra[:, None], parents)


def _solve(
    tables: Int[Array, "skills 8"],
    skill: Int[Array, "tasks"],
    operand: Int[Array, "tasks"],
    parents: Int[Array, "tasks 3"],
) -> tuple[Int[Array, "tasks"], Int[Array, "tasks"]]:
    """Return the longest way from each subtask to the sink, and its answer.

    All subtasks are updated at once until nothing changes: as often as the graph is deep.
    """
    targets = jnp.where(parents >= 0, parents, len(operand))

    def update(carry):
        height, answer, _ = carry
        inputs = jnp.sum(jnp.where(parents >= 0, answer[parents], 0), axis=1)
        higher = height.at[targets].max(height[:, None] + 1, mode="drop")
        new = tables[skill, (operand + inputs) % VOCABULARY]
        return higher, new, jnp.any((higher != height) | (new != answer))

    start = jnp.zeros_like(operand), jnp.full_like(operand, -1), jnp.array(True)
    return jax.lax.while_loop(lambda carry: carry[2], update, start)[:2]
