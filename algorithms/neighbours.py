"""Nearest neighbours over the plan grid: a reference that remembers, and learns nothing.

Training plays the rows of the environment's plan grammar on each of a few queries. A new query gets the row that earned
most on average over the queries that looked most like it, by their global features. It is the router that
routers with a network are to beat (as in RouterBench, arXiv 2403.12031, over models there and whole plans here).
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxmas.errors import check_numbers
from jaxmas.groups import GroupSizes, play_groups, returns
from jaxmas.logs import log_plays
from jaxmas.plans import Plan
from jaxmas.policies import TemplatePolicy
from jaxmas.pytrees import pytree
from jaxmas.registry import ALGORITHMS, TEMPLATES
from jaxmas.rollout import Policies
from jaxmas.spaces.base import Decision
from jaxmas.types import Environment, MetaPolicy, TeamObservation


@dataclasses.dataclass(frozen=True)
class NeighboursConfig:
    """Settings of nearest neighbours."""

    called: ClassVar[str] = "neighbours"
    updates: int = 100
    queries: int = 8
    plans: int = 190
    """Rows of the grammar that are played on each query, drawn anew for each update: by default all of a workflow's."""
    neighbours: int = 128
    """Queries that a new one is compared with."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        check_numbers(self.called, self, ("updates", "queries", "plans", "neighbours"), 1)

    @property
    def sizes(self) -> GroupSizes:
        """Return what is played in an update."""
        return GroupSizes(self.queries, self.plans)

    def initial_state(
        self, env: Environment, params: Any, key: PRNGKeyArray, start: Policies | None = None
    ) -> "Memory":
        """Return the empty memory, with room for all queries of the run."""
        team = jax.eval_shape(lambda key: env.reset(key, params)[1], key)
        room, rows = self.updates * self.queries, len(TEMPLATES[env.family].rows)
        empty = {
            "seen": jnp.zeros((room, *team.global_features.shape)),
            "earned": jnp.zeros((room, rows)),
            "plays": jnp.zeros((room, rows)),
        }
        return Memory(empty, key, jnp.int32(0))

    def update(
        self, env: Environment, params: Any, start: Policies, state: "Memory"
    ) -> tuple["Memory", dict[str, Array]]:
        """Play rows on a few queries, all under the same noise, and remember what they earned."""
        key, query_key, play_key, row_key = jax.random.split(state.key, 4)
        table = TEMPLATES[env.family].table()
        rows = state.params["earned"].shape[1]
        drawn = jax.random.permutation(row_key, rows)[jnp.arange(self.plans) % rows]

        def play(row):
            policies = dataclasses.replace(start, meta=TemplatePolicy(env), meta_params=row)
            return play_groups(env, params, policies, query_key, play_key, GroupSizes(self.queries))[0]

        steps = jax.vmap(play)(jax.tree.map(lambda column: column[drawn], table))
        earned = returns(steps)
        empty = jnp.zeros((self.queries, rows))
        new = {
            "seen": steps.team.global_features[0, :, 0, 0, 0],
            "earned": empty.at[:, drawn].add(earned[:, :, 0, 0].T),
            "plays": empty.at[:, drawn].add(1),
        }
        start_at = state.update * self.queries

        def remember(old, new):
            return jax.lax.dynamic_update_slice_in_dim(old, new, start_at, axis=0)

        memory = jax.tree.map(remember, state.params, new)
        return Memory(memory, key, state.update + 1), log_plays(steps, earned)

    def designer(self, env: Environment, state: "Memory", greedy: bool = False) -> tuple[MetaPolicy, Any]:
        """Return the policy, and what is remembered."""
        return Nearest(env, self.neighbours), state.params

    def executor(self, env: Environment, state: "Memory") -> None:
        """Return nothing: executors are frozen."""


@pytree
class Memory:
    """Queries as they looked, and what every row earned on each of them."""

    params: dict[str, Array]
    key: PRNGKeyArray
    update: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Nearest:
    """Builds the row that earned most on the queries that looked most like this one."""

    env: Environment
    neighbours: int

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: dict[str, Array], carry: tuple, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, tuple, dict[str, Any]]:
        """Return that row's plan."""
        row, templates = jnp.argmax(self.estimate(params, team)), TEMPLATES[self.env.family]
        best = jax.tree.map(lambda column: column[row], templates.table())
        return templates.build(self.env, best, team), carry, {}

    def near(self, params: dict[str, Array], team: TeamObservation) -> tuple[Array, Array]:
        """Return what every row earned on the nearest queries and how often it was played there, ``[queries, rows]``.

        Features count in units of their standard deviation over memory.
        """
        known = jnp.any(params["plays"] > 0, axis=1, keepdims=True)
        count = jnp.maximum(jnp.sum(known), 1)
        mean = jnp.sum(jnp.where(known, params["seen"], 0), axis=0) / count
        spread = jnp.sqrt(jnp.sum(jnp.where(known, params["seen"] - mean, 0) ** 2, axis=0) / count)
        apart = jnp.sum(((params["seen"] - team.global_features) / jnp.maximum(spread, 1e-3)) ** 2, axis=1)
        near = jax.lax.top_k(jnp.where(known[:, 0], -apart, -jnp.inf), min(self.neighbours, len(apart)))[1]
        return params["earned"][near], params["plays"][near]

    def estimate(self, params: dict[str, Array], team: TeamObservation) -> Float[Array, "rows"]:
        """Return what every row earned on average on the nearest queries."""
        earned, plays = self.near(params, team)
        played = jnp.sum(plays, axis=0)
        return jnp.where(played > 0, jnp.sum(earned, axis=0) / jnp.maximum(played, 1), -jnp.inf)

    def explain(self, params: dict[str, Array], team: TeamObservation, key: PRNGKeyArray) -> list[Decision]:
        """Return the row, and on which share of the nearest queries that it was played on no other earned more."""
        earned, plays = self.near(params, team)
        best, templates = int(jnp.argmax(self.estimate(params, team))), TEMPLATES[self.env.family]
        mean, there = earned / jnp.maximum(plays, 1), plays[:, best] > 0
        most = jnp.max(jnp.where(plays > 0, mean, -jnp.inf), axis=1)
        share = jnp.sum(there & (mean[:, best] >= most)) / jnp.maximum(jnp.sum(there), 1)
        return [Decision("plan", templates.describe(templates.rows[best]), float(share))]


ALGORITHMS.add(
    "neighbours", NeighboursConfig, "remembers what every row of the plan grammar earned on queries that looked alike"
)
