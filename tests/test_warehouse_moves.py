"""The rule of right of way: by hand, against a slow reference, and never a meeting in random play."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmas.environments.warehouse.grid import EAST, NORTH, SOUTH, STAY, WEST, Grid, generated
from jaxmas.environments.warehouse.moves import occupants, resolve

OPEN = Grid("open", np.ones((4, 5), bool), np.zeros(0, int), np.zeros(0, int))
"""Cells are numbered 5 · row + column."""


@jax.jit
def moved(neighbours, cell, target, rank, turn):
    there = occupants(cell, len(neighbours))
    return jnp.where(resolve(cell, target, rank, there, neighbours, turn), target, cell)


def after(cells: list[int], moves: list[int], ranks: list[int] | None = None, turn: int = 0) -> list[int]:
    neighbours = jnp.array(OPEN.neighbours)
    cell = jnp.array(cells)
    rank = jnp.array(ranks or [0] * len(cells))
    return moved(neighbours, cell, neighbours[cell, jnp.array(moves)], rank, jnp.int32(turn)).tolist()


def test_one_of_two_enters() -> None:
    assert after([0, 2], [EAST, WEST], [0, 1]) == [0, 1]
    assert after([0, 2], [EAST, WEST], [1, 0]) == [1, 2]
    winners = [after([0, 2], [EAST, WEST], turn=turn) for turn in range(4)]
    assert {tuple(cells) for cells in winners} == {(1, 2), (0, 1)}, "equals take turns"


def test_nobody_changes_places() -> None:
    assert after([0, 1], [EAST, WEST]) == [0, 1]
    assert after([0, 1, 2], [EAST, WEST, WEST]) == [0, 1, 2], "nor does anyone follow those who want to"


def test_robots_follow_each_other() -> None:
    assert after([0, 1, 2], [EAST, EAST, EAST]) == [1, 2, 3]
    assert after([0, 1, 2], [EAST, EAST, STAY]) == [0, 1, 2]
    assert after([0, 1, 2, 3], [EAST, EAST, EAST, WEST]) == [0, 1, 2, 3]


def test_robots_go_round_in_circles() -> None:
    assert after([0, 1, 6, 5], [EAST, SOUTH, WEST, NORTH]) == [1, 6, 5, 0]


def test_who_loses_holds_up_those_behind() -> None:
    """0 and 2 want 1; 0 loses, and the robot on 5, which wants 0, waits."""
    assert after([0, 2, 5], [EAST, WEST, NORTH], [0, 1, 5]) == [0, 1, 5]


def test_a_long_train_moves_as_one() -> None:
    """Twenty robots in a row of twenty-one cells: the last one follows the first."""
    line = Grid("line", np.ones((1, 21), bool), np.zeros(0, int), np.zeros(0, int))
    neighbours, cell = jnp.array(line.neighbours), jnp.arange(20)
    ranks = jnp.zeros(20, jnp.int32)
    assert moved(neighbours, cell, neighbours[cell, EAST], ranks, jnp.int32(0)).tolist() == list(range(1, 21))
    held = jnp.where(cell == 19, cell, neighbours[cell, EAST])
    assert moved(neighbours, cell, held, ranks, jnp.int32(0)).tolist() == list(range(20))


def slowly(neighbours: np.ndarray, cell: np.ndarray, target: np.ndarray, rank: np.ndarray, turn: int) -> list[int]:
    """Return where everyone is after one step by the rule in words: strike out moves until none has to be."""
    goes = {i for i in range(len(cell)) if target[i] != cell[i]}

    def precedence(i: int) -> tuple[int, int]:
        side = next(move for move in range(1, 5) if neighbours[target[i], move] == cell[i])
        return int(rank[i]), (side - 1 + turn) % 4

    wanted: dict[int, list[int]] = {}
    for i in goes:
        wanted.setdefault(int(target[i]), []).append(i)
    goes -= {i for rivals in wanted.values() for i in rivals if i != max(rivals, key=precedence)}
    at = {int(place): i for i, place in enumerate(cell)}
    goes -= {i for i in goes if target[i] in at and target[at[int(target[i])]] == cell[i]}
    while held := {i for i in goes if int(target[i]) in at and at[int(target[i])] not in goes}:
        goes -= held
    return [int(target[i] if i in goes else cell[i]) for i in range(len(cell))]


@functools.cache
def floor() -> np.ndarray:
    return generated((2, 2), stations=4).neighbours


@pytest.mark.parametrize("robots", [3, 30, 60])
def test_the_rule_is_the_slow_one_whatever_the_order(robots: int) -> None:
    neighbours, rng = floor(), np.random.default_rng(robots)
    assert robots < len(neighbours)
    for turn in range(60):
        cell = rng.permutation(len(neighbours))[:robots]
        target = neighbours[cell, rng.integers(0, 5, robots)]
        rank = rng.integers(0, 3, robots)
        got = moved(jnp.array(neighbours), *map(jnp.array, (cell, target, rank)), jnp.int32(turn)).tolist()
        assert got == slowly(neighbours, cell, target, rank, turn)
        order = rng.permutation(robots)
        again = moved(jnp.array(neighbours), *(jnp.array(a[order]) for a in (cell, target, rank)), jnp.int32(turn))
        assert again.tolist() == np.array(got)[order].tolist()


def test_nobody_ever_meets() -> None:
    """A hundred thousand agent-steps of random play on a crowded floor."""
    neighbours, robots = jnp.array(floor()), 64
    start = jax.random.permutation(jax.random.key(0), len(neighbours))[:robots]

    def step(cell, inputs):
        key, turn = inputs
        target = neighbours[cell, jax.random.randint(key, (robots,), 0, 5)]
        new = moved(neighbours, cell, target, cell * 0, turn)
        there = occupants(cell, len(neighbours))
        other = there[new]
        swapped = (new != cell) & (other >= 0) & (new[other] == cell)
        return new, (jnp.sum(jnp.bincount(new, length=len(neighbours)) > 1), jnp.sum(swapped), jnp.mean(new != cell))

    steps = 1600
    inputs = jax.random.split(jax.random.key(1), steps), jnp.arange(steps)
    _, (met, swapped, went) = jax.jit(lambda start: jax.lax.scan(step, start, inputs))(start)
    assert not met.any() and not swapped.any() and float(went.mean()) > 0.1
