"""Who serves which order: classical assignment, over the open orders and the robots that carry nothing.

Every rule takes distances ``[num_agents, orders]``, infinite where a robot or an order is not to be had, and returns an
order per robot, -1 for none. Cheap rules are rows of the warehouse's plan templates; the others are strategies alone.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxmas.environments.warehouse.observe import AGE, CROWDS, LENGTH
from jaxmas.matching import cheapest_first
from jaxmas.plans import Plan
from jaxmas.policies import TemplatePolicy
from jaxmas.pytrees import pytree
from jaxmas.registry import STRATEGIES, TEMPLATES
from jaxmas.types import Environment, MetaPolicy, TeamObservation

Distances = Float[Array, "num_agents orders"]
Tasks = Int[Array, "num_agents"]
NEVER = 2.0**16
"""Stands for an infinite distance: more than any sum of true ones, and sums with it are exact in sixteenths."""


def nearest_first(far: Distances, team: TeamObservation) -> Tasks:
    """Match the nearest pair, then the nearest of the rest, and so on."""
    return cheapest_first(far)


def first_come(far: Distances, team: TeamObservation) -> Tasks:
    """Give every order, the oldest first, to the nearest robot that is still free."""
    age = team.task_tokens[:, AGE]

    def give(task, order):
        left = jnp.where(task < 0, far[:, order], jnp.inf)
        robot = jnp.argmin(left)
        place = jnp.where(jnp.isfinite(left[robot]), robot, len(task))
        return task.at[place].set(order, mode="drop"), None

    oldest = jnp.argsort(-age, stable=True).astype(jnp.int32)
    return jax.lax.scan(give, jnp.full(len(far), -1, jnp.int32), oldest)[0]


def congestion_aware(far: Distances, team: TeamObservation) -> Tasks:
    """Match the nearest pairs, where an order counts as farther the more robots are near its next and last stop."""
    return nearest_first(far + DETOUR * jnp.sum(team.task_tokens[:, CROWDS], axis=1), team)


def shortest_first(far: Distances, team: TeamObservation) -> Tasks:
    """Match the nearest pairs, where the way from an order's next stop to its last counts as well."""
    return nearest_first(far + team.task_tokens[:, LENGTH], team)


def hungarian(far: Distances, team: TeamObservation) -> Tasks:
    """Match so that the sum of distances is least (Kuhn 1955; optax)."""
    cost = jnp.where(jnp.isfinite(far), far, NEVER)
    robots, orders = optax.assignment.hungarian_algorithm(cost)
    task = jnp.full(len(far), -1, jnp.int32).at[robots].set(orders.astype(jnp.int32))
    return jnp.where(jnp.isfinite(far[jnp.arange(len(far)), jnp.maximum(task, 0)]), task, -1)


def auction(far: Distances, team: TeamObservation, epsilon: float = 1 / 32, most: int = 2000) -> Tasks:
    """Let free robots bid for orders until all have one (Bertsekas 1988): within ``num_agents · ε`` of the least sum.

    Every robot may also stay without an order, at a price that nobody would rather pay.
    """
    agents, orders = far.shape
    value = jnp.where(jnp.isfinite(far), -far, -jnp.inf)
    bidder = jnp.isfinite(far).any(axis=1)
    slots = jnp.arange(agents)

    def bid(carry):
        task, price, rounds = carry
        worth = value - price
        best = jnp.argmax(worth, axis=1)
        top = worth[slots, best]
        second = jnp.max(jnp.where(jnp.arange(orders) == best[:, None], -jnp.inf, worth), axis=1)
        second = jnp.maximum(second, -NEVER)
        bids = bidder & (task < 0) & (top > -NEVER)
        offer = jnp.where(bids, price[best] + top - second + epsilon, -jnp.inf)
        by_order = jnp.where(jnp.arange(orders) == best[:, None], offer[:, None], -jnp.inf)
        highest, winner = jnp.max(by_order, axis=0), jnp.argmax(by_order, axis=0)
        sold = jnp.isfinite(highest)
        lost = (task >= 0) & sold[jnp.maximum(task, 0)]
        wins = bids & (winner[best] == slots)
        task = jnp.where(wins, best, jnp.where(lost, -1, task)).astype(jnp.int32)
        return task, jnp.where(sold, highest, price), rounds + 1

    def unsold(carry):
        task, price, rounds = carry
        top = jnp.max(value - price, axis=1)
        return jnp.any(bidder & (task < 0) & (top > -NEVER)) & (rounds < most)

    start = jnp.full(agents, -1, jnp.int32), jnp.zeros(orders), jnp.int32(0)
    return jax.lax.while_loop(unsold, bid, start)[0]


def regret(far: Distances, team: TeamObservation) -> Tasks:
    """Serve next the robot that would lose most by not getting its nearest order: second nearest less nearest."""
    agents, orders = far.shape
    capped = jnp.where(jnp.isfinite(far), far, NEVER)

    def give(carry, _):
        task, taken = carry
        left = jnp.where(taken, NEVER, capped)
        two = -jax.lax.top_k(-left, min(2, orders))[0]
        loss = jnp.where((task < 0) & (two[:, 0] < NEVER), two[:, -1] - two[:, 0], -1.0)
        robot = jnp.argmax(loss)
        order = jnp.argmin(left[robot])
        gives = loss[robot] >= 0
        task = task.at[jnp.where(gives, robot, agents)].set(order.astype(jnp.int32), mode="drop")
        return (task, taken.at[jnp.where(gives, order, orders)].set(True, mode="drop")), None

    start = jnp.full(agents, -1, jnp.int32), jnp.zeros(orders, bool)
    return jax.lax.scan(give, start, None, length=min(agents, orders))[0][0]


DETOUR = 0.8
"""How much farther a crowd of one makes a stop, in the unit of distances: best of four on validation queries of
``warehouse-medium-v0``."""
Rule = Callable[[Distances, TeamObservation], Tasks]
QUICK: dict[str, Rule] = {
    "nearest-first": nearest_first,
    "first-come": first_come,
    "congestion-aware": congestion_aware,
    "shortest-first": shortest_first,
}
THOROUGH: dict[str, Rule] = {"hungarian": hungarian, "auction": auction, "regret": regret}
WAYS = ("all alike", "carriers first", "seekers first")
"""Who has the right of way."""


def distances(team: TeamObservation) -> Distances:
    """Return how far free robots are from open orders; infinite for all others."""
    free = team.agent_mask[:, None] & team.task_mask
    return jnp.where(free, team.pair_features[:, :, 0], jnp.inf)


def plan_of(env: Environment, task: Tasks, way: Int[Array, ""] | int, team: TeamObservation) -> Plan:
    """Return the plan that gives out these orders and the right of way."""
    carries = ~team.agent_mask
    role = jnp.stack([jnp.zeros_like(carries), carries, ~carries])[way].astype(jnp.int32)
    plan = dataclasses.replace(env.plan_space.empty(), active=jnp.ones_like(carries), role=role, task=task)
    return env.plan_space.project(plan)[0]


@pytree
class WarehouseTemplate:
    """A rule and who has the right of way; one row or a table of them."""

    rule: Int[Array, "*rows"]
    way: Int[Array, "*rows"]


@dataclasses.dataclass(frozen=True)
class WarehouseTemplates:
    """One row per quick rule and right of way."""

    rows: tuple[tuple[int, ...], ...] = tuple(itertools.product(range(len(QUICK)), range(len(WAYS))))
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"rule": tuple(QUICK), "way": WAYS}

    def names(self, env: Any) -> dict[str, tuple[str, ...]]:
        """Return what the values of plan fields are called."""
        return {"role": ("usual", "first")}

    def table(self) -> WarehouseTemplate:
        """Return all rows as a tree of columns."""
        return self.columns(self.rows)

    def columns(self, rows: tuple[tuple[int, ...], ...]) -> WarehouseTemplate:
        """Return some rows as a tree of columns."""
        return WarehouseTemplate(*jnp.array(rows, jnp.int32).T)

    def row(self, row: tuple[int, ...]) -> WarehouseTemplate:
        """Return a row as a tree of scalars."""
        return WarehouseTemplate(*(jnp.int32(number) for number in row))

    def build(self, env: Environment, row: WarehouseTemplate, team: TeamObservation) -> Plan:
        """Give out orders by the rule."""
        far = distances(team)
        task = jax.lax.switch(row.rule, tuple(QUICK.values()), far, team)
        return plan_of(env, task, row.way, team)

    def describe(self, row: tuple[int, ...]) -> str:
        """Return a row in words."""
        rule, way = (int(number) for number in row)
        return f"{tuple(QUICK)[rule]}, {WAYS[way]}"


@dataclasses.dataclass(frozen=True)
class AssignmentPolicy:
    """A rule that takes its time, as a meta-policy without parameters."""

    env: Environment
    rule: str

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: Any, carry: tuple, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, tuple, dict[str, Any]]:
        """Give out orders by the rule."""
        return plan_of(self.env, THOROUGH[self.rule](distances(team), team), 0, team), carry, {}


SUMMARIES = {
    "nearest-first": "the nearest pair of robot and order first",
    "first-come": "the oldest order first, to the nearest robot",
    "congestion-aware": "nearest first, where robots near its stops make an order count as farther",
    "shortest-first": "nearest first, where the whole way of an order counts",
    "hungarian": "the least sum of distances (optax)",
    "auction": "robots bid for orders (Bertsekas)",
    "regret": "first the robot that would lose most by waiting",
}
TEMPLATES.add("warehouse", WarehouseTemplates(), "a rule of assignment and of right of way", "warehouse")


def _strategy(name: str) -> Callable[..., MetaPolicy]:
    def make(env: Environment, params: Any = None) -> MetaPolicy:
        if name in THOROUGH:
            return AssignmentPolicy(env, name)
        return TemplatePolicy(env, (tuple(QUICK).index(name), 0))

    return make


for _name in (*QUICK, *THOROUGH):
    STRATEGIES.add(_name, _strategy(_name), SUMMARIES[_name], "warehouse")
