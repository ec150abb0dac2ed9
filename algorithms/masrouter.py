"""MasRouter-style (simulated): a cascade routes every query to a way of working, roles and capability tiers.

| | MasRouter (arXiv 2502.11133) | here |
|---|---|---|
| query | a sentence embedding | the team observation |
| task classifier | supervised with the benchmark's name | none: a scenario is one task |
| order | in the paper mode, roles, models; in the code models first | mode, number, roles, tiers |
| latent | variational, in the paper | variational, drawn with the choice; divergence beside the entropy |
| modes | IO, thought, chain, full, debate, reflection | the same, thought by repetition; members per subtask |
| number of members | a score of difficulty, rounded, up to 6 | drawn, up to 6; per subtask where these are given out |
| models | multinomial over the pool | each member's tier is drawn from one law over tiers |
| objective | solved − λ · cost, no baseline | success − λ · cost, against the query's other plans; ``learner`` |

Every decision and its probability can be read: ``jaxmas show … --policy RUN``.
"""

import dataclasses
from typing import ClassVar, Literal

from jaxmas.designers import PricedConfig
from jaxmas.registry import ALGORITHMS


@dataclasses.dataclass(frozen=True)
class MasRouterConfig(PricedConfig):
    """Settings of MasRouter."""

    called: ClassVar[str] = "masrouter"
    space: Literal["cascade"] = "cascade"


ALGORITHMS.add("masrouter", MasRouterConfig, "a cascade of mode, number, roles and tiers per query (MasRouter-style)")
