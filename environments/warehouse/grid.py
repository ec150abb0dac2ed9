"""Grids: where robots may go, which cells are goals, and how far every goal is from every cell.

A grid is drawn by a generator, or read from a MovingAI ``.map`` file (Sturtevant 2012, "Benchmarks for grid-based
pathfinding"). Only free cells have a number; they are counted row by row. All of this is done once per map, by numpy
and scipy.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt16
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from jaxmas.errors import JaxmasError, refuse

STAY, NORTH, EAST, SOUTH, WEST = range(5)
MOVES = ((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))
"""Change of row and column of each move."""
FREE, BLOCKED = ".GSE", "@OTW"
"""What cells are in a map file: ground of several kinds, and what stands in the way."""
HEADINGS = 4
"""North, east, south and west, as the moves: heading h is that of move h + 1."""
UNREACHABLE = np.iinfo(np.uint16).max
MOST_BYTES = 2**30
"""Distances that would take more memory are refused."""


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """A map; ``free`` says where robots may go."""

    name: str
    free: Bool[np.ndarray, "rows columns"]
    pickups: Int[np.ndarray, "pickups"]
    """Free cells, by number, where goods are taken up."""
    stations: Int[np.ndarray, "stations"]
    """Free cells where goods are delivered."""

    @functools.cached_property
    def num_cells(self) -> int:
        """Return the number of free cells."""
        return int(self.free.sum())

    @functools.cached_property
    def number(self) -> Int[np.ndarray, "rows columns"]:
        """Return the number of every cell, -1 where nobody can be."""
        return np.where(self.free, np.cumsum(self.free).reshape(self.free.shape) - 1, -1)

    @functools.cached_property
    def places(self) -> Int[np.ndarray, "cells 2"]:
        """Return row and column of every free cell."""
        return np.argwhere(self.free)

    @functools.cached_property
    def part(self) -> Int[np.ndarray, "cells"]:
        """Return which part of the map every free cell belongs to: there is no way from one to another."""
        return connected_components(_back(self), directed=False)[1]

    @functools.cached_property
    def neighbours(self) -> Int[np.ndarray, "cells 5"]:
        """Return where each move leads from every free cell: to the cell itself where something stands in the way."""
        padded = np.pad(self.number, 1, constant_values=-1)
        rows, columns = self.places.T + 1
        led = np.stack([padded[rows + down, columns + right] for down, right in MOVES], axis=1)
        return np.where(led < 0, led[:, :1], led)


def distances(
    grid: Grid, goals: Int[np.ndarray, "goals"], *, turning: bool = False
) -> UInt16[np.ndarray, "goals poses"]:
    """Return the moves from every free cell to every goal, ``UNREACHABLE`` where there is no way.

    With ``turning`` they are moves and turns, from each heading of a cell: pose ``HEADINGS · cell + heading``.
    """
    poses = grid.num_cells * (HEADINGS if turning else 1)
    size = len(goals) * poses * 2
    refuse(
        size > MOST_BYTES,
        f"the distances of {len(goals)} goals on {grid.name} take {size / 2**30:.1f} GB; choose fewer goals",
    )
    found = np.full((len(goals), poses), UNREACHABLE, np.uint16)
    back = _back_with_turns(grid) if turning else _back(grid)
    for row, goal in zip(found, goals, strict=True):
        order, before = breadth_first_order(back, poses + goal if turning else goal)
        far = _depths(order, before)
        # With turns the goal itself, in whatever heading, is one step before its poses.
        order, far = (order[1:], far[1:] - 1) if turning else (order, far)
        row[order] = np.minimum(far, UNREACHABLE)
    return found


def _back(grid: Grid) -> csr_array:
    """Return the graph of moves back: as those there."""
    there = np.repeat(np.arange(grid.num_cells), len(MOVES) - 1)
    return _graph(there, grid.neighbours[:, 1:].ravel(), grid.num_cells)


def _back_with_turns(grid: Grid) -> csr_array:
    """Return the graph of moves and turns back, from pose to pose; a node more per cell leads to all of its poses."""
    cells = np.arange(grid.num_cells)[:, None]
    pose = HEADINGS * cells + np.arange(HEADINGS)
    ahead = HEADINGS * grid.neighbours[:, 1:] + np.arange(HEADINGS)
    ways = [(ahead, pose), (pose, np.roll(pose, 1, axis=1)), (pose, np.roll(pose, -1, axis=1))]
    ways.append((np.broadcast_to(pose.size + cells, pose.shape), pose))
    first, then = (np.concatenate([side.ravel() for side in sides]) for sides in zip(*ways, strict=True))
    return _graph(first, then, pose.size + len(cells))


def _graph(first: np.ndarray, then: np.ndarray, nodes: int) -> csr_array:
    """Return a graph without the ways that lead from a node to itself."""
    apart = first != then
    return csr_array((np.ones(apart.sum()), (first[apart], then[apart])), shape=(nodes, nodes))


def _depths(order: Int[np.ndarray, "reached"], before: Int[np.ndarray, "nodes"]) -> Int[np.ndarray, "reached"]:
    """Return how many ways lead to each node of a breadth-first order; ``before`` is the node that it was found from.

    In that order those before do not decrease, so that every depth is one stretch of it.
    """
    place = np.empty(len(before), np.int64)
    place[order] = np.arange(len(order))
    found_from = place[before[order[1:]]]
    ends = [0, 1]
    while ends[-1] < len(order):
        ends.append(1 + int(np.searchsorted(found_from, ends[-1])))
    return np.repeat(np.arange(len(ends) - 1), np.diff(ends))


def generated(blocks: tuple[int, int], block: tuple[int, int] = (2, 5), stations: int = 8) -> Grid:
    """Return a warehouse of shelves, ``blocks`` down and across, each of ``block`` cells, with aisles of one cell.

    Goods are taken up in the aisles beside shelves. Stations stand in two columns at either side, spread evenly; an
    aisle of two cells goes around everything, so that the floor is biconnected.
    """
    (down, across), (height, width) = blocks, block
    refuse(
        min(*blocks, *block) < 1, f"shelves are {blocks} blocks of {block} cells; all of these have to be at least 1"
    )
    rows, columns = down * (height + 1) + 3, across * (width + 1) + 7
    free = np.ones((rows, columns), bool)
    for top in range(2, 2 + down * (height + 1), height + 1):
        for left in range(4, 4 + across * (width + 1), width + 1):
            free[top : top + height, left : left + width] = False
    refuse(not 1 <= stations <= 2 * rows, f"stations is {stations}; this floor has room for 1 to {2 * rows}")
    grid = Grid("generated", free, np.zeros(0, int), np.zeros(0, int))
    shelf = np.pad(~free, 1)
    beside = shelf[:-2, 1:-1] | shelf[2:, 1:-1]
    west, east = (np.linspace(0, rows - 1, count).round().astype(int) for count in ((stations + 1) // 2, stations // 2))
    number = grid.number
    at = np.concatenate([number[west, 0], number[east, columns - 1]])
    return dataclasses.replace(grid, pickups=number[free & beside], stations=at)


def scattered(rows: int = 32, columns: int = 32, share: float = 0.1) -> Grid:
    """Return open ground with blocked cells scattered over it, always the same ones; all that is reached is free."""
    free = np.random.default_rng(0).random((rows, columns)) >= share
    return connected(Grid("scattered", free, np.zeros(0, int), np.zeros(0, int)))


def connected(grid: Grid) -> Grid:
    """Return the largest part of a map from any cell of which any other is reached; all of it may be a goal."""
    free = grid.free.copy()
    free[free] = grid.part == np.argmax(np.bincount(grid.part))
    every = np.arange(int(free.sum()))
    return Grid(grid.name, free, every, every)


def read_map(file: Path) -> Grid:
    """Return the grid of a MovingAI map; all of its free cells may be pick-ups and stations."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JaxmasError(f"{file} cannot be read as a map: {error}") from None
    head = [line.split() for line in lines[:4]]
    sizes = {words[0]: words[1] for words in head if len(words) == 2}
    shaped = all(sizes.get(name, "").isdigit() for name in ("height", "width")) and lines[3].strip() == "map"
    refuse(not shaped, f"{file} is no MovingAI map: it has to begin with the lines type, height, width and map")
    height, width = int(sizes["height"]), int(sizes["width"])
    rows = lines[4 : 4 + height]
    ragged = [place for place, row in enumerate(rows) if len(row) != width]
    refuse(len(rows) < height, f"{file} has {len(rows)} rows; its head says {height}")
    refuse(bool(ragged), f"{file}: line {5 + (ragged or [0])[0]} does not have {width} cells")
    cells = np.array([list(row) for row in rows])
    strange = sorted(set(cells.ravel()) - set(FREE + BLOCKED))
    refuse(bool(strange), f"{file} has cells of an unknown kind: {' '.join(strange)}; known: {FREE} and {BLOCKED}")
    free = np.isin(cells, list(FREE))
    refuse(not free.any(), f"{file} has no free cell")
    every = np.arange(int(free.sum()))
    return Grid(file.stem, free, every, every)
