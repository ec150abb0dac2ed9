"""Assignment: Hungarian against scipy's, auction within its bound, the greedy ones against slow references."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import jaxmas
from jaxmas.algorithms.warehouse_assignment import (
    THOROUGH,
    auction,
    congestion_aware,
    first_come,
    hungarian,
    nearest_first,
    regret,
    shortest_first,
)
from jaxmas.environments.warehouse import observe
from jaxmas.environments.warehouse.motion import pose
from jaxmas.environments.warehouse.observe import AGE, CROWD, CROWDS, LENGTH, WIDER
from jaxmas.matching import AT_ONCE
from jaxmas.types import TeamObservation

SHAPES = ((6, 9), (9, 6), (8, 8))


def instances(shape: tuple[int, int], count: int, closed: float = 0.0) -> np.ndarray:
    """Return random distances in sixteenths, as on a floor, some robots and orders of which are not to be had."""
    rng = np.random.default_rng(shape[0])
    far = (rng.integers(0, 2**12, (count, *shape)) / 16).astype(np.float32)
    agents, orders = (rng.random((count, size)) < closed for size in shape)
    far[agents] = np.inf
    far.transpose(0, 2, 1)[orders] = np.inf
    return far


def team_of(far: np.ndarray, age: np.ndarray | None = None, length: np.ndarray | None = None) -> TeamObservation:
    """Return a team observation of so many robots and orders, with what the rules look at."""
    agents, orders = far.shape
    tokens = np.zeros((orders, WIDER.stop), np.float32)
    tokens[:, AGE] = 0 if age is None else age
    tokens[:, LENGTH] = 0 if length is None else length
    return TeamObservation(
        task_tokens=jnp.array(tokens),
        task_mask=jnp.ones(orders, bool),
        task_parents=jnp.zeros((orders, 0), jnp.int32),
        agent_tokens=jnp.zeros((agents, 1)),
        agent_mask=jnp.ones(agents, bool),
        pair_features=jnp.array(far)[:, :, None],
        global_features=jnp.zeros(1),
    )


def least(far: np.ndarray) -> tuple[int, float]:
    """Return how many pairs the best assignment has, and the sum of their distances."""
    robots, orders = linear_sum_assignment(np.where(np.isfinite(far), far, 1e7))
    pairs = np.isfinite(far[robots, orders])
    return int(pairs.sum()), float(far[robots, orders][pairs].sum())


def checked(far: np.ndarray, task: Any) -> tuple[int, float]:
    """Return pairs and sum of an assignment that gives no order twice and none that is not to be had."""
    task = np.asarray(task)
    served = task[task >= 0]
    assert len(set(served.tolist())) == len(served)
    chosen = far[np.flatnonzero(task >= 0), served]
    assert np.isfinite(chosen).all()
    return len(served), float(chosen.sum())


@pytest.mark.parametrize("closed", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_hungarian_is_scipys_on_a_thousand_instances(shape: tuple[int, int], closed: float) -> None:
    far = instances(shape, 334, closed)
    tasks = jax.jit(jax.vmap(lambda one: hungarian(one, team_of(far[0]))))(jnp.array(far))
    for one, task in zip(far, tasks, strict=True):
        assert checked(one, task) == least(one)


@pytest.mark.parametrize("shape", SHAPES)
def test_auction_is_within_its_bound(shape: tuple[int, int]) -> None:
    """With at least as many orders as robots, within ε per robot of the least sum; else everything is sold."""
    far, epsilon = instances(shape, 100), 1 / 32
    tasks = jax.jit(jax.vmap(lambda one: auction(one, team_of(far[0]), epsilon)))(jnp.array(far))
    for one, task in zip(far, tasks, strict=True):
        count, total = checked(one, task)
        assert count == min(shape)
        if shape[0] <= shape[1]:
            assert total <= least(one)[1] + epsilon * shape[0] + 1e-4


@pytest.mark.parametrize("rule", [nearest_first, first_come, congestion_aware, *THOROUGH.values()])
def test_what_is_not_to_be_had_is_not_given_out(rule: Any) -> None:
    far = instances((7, 9), 40, closed=0.4)
    far[0] = np.inf
    tasks = jax.jit(jax.vmap(lambda one: rule(one, team_of(far[1]))))(jnp.array(far))
    for one, task in zip(far, tasks, strict=True):
        assert checked(one, task)[0] == least(one)[0], "as many are served as can be"


def slowly(far: np.ndarray) -> list[int]:
    """Return the nearest pair first, one after the other; of equal ones that with the lower sum of numbers."""
    far, task = far + np.add.outer(*map(np.arange, far.shape)) / 2**12, [-1] * len(far)
    while np.isfinite(far).any():
        robot, order = np.unravel_index(far.argmin(), far.shape)
        task[robot] = int(order)
        far[robot], far[:, order] = np.inf, np.inf
    return task


@pytest.mark.parametrize(("shape", "count"), [((9, 12), 50), ((100, 90), 3)])
def test_nearest_first_is_one_pair_after_the_other(shape: tuple[int, int], count: int) -> None:
    """Also of more robots than propose at once."""
    assert max(SHAPES)[0] < AT_ONCE < 100
    far = instances(shape, count, closed=0.2)
    tasks = jax.jit(jax.vmap(lambda one: nearest_first(one, team_of(far[0]))))(jnp.array(far))
    assert tasks.tolist() == [slowly(one) for one in far]


def test_first_come_by_hand() -> None:
    """The oldest order is 2, which robot 0 is nearest to; 0 is next, and gets the robot that is left."""
    far = np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 5.0]], np.float32)
    assert first_come(jnp.array(far), team_of(far, np.array([0.5, 0.1, 0.9]))).tolist() == [2, 0]


def test_regret_by_hand() -> None:
    """Robot 0 would lose 1 by not getting order 0, robot 1 would lose 5: it is served first."""
    far = np.array([[1.0, 2.0], [2.0, 7.0]], np.float32)
    assert regret(jnp.array(far), team_of(far)).tolist() == [1, 0]


def test_the_whole_way_counts_by_hand() -> None:
    """Order 0 is nearer to robot 0, but leads farther than order 1 is away."""
    far = np.array([[1.0, 2.0]], np.float32)
    assert shortest_first(jnp.array(far), team_of(far, length=np.array([3.0, 1.0]))).tolist() == [1]
    assert shortest_first(jnp.array(far), team_of(far, length=np.array([3.0, 3.0]))).tolist() == [0]


@pytest.mark.parametrize("crowd", [(0.25, 0.0), (0.0, 0.25)])
def test_crowded_orders_count_as_farther(crowd: tuple[float, float]) -> None:
    """Order 0 is a little nearer, but two robots stand beside its next stop, or beside its last."""
    far = np.array([[1.0, 1.05]], np.float32)
    team = team_of(far)
    assert congestion_aware(jnp.array(far), team).tolist() == [0]
    crowded = dataclasses.replace(team, task_tokens=team.task_tokens.at[0, CROWDS].set(jnp.array(crowd)))
    assert congestion_aware(jnp.array(far), crowded).tolist() == [1]


@pytest.mark.parametrize("cells_per_pair", [0, 10**6])
@pytest.mark.parametrize("scenario", ["warehouse-small-v0", "warehouse-problem-v0"])
def test_crowds_are_the_robots_within_five_and_ten_moves(
    scenario: str, cells_per_pair: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the same whether counted pair by pair or by cells."""
    monkeypatch.setattr(observe, "CELLS_PER_PAIR", cells_per_pair)
    env, params = jaxmas.make(scenario)
    state, team = env.reset(jax.random.key(3), params)
    cells = np.asarray(pose(state.cell, state.heading))
    last = np.sum(np.asarray(state.orders.stops) >= 0, axis=1) - 1
    for at, stop in enumerate((np.zeros_like(last), last)):
        goal = np.asarray(state.orders.stops)[np.arange(len(last)), stop]
        away = np.asarray(params.distance)[goal][:, cells].astype(int)
        for columns, moves in ((CROWDS, 5), (WIDER, 10)):
            crowd = np.asarray(team.task_tokens)[:, columns][:, at] * CROWD
            assert np.array_equal(crowd, (away <= moves).sum(axis=1))
