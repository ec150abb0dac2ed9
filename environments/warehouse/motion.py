"""Motion: what a robot can do in a step, and where that leads it.

Cardinal robots stay, or go north, east, south or west. Turning robots wait, go forward, or turn left or right on the
spot, as in the League of Robot Runners; they alone have a heading. All else reads no more of a motion than where each
action leads.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxmas.environments.warehouse.grid import EAST, HEADINGS

Motion = Literal["cardinal", "turning"]
ACTIONS: dict[Motion, tuple[str, ...]] = {
    "cardinal": ("stay", "north", "east", "south", "west"),
    "turning": ("wait", "forward", "left", "right"),
}
WAIT, FORWARD, LEFT, RIGHT = range(4)
TURNS = (0, 0, -1, 1)
"""Change of heading by each action of a turning robot."""

Headings = Int[Array, "num_agents"] | None
"""One per robot, counted as ``HEADINGS``; None where robots have none."""


def facing(motion: Motion, num_agents: int) -> Headings:
    """Return the headings at the start: to the east, as in the League of Robot Runners."""
    return jnp.full(num_agents, EAST - 1, jnp.int32) if motion == "turning" else None


def leads(
    cell: Int[Array, "num_agents"], heading: Headings, neighbours: Int[Array, "cells 5"]
) -> tuple[Int[Array, "num_agents actions"], Int[Array, "num_agents actions"] | None]:
    """Return the cell, and the heading, that each action leads to as long as no robot is in the way."""
    beside = neighbours[cell]
    if heading is None:
        return beside, None
    ahead = jnp.take_along_axis(beside, heading[:, None] + 1, axis=1)[:, 0]
    return jnp.stack([cell, ahead, cell, cell], axis=1), (heading[:, None] + jnp.array(TURNS)) % HEADINGS


def pose(cell: Int[Array, "*s"], heading: Int[Array, "*s"] | None) -> Int[Array, "*s"]:
    """Return what distances are known from: the cell, and for turning robots the heading."""
    return cell if heading is None else HEADINGS * cell + heading


def legal(
    cell: Int[Array, "num_agents"], heading: Headings, neighbours: Int[Array, "cells 5"]
) -> Bool[Array, "num_agents actions"]:
    """Return which actions lead somewhere; the first one, to stay, is always legal."""
    cells, headings = leads(cell, heading, neighbours)
    elsewhere = cells != cell[:, None]
    if heading is not None:
        elsewhere = elsewhere | (headings != heading[:, None])
    return elsewhere.at[:, WAIT].set(True)


def towards(heading: Int[Array, "num_agents"], move: Int[Array, "num_agents"]) -> Int[Array, "num_agents"]:
    """Return the turning robot's action that begins a cardinal move: forward where it faces that way, else a turn."""
    turn = (move - 1 - heading) % HEADINGS
    return jnp.where(move == 0, WAIT, jnp.array([FORWARD, RIGHT, RIGHT, LEFT])[turn])
