"""Orders: where they lead, who serves them, and what is done with those that are delivered."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from jaxmas.environments.noise import hashed
from jaxmas.environments.warehouse.params import WarehouseParams
from jaxmas.pytrees import pytree


@pytree
class Orders:
    """The open orders; one that is delivered gives its place to a new one."""

    stops: Int[Array, "orders stops"]
    """Goals, in order; -1 behind the last."""
    reached: Int[Array, "orders"]
    """How many of its stops are behind it."""
    owner: Int[Array, "orders"]
    """The robot that has taken it up at its first stop; -1 is none."""
    released: Int[Array, "orders"]
    """The step at which it came."""
    count: Int[Array, ""]
    """How many orders have come so far."""


def drawn(
    seed: UInt32[Array, ""], numbers: Int[Array, "orders"], params: WarehouseParams
) -> Int[Array, "orders stops"]:
    """Return the stops of the orders that come as these numbers: the listed ones, over and over, or drawn ones."""
    if len(params.listed):
        return params.listed[numbers % len(params.listed)]

    def one(places: Int[Array, "places"], which: int) -> Int[Array, "orders"]:
        return places[hashed(seed, numbers, which) % jnp.uint32(len(places))]

    return jnp.stack([one(params.pickups, 0), one(params.stations, 1)], axis=1)


def opened(seed: UInt32[Array, ""], num_orders: int, params: WarehouseParams) -> Orders:
    """Return the orders that are there at the start."""
    numbers = jnp.arange(num_orders, dtype=jnp.int32)
    nothing = jnp.zeros(num_orders, jnp.int32)
    return Orders(drawn(seed, numbers, params), nothing, nothing - 1, nothing, jnp.int32(num_orders))


def next_goal(orders: Orders, task: Int[Array, "num_agents"]) -> Int[Array, "num_agents"]:
    """Return the goal that each robot is on its way to; -1 without an order."""
    order = jnp.maximum(task, 0)
    return jnp.where(task >= 0, orders.stops[order, orders.reached[order]], -1)


def carriers(orders: Orders, task: Int[Array, "num_agents"]) -> Bool[Array, "num_agents"]:
    """Return which robots have taken up the order that they serve."""
    return (task >= 0) & (orders.owner[jnp.maximum(task, 0)] == jnp.arange(len(task)))


def assigned(
    orders: Orders, task: Int[Array, "num_agents"], wished: Int[Array, "num_agents"]
) -> Int[Array, "num_agents"]:
    """Return whom robots serve after a plan: who has taken up an order keeps it, and it is nobody else's."""
    free = (wished >= 0) & (orders.owner[jnp.maximum(wished, 0)] < 0)
    return jnp.where(carriers(orders, task), task, jnp.where(free, wished, -1))


def served(
    orders: Orders,
    task: Int[Array, "num_agents"],
    arrived: Bool[Array, "num_agents"],
    step: Int[Array, ""],
    seed: UInt32[Array, ""],
    params: WarehouseParams,
) -> tuple[Orders, Int[Array, "num_agents"], Bool[Array, "orders"]]:
    """Return orders and tasks after robots have arrived at their goals, and which orders are delivered.

    One robot at most stands on a goal, so that no two take up one order.
    """
    slots, size = jnp.arange(len(task)), len(orders.owner)
    place = jnp.where(arrived, task, size)
    reached = orders.reached.at[place].add(1, mode="drop")
    owner = orders.owner.at[place].set(slots, mode="drop")
    following = jnp.take_along_axis(
        jnp.pad(orders.stops, ((0, 0), (0, 1)), constant_values=-1), reached[:, None], axis=1
    )[:, 0]
    delivered = following < 0
    fresh = orders.count + jnp.cumsum(delivered) - 1
    orders = Orders(
        stops=jnp.where(delivered[:, None], drawn(seed, fresh, params), orders.stops),
        reached=jnp.where(delivered, 0, reached),
        owner=jnp.where(delivered, -1, owner),
        released=jnp.where(delivered, step, orders.released),
        count=orders.count + jnp.sum(delivered),
    )
    order = jnp.maximum(task, 0)
    others = (orders.owner[order] >= 0) & (orders.owner[order] != slots)
    return orders, jnp.where(delivered[order] | others, -1, task), delivered
