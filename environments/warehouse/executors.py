"""Executors of ``warehouse``: the greedy one, which sees its window only, and PIBT, which plans for all at once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmas.distributions import Categorical
from jaxmas.environments.warehouse.moves import occupants
from jaxmas.environments.warehouse.observe import FARTHER, GOAL, PLACE, STATUS
from jaxmas.environments.warehouse.params import WarehouseParams
from jaxmas.registry import EXECUTORS
from jaxmas.types import Observation

SURE = 1e4
"""The logit of the action that is taken."""


@dataclasses.dataclass(frozen=True)
class GreedyExecutor:
    """Goes where the goal is nearer, whoever is there; one of two ways that are as good by chance."""

    def init(self, num_agents: int) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: Any, carry: tuple, observation: Observation, mask: Bool[Array, "num_agents"], key: Any
    ) -> tuple[tuple, Categorical]:
        """Return the moves that bring the robot nearest; without a goal it stays."""
        farther = observation.features[:, FARTHER]
        legal = jnp.where(observation.action_mask, farther, jnp.inf)
        best = legal <= jnp.min(legal, axis=1, keepdims=True)
        goes = observation.features[:, STATUS][:, :1] > 0
        best = jnp.where(goes, best, jnp.arange(best.shape[1]) == 0)
        return carry, Categorical(logits=jnp.where(best, 0.0, -SURE))


@dataclasses.dataclass(frozen=True)
class PIBTExecutor:
    """Priority inheritance with backtracking (Okumura et al. 2022, doi 10.1016/j.artint.2022.103752, algorithm 1).

    Robots choose one after the other, who has waited longest for its goal first. One that wants a cell with a robot on
    it lends it its priority: that one has to make room first, and if it cannot, the next best cell is tried. It plans
    for all robots at once and knows the whole map, of which the parameters are the tables.
    """

    def init(self, num_agents: int) -> tuple[Int[Array, "num_agents"], Int[Array, "num_agents"]]:
        """Return since when robots are on their way, and to where."""
        nothing = jnp.zeros(num_agents, jnp.int32)
        return nothing, nothing - 1

    def apply(
        self, params: WarehouseParams, carry: tuple, observation: Observation, mask: Bool[Array, "num_agents"], key: Any
    ) -> tuple[tuple, Categorical]:
        """Return moves that no two robots hinder each other in."""
        size, features = jnp.array(params.number.shape), observation.features
        cell, target = (_cell(features[:, part] * size, params) for part in (PLACE, GOAL))
        has_goal = features[:, STATUS][:, 0] > 0
        since, before = carry
        since = jnp.where(has_goal & (target == before), since + 1, 0)
        farther = features[:, FARTHER]
        rank = observation.role * 2**20 + since
        order = jnp.argsort(-rank, stable=True)
        # Of cells that are as near, one without a robot is better.
        there = occupants(cell, len(params.place))
        busy = there[params.neighbours[cell]] >= 0
        cost = jnp.where(has_goal[:, None], farther, jnp.arange(5) > 0) + 0.5 * busy.at[:, 0].set(False)
        choices = jnp.argsort(jnp.where(observation.action_mask, cost, jnp.inf), axis=1, stable=True)
        action = pibt(cell, there, order, choices, observation.acting, params.neighbours)
        taken = jnp.arange(5) == action[:, None]
        return (since, target), Categorical(logits=jnp.where(taken, 0.0, -SURE))


def _cell(place: Float[Array, "num_agents 2"], params: WarehouseParams) -> Int[Array, "num_agents"]:
    row, column = jnp.round(place).astype(jnp.int32).T
    return params.number[row, column]


def pibt(
    cell: Int[Array, "num_agents"],
    there: Int[Array, "cells"],
    order: Int[Array, "num_agents"],
    choices: Int[Array, "num_agents 5"],
    movable: Bool[Array, "num_agents"],
    neighbours: Int[Array, "cells 5"],
) -> Int[Array, "num_agents"]:
    """Return everyone's move.

    ``there`` is ``occupants``, ``order`` who chooses first, ``choices`` each robot's moves from best to worst.

    Illegal moves lead to the cell itself. The recursion is a stack: success at its top is success all the way down.
    """
    agents, cells = len(cell), len(neighbours)
    choices = jnp.where(movable[:, None], choices, 0)
    move = jnp.full(agents, -1, jnp.int32)
    taken = jnp.zeros(cells, bool).at[jnp.where(movable, cells, cell)].set(True, mode="drop")
    move = jnp.where(movable, move, 0)
    start = move, taken, jnp.zeros(agents, jnp.int32), jnp.zeros(agents, jnp.int32), jnp.int32(0), jnp.int32(0)

    def unfinished(carry):
        _, _, _, _, depth, turn = carry
        return (depth > 0) | (turn < agents)

    def choose(carry):
        move, taken, tried, stack, depth, turn = carry
        fresh = depth == 0
        first = order[jnp.minimum(turn, agents - 1)]
        begins = fresh & (turn < agents) & (move[first] < 0)
        stack = stack.at[0].set(jnp.where(begins, first, stack[0]))
        depth = jnp.where(begins, 1, depth)
        turn = turn + fresh
        works = depth > 0
        robot = stack[jnp.maximum(depth - 1, 0)]
        spent = tried[robot] >= 5
        want = jnp.where(spent, 0, choices[robot, jnp.minimum(tried[robot], 4)])
        goal, here = neighbours[cell[robot], want], cell[robot]
        other = there[goal]
        passes = (other >= 0) & (other != robot) & (move[other] >= 0) & (neighbours[goal, move[other]] == here)
        free = ~taken[goal] & ~passes
        sets = works & (spent | free)
        move = move.at[jnp.where(sets, robot, agents)].set(want, mode="drop")
        taken = taken.at[jnp.where(sets, goal, cells)].set(True, mode="drop")
        tried = tried.at[jnp.where(works, robot, agents)].add(1, mode="drop")
        lends = works & ~spent & free & (other >= 0) & (other != robot) & (move[other] < 0)
        stack = stack.at[jnp.where(lends, depth, agents)].set(other, mode="drop")
        after = jnp.where(spent, depth - 1, jnp.where(lends, depth + 1, jnp.where(free, 0, depth)))
        return move, taken, tried, stack, jnp.where(works, after, depth), turn

    return jax.lax.while_loop(unfinished, choose, start)[0]


EXECUTORS.add(
    "greedy",
    lambda env, params: (GreedyExecutor(), None),
    "the shortest way to the goal, whoever is on it",
    "warehouse",
)
EXECUTORS.add(
    "pibt", lambda env, params: (PIBTExecutor(), params), "priority inheritance with backtracking, for all at once",
    "warehouse",
)  # fmt: skip
