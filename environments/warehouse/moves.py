"""Moves: who may go where it wants, so that no two robots ever meet.

One rule, the same whatever the order of the robots, at a cost that grows with their number alone.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def occupants(cell: Int[Array, "num_agents"], num_cells: int) -> Int[Array, "cells"]:
    """Return who is on every cell; -1 is nobody."""
    return jnp.full(num_cells, -1, jnp.int32).at[cell].set(jnp.arange(len(cell), dtype=jnp.int32))


def resolve(
    cell: Int[Array, "num_agents"],
    target: Int[Array, "num_agents"],
    rank: Int[Array, "num_agents"],
    there: Int[Array, "cells"],
    neighbours: Int[Array, "cells 5"],
    turn: Int[Array, ""],
) -> Bool[Array, "num_agents"]:
    """Return who moves from ``cell`` to ``target``, the same cell or one beside it; ``there`` is ``occupants``.

    Of those who want one cell the highest ``rank`` wins; among equals the side that they come from, which takes turns.
    Nobody enters a cell whose robot stays, or changes places with another; robots follow each other, and go round in
    circles, as long as everyone before them moves.
    """
    slots = jnp.arange(len(cell))
    wants = target != cell
    holder = there[target]
    side = neighbours[target][:, 1:]  # [num_agents, 4]: the cells that the target can be entered from
    rival = jnp.where(side != target[:, None], there[side], -1)
    claims = (rival >= 0) & (target[rival] == target[:, None]) & wants[rival]
    precedence = rank[rival] * 4 + (jnp.arange(4) + turn) % 4
    lowest = jnp.iinfo(jnp.int32).min
    winner = jnp.take_along_axis(rival, jnp.argmax(jnp.where(claims, precedence, lowest), axis=1)[:, None], axis=1)
    held = wants & (holder >= 0)
    swaps = held & (target[holder] == cell)
    blocked = ~wants | (winner[:, 0] != slots) | swaps
    # Whoever waits for a robot that does not move, waits too: each round looks twice as far ahead.
    ahead = jnp.where(held & ~blocked, holder, slots)
    for _ in range(max(1, math.ceil(math.log2(len(cell) + 1)))):
        blocked = blocked | blocked[ahead]
        ahead = ahead[ahead]
    return ~blocked
