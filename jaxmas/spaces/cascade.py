"""The cascade design space: how the team works together, how many they are, who is what, and how able each is.

Each decision is made in the light of those before it (MasRouter, arXiv 2502.11133): a latent of the query → mode →
number of members → role after role → tiers, drawn for every member from one law. The latent is drawn, too, and kept
with the choice, so that what follows has a probability of its own; its divergence from a standard normal law is taken
off the entropy that learners reward.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxmas.networks import MLP, TeamEncoder
from jaxmas.plans import Plan
from jaxmas.registry import DESIGN_SPACES, TEMPLATES
from jaxmas.spaces.base import Decision
from jaxmas.types import Environment, TeamObservation

MEMBERS = 6
"""Most members that are decided on one by one; further ones are like them, in turn."""
LATENT = 8
KEEP = 2.0
"""Initial preference for the role that the mode gives."""


class CascadeNetwork(nn.Module):
    """Team observation to the law of the latent, with the weights of the decoder, and a value."""

    modes: int
    roles: int
    tiers: int
    width: int

    @nn.compact
    def __call__(self, team: TeamObservation) -> tuple[dict[str, Array], Float[Array, ""]]:
        """Return what ``decode`` needs and the value of the query."""
        summary, _, _ = TeamEncoder(self.width)(team)
        zeros, spread = nn.initializers.zeros, nn.initializers.normal(0.3)
        outputs = {
            "mean": nn.Dense(LATENT, name="mean", kernel_init=zeros)(summary),
            "log_deviation": nn.Dense(LATENT, name="log_deviation", kernel_init=zeros)(summary),
            "context": nn.Dense(self.width, name="context")(summary),
        }
        rows = {"mode": self.modes, "count": MEMBERS, "role": self.roles, "place": MEMBERS}
        outputs |= {f"{name}_rows": self.param(f"{name}_rows", spread, (n, self.width)) for name, n in rows.items()}
        outputs["latent_kernel"] = self.param("latent_kernel", spread, (LATENT, self.width))
        heads = {"mode": self.modes, "count": MEMBERS, "role": self.roles, "tier": self.tiers}
        outputs |= {f"{name}_kernel": self.param(f"{name}_kernel", zeros, (self.width, n)) for name, n in heads.items()}
        return outputs, MLP((self.width,), 1)(summary)[0]


@dataclasses.dataclass(frozen=True)
class CascadeSpace:
    """Mode, number, roles and tiers, one after another."""

    name: ClassVar[str] = "cascade"
    env: Environment
    width: int = 128

    @property
    def modes(self) -> tuple[tuple[int, ...], ...]:
        """Return the modes: rows of the environment's grammar; all of them where it says nothing else."""
        templates = TEMPLATES[self.env.family]
        return tuple(templates.modes.values()) if hasattr(templates, "modes") else templates.rows

    @property
    def sized(self) -> tuple[bool, ...]:
        """Return of which modes the number of members is decided."""
        templates = TEMPLATES[self.env.family]
        if not hasattr(templates, "modes"):
            return (False,) * len(self.modes)
        size = list(templates.parts).index("size")
        return tuple(row[size] > 1 for row in self.modes)

    @property
    def network(self) -> CascadeNetwork:
        """Return the network that parametrises the choice."""
        space = self.env.plan_space
        return CascadeNetwork(len(self.modes), 1 + space.num_roles, space.num_tiers, self.width)

    def sample(self, outputs: dict[str, Array], key: PRNGKeyArray, team: TeamObservation) -> dict[str, Array]:
        """Draw the latent, then decision after decision."""
        latent_key, choice_key = jax.random.split(key)
        keys = jax.random.split(choice_key, 4)
        sizes = (outputs["mode_kernel"].shape[1], MEMBERS, outputs["role_kernel"].shape[1])
        chance = {
            "mode": jax.random.gumbel(keys[0], sizes[:1]),
            "count": jax.random.gumbel(keys[1], sizes[1:2]),
            "role": jax.random.gumbel(keys[2], (MEMBERS, sizes[2])),
            "tier": jax.random.gumbel(keys[3], (MEMBERS, outputs["tier_kernel"].shape[1])),
        }
        return self._decide(outputs, jax.random.normal(latent_key, (LATENT,)), chance)

    def mode(self, outputs: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Return the likeliest decision each time, at the latent's mean."""
        chance = {"mode": 0.0, "count": 0.0, "role": jnp.zeros((MEMBERS, 1)), "tier": jnp.zeros((MEMBERS, 1))}
        return self._decide(outputs, jnp.zeros(LATENT), chance)

    def score(
        self, outputs: dict[str, Array], choice: dict[str, Array], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the log-probability given the latent, and the decisions' entropies less the latent's divergence."""
        logits, counts = self.decode(outputs, choice), self.counted(choice)
        log_prob, entropy = jnp.float32(0), -divergence(outputs)
        for name, scores in logits.items():
            law = jax.nn.log_softmax(scores)
            taken = jnp.take_along_axis(law, choice[name][..., None], axis=-1)[..., 0]
            spread = -jnp.sum(jnp.exp(law) * law, axis=-1)
            log_prob += jnp.sum(jnp.where(counts[name], taken, 0.0))
            entropy += jnp.sum(jnp.where(counts[name], spread, 0.0))
        return log_prob, entropy

    def valid(self, choice: dict[str, Array], team: TeamObservation) -> Bool[Array, ""]:
        """Return whether the choice is one: always."""
        return choice["mode"] >= 0

    def propose(self, key: PRNGKeyArray, team: TeamObservation) -> dict[str, Array]:
        """Draw mode, number and one tier for all; roles are the mode's."""
        keys = jax.random.split(key, 3)
        tier = jax.random.randint(keys[2], (), 0, self.env.plan_space.num_tiers)
        return {
            "latent": jnp.zeros(LATENT),
            "mode": jax.random.randint(keys[0], (), 0, len(self.modes)),
            "count": jax.random.randint(keys[1], (), 0, MEMBERS),
            "role": jnp.zeros(MEMBERS, jnp.int32),
            "tier": jnp.full(MEMBERS, tier),
        }

    def vary(self, key: PRNGKeyArray, choice: dict[str, Array], team: TeamObservation) -> dict[str, Array]:
        """Draw one of the decisions anew: mode, number, one member's role, one member's tier, or everyone's."""
        which_key, draw_key, place_key = jax.random.split(key, 3)
        which = jax.random.randint(which_key, (), 0, 5)
        here = jnp.arange(MEMBERS) == jax.random.randint(place_key, (), 0, MEMBERS)
        keys = jax.random.split(draw_key, 4)
        space = self.env.plan_space
        role = jax.random.randint(keys[2], (), 0, 1 + space.num_roles)
        tier = jax.random.randint(keys[3], (), 0, space.num_tiers)
        return {
            "latent": choice["latent"],
            "mode": jnp.where(which == 0, jax.random.randint(keys[0], (), 0, len(self.modes)), choice["mode"]),
            "count": jnp.where(which == 1, jax.random.randint(keys[1], (), 0, MEMBERS), choice["count"]),
            "role": jnp.where((which == 2) & here, role, choice["role"]),
            "tier": jnp.where((which == 4) | (which == 3) & here, tier, choice["tier"]),
        }

    def to_plan(self, choice: dict[str, Array], team: TeamObservation) -> Plan:
        """Build the mode with its number of members, and give out roles and tiers in turn."""
        templates = TEMPLATES[self.env.family]
        rows = jax.tree.map(lambda *numbers: jnp.stack(numbers), *map(templates.row, self.modes))
        row = jax.tree.map(lambda column: column[choice["mode"]], rows)
        if any(self.sized):
            sized = jnp.array(self.sized)[choice["mode"]]
            row = dataclasses.replace(row, size=jnp.where(sized, choice["count"] + 1, row.size))
        base = templates.build(self.env, row, team)
        # Members that are assigned come in rounds, one to each task; a round is of one kind.
        rounds = jnp.where(jnp.any(base.task >= 0), jnp.maximum(jnp.sum(team.task_mask), 1), 1)
        place = (jnp.arange(self.env.num_agents) // rounds) % MEMBERS
        role = choice["role"][place]
        plan = dataclasses.replace(base, role=jnp.where(role > 0, role - 1, base.role), tier=choice["tier"][place])
        return self.env.plan_space.project(plan)[0]

    def explain(self, outputs: dict[str, Array], choice: dict[str, Array], team: TeamObservation) -> list[Decision]:
        """Return every decision that counts, with its probability given those before."""
        templates = TEMPLATES[self.env.family]
        names = templates.names(self.env) if hasattr(templates, "names") else {}
        logits, counts = self.decode(outputs, choice), self.counted(choice)
        words = {
            "mode": tuple(getattr(templates, "modes", map(templates.describe, self.modes))),
            "count": tuple(str(1 + count) for count in range(MEMBERS)),
            "role": ("the mode's", *names.get("role", ())),
            "tier": names.get("tier", ()),
        }
        decisions = []
        for name, scores in logits.items():
            probs = jnp.atleast_2d(jax.nn.softmax(scores))
            taken, counted = jnp.atleast_1d(choice[name]), jnp.atleast_1d(counts[name])
            for place in range(len(taken)):
                value = int(taken[place])
                if counted[place]:
                    what = name if len(taken) == 1 else f"{name} of member {place + 1}"
                    called = words[name][value] if value < len(words[name]) else str(value)
                    decisions.append(Decision(what, called, float(probs[place % len(probs), value])))
        return decisions

    def decode(self, outputs: dict[str, Array], choice: dict[str, Array]) -> dict[str, Array]:
        """Return the logits of every decision, given the latent and those before it, in their order."""
        hidden = self._start(outputs, choice["latent"])
        counted = hidden + outputs["mode_rows"][choice["mode"]]
        staffed = counted + outputs["count_rows"][choice["count"]]
        rows = outputs["role_rows"][choice["role"]]
        before = jnp.cumsum(rows, axis=0) - rows
        roles = nn.relu(staffed + outputs["place_rows"] + before) @ outputs["role_kernel"]
        tiers = nn.relu(staffed + jnp.mean(rows, axis=0)) @ outputs["tier_kernel"]
        return {
            "mode": hidden @ outputs["mode_kernel"],
            "count": nn.relu(counted) @ outputs["count_kernel"],
            "role": roles.at[:, 0].add(KEEP),
            "tier": jnp.tile(tiers, (MEMBERS, 1)),
        }

    def counted(self, choice: dict[str, Array]) -> dict[str, Bool[Array, "..."]]:
        """Return which decisions matter for the plan: those of members that there are."""
        sized, always = jnp.array(self.sized)[choice["mode"]], jnp.array(True)
        alone = 1 if any(self.sized) else MEMBERS
        members = jnp.arange(MEMBERS) < jnp.where(sized, choice["count"] + 1, alone)
        return {"mode": always, "count": sized, "role": members, "tier": members}

    def _start(self, outputs: dict[str, Array], latent: Float[Array, "latent"]) -> Float[Array, "width"]:
        drawn = outputs["mean"] + jnp.exp(outputs["log_deviation"]) * latent
        return nn.relu(outputs["context"] + drawn @ outputs["latent_kernel"])

    def _decide(self, outputs: dict[str, Array], latent: Float[Array, "latent"], chance: dict[str, Any]) -> dict:
        """Take the decision with the highest sum of logit and chance, one after another."""
        choice = {"latent": latent, "mode": jnp.int32(0), "count": jnp.int32(0)}
        hidden = self._start(outputs, latent)
        choice["mode"] = jnp.argmax(hidden @ outputs["mode_kernel"] + chance["mode"]).astype(jnp.int32)
        hidden = hidden + outputs["mode_rows"][choice["mode"]]
        choice["count"] = jnp.argmax(nn.relu(hidden) @ outputs["count_kernel"] + chance["count"]).astype(jnp.int32)
        hidden = hidden + outputs["count_rows"][choice["count"]]

        def next_role(before: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
            place, chance = inputs
            logits = nn.relu(hidden + place + before) @ outputs["role_kernel"]
            role = jnp.argmax(logits.at[0].add(KEEP) + chance).astype(jnp.int32)
            return before + outputs["role_rows"][role], role

        start = jnp.zeros(self.width)
        past, choice["role"] = jax.lax.scan(next_role, start, (outputs["place_rows"], chance["role"]))
        tiers = nn.relu(hidden + past / MEMBERS) @ outputs["tier_kernel"]
        return {**choice, "tier": jnp.argmax(tiers + chance["tier"], axis=1).astype(jnp.int32)}


def divergence(outputs: dict[str, Array]) -> Float[Array, ""]:
    """Return KL(N(μ, σ²) ‖ N(0, 1)) of the latent."""
    mean, log_deviation = outputs["mean"], outputs["log_deviation"]
    return 0.5 * jnp.sum(mean**2 + jnp.exp(2 * log_deviation) - 1 - 2 * log_deviation)


DESIGN_SPACES.add("cascade", CascadeSpace, "mode, number of members, role after role, tiers: each given those before")
