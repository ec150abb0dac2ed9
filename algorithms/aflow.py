"""AFlow-style (simulated): tree search for one workflow, whose nodes are whole workflows.

| | AFlow (arXiv 2410.10762) | here |
|---|---|---|
| workflow | code that calls operators | a program of the script language |
| expansion | a language model rewrites the parent | one statement of the parent is changed at random |
| selection | softly mixed, λ 0.3, α 0.2 per percent, best few and the first | the same, the best four |
| evaluation | on a fixed validation set | on fresh queries; the best play again beside every generation |
| experience | failures are told to the model | none: a rewrite knows nothing of those before |
| budget | 20 rounds | ``updates`` · ``plans`` designs, each on ``queries`` queries |
"""

import dataclasses
from typing import ClassVar, Literal

from jaxmas.designers import DesignerConfig, SpaceName
from jaxmas.registry import ALGORITHMS


@dataclasses.dataclass(frozen=True)
class AFlowConfig(DesignerConfig):
    """Settings of AFlow."""

    called: ClassVar[str] = "aflow"
    space: SpaceName = "script"
    learner: Literal["mcts"] = "mcts"


ALGORITHMS.add("aflow", AFlowConfig, "tree search for one program for all queries (AFlow-style)")
