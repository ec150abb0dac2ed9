"""Puppeteer-style (simulated): step by step an orchestrator calls the next member, until it stops.

| | Puppeteer (arXiv 2505.19591) | here |
|---|---|---|
| step | the next agent speaks, with all that was said before it | the next member joins, reads all, and stays on |
| agents | a fixed pool, each a model with a tool or a way of reasoning | a member of any role and tier |
| state | the dialogue so far, embedded | the team observation: progress, agreement, who is on the team |
| stop | a terminator agent, or a budget | an action of its own; the deadline |
| learning | REINFORCE on success less a discounted token cost | success − λ · cost, against the query's other runs |

It needs plans to choose at: ``--coordination-interval`` says every how many steps it may call somebody.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.design_policies import LearnedPolicy
from jaxmas.designers import PricedConfig
from jaxmas.errors import refuse
from jaxmas.networks import MLP, TeamEncoder
from jaxmas.plans import Plan
from jaxmas.registry import ALGORITHMS, DESIGN_SPACES, TEMPLATES
from jaxmas.spaces.base import FORBIDDEN, Decision
from jaxmas.types import Environment, TeamObservation


class CallNetwork(nn.Module):
    """Team observation to a score of stopping and of every role and tier, and a value."""

    calls: int
    width: int

    @nn.compact
    def __call__(self, team: TeamObservation) -> tuple[Float[Array, "calls"], Float[Array, ""]]:
        """Return the scores of calls, the first of which is to stop, and the value of the query."""
        summary, _, _ = TeamEncoder(self.width)(team)
        hidden = nn.relu(nn.Dense(self.width)(summary))
        scores = nn.Dense(self.calls, kernel_init=nn.initializers.zeros)(hidden)
        # Nobody is on the team before the first call, which cannot be to stop.
        begun = jnp.any(team.agent_tokens[:, 0] > 0)
        barred = (jnp.arange(self.calls) == 0) & ~begun
        return jnp.where(barred, FORBIDDEN, scores), MLP((self.width,), 1)(summary)[0]


@dataclasses.dataclass(frozen=True)
class StepsSpace:
    """The next member's role and tier, or to stop; the team is what has been called so far."""

    name: ClassVar[str] = "steps"
    env: Environment
    width: int = 128

    @property
    def network(self) -> CallNetwork:
        """Return the network that parametrises the choice."""
        space = self.env.plan_space
        return CallNetwork(1 + space.num_roles * space.num_tiers, self.width)

    def sample(self, outputs: Float[Array, "calls"], key: PRNGKeyArray, team: TeamObservation) -> Int[Array, ""]:
        """Draw a call."""
        return jax.random.categorical(key, outputs)

    def mode(self, outputs: Float[Array, "calls"], team: TeamObservation) -> Int[Array, ""]:
        """Return the likeliest call."""
        return jnp.argmax(outputs)

    def score(
        self, outputs: Float[Array, "calls"], choice: Int[Array, ""], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the log-probability of a call and the entropy over calls."""
        law = jax.nn.log_softmax(outputs)
        return law[choice], -jnp.sum(jnp.exp(law) * law)

    def valid(self, choice: Int[Array, ""], team: TeamObservation) -> Bool[Array, ""]:
        """Return whether the choice is one: always."""
        return choice >= 0

    def propose(self, key: PRNGKeyArray, team: TeamObservation) -> Int[Array, ""]:
        """Draw any call but to stop."""
        space = self.env.plan_space
        return jax.random.randint(key, (), 1, 1 + space.num_roles * space.num_tiers)

    def vary(self, key: PRNGKeyArray, choice: Int[Array, ""], team: TeamObservation) -> Int[Array, ""]:
        """Draw any other call but to stop."""
        calls = self.env.plan_space.num_roles * self.env.plan_space.num_tiers
        shift = jax.random.randint(key, (), 1, max(calls, 2))
        return 1 + (choice - 1 + shift) % calls

    def to_plan(self, choice: Int[Array, ""], team: TeamObservation) -> Plan:
        """Return the plan of a team of which the called member is the first."""
        return self.extend(self.env.plan_space.empty(), choice)

    def extend(self, plan: Plan, choice: Int[Array, ""]) -> Plan:
        """Return the plan with one more member, who reads the last to join before it and is read by the reporter."""
        n, tiers = self.env.num_agents, self.env.plan_space.num_tiers
        members = jnp.sum(plan.active)
        joins = (jnp.arange(n) == members) & (choice > 0)
        role, tier = (choice - 1) // tiers, (choice - 1) % tiers
        place = jnp.arange(plan.reads.shape[1])
        before = members - 1 - place[None, :]
        reads = jnp.where(joins[:, None], jnp.where(before >= 0, before, -1), plan.reads)
        # The reporter's inbox is full once so many have joined: the latest takes the oldest's place.
        told = (choice > 0) & (members > 0) & (place == (members - 1) % len(place))
        reads = reads.at[0].set(jnp.where(told, members, reads[0]))
        extended = dataclasses.replace(
            plan,
            active=plan.active | joins,
            role=jnp.where(joins, role, plan.role),
            tier=jnp.where(joins, tier, plan.tier),
            reads=reads,
        )
        return self.env.plan_space.project(extended)[0]

    def explain(self, outputs: Float[Array, "calls"], choice: Int[Array, ""], team: TeamObservation) -> list[Decision]:
        """Return the call, with its probability."""
        templates, tiers = TEMPLATES[self.env.family], self.env.plan_space.num_tiers
        names = templates.names(self.env) if hasattr(templates, "names") else {}
        role, tier = divmod(int(choice) - 1, tiers)

        def called(kind: str, value: int) -> str:
            known = names.get(kind, ())
            return known[value] if value < len(known) else f"{kind}-{value}"

        said = "stop" if choice == 0 else f"{called('tier', tier)} {called('role', role)}"
        return [Decision("next", said, float(jax.nn.softmax(outputs)[choice]))]


@dataclasses.dataclass(frozen=True)
class Orchestrator(LearnedPolicy):
    """Calls one member after another; its carry is the team so far."""

    def init(self) -> Plan:
        """Return the team of nobody."""
        return self.space.env.plan_space.empty()

    def apply(
        self, params: Any, carry: Any, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, Any, dict[str, Any]]:
        """Return the team with who was called, and what learners want to know."""
        _, _, info = super().apply(params, (), team, key)
        plan = self.space.extend(carry, info["choice"])
        return plan, plan, info


@dataclasses.dataclass(frozen=True)
class PuppeteerConfig(PricedConfig):
    """Settings of Puppeteer."""

    called: ClassVar[str] = "puppeteer"
    space: Literal["steps"] = "steps"
    learner: Literal["group", "grpo", "ppo", "reinforce", "reinforce-baseline", "evolution"] = "group"

    def policy(self, env: Environment, greedy: bool = False) -> LearnedPolicy:
        """Return the orchestrator."""
        refuse(
            env.coordination_interval == env.horizon and env.horizon > 1,
            f"puppeteer: there is one plan per query of {env.horizon} steps; give a --coordination-interval below it",
        )
        return Orchestrator(DESIGN_SPACES["steps"](env, self.width), greedy, self.sees)


DESIGN_SPACES.add("steps", StepsSpace, "the next member's role and tier, plan after plan, or to stop")
ALGORITHMS.add("puppeteer", PuppeteerConfig, "an orchestrator calls member after member (Puppeteer-style)")
