"""What robots and the designer see: a window, the way to the goal, messages from those near; orders and robots."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmas.environments.warehouse.bits import bits, occupied, strips
from jaxmas.environments.warehouse.grid import HEADINGS
from jaxmas.environments.warehouse.messages import messages, said
from jaxmas.environments.warehouse.motion import Headings, leads, pose
from jaxmas.environments.warehouse.orders import Orders, carriers, next_goal
from jaxmas.environments.warehouse.params import FAR, WarehouseParams
from jaxmas.types import Observation, TeamObservation

AGE, LENGTH, CROWDS, WIDER = 5, 6, slice(7, 9), slice(9, 11)
"""The columns of order tokens that are their age, the way from their next stop to their last, how many robots are
beside these two, and how many are around them."""
BESIDE, AROUND, CROWD = 5, 10, 8.0
"""Moves within which a robot is beside a stop, and around it; the unit of their number."""
CELLS_PER_PAIR, MOST = 16, 2**22
"""Looking at so many cells costs no more than at one pair of a robot and an order; the most that are looked at."""
WINDOW = 3
"""Cells that a robot sees to each side."""
PLACE, GOAL, STATUS, WAITED, ACTIONS = slice(0, 2), slice(2, 4), slice(4, 7), 7, 9
"""Columns of what a robot sees: its row and column as shares of the map's, those of its goal (its own without one),
whether it has a goal, carries goods, and stands still, how long it has been held up. Column 8 is how far the goal is.
From ``ACTIONS`` on stand how much farther the goal is after each action, which are legal, and where the robot faces if
it has a heading; then come window and messages."""


def farther(seen: Observation) -> Float[Array, "num_agents actions"]:
    """Return how much farther the goal is after each action."""
    return seen.features[:, ACTIONS : ACTIONS + seen.action_mask.shape[1]]


def heading_of(seen: Observation) -> Int[Array, "num_agents"]:
    """Return where turning robots face."""
    first = ACTIONS + 2 * seen.action_mask.shape[1]
    return jnp.argmax(seen.features[:, first : first + HEADINGS], axis=1).astype(jnp.int32)


def distance(
    cell: Int[Array, "num_agents"], heading: Headings, goal: Int[Array, "num_agents"], params: WarehouseParams
) -> Float[Array, "num_agents"]:
    """Return how far the goal is; 0 without one."""
    left = params.distance[jnp.maximum(goal, 0), pose(cell, heading)].astype(jnp.float32)
    return jnp.where(goal >= 0, left, 0)


def ways(
    cell: Int[Array, "num_agents"], heading: Headings, goal: Int[Array, "num_agents"], params: WarehouseParams
) -> tuple[Float[Array, "num_agents"], Float[Array, "num_agents actions"]]:
    """Return how far the goal is, and how much farther it is after each action; without a goal all is zero."""
    here = jnp.maximum(goal, 0)
    # One look-up: staying is the first action.
    left = params.distance[here[:, None], pose(*leads(cell, heading, params.neighbours))].astype(jnp.float32)
    some = (goal >= 0)[:, None]
    return jnp.where(some[:, 0], left[:, 0], 0), jnp.where(some, left - left[:, :1], 0)


def observation(env, state, params: WarehouseParams) -> Observation:
    """Return what every robot sees."""
    cell, goal = state.cell, next_goal(state.orders, state.task)
    robots, place, shape = occupied(cell, params), params.place[cell], jnp.array(params.number.shape)
    far, change = ways(cell, state.heading, goal, params)
    target = params.place[jnp.where(goal >= 0, params.goal_cell[jnp.maximum(goal, 0)], cell)]
    carries, legal = carriers(state.orders, state.task), env.legal(state, params)
    status = jnp.stack([goal >= 0, carries, state.stopped > 0], axis=1)
    waits, far = jnp.minimum(state.waits, 8) / 8, jnp.minimum(far, 4 * FAR) / FAR
    own = [place / shape, target / shape, status, waits[:, None], far[:, None], change, legal]
    if state.heading is not None:
        own.append(state.heading[:, None] == jnp.arange(HEADINGS))
    window = jnp.concatenate([strips(words, place, WINDOW) for words in (params.walls, robots)], axis=1)
    says = said(target - place, carries, state)
    parts = [*own, bits(window, 2 * WINDOW + 1), messages(says, robots, state, params)]
    features = jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=1)
    acting = (state.stopped == 0) & ~env.is_over(state)
    return Observation(features, state.role, jnp.zeros_like(state.role), legal, acting)


def ahead(orders: Orders, params: WarehouseParams) -> Float[Array, "orders"]:
    """Return how far it is from the next stop of each order along all others to its last.

    At every stop turning robots are taken to face the way that they go.
    """
    here, there = orders.stops[:, :-1], orders.stops[:, 1:]
    headings = params.distance.shape[1] // len(params.place)
    poses = headings * params.goal_cell[jnp.maximum(here, 0)][:, :, None] + jnp.arange(headings)
    leg = jnp.min(params.distance[jnp.maximum(there, 0)[:, :, None], poses], axis=2).astype(jnp.float32)
    left = (there >= 0) & (jnp.arange(here.shape[1]) >= orders.reached[:, None])
    return jnp.sum(jnp.where(left, leg, 0), axis=1)


def crowds(
    here: Int[Array, "num_agents"], goal: Int[Array, "orders"], last: Int[Array, "orders"], params: WarehouseParams
) -> Float[Array, "orders 4"]:
    """Return how many robots are beside the next and the last stop of each order, and around them."""
    if params.distance.size <= min(MOST, CELLS_PER_PAIR * len(here) * len(goal)):
        # Of every goal by one product with where robots are, which all environments share but for that.
        robots = jnp.zeros(params.distance.shape[1]).at[here].add(1.0)
        near = [(params.distance <= reach).astype(jnp.float32) @ robots for reach in (BESIDE, AROUND)]
        return jnp.stack([each[stop] for each in near for stop in (goal, last)], axis=1) / CROWD
    far = [params.distance[stop, here[:, None]] for stop in (goal, last)]
    return jnp.stack([jnp.sum(each <= reach, axis=0) for reach in (BESIDE, AROUND) for each in far], axis=1) / CROWD


def team_observation(env, state, params: WarehouseParams) -> TeamObservation:
    """Return the open orders, the robots, and how far each robot is from the next stop of each order."""
    orders, shape = state.orders, jnp.array(params.number.shape)
    goal = orders.stops[jnp.arange(env.num_orders), orders.reached]
    last = orders.stops[jnp.arange(env.num_orders), jnp.sum(orders.stops >= 0, axis=1) - 1]
    age = jnp.minimum(state.step - orders.released, env.horizon) / env.horizon
    where = [params.place[params.goal_cell[which]] / shape for which in (goal, last)]
    length = ahead(orders, params) / FAR
    here = pose(state.cell, state.heading)
    far = params.distance[goal, here[:, None]].astype(jnp.float32)
    of_order = jnp.stack([orders.owner >= 0, age, length], axis=1)
    tokens = jnp.concatenate([*where, of_order, crowds(here, goal, last, params)], axis=1)
    carries = carriers(orders, state.task)
    robots = jnp.stack([state.task >= 0, carries, state.stopped > 0], axis=1)
    return TeamObservation(
        task_tokens=tokens.astype(jnp.float32),
        task_mask=orders.owner < 0,
        task_parents=jnp.zeros((env.num_orders, 0), jnp.int32),
        agent_tokens=jnp.concatenate([params.place[state.cell] / shape, robots], axis=1).astype(jnp.float32),
        agent_mask=~carries,
        pair_features=(far / FAR)[:, :, None],
        global_features=jnp.stack(
            [state.step / env.horizon, jnp.mean(carries), jnp.mean(state.task >= 0), jnp.mean(state.waits > 0)]
        ).astype(jnp.float32),
    )
