"""Meta-policies that are not learned: the random one, one plan for all queries, and one template for all queries."""

import dataclasses
from typing import Any

from jaxtyping import PRNGKeyArray

from jaxmas.plans import Plan
from jaxmas.registry import STRATEGIES, TEMPLATES
from jaxmas.types import Environment, TeamObservation


@dataclasses.dataclass(frozen=True)
class RandomPolicy:
    """Draws uniformly from the projected plans: the zero of the coordination score."""

    env: Environment

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: Any, carry: tuple, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, tuple, dict[str, Any]]:
        """Return a random plan."""
        return self.env.plan_space.sample(key), carry, {}


@dataclasses.dataclass(frozen=True)
class TemplatePolicy:
    """Builds the template row that its parameters are, so that many rows can be mapped over."""

    env: Environment
    row: tuple[int, ...] | None = None
    """A row of its own, for a strategy without parameters."""

    def init(self) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self, params: Any, carry: tuple, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, tuple, dict[str, Any]]:
        """Return the template's plan for this query."""
        templates = TEMPLATES[self.env.family]
        row = params if self.row is None else templates.row(self.row)
        return templates.build(self.env, row, team), carry, {}


STRATEGIES.add(
    "random", lambda env, params=None: RandomPolicy(env), "uniform over the legal plans: the zero of the score"
)
