"""A cascade in the middle of a query: cheap members begin, dearer ones are asked where those do not agree.

| | FrugalGPT (arXiv 2305.05176) | here |
|---|---|---|
| stages | models from cheap to dear, each answering the whole query | tiers, subtask by subtask |
| judge | a model trained to score answers | agreement of the votes on a subtask |
| going on | the next model answers afresh | two more votes of the next tier join those that are there |

It needs plans to go on at: a ``--coordination-interval`` below the horizon. Without, it is its cheap team.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from jaxmas.algorithms.workflow_plans import num_skills
from jaxmas.plans import Plan
from jaxmas.registry import STRATEGIES, TEMPLATES
from jaxmas.types import Environment, MetaPolicy, TeamObservation


@dataclasses.dataclass(frozen=True)
class CheapFirst:
    """Members per subtask, of the weakest tier until their votes disagree."""

    env: Environment
    row: tuple[int, ...] = (7, 1, 1, 0, 1, 3, 3)
    """The row of the grammar that begins: one weak specialist per subtask, three votes."""
    enough: float = 0.7
    """Share of a subtask's votes that the plurality needs."""
    more: int = 2
    """Votes that a subtask gets besides at each stage."""

    def init(self) -> Int[Array, "tasks"]:
        """Return the stage of every subtask."""
        return jnp.zeros(self.env.plan_space.num_tasks, jnp.int32)

    def apply(
        self, params: Any, carry: Int[Array, "tasks"], team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, Int[Array, "tasks"], dict[str, Any]]:
        """Return the team with every subtask at its stage, which moves on where votes disagree."""
        templates, space = TEMPLATES[self.env.family], self.env.plan_space
        base = templates.build(self.env, templates.row(self.row), team)
        votes, agreement = (team.task_tokens[:, num_skills(team) + column] for column in (4, 5))
        stage = jnp.minimum(carry + ((votes > 0) & (agreement < self.enough)), space.num_tiers - 1)
        of_member = stage[jnp.maximum(base.task, 0)]
        raised = dataclasses.replace(
            base,
            tier=jnp.where(base.task >= 0, of_member, base.tier),
            quorum=base.quorum + self.more * stage,
        )
        return space.project(raised)[0], stage, {}


def _cheap_first(env: Environment, params: Any = None) -> MetaPolicy:
    return CheapFirst(env)


STRATEGIES.add(
    "cheap-first", _cheap_first, "weak members first, dearer votes where they disagree, at every new plan", "workflow"
)
