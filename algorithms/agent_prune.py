"""AgentPrune-style (simulated): links of a team are weighed over training queries, and the weakest are cut at once.

| | AgentPrune (arXiv 2410.02506) | here |
|---|---|---|
| spatial links | within a round of messages | those of the first plan |
| temporal links | from one round to the next | those of later plans, by ``--coordination-interval`` |
| masks | trained on a few queries, low-rank by a nuclear norm | one probability per link, from the team's own links |
| learning | policy gradient of the utility | the same, against the query's other graphs |
| pruning | once, the links of least magnitude | once, after training: all but the likeliest, ``keep`` |
"""

import dataclasses
from typing import ClassVar

from jaxmas.algorithms.gptswarm import GPTSwarmConfig
from jaxmas.design_policies import LearnedPolicy
from jaxmas.errors import check_numbers
from jaxmas.registry import ALGORITHMS
from jaxmas.spaces.graph import GraphSpace, team_row
from jaxmas.types import Environment


@dataclasses.dataclass(frozen=True)
class AgentPruneConfig(GPTSwarmConfig):
    """Settings of AgentPrune."""

    called: ClassVar[str] = "agent-prune"
    anchor: float = 2.0
    """How much likelier the team's own links are to begin with, in logits."""
    keep: float = 0.3
    """Share of the possible links that is left."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        check_numbers(self.called, self, ("keep",), 0, 1)

    def policy(self, env: Environment, greedy: bool = False) -> LearnedPolicy:
        """Return the graphs of the team, one for the first plan and one for those after it."""
        team = team_row(self.team, self.members, env)
        space = GraphSpace(
            env, self.width, fixed=True, team=team, anchor=self.anchor, rounds=2, keep=self.keep if greedy else None
        )
        return LearnedPolicy(space, greedy)


ALGORITHMS.add(
    "agent-prune", AgentPruneConfig, "a team's links weighed by training, the weakest cut (AgentPrune-style)"
)
