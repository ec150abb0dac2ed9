"""Robots that turn: where their actions lead by hand, how far goals are by a slow search, and how long delays are."""

import collections
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jaxmas.environments.warehouse.executors import GreedyExecutor, PIBTExecutor
from jaxmas.environments.warehouse.grid import UNREACHABLE, Grid, distances
from jaxmas.environments.warehouse.motion import FORWARD, LEFT, RIGHT, WAIT, leads, legal, pose, towards
from jaxmas.environments.warehouse.observe import ACTIONS, farther, heading_of
from jaxmas.environments.warehouse.params import WarehouseParams, problem_params
from jaxmas.environments.warehouse.problem import Delays, Problem
from jaxmas.environments.warehouse.warehouse import Warehouse, _pause

NORTH, EAST, SOUTH, WEST = range(4)
SQUARE = Grid("square", np.ones((3, 3), bool), np.arange(9), np.arange(9))
"""Cells are numbered 3 · row + column."""
NONE = Delays()


def square(starts: list[int], stops: list[list[int]], delays: Delays = NONE) -> WarehouseParams:
    return problem_params(Problem(SQUARE, np.array(starts), np.array(stops), 1.0, delays))


def begun(env: Warehouse, params: WarehouseParams, task: list[int]) -> tuple[Any, Any]:
    """Return the state after a plan, and what robots see."""
    plan = dataclasses.replace(env.plan_space.empty(), task=jnp.array(task, jnp.int32))
    state, _ = env.reset(jax.random.key(0), params)
    return env.coordinate(jax.random.key(0), state, plan, params)


def acted(env: Warehouse, params: WarehouseParams, state: Any, *actions: int) -> tuple[Any, Any]:
    return env.step(jax.random.key(0), state, jnp.array(actions, jnp.int32), params)


def test_where_actions_lead() -> None:
    """In the corner facing east and north, and in the middle facing south."""
    neighbours = jnp.array(SQUARE.neighbours, jnp.int32)
    cell, heading = jnp.array([0, 0, 4]), jnp.array([EAST, NORTH, SOUTH])
    cells, headings = leads(cell, heading, neighbours)
    assert cells.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [4, 7, 4, 4]]
    assert headings is not None and headings.tolist() == [[1, 1, 0, 2], [0, 0, 3, 1], [2, 2, 1, 3]]
    assert legal(cell, heading, neighbours).tolist() == [[True] * 4, [True, False, True, True], [True] * 4]
    assert leads(cell, None, neighbours)[0].tolist() == SQUARE.neighbours[[0, 0, 4]].tolist()
    assert pose(cell, heading).tolist() == [1, 0, 18] and pose(cell, None).tolist() == [0, 0, 4]


def test_a_cardinal_move_begins_with_a_turn() -> None:
    moves = jnp.arange(5)
    assert towards(jnp.full(5, EAST), moves).tolist() == [WAIT, LEFT, FORWARD, RIGHT, RIGHT]
    assert towards(jnp.full(5, WEST), moves).tolist() == [WAIT, RIGHT, RIGHT, LEFT, FORWARD]


def test_distances_count_turns_by_hand() -> None:
    """From a corner to the one across: two moves, a turn, two moves, and what it takes to face the first of them."""
    far = distances(SQUARE, np.array([8]), turning=True)[0].reshape(9, 4)
    assert far[0].tolist() == [6, 5, 5, 6]
    assert far[7].tolist() == [2, 1, 2, 3] and far[8].tolist() == [0] * 4


def by_breadth(grid: Grid, goal: int) -> list[int]:
    """Return moves and turns from every pose, by a search back from all poses of the goal."""
    far = {(goal, heading): 0 for heading in range(4)}
    waiting = collections.deque(far)
    while waiting:
        cell, heading = waiting.popleft()
        behind = int(grid.neighbours[cell, 1 + (heading + 2) % 4])
        for before in ((behind, heading), (cell, (heading + 1) % 4), (cell, (heading - 1) % 4)):
            if before not in far:
                far[before] = far[cell, heading] + 1
                waiting.append(before)
    return [far.get((cell, heading), UNREACHABLE) for cell in range(grid.num_cells) for heading in range(4)]


def test_distances_are_those_of_a_slow_search() -> None:
    free = np.random.default_rng(0).random((9, 14)) < 0.65
    grid = Grid("random", free, np.zeros(0, int), np.zeros(0, int))
    goals = np.random.default_rng(1).permutation(grid.num_cells)[:20]
    assert distances(grid, goals, turning=True).tolist() == [by_breadth(grid, int(goal)) for goal in goals]


def test_an_order_is_served_with_turns() -> None:
    """From the middle facing east to the stop below and on to the corner; another robot waits in a corner."""
    params = square([4, 0], [[7, 8], [2, 0]])
    env = Warehouse(2, 2, 9, "turning", horizon=8, coordination_interval=8)
    state, seen = begun(env, params, [0, -1])
    assert env.num_actions == 4 and state.way.tolist() == [2, 0]
    assert heading_of(seen).tolist() == [EAST, EAST]
    assert farther(seen).tolist() == [[0, 2, 1, -1], [0, 0, 0, 0]]
    assert seen.features[0, ACTIONS + 8 : ACTIONS + 12].tolist() == [0, 1, 0, 0]
    assert env.observe_team(state, params).pair_features[:, :, 0].tolist() == [[2 / 16, 3 / 16], [4 / 16, 2 / 16]]
    assert env.observe_team(state, params).task_tokens[:, 6].tolist() == [1 / 16, 2 / 16]
    state, _ = acted(env, params, state, RIGHT, FORWARD)
    assert (state.cell.tolist(), state.heading.tolist()) == ([4, 1], [SOUTH, EAST])
    state, _ = acted(env, params, state, FORWARD, LEFT)
    assert state.orders.owner.tolist() == [0, -1] and state.way.tolist() == [2, 0]
    state, _ = acted(env, params, state, LEFT, FORWARD)
    assert (state.cell.tolist(), state.heading.tolist()) == ([7, 1], [EAST, NORTH]), "the way north is blocked"
    state, timestep = acted(env, params, state, FORWARD, WAIT)
    assert float(timestep.reward) == 0.5
    numbers = {name: float(value) for name, value in timestep.metrics.items()}
    assert numbers["orders"] == 1 and numbers["success"] == 4 / 8 and numbers["cost"] == 6 / 8
    assert numbers["detour"] == 6 / 4 and numbers["blocked"] == 0


@pytest.mark.parametrize("executor", [GreedyExecutor(), PIBTExecutor("turning")])
def test_executors_take_the_shortest_way(executor: Any) -> None:
    """Alone from corner to corner: five actions, whatever is chosen between ways that are as good."""
    params = square([0], [[8, 0]])
    env = Warehouse(1, 1, 9, "turning", horizon=8, coordination_interval=8)
    state, seen = begun(env, params, [0])
    carry, act = executor.init(1), jax.jit(executor.apply)
    for count in range(5):
        assert state.orders.reached.tolist() == [0], count
        carry, law = act(params, carry, seen, seen.acting, jax.random.key(count))
        state, timestep = acted(env, params, state, *jnp.argmax(law.logits, axis=1).tolist())
        seen = timestep.observation
    assert state.orders.reached.tolist() == [1]


@functools.cache
def words(count: int = 2**14) -> jax.Array:
    return jax.random.bits(jax.random.key(0), (count,), jnp.uint32)


def test_delays_last_as_long_as_the_problem_says() -> None:
    """Uniform, and normal with what lies beyond the ends at the ends, as the start kit draws them."""
    params = square([0], [[8]], Delays(0.1, 5, 12))
    drawn = np.bincount(np.asarray(_pause(words(), params)), minlength=13) / len(words())
    assert np.abs(drawn[5:] - 1 / 8).max() < 0.012 and drawn[:5].sum() == 0
    params = square([0], [[8]], Delays(0.1, 5, 12, (0.5, 0.22)))
    drawn = np.bincount(np.asarray(_pause(words(), params)), minlength=13) / len(words())
    edges = norm.cdf([-np.inf, *np.arange(5.5, 12), np.inf], 5 + 7 * 0.5, 7 * 0.22)
    assert np.abs(drawn[5:] - np.diff(edges)).max() < 0.012 and drawn.sum() == pytest.approx(1)
    alike = square([0], [[8]], Delays(0.1, 5, 12, (0.5, 0.0)))
    assert set(np.asarray(_pause(words(64), alike)).tolist()) == {8}, "a half is rounded to the even number"


def test_delays_come_as_often_as_the_problem_says() -> None:
    """A robot goes on for 1 / p steps and stands for three: shares of 0.1 · 3 / (1 + 0.1 · 3)."""
    params = square(list(range(9)), [[8]], Delays(0.1, 2, 4))
    env = Warehouse(9, 1, 9, "turning", horizon=2000, coordination_interval=2000)
    state, _ = env.reset(jax.random.key(1), params)

    def step(state, _):
        state, timestep = env.step(jax.random.key(0), state, jnp.full(9, LEFT), params)
        return state, (timestep.observation.acting, state.heading)

    _, (acting, heading) = jax.jit(lambda state: jax.lax.scan(step, state, None, 1500))(state)
    acting, heading = np.asarray(acting), np.asarray(heading)
    assert (~acting).mean() == pytest.approx(0.3 / 1.3, abs=0.02)
    turned = np.diff(heading, axis=0) % 4 == 3
    assert (turned == acting[:-1]).all(), "who is delayed does not turn, all others do"
