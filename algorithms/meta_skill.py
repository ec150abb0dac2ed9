"""Meta-skill: reinforcement learning of the coordination policy while every executor stays frozen.

Any design space runs with any learner: several plans per query measured against each other (the default), PPO with
periodic re-planning, evolution strategies, distillation, search. An update is that of ``jaxmas.designers``: draw
queries → plan → play with frozen executors → learn.
"""

import dataclasses
from typing import ClassVar

from jaxmas.designers import DesignerConfig
from jaxmas.registry import ALGORITHMS


@dataclasses.dataclass(frozen=True)
class MetaSkillConfig(DesignerConfig):
    """Settings of meta-skill."""

    called: ClassVar[str] = "meta-skill"


ALGORITHMS.add("meta-skill", MetaSkillConfig, "learning of the coordination policy over frozen executors")
