"""The warehouse: orders by hand, what robots see against slow references, nobody meets, and PIBT brings all home."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.environments.warehouse.bits import bits, occupied, spread, strips
from jaxmas.environments.warehouse.executors import PIBTExecutor
from jaxmas.environments.warehouse.grid import EAST, STAY, WEST, Grid, distances, generated
from jaxmas.environments.warehouse.messages import HEARD, RADIO, disc, nearest
from jaxmas.environments.warehouse.moves import occupants, resolve
from jaxmas.environments.warehouse.observe import ACTIONS, WINDOW
from jaxmas.environments.warehouse.params import WarehouseParams, tables
from jaxmas.environments.warehouse.pibt import pibt
from jaxmas.environments.warehouse.scenarios import floor
from jaxmas.environments.warehouse.warehouse import Warehouse
from jaxmas.evaluation import query_keys
from jaxmas.policies import TemplatePolicy
from jaxmas.render import Before, Story, renderer_of, story_png
from jaxmas.rollout import Policies, begin, play_query


def corridor(
    starts: tuple[int, ...], listed: list[list[int]], cells: int = 6, rows: int = 1, **numbers: Any
) -> WarehouseParams:
    """Return a corridor of cells in a row, every one of which is a goal; nobody stops, no message is lost."""
    every = np.arange(rows * cells)
    grid = Grid("corridor", np.ones((rows, cells), bool), every, every)
    f = {"stop_chance": 0.0, "message_loss": 0.0, "delivery": 1.0} | numbers
    return WarehouseParams(
        **tables(grid, every),
        pickups=jnp.array(every, jnp.int32),
        stations=jnp.array(every, jnp.int32),
        listed=jnp.array(listed, jnp.int32),
        starts=jnp.array(starts, jnp.int32),
        stop_shortest=jnp.int32(2),
        stop_longest=jnp.int32(2),
        stop_gaussian=None,
        **{name: jnp.float32(value) for name, value in f.items()},
    )


def given(env: Warehouse, state: Any, task: list[int], params: Any, role: list[int] | None = None) -> Any:
    plan = dataclasses.replace(env.plan_space.empty(), task=jnp.array(task, jnp.int32))
    if role:
        plan = dataclasses.replace(plan, role=jnp.array(role, jnp.int32))
    return env.coordinate(jax.random.key(0), state, plan, params)[0]


def moved(env: Warehouse, state: Any, moves: list[int], params: Any) -> tuple[Any, Any]:
    return env.step(jax.random.key(0), state, jnp.array(moves, jnp.int32), params)


def test_an_order_from_its_first_stop_to_its_last() -> None:
    """A robot on 0 takes up an order on 1 and delivers it on 3; the next on the list takes its place."""
    params = corridor((0, 5), [[1, 3], [4, 0], [2, 5]])
    env = Warehouse(2, 2, 6, horizon=8, coordination_interval=8)
    state, team = env.reset(jax.random.key(0), params)
    assert team.pair_features[:, :, 0].tolist() == [[1 / 16, 4 / 16], [4 / 16, 1 / 16]]
    state = given(env, state, [0, -1], params)
    state, first = moved(env, state, [EAST, STAY], params)
    assert state.orders.owner.tolist() == [0, -1] and float(first.reward) == 0
    assert env.observe_team(state, params).task_mask.tolist() == [False, True]
    assert given(env, state, [1, 0], params).task.tolist() == [0, -1], "who carries goes on, and what is taken is taken"
    state, _ = moved(env, state, [EAST, STAY], params)
    state, last = moved(env, state, [EAST, STAY], params)
    assert float(last.reward) == 0.5 and state.orders.stops.tolist() == [[2, 5], [4, 0]]
    assert state.task.tolist() == [-1, -1] and state.orders.released.tolist() == [3, 0]
    numbers = {name: float(value) for name, value in last.metrics.items()}
    assert numbers["orders"] == 1 and numbers["service"] == 3 and numbers["service_p95"] >= 3
    assert numbers["success"] == 3 / 6 and numbers["detour"] == 1 and numbers["cost"] == 3 / 6


def test_the_first_to_come_takes_up_an_order() -> None:
    """Both robots are sent to the order on 2; the one that is nearer gets it, the other one is free."""
    params = corridor((0, 3), [[2, 5]])
    env = Warehouse(2, 1, 6, horizon=8, coordination_interval=8)
    state = given(env, env.reset(jax.random.key(0), params)[0], [0, 0], params)
    state, timestep = moved(env, state, [EAST, WEST], params)
    assert state.orders.owner.tolist() == [1] and state.task.tolist() == [-1, 0]
    assert timestep.agent_reward.tolist() == [1 / 16, 1 + 1 / 16], "both came a move nearer, one arrived"


@pytest.mark.parametrize("first", [0, 1])
def test_the_right_of_way_is_the_plans(first: int) -> None:
    params = corridor((0, 2), [[5, 0]])
    env = Warehouse(2, 1, 6, horizon=8, coordination_interval=8)
    state = given(env, env.reset(jax.random.key(0), params)[0], [-1, -1], params, role=[1 - first, first])
    assert moved(env, state, [EAST, WEST], params)[0].cell.tolist() == ([1, 2] if first == 0 else [0, 1])


def test_who_stops_stands_still_for_a_while() -> None:
    params = corridor((2,), [[5, 0]], stop_chance=1.0)
    env = Warehouse(1, 1, 6, horizon=8, coordination_interval=8)
    state = given(env, env.reset(jax.random.key(0), params)[0], [0], params)
    cells = []
    for _ in range(6):
        state, timestep = moved(env, state, [EAST], params)
        cells.append((state.cell.tolist()[0], bool(timestep.observation.acting[0])))
    assert cells == [(3, False), (3, False), (3, True), (4, False), (4, False), (4, True)]


@functools.cache
def played(executor: str, steps: int = 64, name: str = "warehouse-small-v0") -> tuple[Any, Any, Any, Any]:
    """Return cells over time of eight episodes, moves of executors under nearest first, or random ones."""
    env, params = jaxmas.make(name)
    policy, weights = jaxmas.load_executor("greedy" if executor == "random" else executor, env, params)
    policies = Policies(TemplatePolicy(env, (0, 0)), None, policy, weights)

    def one(key):
        state, observation = _planned(env, params, policies, env.reset(key, params)[0], key)

        def step(carry, inputs):
            state, observation, memory = carry
            at, key = inputs
            fresh = _planned(env, params, policies, state, key)
            plans = at % env.coordination_interval == 0
            state, observation = jax.tree.map(lambda new, old: jnp.where(plans, new, old), fresh, (state, observation))
            memory, law = policy.apply(weights, memory, observation, observation.acting, key)
            action = jnp.argmax(law.logits, axis=1)
            if executor == "random":
                action = jax.random.randint(key, action.shape, 0, env.num_actions)
            before = state.cell
            state, timestep = env.step(key, state, action, params)
            return (state, timestep.observation, memory), (before, state.cell, state.there, timestep.metrics)

        inputs = jnp.arange(steps), jax.random.split(key, steps)
        carry = state, observation, policy.init(env.num_agents)
        (state, observation, _), path = jax.lax.scan(step, carry, inputs)
        return state, observation, path

    state, observation, path = jax.jit(jax.vmap(one))(query_keys("test", 8))
    return params, state, observation, jax.tree.map(np.asarray, path)


def _planned(env, params, policies, state, key):
    plan = policies.meta.apply(None, (), env.observe_team(state, params), key)[0]
    return env.coordinate(key, state, plan, params)


MET = [("random", "small"), ("greedy", "small"), ("pibt", "small"), ("random", "problem"), ("pibt", "problem")]


@pytest.mark.parametrize(("executor", "floor"), MET)
def test_nobody_ever_meets(executor: str, floor: str) -> None:
    """Whether robots go in four directions or turn."""
    params, _, _, (before, after, there, metrics) = played(executor, name=f"warehouse-{floor}-v0")
    ways = np.asarray(params.neighbours)
    for old, new, holders in zip(before.reshape(-1, 32), after.reshape(-1, 32), there.reshape(-1, 305), strict=True):
        assert len(set(new.tolist())) == 32, "two on one cell"
        assert (ways[old] == new[:, None]).any(axis=1).all(), "a jump"
        at = {int(cell): robot for robot, cell in enumerate(old)}
        other = np.array([at.get(int(cell), -1) for cell in new])
        assert not ((new != old) & (other >= 0) & (new[other] == old)).any(), "changed places"
        assert (holders[new] == np.arange(32)).all() and (holders >= 0).sum() == 32
    final = {name: values[:, -1].mean() for name, values in metrics.items()}
    assert 0 <= final["success"] <= 1
    if (executor, floor) == ("pibt", "small"):
        assert final["blocked"] < 0.02 and final["throughput"] > 0.4, "only who stops is in the way"
    if (executor, floor) == ("pibt", "problem"):
        assert final["blocked"] < 0.2 and final["throughput"] > 0.25, "nor does turning hold up many"
    if executor == "random":
        assert final["throughput"] < 0.05


MILLIONS = 10
"""Agent-steps, over all floors and executors."""
FLOORS = tuple(f"warehouse-{floor}-v0" for floor in ("small", "medium", "large", "map", "problem"))


@functools.partial(jax.jit, static_argnames=("env", "policies", "executor"))
def meetings(env, params, policies, executor: str, weights, keys):
    """Return how often two robots were on one cell or changed places in an episode of each key."""
    policies = dataclasses.replace(policies, executor_params=weights)

    def step(carry, key):
        state, seen, memory = carry
        draw_key, step_key = jax.random.split(key)
        memory, law = policies.executor.apply(weights, memory, seen, seen.acting, key)
        chosen = jax.random.randint(draw_key, seen.acting.shape, 0, env.num_actions)
        action = chosen if executor == "random" else law.sample(seed=draw_key)
        after, timestep = env.step(step_key, state, action, params)
        old, new = state.cell, after.cell
        other = occupants(old, env.cells)[new]
        swaps = (new != old) & (other >= 0) & (new[jnp.maximum(other, 0)] == old)
        shared = jnp.bincount(new, length=env.cells) > 1
        return (after, timestep.observation, memory), jnp.sum(swaps) + jnp.sum(shared)

    def interval(carry, key):
        state, memory = carry
        state, seen = _planned(env, params, policies, state, key)
        keys = jax.random.split(key, env.coordination_interval)
        (state, _, memory), met = jax.lax.scan(step, (state, seen, memory), keys)
        return (state, memory), jnp.sum(met)

    def episode(key):
        start = env.reset(key, params)[0], policies.executor.init(env.num_agents)
        return jnp.sum(
            jax.lax.scan(interval, start, jax.random.split(key, env.horizon // env.coordination_interval))[1]
        )

    return jnp.sum(jax.vmap(episode)(keys))


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOORS)
@pytest.mark.parametrize("executor", ["random", "greedy", "pibt"])
def test_nobody_meets_in_ten_million_agent_steps(executor: str, name: str) -> None:
    env, params = jaxmas.make(name)
    policy, weights = jaxmas.load_executor("greedy" if executor == "random" else executor, env, params)
    policies = Policies(TemplatePolicy(env, (0, 0)), None, policy, None)
    episodes = -(-MILLIONS * 10**6 // (3 * len(FLOORS) * env.num_agents * env.horizon))
    assert int(meetings(env, params, policies, executor, weights, query_keys("test", episodes))) == 0


def test_what_robots_see() -> None:
    """Window, neighbours and ways of the first episode's last state, by slow references."""
    params, state, observation, _ = played("pibt")
    state, features = jax.tree.map(lambda leaf: leaf[0], state), np.asarray(observation.features[0])
    place, shape = np.asarray(params.place), params.number.shape
    cells = np.asarray(state.cell)
    robots = np.zeros(shape, bool)
    robots[tuple(place[cells].T)] = True
    walls = np.asarray(params.number) < 0
    side = 2 * WINDOW + 1
    for robot, (row, column) in enumerate(place[cells]):
        for map_, outside, first in ((walls, True, 19), (robots, False, 19 + side**2)):
            padded = np.pad(map_, WINDOW, constant_values=outside)
            window = padded[row : row + side, column : column + side]
            assert (features[robot, first : first + side**2].reshape(side, side) > 0.5).tolist() == window.tolist()
    goal = np.asarray(jnp.where(state.task >= 0, state.orders.stops[state.task, state.orders.reached[state.task]], -1))
    far = np.asarray(params.distance, int)
    for robot in range(32):
        left = far[goal[robot]][np.asarray(params.neighbours)[cells[robot]]] if goal[robot] >= 0 else np.zeros(5)
        assert features[robot, ACTIONS : ACTIONS + 5].tolist() == (left - left[0]).tolist()
    senders, at = nearest(state.cell, occupied(state.cell, params), state.there, params)
    away = disc()[at]
    for robot in range(32):
        gap = place[cells] - place[cells[robot]]
        distance = (gap**2).sum(axis=1)
        near = sorted(distance[(distance > 0) & (distance <= RADIO**2)])[:HEARD]
        heard = [int(other) for other in senders[robot] if other >= 0]
        assert [int(distance[other]) for other in heard] == near
        assert away[robot, : len(heard)].tolist() == gap[heard].tolist()
    assert len(disc()) == 80


def test_the_window_crosses_words() -> None:
    """On a floor more than two words wide, at every column."""
    free = np.random.default_rng(0).random((3, 90)) < 0.7
    every = np.arange(int(free.sum()))
    grid = Grid("wide", free, every, every)
    params = tables(grid, every[:1])
    side = 2 * WINDOW + 1
    seen = np.asarray(bits(strips(params["walls"], params["place"], WINDOW), side))
    padded = np.pad(~free, WINDOW, constant_values=True)
    for (row, column), window in zip(grid.places, seen.reshape(-1, side, side), strict=True):
        assert window.tolist() == padded[row : row + side, column : column + side].tolist()


def test_words_are_spread_to_the_last_bit() -> None:
    words = jnp.array([[0, 1, 2**24 - 1], [2**23 + 1, 2**20, 5]], jnp.uint32)
    assert spread(words, 2).tolist() == np.repeat(np.asarray(words), 2, axis=1).tolist()


@functools.cache
def hall(blocks: int = 4) -> tuple[Any, Any]:
    grid = generated((blocks, blocks), stations=4)
    with jax.ensure_compile_time_eval():
        return jnp.array(grid.neighbours), jnp.array(distances(grid, np.arange(grid.num_cells)), jnp.int32)


@functools.partial(jax.jit, static_argnames=("robots", "steps", "blocks"))
def brought_home(key, robots: int, steps: int, blocks: int = 4):
    """Return whether every robot has been at its goal, and how many meetings there were."""
    neighbours, far = hall(blocks)
    start_key, goal_key = jax.random.split(key)
    cell, goal = (jax.random.permutation(each, len(neighbours))[:robots] for each in (start_key, goal_key))
    movable = jnp.ones(robots, bool)

    def step(carry, _):
        cell, since, home = carry
        arrived = cell == goal
        since, home = jnp.where(arrived, 0, since + 1), home | arrived
        choices = jnp.argsort(far[goal[:, None], neighbours[cell]], axis=1, stable=True)
        there = occupants(cell, len(neighbours))
        move = pibt(cell, there, jnp.argsort(-since, stable=True), choices, movable, neighbours)
        new = neighbours[cell, move]
        goes = resolve(cell, new, since * 0, there, neighbours, jnp.int32(0))
        met = jnp.sum(goes != (new != cell)) + jnp.sum(jnp.bincount(new, length=len(neighbours)) > 1)
        return (new, since, home), met

    start = cell, jnp.arange(robots) * 0, jnp.zeros(robots, bool)
    (_, _, home), met = jax.lax.scan(step, start, None, steps)
    return jnp.all(home), jnp.sum(met)


def test_pibt_brings_every_robot_to_its_goal() -> None:
    """On a biconnected floor, and its moves are never in each other's way (Okumura et al. 2022, theorem 1)."""
    for seed in range(4):
        home, met = brought_home(jax.random.key(seed), 50, 200)
        assert bool(home) and int(met) == 0


@pytest.mark.slow
@pytest.mark.parametrize("robots", [50, 100, 200, 300, 400])
def test_pibt_brings_a_hundred_crowds_to_their_goals(robots: int) -> None:
    keys = jax.random.split(jax.random.key(robots), 20)
    home, met = jax.vmap(lambda key: brought_home(key, robots, 3000, blocks=8))(keys)
    assert home.all() and not met.any()


def test_greedy_robots_that_face_each_other_come_apart() -> None:
    """In a corridor of two rows each has to pass the other; both would wait for ever if they did not give way."""
    params = corridor((0, 5), [[5, 4], [0, 1]], rows=2)
    env = Warehouse(2, 2, 12, horizon=64, coordination_interval=64)
    executor, weights = jaxmas.load_executor("greedy", env, params)
    plan = dataclasses.replace(env.plan_space.empty(), task=jnp.array([0, 1], jnp.int32))

    @jax.jit
    def met(key):
        state, seen = env.coordinate(key, env.reset(key, params)[0], plan, params)

        def step(episode, key):
            state, seen, carry = episode
            carry, law = executor.apply(weights, carry, seen, seen.acting, key)
            state, timestep = env.step(key, state, law.sample(seed=key), params)
            return (state, timestep.observation, carry), timestep.agent_reward

        return jax.lax.scan(step, (state, seen, executor.init(2)), jax.random.split(key, 64))[1].sum(axis=0)

    for seed in range(3):
        assert (met(jax.random.key(seed)) >= 2).all(), "both have been at both stops"


def test_pibt_on_many_floors_is_pibt_on_each() -> None:
    """However floors are batched, and whatever they share."""
    neighbours, _ = hall()

    def moves(seed, order):
        cell_key, choice_key = jax.random.split(seed)
        cell = jax.random.permutation(cell_key, len(neighbours))[:30]
        choices = jnp.argsort(jax.random.uniform(choice_key, (30, 5)), axis=1)
        return pibt(cell, occupants(cell, len(neighbours)), order, choices, order % 7 > 0, neighbours)

    seeds = jax.random.split(jax.random.key(0), (2, 3))
    orders = jnp.stack([jnp.arange(30), jnp.arange(30)[::-1]])
    together = jax.jit(jax.vmap(jax.vmap(moves, (0, None))))(seeds, orders)
    one = jax.jit(moves)
    assert together.tolist() == [
        [one(seed, order).tolist() for seed in row] for row, order in zip(seeds, orders, strict=True)
    ]


def test_pibt_lends_its_priority() -> None:
    """A robot that is where it wants to be makes room for one of higher priority, and for nobody of lower."""
    free = np.array([[True, True, True, True], [False, True, False, False]])
    every = np.arange(int(free.sum()))
    grid = Grid("bay", free, every, every)
    neighbours, far = jnp.array(grid.neighbours), jnp.array(distances(grid, every), jnp.int32)
    for order, end in (([0, 1], [2, 3]), ([1, 0], [0, 1])):
        cell, goal = jnp.array([0, 1]), jnp.array([2, 1])
        for _ in range(2):
            choices = jnp.argsort(far[goal[:, None], neighbours[cell]], axis=1, stable=True)
            move = pibt(
                cell, occupants(cell, len(neighbours)), jnp.array(order), choices, jnp.ones(2, bool), neighbours
            )
            cell = neighbours[cell, move]
        assert cell.tolist() == end


def test_pibt_reads_places_off_what_robots_see() -> None:
    """The executor's cells, from features, are the true ones: its moves are legal wherever robots are."""
    env, params = jaxmas.make("warehouse-small-v0")
    policy, weights = jaxmas.load_executor("pibt", env, params)
    assert isinstance(policy, PIBTExecutor) and weights is floor("small")
    policies = Policies(TemplatePolicy(env, (0, 0)), None, policy, weights)
    play = jax.jit(lambda key: play_query(env, params, policies, begin(env, params, policies, key), key)[1])
    steps = play(jax.random.key(0))
    assert int(steps.steps.sum()) == env.horizon
    assert float(steps.metrics["blocked"][-1]) < 0.02 and float(steps.reward.sum()) > 4


def test_a_picture_tells_who_goes_where() -> None:
    """In a corridor the second robot wants to where the first one stands, and is refused: its place is crowded."""
    params = corridor((0, 1), [[4, 3], [0, 3]])
    env = Warehouse(2, 2, 6, horizon=4, coordination_interval=4)
    read = functools.partial(renderer_of(env).read, env, params)
    state = given(env, env.reset(jax.random.key(0), params)[0], [-1, 1], params)
    first = read(jax.device_get(state), None)
    assert first.sent.tolist() == [False, True] and first.goals.tolist() == [[0, 0], [0, 0]]
    after, _ = moved(env, state, [STAY, WEST], params)
    second = read(jax.device_get(after), Before(jax.device_get(state), first, np.array([STAY, WEST])))
    assert second.crowd.tolist() == [[0, 1, 0, 0, 0, 0]] and second.blocked == 1 and not first.crowd.any()
    story = Story("corridor", "by hand", [first, second], 0.0)
    picture = story_png(env, story)
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000
