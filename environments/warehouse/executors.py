"""Executors of ``warehouse``: two that see their window only, greedy and learned, and PIBT, which plans for all."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmas.distributions import Categorical
from jaxmas.environments.warehouse.grid import HEADINGS
from jaxmas.environments.warehouse.motion import Motion, pose, towards
from jaxmas.environments.warehouse.moves import occupants
from jaxmas.environments.warehouse.observe import GOAL, PLACE, STATUS, WAITED, farther, heading_of
from jaxmas.environments.warehouse.params import WarehouseParams
from jaxmas.environments.warehouse.pibt import pibt
from jaxmas.executors import MLPExecutor, read_frozen
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


def frozen_name(motion: Motion) -> str:
    """Return the name of the file that keeps the learned network of a motion."""
    return f"warehouse-v0-ippo-{motion}"


def _frozen(env: Any, params: Any) -> tuple[MLPExecutor, Any]:
    weights, metadata = read_frozen(frozen_name(env.motion))
    return MLPExecutor(env.num_actions, tuple(metadata["hidden"])), weights


EXECUTORS.add(
    "greedy",
    lambda env, params: (GreedyExecutor(WANDERS[env.motion]), None),
    "the shortest way to the goal; any other step where it is held up",
    "warehouse",
)
EXECUTORS.add("frozen-ippo", _frozen, "network trained by IPPO on its window, never trained again", "warehouse")
EXECUTORS.add(
    "pibt",
    lambda env, params: (PIBTExecutor(env.motion), params),
    "priority inheritance with backtracking, for all at once",
    "warehouse",
)
