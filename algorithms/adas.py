"""ADAS-style (simulated): an archive of designs grows by new ones made from any of the old.

| | ADAS, meta agent search (arXiv 2408.08435) | here |
|---|---|---|
| design | code of an agentic system | a program of the script language |
| archive | all that was found, begun with designs by hand | the 64 best, begun with random ones |
| next design | a language model writes it, the archive in its prompt | two random changes of any design kept |
| evaluation | on a fixed validation set | on fresh queries; the best play again beside every generation |
| budget | 25 to 30 designs | ``updates`` · ``plans`` designs, each on ``queries`` queries |
"""

import dataclasses
from typing import ClassVar, Literal

from jaxmas.designers import DesignerConfig, SpaceName
from jaxmas.registry import ALGORITHMS


@dataclasses.dataclass(frozen=True)
class AdasConfig(DesignerConfig):
    """Settings of ADAS."""

    called: ClassVar[str] = "adas"
    space: SpaceName = "script"
    learner: Literal["archive"] = "archive"


ALGORITHMS.add("adas", AdasConfig, "an archive of programs for all queries grows from itself (ADAS-style)")
