"""G-Designer-style (simulated): a network draws, for every query, who of a team reads whom.

| | G-Designer (arXiv 2410.11782) | here |
|---|---|---|
| nodes | agents' profiles and the task as a virtual node, embedded | agent tokens with a summary of the query |
| encoder | a variational graph auto-encoder over an anchor graph | attention between members, without a latent |
| anchor | an expert's graph, kept near by a penalty | the strategy's own links, likelier by ``anchor`` |
| sparsity | nuclear norm of the adjacency | ``link_cost`` per link and member, beside what the scenario charges |
| learning | policy gradient of the utility | the same, against the query's other graphs |
"""

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmas.design_policies import LearnedPolicy
from jaxmas.designers import DesignerConfig
from jaxmas.errors import check_numbers
from jaxmas.registry import ALGORITHMS
from jaxmas.rollout import MetaStep
from jaxmas.spaces.graph import GraphSpace, team_row
from jaxmas.types import Environment


@dataclasses.dataclass(frozen=True)
class GDesignerConfig(DesignerConfig):
    """Settings of G-Designer."""

    called: ClassVar[str] = "g-designer"
    space: Literal["graph"] = "graph"
    team: str = ""
    """The strategy whose team it is; by default the environment's usual one."""
    members: int = 0
    """Members of the team, instead of the strategy's own number."""
    anchor: float = 2.0
    """How much likelier the team's own links are to begin with, in logits."""
    link_cost: float = 0.0
    """What a link is charged, per member of the team."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        check_numbers(self.called, self, ("anchor", "members", "link_cost"), 0)

    def policy(self, env: Environment, greedy: bool = False) -> LearnedPolicy:
        """Return the network that draws the team's graph."""
        space = GraphSpace(env, self.width, team=team_row(self.team, self.members, env), anchor=self.anchor)
        return LearnedPolicy(space, greedy, self.sees)

    def utility(self, step: MetaStep) -> Float[Array, ""]:
        """Return the reward, less a charge for every link that a plan has."""
        links, members = jnp.sum(step.plan.reads >= 0), jnp.maximum(jnp.sum(step.plan.active), 1)
        return step.reward - self.link_cost * links / members


ALGORITHMS.add(
    "g-designer", GDesignerConfig, "who of a team reads whom, drawn per query by a network (G-Designer-style)"
)
