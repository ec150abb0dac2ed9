"""``warehouse``: robots on a grid serve orders without end.

An order is taken up at its first stop and delivered at its last. The plan says which open order each robot serves, and
which robots have the right of way; executors say where each robot wants to go, and one rule who may. Robots never
meet; one that is in the way stays in the way.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from jaxmas.environments.noise import below, hashed, uniform
from jaxmas.environments.warehouse.motion import ACTIONS, Headings, Motion, facing, leads, legal
from jaxmas.environments.warehouse.moves import occupants, resolve
from jaxmas.environments.warehouse.observe import distance, observation, team_observation
from jaxmas.environments.warehouse.orders import Orders, assigned, next_goal, opened, served
from jaxmas.environments.warehouse.params import FAR, WarehouseParams
from jaxmas.errors import refuse
from jaxmas.plans import Plan, PlanSpace
from jaxmas.pytrees import pytree
from jaxmas.types import Environment, Observation, TeamObservation, TimeStep

BINS = 64
"""Of the histogram of service times, over the horizon."""
CLASSES = 2
"""Of right of way: usual, and before all others."""


@pytree
class Totals:
    """Running totals of an episode."""

    delivered: Int[Array, ""]
    service: Int[Array, "bins"]
    """Delivered orders by the time from their release."""
    waited: Float[Array, ""]
    """Sum of these times."""
    moves: Int[Array, ""]
    """Those of turning robots, and of all that follows, are moves and turns."""
    blocked: Int[Array, ""]
    """Moves that were wanted and not made."""
    shortest: Float[Array, ""]
    """Moves that the ways to all stops that were reached would have taken, had nobody been there."""


@pytree
class WarehouseState:
    """An episode under way."""

    seed: UInt32[Array, ""]
    """Of the orders."""
    noise: UInt32[Array, ""]
    """Of stops and lost messages."""
    cell: Int[Array, "num_agents"]
    heading: Headings
    there: Int[Array, "cells"]
    """Who is on every cell; -1 is nobody."""
    orders: Orders
    task: Int[Array, "num_agents"]
    """The order that a robot serves; -1 is none."""
    role: Int[Array, "num_agents"]
    """Class of right of way."""
    way: Float[Array, "num_agents"]
    """Length of the shortest way to the goal from where it was given."""
    waits: Int[Array, "num_agents"]
    """Steps since a robot last went where it wanted to."""
    stopped: Int[Array, "num_agents"]
    """Steps for which it stands still."""
    totals: Totals
    step: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Warehouse(Environment):
    """A floor full of robots; sizes only."""

    family: ClassVar[str] = "warehouse"
    num_agents: int = 32
    num_orders: int = 48
    """Open at any time."""
    cells: int = 305
    """Free cells of the floor."""
    motion: Motion = "cardinal"
    horizon: int = 256
    coordination_interval: int = 8
    global_feature_names: ClassVar[tuple[str, ...]] = ("time", "carrying", "with an order", "waiting")

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        super().__post_init__()
        refuse(self.num_orders < 1, f"num_orders is {self.num_orders}; it has to be at least 1")

    @property
    def plan_space(self) -> PlanSpace:
        """Return the legal plans: an order and a class of right of way per robot."""
        return PlanSpace(self.num_agents, self.num_orders, CLASSES, 1, 1, 1, fields=("role", "task"))

    @property
    def num_actions(self) -> int:
        """Return the number of actions, of which the first is to stay."""
        return len(ACTIONS[self.motion])

    def reset(self, key: PRNGKeyArray, params: WarehouseParams) -> tuple[WarehouseState, TeamObservation]:
        """Place the robots and draw the first orders."""
        seed, noise, place = jax.random.bits(key, (3,), jnp.uint32)
        cell = _starts(place, self.num_agents, params)
        nobody, zero = jnp.zeros(self.num_agents, jnp.int32), jnp.int32(0)
        state = WarehouseState(
            seed=seed,
            noise=noise,
            cell=cell,
            heading=facing(self.motion, self.num_agents),
            there=occupants(cell, self.cells),
            orders=opened(seed, self.num_orders, params),
            task=nobody - 1,
            role=nobody,
            way=nobody.astype(jnp.float32),
            waits=nobody,
            stopped=nobody,
            totals=Totals(zero, jnp.zeros(BINS, jnp.int32), jnp.float32(0), zero, zero, jnp.float32(0)),
            step=zero,
        )
        return state, self.observe_team(state, params)

    def reseed(self, key: PRNGKeyArray, state: WarehouseState, params: WarehouseParams) -> WarehouseState:
        """Give stops and messages new chance; orders and starts stay."""
        return dataclasses.replace(state, noise=jax.random.bits(key, (), jnp.uint32))

    def coordinate(
        self, key: PRNGKeyArray, state: WarehouseState, plan: Plan, params: WarehouseParams
    ) -> tuple[WarehouseState, Observation]:
        """Give out the open orders and the right of way; who carries goods brings them to their end."""
        plan, _ = self.plan_space.project(plan)
        over = self.is_over(state)
        task = jnp.where(over, state.task, assigned(state.orders, state.task, plan.task))
        role = jnp.where(over, state.role, plan.role)
        far = distance(state.cell, state.heading, next_goal(state.orders, task), params)
        way = jnp.where(task == state.task, state.way, far)
        state = dataclasses.replace(state, task=task, role=role, way=way)
        return state, observation(self, state, params)

    def step(
        self, key: PRNGKeyArray, state: WarehouseState, actions: Int[Array, "num_agents"], params: WarehouseParams
    ) -> tuple[WarehouseState, TimeStep]:
        """Let everyone move who may, take up and deliver orders, and open new ones."""
        over = self.is_over(state)
        cell, heading, wants, goes = _moved(state, jnp.where((state.stopped > 0) | over, 0, actions), params)
        goal = next_goal(state.orders, state.task)
        arrived = (goal >= 0) & (cell == params.goal_cell[jnp.maximum(goal, 0)]) & ~over
        step = state.step + ~over
        orders, task, delivered = served(state.orders, state.task, arrived, step, state.seed, params)
        far = distance(cell, heading, next_goal(orders, task), params)
        nearer = distance(state.cell, state.heading, goal, params) - distance(cell, heading, goal, params)
        totals = _add_up(self, state, delivered, arrived, wants, goes, step)
        state = dataclasses.replace(
            state,
            cell=cell,
            heading=heading,
            there=occupants(cell, self.cells),
            orders=orders,
            task=task,
            way=jnp.where(arrived, far, state.way),
            waits=jnp.where(over, state.waits, jnp.where(wants & ~goes, state.waits + 1, 0)),
            stopped=jnp.where(over, state.stopped, _stopped(state, params)),
            totals=totals,
            step=step,
        )
        ended = self.is_over(state)
        earned = params.delivery * jnp.sum(delivered) / self.num_agents
        timestep = TimeStep(
            observation=observation(self, state, params),
            reward=earned,
            agent_reward=arrived + nearer / FAR,
            terminated=ended,
            truncated=jnp.array(False),
            metrics=_metrics(self, state),
        )
        return state, timestep

    def is_over(self, state: WarehouseState) -> Bool[Array, ""]:
        """Return whether the shift is over."""
        return state.step >= self.horizon

    def steps_left(self, state: WarehouseState) -> Int[Array, ""]:
        """Return the steps that are left."""
        return self.horizon - state.step

    def observe_team(self, state: WarehouseState, params: WarehouseParams) -> TeamObservation:
        """Return what the designer sees."""
        return team_observation(self, state, params)

    def legal(self, state: WarehouseState, params: WarehouseParams) -> Bool[Array, "num_agents actions"]:
        """Return where nothing stands in the way; robots do not count."""
        return legal(state.cell, state.heading, params.neighbours)


def _starts(seed: UInt32[Array, ""], num_agents: int, params: WarehouseParams) -> Int[Array, "num_agents"]:
    """Return where robots start: as listed, or one in each of as many equal stretches of cells, in turned order."""
    if len(params.starts):
        return params.starts[:num_agents]
    slots, cells = jnp.arange(num_agents, dtype=jnp.int32), len(params.place)
    stretch = (slots + below(hashed(seed, -1), num_agents).astype(jnp.int32)) % num_agents
    first, last = stretch * cells // num_agents, (stretch + 1) * cells // num_agents
    return first + (hashed(seed, slots) % (last - first).astype(jnp.uint32)).astype(jnp.int32)


def _moved(
    state: WarehouseState, actions: Int[Array, "num_agents"], params: WarehouseParams
) -> tuple[Int[Array, "num_agents"], Headings, Bool[Array, "num_agents"], Bool[Array, "num_agents"]]:
    """Return where robots are after their actions, and who wanted to move or turn, and did."""
    cells, headings = leads(state.cell, state.heading, params.neighbours)
    target = jnp.take_along_axis(cells, actions[:, None], axis=1)[:, 0]
    rank = state.role * 2**10 + jnp.minimum(state.waits, 2**10 - 1)
    wants = target != state.cell
    goes = resolve(state.cell, target, rank, state.there, params.neighbours, state.step)
    cell = jnp.where(goes, target, state.cell)
    if headings is None:
        return cell, None, wants, goes
    heading = jnp.take_along_axis(headings, actions[:, None], axis=1)[:, 0]
    turned = heading != state.heading
    return cell, heading, wants | turned, goes | turned


def _stopped(state: WarehouseState, params: WarehouseParams) -> Int[Array, "num_agents"]:
    """Return for how long robots stand still after this step; some of those that do not, begin to."""
    word = hashed(state.noise, state.step, jnp.arange(len(state.cell)), 1)
    pause = _pause(hashed(word, 2), params)
    begins = (state.stopped == 0) & (uniform(word) < params.stop_chance)
    return jnp.where(begins, pause, jnp.maximum(state.stopped - 1, 0))


def _pause(word: UInt32[Array, "*s"], params: WarehouseParams) -> Int[Array, "*s"]:
    """Draw for how long robots stand still: all durations alike, or a rounded normal one, held within the range."""
    shortest, longest = params.stop_shortest, params.stop_longest
    if params.stop_gaussian is None:
        return shortest + (word % (longest - shortest + 1).astype(jnp.uint32)).astype(jnp.int32)
    mean, deviation = params.stop_gaussian * (longest - shortest)
    drawn = shortest + mean + deviation * ndtri(uniform(word) + 2.0**-25)
    return jnp.clip(jnp.round(drawn), shortest, longest).astype(jnp.int32)


def _add_up(env: Warehouse, state: WarehouseState, delivered, arrived, wants, goes, step) -> Totals:
    """Return the totals after a step."""
    totals = state.totals
    took = (step - state.orders.released).astype(jnp.int32)
    place = jnp.where(delivered, jnp.minimum(took * BINS // env.horizon, BINS - 1), BINS)
    return Totals(
        delivered=totals.delivered + jnp.sum(delivered),
        service=totals.service.at[place].add(1, mode="drop"),
        waited=totals.waited + jnp.sum(jnp.where(delivered, took, 0)),
        moves=totals.moves + jnp.sum(goes),
        blocked=totals.blocked + jnp.sum(wants & ~goes),
        shortest=totals.shortest + jnp.sum(jnp.where(arrived, state.way, 0)),
    )


def _metrics(env: Warehouse, state: WarehouseState) -> dict[str, Any]:
    """Return the running totals; ``success`` is the share of agent-steps that brought someone nearer to a stop."""
    totals, spent = state.totals, jnp.maximum(state.step * env.num_agents, 1).astype(jnp.float32)
    count = jnp.maximum(totals.delivered, 1)
    behind = jnp.cumsum(totals.service) >= jnp.ceil(0.95 * totals.delivered)
    numbers = {
        "success": totals.shortest / spent,
        "cost": totals.moves / spent,
        "orders": totals.delivered,
        "throughput": totals.delivered / jnp.maximum(state.step, 1),
        "service": totals.waited / count,
        "service_p95": (jnp.argmax(behind) + 1) * env.horizon / BINS * (totals.delivered > 0),
        "blocked": totals.blocked / jnp.maximum(totals.moves + totals.blocked, 1),
        "detour": totals.moves / jnp.maximum(totals.shortest, 1),
        "active_agents": jnp.float32(env.num_agents),
    }
    return {name: jnp.asarray(value, jnp.float32) for name, value in numbers.items()}
