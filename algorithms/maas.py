"""MaAS-style (simulated): layer after layer a controller draws operators from a supernet, until it exits.

| | MaAS (arXiv 2502.04180) | here |
|---|---|---|
| operators | prompts: thought, debate, ensemble, tools … | a solver of each tier, a critic, votes, division |
| layers | a few, several operators in each | up to six, one operator in each |
| early exit | an operator of its own | the same |
| controller | a network of the query and the layers before | the same, of the team observation |
| objective | utility less tokens, Monte-Carlo gradients | success − λ · cost, against the query's other draws |
| operators' prompts | rewritten by textual gradients | none: there are no prompts |
"""

import dataclasses
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.designers import PricedConfig
from jaxmas.networks import MLP, TeamEncoder
from jaxmas.plans import Plan
from jaxmas.registry import ALGORITHMS, DESIGN_SPACES, TEMPLATES
from jaxmas.spaces.base import FORBIDDEN, Decision
from jaxmas.types import Environment, TeamObservation

LAYERS = 6


class LayersNetwork(nn.Module):
    """Team observation to the weights of the controller, and a value."""

    operators: int
    width: int

    @nn.compact
    def __call__(self, team: TeamObservation) -> tuple[dict[str, Array], Float[Array, ""]]:
        """Return what ``LayersSpace.logits`` needs and the value of the query."""
        summary, _, _ = TeamEncoder(self.width)(team)
        spread = nn.initializers.normal(0.3)
        outputs = {
            "context": nn.Dense(self.width, name="context")(summary),
            "layer_rows": self.param("layer_rows", spread, (LAYERS, self.width)),
            "operator_rows": self.param("operator_rows", spread, (self.operators, self.width)),
            "kernel": self.param("kernel", nn.initializers.zeros, (self.width, self.operators)),
        }
        return outputs, MLP((self.width,), 1)(summary)[0]


@dataclasses.dataclass(frozen=True)
class LayersSpace:
    """A sequence of operators, ended by the first exit."""

    name: ClassVar[str] = "layers"
    env: Environment
    width: int = 128

    @property
    def operators(self) -> tuple[str, ...]:
        """Return the names of the operators that the environment's plans have a use for; 0 is the exit."""
        templates, space = TEMPLATES[self.env.family], self.env.plan_space
        names = templates.names(self.env) if hasattr(templates, "names") else {}
        tiers = names.get("tier") or tuple(f"tier-{tier}" for tier in range(space.num_tiers))
        solvers = tuple(f"{tier} solver" for tier in tiers)
        critic = ("critic",) if "critic" in names.get("role", ()) else ()
        votes = ("two more votes",) if "quorum" in templates.parts else ()
        divide = ("divide",) if "tasks" in templates.parts else ()
        return ("exit", *solvers, *critic, *votes, *divide)

    @property
    def network(self) -> LayersNetwork:
        """Return the network that parametrises the choice."""
        return LayersNetwork(len(self.operators), self.width)

    def sample(self, outputs: dict[str, Array], key: PRNGKeyArray, team: TeamObservation) -> Int[Array, "layers"]:
        """Draw operator after operator."""
        return self._draw(outputs, jax.random.gumbel(key, (LAYERS, len(self.operators))))

    def mode(self, outputs: dict[str, Array], team: TeamObservation) -> Int[Array, "layers"]:
        """Return the likeliest operator each time."""
        return self._draw(outputs, jnp.zeros((LAYERS, len(self.operators))))

    def score(
        self, outputs: dict[str, Array], choice: Int[Array, "layers"], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the log-probability of the operators up to the exit, and the sum of their entropies."""
        rows = outputs["operator_rows"][choice]
        law = jax.nn.log_softmax(self.logits(outputs, jnp.cumsum(rows, axis=0) - rows, jnp.arange(LAYERS)))
        taken = jnp.take_along_axis(law, choice[:, None], axis=1)[:, 0]
        entropy = -jnp.sum(jnp.exp(law) * law, axis=1)
        counts = self.open(choice)
        return jnp.sum(jnp.where(counts, taken, 0)), jnp.sum(jnp.where(counts, entropy, 0))

    def logits(
        self, outputs: dict[str, Array], before: Float[Array, "*s width"], layer: Int[Array, "*s"]
    ) -> Float[Array, "*s operators"]:
        """Return the scores of operators in a layer, given the sum of those before; the first layer cannot exit."""
        hidden = nn.relu(outputs["context"] + outputs["layer_rows"][layer] + before)
        barred = (layer == 0)[..., None] & (jnp.arange(len(self.operators)) == 0)
        return jnp.where(barred, FORBIDDEN, hidden @ outputs["kernel"])

    def open(self, choice: Int[Array, "layers"]) -> Bool[Array, "layers"]:
        """Return which layers are reached: all up to the first exit, that one included."""
        exits = (choice == 0).astype(jnp.int32)
        return jnp.cumsum(exits) - exits == 0

    def valid(self, choice: Int[Array, "layers"], team: TeamObservation) -> Bool[Array, ""]:
        """Return whether the choice is one: always."""
        return jnp.all(choice >= 0)

    def propose(self, key: PRNGKeyArray, team: TeamObservation) -> Int[Array, "layers"]:
        """Draw operators at random; the first is no exit."""
        count = len(self.operators)
        return jax.random.randint(key, (LAYERS,), jnp.where(jnp.arange(LAYERS) == 0, 1, 0), count)

    def vary(self, key: PRNGKeyArray, choice: Int[Array, "layers"], team: TeamObservation) -> Int[Array, "layers"]:
        """Draw one layer's operator anew."""
        place_key, draw_key = jax.random.split(key)
        here = jnp.arange(LAYERS) == jax.random.randint(place_key, (), 0, LAYERS)
        return jnp.where(here, self.propose(draw_key, team), choice)

    def to_plan(self, choice: Int[Array, "layers"], team: TeamObservation) -> Plan:
        """Let the operators build a team: solvers and critics join, votes and division hold for all."""
        templates, space = TEMPLATES[self.env.family], self.env.plan_space
        kind = jnp.where(self.open(choice), choice, 0)
        tiers = space.num_tiers
        joins = (kind >= 1) & (kind <= tiers) | (kind == self._at("critic"))
        members = jnp.maximum(jnp.sum(joins), 1)
        # Operators that add nobody are put last, so that the first rows are the members in their order.
        order = jnp.argsort(~joins, stable=True)
        tier = jnp.where(kind[order] <= tiers, kind[order] - 1, tiers - 1)
        critic = kind[order] == self._at("critic")
        plan, divided = self._base(members, kind, team)
        rounds = jnp.where(divided, jnp.maximum(jnp.sum(team.task_mask), 1), 1)
        place = jnp.minimum(jnp.arange(self.env.num_agents) // rounds, LAYERS - 1)
        names = templates.names(self.env).get("role", ()) if hasattr(templates, "names") else ()
        role = jnp.where(critic[place], names.index("critic"), plan.role) if "critic" in names else plan.role
        return space.project(dataclasses.replace(plan, role=role, tier=jnp.maximum(tier, 0)[place]))[0]

    def explain(self, outputs: dict[str, Array], choice: Int[Array, "layers"], team: TeamObservation) -> list[Decision]:
        """Return every operator with its probability given those before, up to the exit."""
        rows = outputs["operator_rows"][choice]
        probs = jax.nn.softmax(self.logits(outputs, jnp.cumsum(rows, axis=0) - rows, jnp.arange(LAYERS)))
        reached = int(jnp.sum(self.open(choice)))
        kinds = [int(kind) for kind in choice[:reached]]
        return [
            Decision(f"layer {layer + 1}", self.operators[kind], float(probs[layer, kind]))
            for layer, kind in enumerate(kinds)
        ]

    def _at(self, operator: str) -> int:
        return self.operators.index(operator) if operator in self.operators else -1

    def _base(self, members: Array, kind: Int[Array, "layers"], team: TeamObservation) -> tuple[Plan, Array]:
        """Return the plan of a mesh, or of so many members per subtask, with the votes; and which of the two it is."""
        templates = TEMPLATES[self.env.family]
        if not hasattr(templates, "modes"):
            return templates.build(self.env, templates.row(templates.rows[-1]), team), jnp.array(False)
        votes = jnp.minimum(1 + 2 * jnp.sum(kind == self._at("two more votes")), self.env.plan_space.max_quorum)
        divided = jnp.any(kind == self._at("divide"))

        def build(mode: str) -> Plan:
            row = dataclasses.replace(templates.row(templates.modes[mode]), size=members, quorum=votes)
            return templates.build(self.env, dataclasses.replace(row, sink_quorum=votes), team)

        both = build("divide"), build("full")
        return jax.tree.map(lambda one, other: jnp.where(divided, one, other), *both), divided

    def _draw(self, outputs: dict[str, Array], chance: Float[Array, "layers operators"]) -> Int[Array, "layers"]:
        """Take the operator with the highest sum of logit and chance, one after another."""

        def step(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[Any, Array]:
            before, ended = carry
            layer, chance = inputs
            drawn = jnp.argmax(self.logits(outputs, before, layer) + chance)
            kind = jnp.where(ended, 0, drawn).astype(jnp.int32)
            return (before + outputs["operator_rows"][kind], ended | (kind == 0)), kind

        start = jnp.zeros(self.width), jnp.array(False)
        return jax.lax.scan(step, start, (jnp.arange(LAYERS), chance))[1]


@dataclasses.dataclass(frozen=True)
class MaasConfig(PricedConfig):
    """Settings of MaAS."""

    called: ClassVar[str] = "maas"
    space: Literal["layers"] = "layers"


DESIGN_SPACES.add("layers", LayersSpace, "operators, layer after layer, until an exit")
ALGORITHMS.add("maas", MaasConfig, "operators drawn layer after layer until an exit, per query (MaAS-style)")
