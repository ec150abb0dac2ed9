"""The template space: a choice among the rows of an environment's plan grammar, where learning is easy."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.networks import MLP, TeamEncoder
from jaxmas.plans import Plan
from jaxmas.registry import DESIGN_SPACES, TEMPLATES
from jaxmas.spaces.base import Decision, entropy_of, log_prob_of
from jaxmas.types import Environment, TeamObservation


class TemplateHead(nn.Module):
    """Scores every template: a sum of scores of its parts, which templates share, and one of its own."""

    parts: tuple[int, ...]
    table: tuple[tuple[int, ...], ...]
    """For each template, the value of each part."""

    @nn.compact
    def __call__(self, summary: Float[Array, "width"]) -> Float[Array, "templates"]:
        """Return one logit per template."""
        table = jnp.array(self.table)
        logits = nn.Dense(len(self.table), kernel_init=nn.initializers.zeros)(summary)
        for index, values in enumerate(self.parts):
            logits = logits + nn.Dense(values, kernel_init=nn.initializers.zeros)(summary)[table[:, index]]
        return logits


class TemplateNetwork(nn.Module):
    """Team observation to template scores and a value."""

    parts: tuple[int, ...]
    table: tuple[tuple[int, ...], ...]
    width: int

    @nn.compact
    def __call__(self, team: TeamObservation) -> tuple[Float[Array, "templates"], Float[Array, ""]]:
        """Return template logits and the value of the query."""
        summary, _, _ = TeamEncoder(self.width)(team)
        hidden = nn.relu(nn.Dense(self.width)(summary))
        value = MLP((self.width,), 1)(summary)[0]
        return TemplateHead(self.parts, self.table)(hidden), value


@dataclasses.dataclass(frozen=True)
class TemplateSpace:
    """A choice among the environment's plan templates: where learning is easy."""

    name: ClassVar[str] = "template"
    env: Environment
    width: int = 128

    @property
    def network(self) -> TemplateNetwork:
        """Return the network that parametrises the choice."""
        rows = TEMPLATES[self.env.family].rows
        values = [sorted(set(column)) for column in zip(*rows, strict=True)]
        table = tuple(tuple(known.index(v) for known, v in zip(values, row, strict=True)) for row in rows)
        return TemplateNetwork(tuple(len(known) for known in values), table, self.width)

    def sample(self, outputs: Array, key: PRNGKeyArray, team: TeamObservation) -> Int[Array, ""]:
        """Draw a template."""
        return jax.random.categorical(key, outputs)

    def mode(self, outputs: Array, team: TeamObservation) -> Int[Array, ""]:
        """Return the likeliest template."""
        return jnp.argmax(outputs)

    def score(
        self, outputs: Array, choice: Int[Array, ""], team: TeamObservation
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the log-probability of a template and the entropy over templates."""
        return log_prob_of(outputs, choice), entropy_of(outputs)

    def propose(self, key: PRNGKeyArray, team: TeamObservation) -> Int[Array, ""]:
        """Draw any template."""
        return jax.random.randint(key, (), 0, len(TEMPLATES[self.env.family].rows))

    def vary(self, key: PRNGKeyArray, choice: Int[Array, ""], team: TeamObservation) -> Int[Array, ""]:
        """Draw one of the templates that differ from this in the fewest parts."""
        rows = jnp.array(TEMPLATES[self.env.family].rows)
        parts = jnp.sum(rows != rows[choice], axis=1)
        nearest = jnp.min(jnp.where(parts > 0, parts, rows.shape[1] + 1))
        return jax.random.categorical(key, jnp.where(parts == nearest, 0.0, -jnp.inf))

    def valid(self, choice: Int[Array, ""], team: TeamObservation) -> Bool[Array, ""]:
        """Return whether the choice is one: always."""
        return choice >= 0

    def from_template(self, row: Int[Array, ""]) -> Int[Array, ""]:
        """Return the choice that builds a template."""
        return row

    def to_plan(self, choice: Int[Array, ""], team: TeamObservation) -> Plan:
        """Build the chosen template for this query."""
        templates = TEMPLATES[self.env.family]
        return templates.build(self.env, jax.tree.map(lambda column: column[choice], templates.table()), team)

    def explain(self, outputs: Array, choice: Int[Array, ""], team: TeamObservation) -> list[Decision]:
        """Return the chosen template, and the likeliest others."""
        templates, probs = TEMPLATES[self.env.family], jax.nn.softmax(outputs)
        others = [int(row) for row in jnp.argsort(-probs)[:5] if row != choice]
        rows = [("template", int(choice)), *(("or", row) for row in others[:4])]
        return [Decision(what, templates.describe(templates.rows[row]), float(probs[row])) for what, row in rows]


DESIGN_SPACES.add("template", TemplateSpace, "a choice among parametrised plan templates")
