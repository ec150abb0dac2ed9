"""The pairs space: who does which task, a task for one agent at most; for any number of agents and tasks.

A small network scores every pair of agent and task from how far they are apart and what both are like: a weighted sum,
which a few trials are enough to find, and the bonus of a hidden layer. Pairs are then drawn one after the other, each
of those whose agent and task are both left (Plackett–Luce); one of the pairs of an agent is to have no task.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.matching import cheapest_first
from jaxmas.networks import MLP, TeamEncoder
from jaxmas.plans import Plan
from jaxmas.registry import DESIGN_SPACES
from jaxmas.spaces.base import FORBIDDEN, Decision, log_prob_of
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
        free = jnp.mean(jnp.where(team.agent_mask[:, None, None], team.pair_features, 0.0), axis=0)
        about = jnp.concatenate([team.task_tokens, free, jnp.mean(team.pair_features, axis=0)], axis=-1)
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
        """Draw a task, a role and a tier for every agent: with Gumbel noise, the best pair first is a draw."""
        keys = dict(zip(sorted(outputs), jax.random.split(key, len(outputs)), strict=True))
        noise = {name: jax.random.gumbel(keys[name], logits.shape) for name, logits in outputs.items()}
        return self._chosen({name: logits + noise[name] for name, logits in outputs.items()}, team)

    def mode(self, outputs: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Take the likeliest pair, then the likeliest of those that are left, and so on."""
        return self._chosen(outputs, team)

    def score(
        self, outputs: dict[str, Array], choice: dict[str, Array], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the joint log-probability of pairs in their turns, roles and tiers, and a pair's mean entropy."""
        turn = choice["turn"]
        law, task, takes = _possible(outputs["task"], team)[turn], choice["task"][turn], team.agent_mask[turn]
        chosen, spread, mean = _turns(jnp.where(takes[:, None], law, FORBIDDEN), task)
        log_prob = jnp.sum(jnp.where(takes, chosen - spread, 0.0))
        for name in ("role", "tier"):
            log_prob += jnp.sum(log_prob_of(outputs[name], choice[name]))
        entropy = jnp.sum(jnp.where(takes, spread - mean, 0.0)) / jnp.maximum(jnp.sum(takes), 1)
        return log_prob, entropy

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
        kept = jnp.any(jnp.where(anew, 0, choice["task"])[:, None] == 1 + jnp.arange(len(team.task_mask)), axis=0)
        left = dataclasses.replace(team, agent_mask=team.agent_mask & anew, task_mask=team.task_mask & ~kept)
        drawn = self.sample(self._flat(), draw_key, left)
        return {name: jnp.where(anew, drawn[name], choice[name]) for name in ("task", "role", "tier")} | {
            "turn": drawn["turn"]
        }

    def to_plan(self, choice: dict[str, Array], team: TeamObservation) -> Plan:
        """Return the plan in which everybody is a member and nobody reads anybody."""
        active = jnp.ones(self.env.num_agents, bool)
        fields = {"role": choice["role"], "tier": choice["tier"], "task": choice["task"] - 1}
        return self.env.plan_space.project(dataclasses.replace(self.env.plan_space.empty(), active=active, **fields))[0]

    def explain(self, outputs: dict[str, Array], choice: dict[str, Array], team: TeamObservation) -> list[Decision]:
        """Return every agent's task, in their turns, with its probability given the turn and the tasks before."""
        decisions, law = [], _possible(outputs["task"], team)
        for agent in map(int, choice["turn"]):
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

    def _chosen(self, scores: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Take the pair with the highest score, then the highest of those that are left, and so on."""
        possible = _possible(scores["task"], team)
        none, some = possible[:, :1], possible[:, 1:]
        task = 1 + cheapest_first(jnp.where(some > none, jnp.max(some) - some, jnp.inf))
        turn = jnp.argsort(-jnp.take_along_axis(possible, task[:, None], axis=1)[:, 0], stable=True)
        others = {name: jnp.argmax(scores[name], axis=1).astype(jnp.int32) for name in ("role", "tier")}
        return {"task": task, "turn": turn.astype(jnp.int32), **others}


def _possible(scores: Float[Array, "num_agents choices"], team: TeamObservation) -> Float[Array, "num_agents choices"]:
    """Forbid tasks that are not there, and all but none to agents that take none."""
    there = team.agent_mask[:, None] & team.task_mask
    return jnp.where(jnp.pad(there, ((0, 0), (1, 0)), constant_values=True), scores, FORBIDDEN)


def _turns(law: Float[Array, "turns choices"], task: Int[Array, "turns"]) -> tuple[Array, Array, Array]:
    """Return, at every turn, the score of the pair that is taken, and log Σ exp and the mean of those that are left.

    A pair is left until its agent or its task is taken. Those that go with a turn are counted there, and what is left
    at a turn are those of all later ones and its own.
    """
    turns = jnp.arange(len(task))
    goes = jnp.full(law.shape[1], len(task)).at[task].min(turns).at[0].set(len(task))
    of_agent = jnp.where(goes >= turns[:, None], law, FORBIDDEN)
    of_task = jnp.where((turns > turns[:, None]) & (task > 0)[:, None], law[:, task].T, FORBIDDEN)
    both = jnp.concatenate([of_agent, of_task], axis=1)

    def join(later, now):
        spread = jnp.logaddexp(later[0], now[0])
        return spread, later[1] * jnp.exp(later[0] - spread) + now[1] * jnp.exp(now[0] - spread)

    chosen = jnp.take_along_axis(of_agent, task[:, None], axis=1)[:, 0]
    ends = jax.nn.logsumexp(both, axis=1), jnp.sum(jax.nn.softmax(both, axis=1) * both, axis=1)
    return chosen, *jax.lax.associative_scan(join, ends, reverse=True)


DESIGN_SPACES.add("pairs", PairsSpace, "who does which task, from scores of agent and task; a task for one agent")
