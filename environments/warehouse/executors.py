"""Executors of ``warehouse``: the greedy one, which sees its window only, and PIBT, which plans for all at once."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from jaxmas.distributions import Categorical
from jaxmas.environments.warehouse.grid import HEADINGS
from jaxmas.environments.warehouse.motion import Motion, pose, towards
from jaxmas.environments.warehouse.moves import occupants
from jaxmas.environments.warehouse.observe import GOAL, PLACE, STATUS, WAITED, farther, heading_of
from jaxmas.environments.warehouse.params import WarehouseParams
from jaxmas.registry import EXECUTORS
from jaxmas.types import Observation

SURE = 1e4
"""The logit of the action that is taken."""


WANDERS: dict[Motion, int] = {"cardinal": 1, "turning": 3}
"""Steps for which a greedy robot goes anywhere once it was held up: those that turn need more to get away."""


@dataclasses.dataclass(frozen=True)
class GreedyExecutor:
    """Goes where the goal is nearer, whoever is there, one of two ways that are as good by chance.

    Who was held up in the step before takes any actions but to stay for a while, so that two who face each other come
    apart.
    """

    wanders: int = WANDERS["cardinal"]

    def init(self, num_agents: int) -> Int[Array, "num_agents"]:
        """Return for how many steps more robots go anywhere."""
        return jnp.zeros(num_agents, jnp.int32)

    def apply(
        self, params: Any, carry: Any, observation: Observation, mask: Bool[Array, "num_agents"], key: Any
    ) -> tuple[Any, Categorical]:
        """Return the actions that bring the robot nearest; without a goal it stays."""
        legal, stays = observation.action_mask, jnp.arange(observation.action_mask.shape[1]) == 0
        far = jnp.where(legal, farther(observation), jnp.inf)
        best = far <= jnp.min(far, axis=1, keepdims=True)
        held_up = observation.features[:, WAITED] > 0
        left = jnp.where(held_up, self.wanders, jnp.maximum(carry - 1, 0))
        anywhere = legal & ~stays
        best = jnp.where((left > 0)[:, None] & anywhere.any(axis=1, keepdims=True), anywhere, best)
        goes = observation.features[:, STATUS][:, :1] > 0
        return left, Categorical(logits=jnp.where(jnp.where(goes, best, stays), 0.0, -SURE))


@dataclasses.dataclass(frozen=True)
class PIBTExecutor:
    """Priority inheritance with backtracking (Okumura et al. 2022, doi 10.1016/j.artint.2022.103752, algorithm 1).

    Robots choose one after the other, who has waited longest for its goal first. One that wants a cell with a robot on
    it lends it its priority: that one has to make room first, and if it cannot, the next best cell is tried. It plans
    for all robots at once and knows the whole map, of which the parameters are the tables.

    For turning robots it plans cells in the same way, turns included in how far the goal is; a robot that does not face
    its cell turns towards it, and plans anew when it does. Who relied on that cell being left waits meanwhile.
    """

    motion: Motion = "cardinal"

    def init(self, num_agents: int) -> tuple[Int[Array, "num_agents"], Int[Array, "num_agents"]]:
        """Return since when robots are on their way, and to where."""
        nothing = jnp.zeros(num_agents, jnp.int32)
        return nothing, nothing - 1

    def apply(
        self, params: WarehouseParams, carry: tuple, observation: Observation, mask: Bool[Array, "num_agents"], key: Any
    ) -> tuple[tuple, Categorical]:
        """Return moves that no two robots hinder each other in, but for the time that turning takes."""
        size, features = jnp.array(params.number.shape), observation.features
        cell, target = (_cell(features[:, part] * size, params) for part in (PLACE, GOAL))
        has_goal = features[:, STATUS][:, 0] > 0
        since, before = carry
        since = jnp.where(has_goal & (target == before), since + 1, 0)
        rank = observation.role * 2**20 + since
        order = jnp.argsort(-rank, stable=True)
        # Of cells that are as near, one without a robot is better.
        there = occupants(cell, len(params.place))
        busy = there[params.neighbours[cell]] >= 0
        far, open_ = farther(observation), observation.action_mask
        if self.motion == "turning":
            far, open_ = _beside(cell, heading_of(observation), target, params)
        cost = jnp.where(has_goal[:, None], far, jnp.arange(5) > 0) + 0.5 * busy.at[:, 0].set(False)
        choices = jnp.argsort(jnp.where(open_, cost, jnp.inf), axis=1, stable=True)
        action = pibt(cell, there, order, choices, observation.acting, params.neighbours)
        if self.motion == "turning":
            action = towards(heading_of(observation), action)
        taken = jnp.arange(observation.action_mask.shape[1]) == action[:, None]
        return (since, target), Categorical(logits=jnp.where(taken, 0.0, -SURE))


def _cell(place: Float[Array, "num_agents 2"], params: WarehouseParams) -> Int[Array, "num_agents"]:
    row, column = jnp.round(place).astype(jnp.int32).T
    return params.number[row, column]


def _beside(
    cell: Int[Array, "num_agents"],
    heading: Int[Array, "num_agents"],
    target: Int[Array, "num_agents"],
    params: WarehouseParams,
) -> tuple[Float[Array, "num_agents 5"], Bool[Array, "num_agents 5"]]:
    """Return how much farther a turning robot's goal is by way of each cell beside, and which of these there are."""
    goals = jnp.arange(len(params.goal_cell))
    goal = jnp.zeros(len(params.place), jnp.int32).at[params.goal_cell].set(goals)[target]
    sides = jnp.broadcast_to(jnp.arange(HEADINGS), (len(cell), HEADINGS))
    faces, beside = jnp.concatenate([heading[:, None], sides], axis=1), params.neighbours[cell]
    turns = jnp.abs((faces - heading[:, None] + 2) % HEADINGS - 2)
    left = params.distance[goal[:, None], pose(beside, faces)].astype(jnp.float32) + turns
    return left - left[:, :1], (beside != cell[:, None]).at[:, 0].set(True)


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


EXECUTORS.add(
    "greedy",
    lambda env, params: (GreedyExecutor(WANDERS[env.motion]), None),
    "the shortest way to the goal; any other step where it is held up",
    "warehouse",
)
EXECUTORS.add(
    "pibt",
    lambda env, params: (PIBTExecutor(env.motion), params),
    "priority inheritance with backtracking, for all at once",
    "warehouse",
)
