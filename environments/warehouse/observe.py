"""What robots and the designer see: a window, the way to the goal, messages from those near; orders and robots."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, UInt32

from jaxmas.environments.noise import hashed, uniform
from jaxmas.environments.warehouse.grid import HEADINGS
from jaxmas.environments.warehouse.motion import Headings, leads, pose
from jaxmas.environments.warehouse.orders import Orders, carriers, next_goal
from jaxmas.environments.warehouse.params import MARGIN, WORD, WarehouseParams
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
RADIO = MARGIN
"""Cells to which messages carry, as the crow flies."""
HEARD = 8
"""Messages that a robot takes in: those from the nearest."""
FAR = 16.0
"""The unit of distances in features."""
FIELDS = (
    (4, RADIO, RADIO),
    (4, RADIO, RADIO),
    (6, int(FAR), FAR),
    (6, int(FAR), FAR),
    (1, 0, 1),
    (1, 0, 1),
    (1, 0, 1),
    (1, 0, 1),
)
"""Of a message, by its bits on the air, their zero and their unit: from where it came, where its sender goes, two
numbers each; that it carries goods, stands still, has the right of way; that it came."""
MESSAGE = len(FIELDS)
"""Numbers of a message; they are the last of the features."""
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


def occupied(cell: Int[Array, "num_agents"], params: WarehouseParams) -> UInt32[Array, "padded_rows words"]:
    """Return where robots are, one bit a place."""
    row, column = (params.place[cell] + MARGIN).T
    bit = jnp.uint32(1) << (column % WORD).astype(jnp.uint32)
    return jnp.zeros_like(params.walls).at[row, column // WORD].add(bit)


def strips(
    words: UInt32[Array, "padded_rows words"], place: Int[Array, "num_agents 2"], reach: int
) -> UInt32[Array, "num_agents side"]:
    """Return the square of bits that reaches so far from each place, one word a row of it, west in the lowest bit."""
    side = 2 * reach + 1
    first = place + MARGIN - reach
    rows = first[:, :1] + jnp.arange(side)
    word, shift = first[:, 1:] // WORD, (first[:, 1:] % WORD).astype(jnp.uint32)
    low, high = words[rows, word], words[rows, word + 1]
    bits = (low >> shift) | jnp.where(shift > 0, high << (WORD - shift), 0)
    return bits & jnp.uint32(2**side - 1)


def spread(words: Integer[Array, "num_agents words"], count: int) -> Int[Array, "num_agents columns"]:
    """Return every word, of 24 bits at most, so many times side by side.

    By a product, which is exact: processors take five times as long to look up which word a column is of.
    """
    each = np.kron(np.eye(words.shape[1], dtype=np.float32), np.ones((1, count), np.float32))
    return jnp.dot(words.astype(jnp.float32), each, precision=jax.lax.Precision.HIGHEST).astype(jnp.int32)


def bits(words: UInt32[Array, "num_agents words"], count: int) -> Int[Array, "num_agents bits"]:
    """Return the lowest bits of every word, each by itself."""
    return (spread(words, count) >> np.tile(np.arange(count), words.shape[1])) & 1


@functools.cache
def disc() -> np.ndarray:
    """Return the places within radio range, but for the middle, nearest first ``[places, 2]``."""
    span = np.arange(-RADIO, RADIO + 1)
    places = np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1).reshape(-1, 2)
    far = (places**2).sum(axis=1)
    return places[np.argsort(far, kind="stable")][1 : int((far <= RADIO**2).sum())]


def in_reach(robots: UInt32[Array, "num_agents side"]) -> list[UInt32[Array, "num_agents"]]:
    """Return which places of the ``disc`` have a robot, one bit a place, nearest first."""
    found = []
    for start in range(0, len(disc()), WORD):
        bits = [
            ((robots[:, row] >> jnp.uint32(column)) & 1) << jnp.uint32(at)
            for at, (row, column) in enumerate(disc()[start : start + WORD] + RADIO)
        ]
        found.append(functools.reduce(jnp.bitwise_or, bits))
    return found


def first_set(words: list[UInt32[Array, "num_agents"]], count: int) -> Int[Array, "num_agents count"]:
    """Return the numbers of the lowest bits that are set, and that of the bit behind the last for those that lack."""

    def lowest(words, _):
        at, rest, sought = jnp.full(words[0].shape, WORD * len(words), jnp.int32), [], True
        for number, word in enumerate(words):
            here = sought & (word > 0)
            behind = jnp.bitwise_count((word & -word) - 1).astype(jnp.int32)
            at = jnp.where(here, WORD * number + behind, at)
            rest.append(jnp.where(here, word & (word - 1), word))
            sought = sought & (word == 0)
        return rest, at

    return jax.lax.scan(lowest, words, None, length=count)[1].T


def nearest(
    cell: Int[Array, "num_agents"], robots: UInt32[Array, "padded_rows words"], there: Int[Array, "cells"], params
) -> tuple[Int[Array, "num_agents heard"], Int[Array, "num_agents heard"]]:
    """Return the nearest robots in radio range, -1 where there are fewer, and where in the ``disc`` they are."""
    place = params.place[cell]
    at = first_set(in_reach(strips(robots, place, RADIO)), HEARD)
    known = at < len(disc())
    at = jnp.where(known, at, 0)
    row, column = jnp.moveaxis(place[:, None, :] + jnp.asarray(disc(), jnp.int32)[at], -1, 0)
    return jnp.where(known, there[params.number[row, column]], -1), at


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
    towards = jnp.clip(target - place, -int(FAR), int(FAR))
    says = packed([*towards.T, carries, state.stopped > 0, state.role == 1, 1], first=2)
    parts = [*own, bits(window, 2 * WINDOW + 1), messages(says, robots, state, params)]
    features = jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=1)
    acting = (state.stopped == 0) & ~env.is_over(state)
    return Observation(features, state.role, jnp.zeros_like(state.role), legal, acting)


def packed(fields: Sequence[Any], first: int = 0) -> Any:
    """Return fields of a message ``[*s]`` side by side in one word ``[*s]``: those from the ``first`` on."""
    shifts = np.cumsum([0, *(width for width, _, _ in FIELDS)])
    words = [(field + FIELDS[at][1]) << int(shifts[at]) for at, field in enumerate(fields, first)]
    return functools.reduce(operator.or_, words)


def unpacked(words: Int[Array, "num_agents heard"]) -> Float[Array, "num_agents messages"]:
    """Return the numbers of every message; zeros where a word is 0."""
    width, zero, unit = np.tile(np.array(FIELDS, np.int32), (words.shape[1], 1)).T
    shift = np.tile(np.cumsum(width[:MESSAGE]) - width[:MESSAGE], words.shape[1])
    word = spread(words, MESSAGE)
    field = (word >> shift) & ((1 << width) - 1)
    return jnp.where(word > 0, (field - zero).astype(jnp.float32) / unit, 0)


def messages(
    says: Int[Array, "num_agents"], robots: UInt32[Array, "padded_rows words"], state, params: WarehouseParams
) -> Float[Array, "num_agents messages"]:
    """Return where those are that robots hear, what they say, and that it came; zeros for a message that was lost."""
    senders, at = nearest(state.cell, robots, state.there, params)
    lost = uniform(hashed(state.noise, state.step, senders, jnp.arange(len(says))[:, None])) < params.message_loss
    away = jnp.asarray(packed(list(disc().T)), jnp.int32)[at]
    return unpacked(jnp.where((senders >= 0) & ~lost, away | says[senders], 0))


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
