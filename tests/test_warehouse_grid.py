"""Grids: generated and read, and how far their cells are apart."""

import collections
from pathlib import Path

import numpy as np
import pytest

from jaxmas.environments.warehouse.grid import MOVES, UNREACHABLE, Grid, distances, generated, read_map
from jaxmas.errors import JaxmasError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "lorr"


def drawn(*rows: str) -> Grid:
    free = np.array([[cell == "." for cell in row] for row in rows])
    every = np.arange(int(free.sum()))
    return Grid("drawn", free, every, every)


def by_breadth(grid: Grid, goal: int) -> list[int]:
    """Return distances by the textbook's breadth-first search."""
    far, waiting = {goal: 0}, collections.deque([goal])
    while waiting:
        cell = waiting.popleft()
        for other in grid.neighbours[cell].tolist():
            if other not in far:
                far[other] = far[cell] + 1
                waiting.append(other)
    return [far.get(cell, UNREACHABLE) for cell in range(grid.num_cells)]


def test_neighbours_by_hand() -> None:
    """Cells 0 1 / # 2: north, east, south and west of 1 are itself, itself, 2 and 0."""
    grid = drawn("..", "@.")
    assert grid.neighbours.tolist() == [[0, 0, 1, 0, 0], [1, 1, 1, 2, 0], [2, 1, 2, 2, 2]]
    assert grid.places.tolist() == [[0, 0], [0, 1], [1, 1]] and grid.number.tolist() == [[0, 1], [-1, 2]]
    assert len(MOVES) == 5


def test_ways_back_lead_back() -> None:
    grid = generated((3, 4))
    north, east, south, west = (grid.neighbours[:, move] for move in (1, 2, 3, 4))
    cells = np.arange(grid.num_cells)
    for there, back in ((north, south), (east, west)):
        moved = there != cells
        assert (back[there[moved]] == cells[moved]).all()


@pytest.mark.parametrize("seed", range(4))
def test_distances_are_those_of_breadth_first_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    free = rng.random((9, 14)) < 0.65
    free[4, 7] = True
    every = np.arange(int(free.sum()))
    grid = Grid("random", free, every, every)
    goals = rng.permutation(grid.num_cells)[:30]
    found = distances(grid, goals)
    assert found.dtype == np.uint16
    assert found.tolist() == [by_breadth(grid, int(goal)) for goal in goals]


def test_a_maze_has_many_turns() -> None:
    rows = ["." * 15 if row % 2 == 0 else ("@" * 14 + "." if row % 4 == 1 else "." + "@" * 14) for row in range(15)]
    grid = drawn(*rows)
    found = distances(grid, np.array([0]))
    assert found[0].tolist() == by_breadth(grid, 0) and found.max() == grid.num_cells - 1


def test_a_generated_warehouse_is_connected_whichever_cell_is_blocked() -> None:
    """Biconnected: no single cell keeps others apart, so that robots can always be brought past each other."""
    grid = generated((2, 3), stations=6)
    assert len(grid.stations) == 6 and len(set(grid.stations.tolist())) == 6
    assert not set(grid.stations.tolist()) & set(grid.pickups.tolist()) and len(grid.pickups) > 20
    for cell in range(grid.num_cells):
        free = grid.free.copy()
        free[tuple(grid.places[cell])] = False
        every = np.arange(int(free.sum()))
        rest = Grid("rest", free, every, every)
        assert distances(rest, np.array([0])).max() < UNREACHABLE


def test_a_large_map_loads() -> None:
    """140 by 500 cells, a quarter of them shelves, and its distances for a thousand goals."""
    grid = generated((45, 82), stations=40)
    assert grid.free.shape[0] >= 138 and grid.free.shape[1] >= 499
    goals = grid.pickups[:: len(grid.pickups) // 32]
    assert distances(grid, goals).max() < 1000
    with pytest.raises(JaxmasError, match="choose fewer goals"):
        distances(grid, np.arange(grid.num_cells))


def written(path: Path, text: str) -> Path:
    file = path / "a.map"
    file.write_text(text)
    return file


def test_a_map_is_read(tmp_path: Path) -> None:
    grid = read_map(written(tmp_path, "type octile\nheight 2\nwidth 3\nmap\n.@.\nGTE\n"))
    assert grid.free.tolist() == [[True, False, True], [True, False, True]] and grid.name == "a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no MovingAI map"),
        ("type octile\nheight two\nwidth 3\nmap\n...\n", "no MovingAI map"),
        ("type octile\nheight 2\nwidth 3\nmap\n...\n", "has 1 rows; its head says 2"),
        ("type octile\nheight 2\nwidth 3\nmap\n...\n..\n", "line 6 does not have 3 cells"),
        ("type octile\nheight 1\nwidth 3\nmap\n.x.\n", "unknown kind: x"),
        ("type octile\nheight 1\nwidth 3\nmap\n@@@\n", "no free cell"),
    ],
)
def test_a_wrong_map_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(JaxmasError, match=words) as caught:
        read_map(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    with pytest.raises(JaxmasError, match="cannot be read"):
        read_map(tmp_path / "missing.map")


PUBLISHED = [("random.domain/maps/random-64-64-10", 3687), ("maze.domain/maps/maze-32-32-2", None)]


@pytest.mark.skipif(not SHARED.exists(), reason="needs the League of Robot Runners' example problems")
@pytest.mark.parametrize(("name", "cells"), PUBLISHED)
def test_published_maps_are_read(name: str, cells: int | None) -> None:
    grid = read_map(SHARED / f"{name}.map")
    assert cells in (None, grid.num_cells)
    goals = np.array([0, grid.num_cells - 1])
    assert distances(grid, goals).tolist() == [by_breadth(grid, int(goal)) for goal in goals]
