"""Grids: where robots may go, which cells are goals, and how far every goal is from every cell.

A grid is drawn by a generator, or read from a MovingAI ``.map`` file (Sturtevant 2012, "Benchmarks for grid-based
pathfinding"). Only free cells have a number; they are counted row by row. All of this is done once per map, by numpy.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt16

from jaxmas.errors import JaxmasError, refuse

STAY, NORTH, EAST, SOUTH, WEST = range(5)
MOVES = ((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))
"""Change of row and column of each move."""
FREE, BLOCKED = ".GSE", "@OTW"
"""What cells are in a map file: ground of several kinds, and what stands in the way."""
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
    def neighbours(self) -> Int[np.ndarray, "cells 5"]:
        """Return where each move leads from every free cell: to the cell itself where something stands in the way."""
        padded = np.pad(self.number, 1, constant_values=-1)
        rows, columns = self.places.T + 1
        led = np.stack([padded[rows + down, columns + right] for down, right in MOVES], axis=1)
        return np.where(led < 0, led[:, :1], led)


def distances(grid: Grid, goals: Int[np.ndarray, "goals"], chunk: int = 64) -> UInt16[np.ndarray, "goals cells"]:
    """Return the moves from every free cell to every goal, ``UNREACHABLE`` where there is no way.

    All goals of a chunk at once sweep over the map, along rows and columns and back, until nothing changes: a map has
    far fewer turns in its shortest ways than moves.
    """
    size = len(goals) * grid.num_cells * 2
    refuse(
        size > MOST_BYTES,
        f"the distances of {len(goals)} goals on {grid.name} take {size / 2**30:.1f} GB; choose fewer goals",
    )
    found = np.empty((len(goals), grid.num_cells), np.uint16)
    for start in range(0, len(goals), chunk):
        places = grid.places[goals[start : start + chunk]]
        field = np.full((len(places), *grid.free.shape), UNREACHABLE, np.int32)
        field[np.arange(len(places)), places[:, 0], places[:, 1]] = 0
        while True:
            before = field.copy()
            for axis in (1, 2):
                for reverse in (False, True):
                    field = _swept(field, grid.free, axis, reverse)
            if np.array_equal(field, before):
                break
        found[start : start + chunk] = np.minimum(field, UNREACHABLE)[:, grid.free]
    return found


def _swept(field: np.ndarray, free: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    """Return the field after moves in one direction: min over the cells behind of their value plus the way from them.

    A cell in the way begins a new stretch; every stretch is far below those before it, so that the running minimum
    forgets them.
    """
    if reverse:
        return np.flip(_swept(np.flip(field, axis), np.flip(free, axis - 1), axis, False), axis)
    along = np.arange(field.shape[axis]).reshape((-1, 1) if axis == 1 else (1, -1))
    stretch = np.cumsum(~free, axis=axis - 1) * (UNREACHABLE + 2 * max(free.shape))
    level = along + stretch
    lowest = np.minimum.accumulate(field - level, axis=axis) + level
    return np.where(free, np.minimum(lowest, UNREACHABLE), UNREACHABLE).astype(np.int32)


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
