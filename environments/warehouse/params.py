"""The numbers of a warehouse: its map as tables, its orders, and what goes wrong."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt16, UInt32

from jaxmas.environments.warehouse.grid import Grid, distances
from jaxmas.environments.warehouse.motion import Motion
from jaxmas.environments.warehouse.problem import Problem
from jaxmas.pytrees import pytree

FAR = 16.0
"""The unit of distances in features."""
MARGIN = 5
"""Cells around the map that count as blocked, so that windows of up to so many cells to each side fit."""
WORD = 32


@pytree
class WarehouseParams:
    """A map and its orders; goals are counted apart from cells, as distances are known from goals only."""

    neighbours: Int[Array, "cells 5"]
    place: Int[Array, "cells 2"]
    """Row and column."""
    number: Int[Array, "rows columns"]
    """The cell at every place; -1 is none."""
    walls: UInt32[Array, "padded_rows words"]
    """What is blocked, one bit a place, ``MARGIN`` places around included."""
    goal_cell: Int[Array, "goals"]
    distance: UInt16[Array, "goals poses"]
    """Moves from every cell, or moves and turns from every heading of it; ``motion.pose`` counts them."""
    pickups: Int[Array, "pickups"]
    stations: Int[Array, "stations"]
    """Goals."""
    listed: Int[Array, "listed stops"]
    """Orders in the order in which they come, as goals; drawn from pick-ups and stations where there are none."""
    starts: Int[Array, "starts"]
    """Cells where robots start; drawn where there are none."""
    stop_chance: Float[Array, ""]
    """Chance at each step that a robot stops for a while."""
    stop_shortest: Int[Array, ""]
    stop_longest: Int[Array, ""]
    stop_gaussian: Float[Array, "2"] | None
    """Mean and deviation of the steps, as shares of that range; None draws them all alike."""
    message_loss: Float[Array, ""]
    delivery: Float[Array, ""]
    """Reward of an order, divided among the robots."""


def tables(grid: Grid, goals: Int[np.ndarray, "goals"], motion: Motion = "cardinal") -> dict[str, Array]:
    """Return what the map is, as tables."""
    padded = np.pad(~grid.free, MARGIN, constant_values=True)
    # One word more than the places fill: a window may begin in the last of them.
    words = padded.shape[1] // WORD + 2
    bits = np.zeros((padded.shape[0], words * WORD), np.uint32)
    bits[:, : padded.shape[1]] = padded
    walls = np.sum(bits.reshape(len(bits), words, WORD) << np.arange(WORD, dtype=np.uint32), axis=2, dtype=np.uint32)
    return {
        "neighbours": jnp.array(grid.neighbours, jnp.int32),
        "place": jnp.array(grid.places, jnp.int32),
        "number": jnp.array(grid.number, jnp.int32),
        "walls": jnp.array(walls),
        "goal_cell": jnp.array(goals, jnp.int32),
        "distance": jnp.array(distances(grid, goals, turning=motion == "turning")),
    }


def warehouse_params(grid: Grid, *, most_goals: int = 512, motion: Motion = "cardinal") -> WarehouseParams:
    """Return the numbers of a warehouse whose orders lead from a pick-up to a station."""
    pickups, stations = (places[:: -(-len(places) // most_goals)] for places in (grid.pickups, grid.stations))
    goals = np.concatenate([pickups, stations])
    f = jnp.float32
    return WarehouseParams(
        **tables(grid, goals, motion),
        pickups=jnp.arange(len(pickups), dtype=jnp.int32),
        stations=jnp.arange(len(pickups), len(goals), dtype=jnp.int32),
        listed=jnp.zeros((0, 2), jnp.int32),
        starts=jnp.zeros(0, jnp.int32),
        stop_chance=f(0.002), stop_shortest=jnp.int32(4), stop_longest=jnp.int32(12), stop_gaussian=None,
        message_loss=f(0.1), delivery=f(1.0),
    )  # fmt: skip


def problem_params(problem: Problem) -> WarehouseParams:
    """Return the numbers of a problem: turning robots, the listed orders, and delays; messages are not lost."""
    goals = np.unique(problem.stops[problem.stops >= 0])
    listed = np.where(problem.stops >= 0, np.searchsorted(goals, problem.stops), -1)
    delays, nowhere, f = problem.delays, jnp.zeros(0, jnp.int32), jnp.float32
    return WarehouseParams(
        **tables(problem.grid, goals, "turning"),
        pickups=nowhere,
        stations=nowhere,
        listed=jnp.array(listed, jnp.int32),
        starts=jnp.array(problem.starts, jnp.int32),
        stop_chance=f(delays.chance),
        stop_shortest=jnp.int32(delays.shortest),
        stop_longest=jnp.int32(delays.longest),
        stop_gaussian=None if delays.gaussian is None else f(delays.gaussian),
        message_loss=f(0.0),
        delivery=f(1.0),
    )
