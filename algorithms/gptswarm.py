"""GPTSwarm-style (simulated): who of a fixed team reads whom, learned as one probability per link for all queries.

| | GPTSwarm (arXiv 2402.16823) | here |
|---|---|---|
| nodes | the operations of given agents | the members of a strategy's team; ``team`` |
| links | between agents' nodes, without cycles | between any two members; an inbox holds a few |
| start | probability ½ | the same; ``anchor`` makes the team's own links likelier |
| learning | REINFORCE, with or without a moving average | against the query's other graphs; ``learner`` |
| deployed | links with p > ½ | the same |
| node optimisation | prompts are rewritten | none: there are no prompts |

Members whose messages do not reach the reporter leave the team, as nodes without a way to the decision do not run.
"""

import dataclasses
from typing import ClassVar, Literal

from jaxmas.design_policies import LearnedPolicy
from jaxmas.designers import DesignerConfig
from jaxmas.errors import check_numbers
from jaxmas.registry import ALGORITHMS
from jaxmas.spaces.graph import GraphSpace, team_row
from jaxmas.types import Environment


@dataclasses.dataclass(frozen=True)
class GPTSwarmConfig(DesignerConfig):
    """Settings of GPTSwarm."""

    called: ClassVar[str] = "gptswarm"
    space: Literal["graph-fixed"] = "graph-fixed"
    learning_rate: float = 0.1
    team: str = ""
    """The strategy whose team it is; by default the environment's usual one."""
    members: int = 0
    """Members of the team, instead of the strategy's own number."""
    anchor: float = 0.0
    """How much likelier the team's own links are to begin with, in logits."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        check_numbers(self.called, self, ("anchor", "members"), 0)

    def policy(self, env: Environment, greedy: bool = False) -> LearnedPolicy:
        """Return the graph of the team."""
        space = GraphSpace(env, self.width, fixed=True, team=team_row(self.team, self.members, env), anchor=self.anchor)
        return LearnedPolicy(space, greedy)


ALGORITHMS.add("gptswarm", GPTSwarmConfig, "one probability per link of a team, for all queries (GPTSwarm-style)")
