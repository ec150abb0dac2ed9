"""The pairs space: who does which task, a task for one agent at most; for any number of agents and tasks.

A small network scores every pair of agent and task from how far they are apart and what both are like: a weighted sum,
which a few trials are enough to find, and the bonus of a hidden layer. Agents then choose one after the other, those
with the highest scores first, among the tasks that are left.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.networks import MLP, TeamEncoder
from jaxmas.plans import Plan
from jaxmas.registry import DESIGN_SPACES
from jaxmas.spaces.base import FORBIDDEN, Decision, entropy_of, log_prob_of
from jaxmas.types import Environment, TeamObservation

SHARP = 16.0
"""Logits per unit of a score, which counts as the first feature of a pair does."""
IDLE = 4.0
"""How far a task may be, before learning, until an agent would rather have none."""
USUAL = 4.0
"""Initial preference for the first role and tier."""


class PairsNetwork(nn.Module):
    """Team observation to logits of every agent's task, role and tier, and a value."""

    num_roles: int
    num_tiers: int
    width: int

    @nn.compact
    def __call__(self, team: TeamObservation) -> tuple[dict[str, Array], Float[Array, ""]]:
        """Return logits by head (of tasks, index 0 is none) and the value of the query."""
        overall = nn.Dense(self.width)(team.global_features)
        near = jnp.mean(jnp.where(team.agent_mask[:, None, None], team.pair_features, 0.0), axis=0)
        about = jnp.concatenate([team.task_tokens, near], axis=-1)
        appeal = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros, name="appeal")(about)[:, 0]
        # Against the other tasks: how dear they all are is no reason to do nothing.
        appeal = appeal - jnp.sum(jnp.where(team.task_mask, appeal, 0.0)) / jnp.maximum(jnp.sum(team.task_mask), 1)
        agents = nn.Dense(self.width, use_bias=False)(team.agent_tokens)
        tasks = nn.Dense(self.width, use_bias=False)(about)
        hidden, far = agents[:, None] + tasks[None] + overall, jnp.zeros(())
        if team.pair_features.shape[2]:
            hidden = hidden + nn.Dense(self.width, use_bias=False)(team.pair_features)
            far = team.pair_features[:, :, 0]
        hidden = nn.relu(hidden)
        bonus = nn.Dense(1, kernel_init=nn.initializers.zeros, name="bonus")(hidden)[:, :, 0]
        agents = nn.relu(agents + overall)
        idle = nn.Dense(1, kernel_init=nn.initializers.zeros, name="idle")(agents) - IDLE

        def head(name: str, count: int) -> Array:
            return nn.Dense(count, kernel_init=nn.initializers.zeros, name=name)(agents).at[:, 0].add(USUAL)

        logits = {
            "task": SHARP * jnp.concatenate([idle, appeal + bonus - far], axis=1),
            "role": head("role", self.num_roles),
            "tier": head("tier", self.num_tiers),
        }
        return logits, MLP((self.width,), 1)(TeamEncoder(self.width)(team)[0])[0]


@dataclasses.dataclass(frozen=True)
class PairsSpace:
    """A task for every agent, which no other has, and a role and a tier."""

    name: ClassVar[str] = "pairs"
    env: Environment
    width: int = 128

    @property
    def network(self) -> PairsNetwork:
        """Return the network that parametrises the choice."""
        space = self.env.plan_space
        return PairsNetwork(space.num_roles, space.num_tiers, self.width)

    def sample(self, outputs: dict[str, Array], key: PRNGKeyArray, team: TeamObservation) -> dict[str, Array]:
        """Draw a task, a role and a tier for every agent."""
        keys = dict(zip(sorted(outputs), jax.random.split(key, len(outputs)), strict=True))
        noise = {name: jax.random.gumbel(keys[name], logits.shape) for name, logits in outputs.items()}
        return self._chosen(outputs, {name: logits + noise[name] for name, logits in outputs.items()}, team)

    def mode(self, outputs: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Return the likeliest task of every agent, given those before."""
        return self._chosen(outputs, outputs, team)

    def score(
        self, outputs: dict[str, Array], choice: dict[str, Array], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the joint log-probability, and the mean entropy of an agent's task given those before."""
        turn = _turns(outputs["task"], team)
        theirs = choice["task"][turn][:, None] == jnp.arange(outputs["task"].shape[1])
        taken = (jnp.cumsum(theirs, axis=0) - theirs > 0).at[:, 0].set(False)
        law = jnp.where(taken, FORBIDDEN, _possible(outputs["task"], team)[turn])
        log_prob = jnp.sum(log_prob_of(law, choice["task"][turn]))
        for name in ("role", "tier"):
            log_prob += jnp.sum(log_prob_of(outputs[name], choice[name]))
        return log_prob, jnp.mean(entropy_of(law))

    def valid(self, choice: dict[str, Array], team: TeamObservation) -> Bool[Array, ""]:
        """Return whether the choice is one: always."""
        return jnp.all(choice["task"] >= 0)

    def propose(self, key: PRNGKeyArray, team: TeamObservation) -> dict[str, Array]:
        """Draw any tasks, roles and tiers."""
        return self.sample(self._flat(), key, team)

    def vary(self, key: PRNGKeyArray, choice: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Let one agent in eight choose anew, from what the others leave."""
        which_key, draw_key = jax.random.split(key)
        anew = jax.random.bernoulli(which_key, 1 / 8, choice["task"].shape)
        logits = self._flat()
        held = {
            name: jnp.where(anew[:, None] | (jnp.arange(logit.shape[1]) != choice[name][:, None]), 0.0, -FORBIDDEN)
            for name, logit in logits.items()
        }
        kept = jnp.any(jnp.where(anew, 0, choice["task"])[:, None] == jnp.arange(logits["task"].shape[1]), axis=0)
        held["task"] = jnp.where(anew[:, None] & kept.at[0].set(False), FORBIDDEN, held["task"])
        return self.sample(held, draw_key, team)

    def to_plan(self, choice: dict[str, Array], team: TeamObservation) -> Plan:
        """Return the plan in which everybody is a member and nobody reads anybody."""
        active = jnp.ones(self.env.num_agents, bool)
        fields = {"role": choice["role"], "tier": choice["tier"], "task": choice["task"] - 1}
        return self.env.plan_space.project(dataclasses.replace(self.env.plan_space.empty(), active=active, **fields))[0]

    def explain(self, outputs: dict[str, Array], choice: dict[str, Array], team: TeamObservation) -> list[Decision]:
        """Return every agent's task, in the order in which they choose, with its probability given those before."""
        decisions, law = [], _possible(outputs["task"], team)
        for agent in map(int, _turns(outputs["task"], team)):
            if team.agent_mask[agent]:
                task = int(choice["task"][agent])
                said = str(task - 1) if task else "none"
                decisions.append(Decision(f"task of agent {agent}", said, float(jax.nn.softmax(law[agent])[task])))
                law = law.at[:, task].set(FORBIDDEN) if task else law
        return decisions

    def _flat(self) -> dict[str, Array]:
        space, agents = self.env.plan_space, self.env.num_agents
        counts = {"task": 1 + space.num_tasks, "role": space.num_roles, "tier": space.num_tiers}
        return {name: jnp.zeros((agents, count)) for name, count in counts.items()}

    def _chosen(self, outputs: dict[str, Array], scores: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Let agents take, in their turns by the outputs, the task that is left with the highest score."""

        def take(taken: Bool[Array, "choices"], score: Float[Array, "choices"]) -> tuple[Array, Int[Array, ""]]:
            task = jnp.argmax(jnp.where(taken, -jnp.inf, score))
            return taken.at[task].set(True).at[0].set(False), task

        turn, possible = _turns(outputs["task"], team), _possible(scores["task"], team)
        _, tasks = jax.lax.scan(take, jnp.zeros(possible.shape[1], bool), possible[turn])
        others = {name: jnp.argmax(scores[name], axis=1).astype(jnp.int32) for name in ("role", "tier")}
        return {"task": jnp.zeros(len(turn), jnp.int32).at[turn].set(tasks.astype(jnp.int32)), **others}


def _possible(scores: Float[Array, "num_agents choices"], team: TeamObservation) -> Float[Array, "num_agents choices"]:
    """Forbid tasks that are not there, and all but none to agents that take none."""
    there = team.agent_mask[:, None] & team.task_mask
    return jnp.where(jnp.pad(there, ((0, 0), (1, 0)), constant_values=True), scores, FORBIDDEN)


def _turns(scores: Float[Array, "num_agents choices"], team: TeamObservation) -> Int[Array, "num_agents"]:
    """Return the agents in the order in which they choose: whose best task has the highest score first."""
    best = jnp.max(jnp.where(team.agent_mask[:, None] & team.task_mask, scores[:, 1:], -jnp.inf), axis=1)
    return jnp.argsort(-best, stable=True)


DESIGN_SPACES.add("pairs", PairsSpace, "who does which task, from scores of agent and task; a task for one agent")
