"""Priority inheritance with backtracking: everyone's move, on one floor or on many at once.

Okumura et al. 2022 (doi 10.1016/j.artint.2022.103752), algorithm 1, whose recursion is a stack here.
"""

import functools

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Int


def pibt(
    cell: Int[Array, "num_agents"],
    there: Int[Array, "cells"],
    order: Int[Array, "num_agents"],
    choices: Int[Array, "num_agents 5"],
    movable: Bool[Array, "num_agents"],
    neighbours: Int[Array, "cells 5"],
) -> Int[Array, "num_agents"]:
    """Return everyone's move.

    ``there`` is ``occupants``, ``order`` who chooses first, ``choices`` each robot's moves from best to worst. Illegal
    moves lead to the cell itself.
    """
    leads = neighbours[cell]
    taken = jnp.zeros(len(neighbours), bool).at[jnp.where(movable, len(neighbours), cell)].set(True, mode="drop")
    move = jnp.where(movable, -1, 0)
    return _turns(*jax.tree.map(lambda each: each[None], (leads, there, order, choices, taken, move)))[0]


@custom_vmap
def _turns(
    leads: Int[Array, "floors num_agents 5"],
    there: Int[Array, "floors cells"],
    order: Int[Array, "floors num_agents"],
    choices: Int[Array, "floors num_agents 5"],
    taken: Bool[Array, "floors cells"],
    move: Int[Array, "floors num_agents"],
) -> Int[Array, "floors num_agents"]:
    """Return the moves on many floors, one choice on each at a time.

    ``leads`` says where moves lead, ``taken`` which cells nobody may enter; a ``move`` of -1 is to be chosen. The
    recursion is a stack: success at its top is success all the way down.
    """
    nothing = jnp.zeros(len(move), jnp.int32)

    def unfinished(carry):
        *_, depth, turn = carry
        return jnp.any((depth > 0) | (turn < move.shape[1]))

    start = move, taken, jnp.zeros_like(move), jnp.zeros_like(move), nothing, nothing
    return jax.lax.while_loop(unfinished, functools.partial(_choose, leads, there, order, choices), start)[0]


def _choose(leads: Array, there: Array, order: Array, choices: Array, carry: tuple) -> tuple:
    """Let the robot at the top of each floor's stack try its next best move; an empty stack takes the next in turn."""
    move, taken, tried, stack, depth, turn = carry
    floors, agents = move.shape
    floor = jnp.arange(floors)
    first, fresh = order[floor, jnp.minimum(turn, agents - 1)], depth == 0
    begins = fresh & (turn < agents) & (move[floor, first] < 0)
    stack = stack.at[jnp.where(begins, floor, floors), 0].set(first, mode="drop")
    depth = jnp.where(begins, 1, depth)
    works = depth > 0
    robot = stack[floor, jnp.maximum(depth - 1, 0)]
    tries = tried[floor, robot]
    spent = tries >= 5
    want = jnp.where(spent, 0, choices[floor, robot, jnp.minimum(tries, 4)])
    goal, here = leads[floor, robot, want], leads[floor, robot, 0]
    other = there[floor, goal]
    guest = (other >= 0) & (other != robot)
    theirs = jnp.where(guest, move[floor, other], 0)
    passes = guest & (theirs >= 0) & (leads[floor, other, jnp.maximum(theirs, 0)] == here)
    free = ~taken[floor, goal] & ~passes
    lends = works & ~spent & free & guest & (theirs < 0)
    sets, works_at = (jnp.where(which, floor, floors) for which in (works & (spent | free), works))
    after = jnp.where(spent, depth - 1, jnp.where(lends, depth + 1, jnp.where(free, 0, depth)))
    return (
        move.at[sets, robot].set(want, mode="drop"),
        taken.at[sets, goal].set(True, mode="drop"),
        tried.at[works_at, robot].add(1, mode="drop"),
        stack.at[jnp.where(lends, floor, floors), jnp.minimum(depth, agents - 1)].set(other, mode="drop"),
        jnp.where(works, after, depth),
        turn + fresh,
    )


@_turns.def_vmap
def _turns_of_many(size: int, batched: list[bool], *inputs: Array) -> tuple[Array, bool]:
    """Take a batch of floors as more floors: a loop that ``vmap`` batches writes all of its state at every turn."""
    every = [
        each if known else jnp.broadcast_to(each, (size, *each.shape))
        for known, each in zip(batched, inputs, strict=True)
    ]
    moves = _turns(*(each.reshape(-1, *each.shape[2:]) for each in every))
    return moves.reshape(size, -1, moves.shape[1]), True
