"""The graph design space: of a given team, who reads whom: one decision per pair of members.

``graph`` takes every link's probability from the query, by attention between members (G-Designer, arXiv 2410.11782);
``graph-fixed`` has one number per link for all queries (GPTSwarm, arXiv 2402.16823). The team, with its roles, tiers,
tasks and quorums, is a row of the environment's grammar, whose own links are likelier to begin with. Members whose
messages do not reach the reporter leave the team.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.errors import refuse
from jaxmas.networks import MLP, TeamEncoder
from jaxmas.plans import Plan
from jaxmas.registry import DESIGN_SPACES, STRATEGIES, TEMPLATES
from jaxmas.spaces.base import Decision
from jaxmas.types import Environment, TeamObservation

HOPS = 8
"""Readers between a member and the reporter at most."""


class GraphNetwork(nn.Module):
    """Team observation to a score of every link, and a value."""

    num_agents: int
    width: int
    fixed: bool
    rounds: int

    @nn.compact
    def __call__(self, team: TeamObservation) -> tuple[Float[Array, "num_agents num_agents"], Float[Array, ""]]:
        """Return the score of reader and read, beside the team's own links, and the value of the query."""
        zeros = nn.initializers.zeros
        if self.fixed:
            links = self.param("links", zeros, (self.rounds, self.num_agents, self.num_agents))
            later = (team.global_features[-1] > 0).astype(jnp.int32)
            return links[jnp.minimum(later, self.rounds - 1)], self.param("value", zeros, ())
        summary, _, agents = TeamEncoder(self.width)(team)
        context = jnp.tile(nn.relu(nn.Dense(self.width)(summary)), (len(agents), 1))
        members = nn.relu(nn.Dense(self.width)(jnp.concatenate([agents, context], axis=-1)))
        readers = nn.Dense(self.width, name="reader", kernel_init=zeros)(members)
        read = nn.Dense(self.width, name="read")(members)
        return readers @ read.T / jnp.sqrt(self.width), MLP((self.width,), 1)(summary)[0]


@dataclasses.dataclass(frozen=True)
class GraphSpace:
    """One decision per pair of a team's members: does the one read the other?"""

    env: Environment
    width: int = 128
    fixed: bool = False
    """One score per link for all queries."""
    team: tuple[int, ...] | None = None
    """The row of the grammar that is the team; None takes the environment's usual one."""
    anchor: float = 2.0
    """How much likelier the team's own links are, and others less, in logits."""
    rounds: int = 1
    """With ``fixed``: 2 has scores of their own for the plans after the first, by the time that is seen."""
    keep: float | None = None
    """Share of the possible links that the likeliest graph has; by default those with a probability above ½."""

    @property
    def name(self) -> str:
        """Return the registered name."""
        return "graph-fixed" if self.fixed else "graph"

    @property
    def network(self) -> GraphNetwork:
        """Return the network that parametrises the choice."""
        return GraphNetwork(self.env.num_agents, self.width, self.fixed, self.rounds)

    def base(self, team: TeamObservation) -> Plan:
        """Return the team's plan with its own links."""
        templates = TEMPLATES[self.env.family]
        return templates.build(self.env, templates.row(self.team or team_row("", 0, self.env)), team)

    def sample(
        self, outputs: Float[Array, "n n"], key: PRNGKeyArray, team: TeamObservation
    ) -> Bool[Array, "num_agents num_agents"]:
        """Draw every link."""
        logits, possible = self.links(outputs, team)
        return jax.random.bernoulli(key, jax.nn.sigmoid(logits)) & possible

    def mode(self, outputs: Float[Array, "n n"], team: TeamObservation) -> Bool[Array, "num_agents num_agents"]:
        """Return the links that are likelier than not, or the likeliest share of them."""
        logits, possible = self.links(outputs, team)
        if self.keep is None:
            return (logits > 0) & possible
        place = jnp.argsort(jnp.argsort(jnp.where(possible, -logits, jnp.inf).ravel(), stable=True))
        return (place.reshape(logits.shape) < jnp.round(self.keep * jnp.sum(possible))) & possible

    def score(
        self, outputs: Float[Array, "n n"], choice: Bool[Array, "num_agents num_agents"], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the log-probability of all links, and their entropy per member."""
        logits, possible = self.links(outputs, team)
        log_prob = jnp.where(choice, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits))
        chance = jax.nn.sigmoid(logits)
        entropy = -chance * jax.nn.log_sigmoid(logits) - (1 - chance) * jax.nn.log_sigmoid(-logits)
        members = jnp.maximum(jnp.sum(jnp.any(possible, axis=1)), 1)
        return jnp.sum(jnp.where(possible, log_prob, 0)), jnp.sum(jnp.where(possible, entropy, 0)) / members

    def links(self, outputs: Float[Array, "n n"], team: TeamObservation) -> tuple[Array, Bool[Array, "n n"]]:
        """Return the logits of all links, and which are possible: those between different members."""
        base = self.base(team)
        own = _matrix(base.reads, self.env.num_agents)
        possible = base.active[:, None] & base.active[None, :] & ~jnp.eye(self.env.num_agents, dtype=bool)
        return outputs + self.anchor * jnp.where(own, 1.0, -1.0), possible

    def valid(self, choice: Bool[Array, "num_agents num_agents"], team: TeamObservation) -> Bool[Array, ""]:
        """Return whether the choice is one: always."""
        return jnp.any(choice) | True

    def propose(self, key: PRNGKeyArray, team: TeamObservation) -> Bool[Array, "num_agents num_agents"]:
        """Draw links as they are before learning."""
        return self.sample(jnp.zeros((self.env.num_agents,) * 2), key, team)

    def vary(
        self, key: PRNGKeyArray, choice: Bool[Array, "num_agents num_agents"], team: TeamObservation
    ) -> Bool[Array, "num_agents num_agents"]:
        """Change about three links."""
        _, possible = self.links(jnp.zeros(choice.shape), team)
        flips = jax.random.bernoulli(key, jnp.minimum(3 / jnp.maximum(jnp.sum(possible), 1), 0.5), choice.shape)
        return choice ^ (flips & possible)

    def to_plan(self, choice: Bool[Array, "num_agents num_agents"], team: TeamObservation) -> Plan:
        """Give the team the chosen links, the nearest first where they are more than an inbox holds."""
        base, n = self.base(team), self.env.num_agents
        inbox = self.env.plan_space.inbox
        slot = jnp.arange(n)
        order = jnp.where(choice, (slot[None, :] - slot[:, None] - 1) % n, n)
        nearest = jnp.argsort(order, axis=1)[:, :inbox]
        nearest = jnp.pad(nearest, ((0, 0), (0, inbox - nearest.shape[1])), constant_values=-1)
        kept = jnp.take_along_axis(choice, jnp.maximum(nearest, 0), axis=1) & (nearest >= 0)
        plan = dataclasses.replace(base, reads=jnp.where(kept, nearest, -1))
        if "reads" in self.env.plan_space.fields:
            plan = dataclasses.replace(plan, active=base.active & reached(plan))
        return self.env.plan_space.project(plan)[0]

    def explain(
        self, outputs: Float[Array, "n n"], choice: Bool[Array, "num_agents num_agents"], team: TeamObservation
    ) -> list[Decision]:
        """Return every link that is chosen, with its probability."""
        logits, _ = self.links(outputs, team)
        chosen = zip(*map(list, jnp.nonzero(choice)), strict=True)
        links = [(int(reader), int(read)) for reader, read in chosen]
        return [Decision(f"slot {i} reads", f"slot {j}", float(jax.nn.sigmoid(logits[i, j]))) for i, j in links]


def _matrix(reads: Int[Array, "n inbox"], n: int) -> Bool[Array, "n n"]:
    """Return who reads whom as a matrix."""
    return jnp.any(reads[:, :, None] == jnp.arange(n), axis=1)


def reached(plan: Plan) -> Bool[Array, "num_agents"]:
    """Return whose messages reach the reporter, the first member, over at most ``HOPS`` readers."""
    n = len(plan.active)
    reader = jnp.arange(n) == jnp.argmax(plan.active)

    def hop(_: Any, reached: Array) -> Array:
        heard = jnp.where(reached[:, None], plan.reads, -1)
        return reached.at[jnp.where(heard >= 0, heard, n)].set(True, mode="drop")

    return jax.lax.fori_loop(0, HOPS, hop, reader)


def team_row(strategy: str, members: int, env: Environment) -> tuple[int, ...]:
    """Return the row of the grammar that a strategy plays, the environment's usual team without a name.

    Other than 0, ``members`` is put in the place of the row's size.
    """
    templates = TEMPLATES[env.family]
    row: tuple[int, ...] = getattr(templates, "team", templates.rows[-1])
    if strategy:
        known = getattr(STRATEGIES[strategy](env), "row", None)
        refuse(known is None, f"team: strategy {strategy!r} has no team of its own; take one that is a grammar's row")
        row = known or row
    if members and "size" in templates.parts:
        size = list(templates.parts).index("size")
        row = (*row[:size], members, *row[size + 1 :])
    return row


_SUMMARIES: dict[str, Any] = {
    "graph": "who of a given team reads whom, link by link, per query",
    "graph-fixed": "the same for all queries: one number per link",
}
for _name, _summary in _SUMMARIES.items():
    DESIGN_SPACES.add(_name, functools.partial(GraphSpace, fixed=_name == "graph-fixed"), _summary)
