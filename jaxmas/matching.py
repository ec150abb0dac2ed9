"""Matching of agents and tasks, a task for one agent at most: the cheapest pair first."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

TIES, DEAREST, LAST = 2**12, 2**20 - 2, np.uint32(2**32 - 1)
"""Pairs of equal cost that can be told apart, the cost beyond which all are alike, in 1/256, and the rank of pairs that
are not to be had, which is above all others."""


def cheapest_first(cost: Float[Array, "num_agents tasks"]) -> Int[Array, "num_agents"]:
    """Match the cheapest pair, then the cheapest of the rest, and so on; -1 for agents without a task.

    Costs are not negative, infinite for pairs that are not to be had, and count in 1/256; equal ones are told apart by
    a number that no two pairs of an agent, or of a task, share. All pairs that are each other's cheapest can be matched
    at once; the result is the same.
    """
    agents, tasks = cost.shape
    number = jnp.arange(tasks, dtype=jnp.uint32)
    apart = (jnp.arange(agents, dtype=jnp.uint32)[:, None] + number) % TIES
    known = jnp.isfinite(cost)
    rank = jnp.where(known, jnp.minimum(256 * cost, DEAREST).astype(jnp.uint32) * TIES + apart, LAST)

    def match(carry):
        task, taken, _ = carry
        left = jnp.where((task < 0)[:, None] & ~taken, rank, LAST)
        lowest = jnp.min(left, axis=1, keepdims=True)
        pairs = (left == lowest) & (left == jnp.min(left, axis=0)) & (left < LAST)
        found = jnp.max(jnp.where(pairs, jnp.arange(tasks), -1), axis=1)
        return jnp.maximum(task, found), taken | jnp.any(pairs, axis=0), jnp.any(found >= 0)

    start = jnp.full(agents, -1, jnp.int32), jnp.zeros(tasks, bool), jnp.array(True)
    return jax.lax.while_loop(lambda carry: carry[2], match, start)[0]
