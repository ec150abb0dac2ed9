"""The slots space: a template, then edits per agent slot and per task; for any number of agents."""

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
from jaxmas.spaces.template import TemplateHead, TemplateNetwork, TemplateSpace
from jaxmas.types import Environment, TeamObservation


class SlotsNetwork(nn.Module):
    """Team observation to scores of a template and of edits of each slot, and a value."""

    templates: TemplateNetwork
    num_roles: int
    num_tiers: int
    max_quorum: int
    width: int
    keep: float
    """Initial preference for leaving a slot as the template has it."""

    @nn.compact
    def __call__(self, team: TeamObservation) -> tuple[dict[str, Array], Float[Array, ""]]:
        """Return logits by head (index 0 keeps what the template says) and the value of the query."""
        summary, tasks, agents = TeamEncoder(self.width)(team)
        hidden = nn.relu(nn.Dense(self.width)(summary))
        template = TemplateHead(self.templates.parts, self.templates.table)(hidden)
        slots = nn.relu(nn.Dense(self.width)(jnp.concatenate([agents, jnp.tile(hidden, (len(agents), 1))], axis=-1)))

        def edits(name: str, count: int) -> Array:
            scores = nn.Dense(1 + count, name=name, kernel_init=nn.initializers.zeros)(slots)
            return scores.at[..., 0].add(self.keep)

        query = nn.Dense(self.width, name="task_query", kernel_init=nn.initializers.zeros)(slots)
        match = query @ nn.Dense(self.width, name="task_key")(tasks).T / jnp.sqrt(self.width)
        match = jnp.where(team.task_mask, match, FORBIDDEN)
        stay = jnp.full((len(agents), 1), self.keep)
        quorum = nn.Dense(1 + self.max_quorum, name="quorum", kernel_init=nn.initializers.zeros)(tasks)
        logits = {
            "template": template,
            "active": edits("active", 1),
            "role": edits("role", self.num_roles),
            "tier": edits("tier", self.num_tiers),
            "task": jnp.concatenate([stay, match], axis=-1),
            "quorum": quorum.at[..., 0].add(self.keep),
        }
        return logits, MLP((self.width,), 1)(summary)[0]


@dataclasses.dataclass(frozen=True)
class SlotsSpace:
    """Categorical heads per agent slot, over attention between slots and tasks, on top of a template.

    The template co-ordinates the slots; each head then keeps what the template says or replaces it. It works in every
    environment and at any number of agents.
    """

    name: ClassVar[str] = "slots"
    env: Environment
    width: int = 128
    keep: float = 6.0

    @property
    def network(self) -> SlotsNetwork:
        """Return the network that parametrises the choice."""
        space = self.env.plan_space
        templates = TemplateSpace(self.env, self.width).network
        return SlotsNetwork(templates, space.num_roles, space.num_tiers, space.max_quorum, self.width, self.keep)

    def sample(self, outputs: dict[str, Array], key: PRNGKeyArray, team: TeamObservation) -> dict[str, Array]:
        """Draw a template and an edit per head and slot."""
        keys = dict(zip(sorted(outputs), jax.random.split(key, len(outputs)), strict=True))
        return {name: jax.random.categorical(keys[name], logits) for name, logits in outputs.items()}

    def mode(self, outputs: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Return the likeliest template and edits."""
        return {name: jnp.argmax(logits, axis=-1) for name, logits in outputs.items()}

    def score(
        self, outputs: dict[str, Array], choice: dict[str, Array], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the joint log-probability, and the entropy of the template alone: edits are rare by design."""
        log_prob = sum((jnp.sum(log_prob_of(outputs[name], choice[name])) for name in outputs), jnp.float32(0))
        return log_prob, entropy_of(outputs["template"])

    def propose(self, key: PRNGKeyArray, team: TeamObservation) -> dict[str, Array]:
        """Draw any template, without edits."""
        return self.from_template(TemplateSpace(self.env, self.width).propose(key, team))

    def vary(self, key: PRNGKeyArray, choice: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Change the template a little, or draw one edit in eight anew."""
        base_key, edit_key, side_key = jax.random.split(key, 3)
        space = self.env.plan_space
        counts = {"active": 1, "role": space.num_roles, "tier": space.num_tiers, "task": space.num_tasks}
        edited = dict(choice)
        for name, count in {**counts, "quorum": space.max_quorum}.items():
            which_key, draw_key = jax.random.split(jax.random.fold_in(edit_key, sorted(choice).index(name)))
            shape = choice[name].shape
            anew = jax.random.randint(draw_key, shape, 0, 1 + count)
            if name == "task":
                anew = jnp.where(team.task_mask[anew - 1], anew, 0)
            edited[name] = jnp.where(jax.random.bernoulli(which_key, 1 / 8, shape), anew, choice[name])
        template = TemplateSpace(self.env, self.width).vary(base_key, choice["template"], team)
        other = {**choice, "template": template.astype(jnp.int32)}
        edits = jax.random.bernoulli(side_key)
        return jax.tree.map(lambda one, two: jnp.where(edits, one, two), edited, other)

    def valid(self, choice: dict[str, Array], team: TeamObservation) -> Bool[Array, ""]:
        """Return whether the choice is one: always."""
        return choice["template"] >= 0

    def from_template(self, row: Int[Array, ""]) -> dict[str, Array]:
        """Return the choice that builds a template and edits nothing."""
        tasks = self.env.plan_space.num_tasks
        slots = {name: jnp.zeros(self.env.num_agents, jnp.int32) for name in ("active", "role", "tier", "task")}
        return {"template": row, **slots, "quorum": jnp.zeros(tasks, jnp.int32)}

    def to_plan(self, choice: dict[str, Array], team: TeamObservation) -> Plan:
        """Build the template and edit its slots."""
        base = TemplateSpace(self.env, self.width).to_plan(choice["template"], team)

        def edit(name: str, current: Array) -> Array:
            return jnp.where(choice[name] == 0, current, choice[name] - 1)

        active = jnp.where(choice["active"] == 1, ~base.active, base.active)
        quorum = jnp.where(choice["quorum"] == 0, base.quorum, choice["quorum"])
        plan = dataclasses.replace(
            base,
            active=active,
            role=edit("role", base.role),
            tier=edit("tier", base.tier),
            task=edit("task", base.task),
            quorum=quorum,
        )
        return self.env.plan_space.project(plan)[0]

    def explain(self, outputs: dict[str, Array], choice: dict[str, Array], team: TeamObservation) -> list[Decision]:
        """Return the template, and every edit that is made."""
        decisions = TemplateSpace(self.env, self.width).explain(outputs["template"], choice["template"], team)[:1]
        for name in ("active", "role", "tier", "task", "quorum"):
            probs = jax.nn.softmax(outputs[name])
            for place in map(int, jnp.flatnonzero(choice[name])):
                value = int(choice[name][place])
                where = "task" if name == "quorum" else "slot"
                shown = "switched" if name == "active" else str(value if name == "quorum" else value - 1)
                decisions.append(Decision(f"{name} of {where} {place}", shown, float(probs[place, value])))
        return decisions


DESIGN_SPACES.add("slots", SlotsSpace, "per-slot heads over attention to tasks, on top of a template")
