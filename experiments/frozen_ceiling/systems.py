"""What the study of the frozen-executor ceiling compares.

Expected before the run, hypotheses of the published system included (arXiv 2605.14212):

- the best co-trained system has at least 21.7 % more success than the designer over frozen executors, intervals apart;
- stagewise ≥ coupled ≥ designer-only;
- against the first speaks that perfect executors raise the success of the best strategies on ``workflow-mixed-v0`` by
  no more than 11 to 17 % over ``frozen-90`` (validation queries): most of what fails there is noise and deadlines;
- the less able the frozen executors are, the higher is the lift over the designer with these same executors;
- on ``workflow-specialist-v0`` one small network per role earns more than one shared by all, and swapped roles lose it.

Systems whose designer chooses templates were added when five of the others had been seen: a part of what co-training
lost there was the slower learning of programs, as ``designer-only`` against ``meta-skill`` showed. They do better, and
so the variants and the ceiling's curve, whose frozen designers choose templates as well, are of them. Three times the
plays were added when their curves still rose at the end.
"""

import dataclasses
from dataclasses import replace
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxmas.experiments import study
from jaxmas.experiments.study import BEST, Part, Study, System
from jaxmas.headroom import World
from jaxmas.runs import LoadedPolicy

CAPACITY = 32
"""Room for decisions per play: on ``workflow-mixed-v0`` for all that are made, whoever designs."""
CROWD_CAPACITY = 128


def co_trained(mode: str, executor: str = "frozen-90", **settings: Any) -> System:
    """Return MetaAgent-X in one of its modes."""
    return System("metaagent-x", {"mode": mode, "capacity": CAPACITY, **settings}, executor)


def on_templates(mode: str, executor: str = "frozen-90", **settings: Any) -> System:
    """Return the same with a designer that chooses templates."""
    return co_trained(mode, executor, space="template", **settings)


SYSTEMS = {
    "meta-skill": System("meta-skill", {}),
    "meta-skill-3x-plays": System("meta-skill", {}, times_the_plays=3),
    "designer-only": co_trained("designer-only"),
    "executor-only": co_trained("executor-only"),
    "executor-only-best-strategy": co_trained("executor-only", plans_by=BEST),
    "coupled": co_trained("coupled"),
    "stagewise-10": co_trained("stagewise"),
    "designer-only-template": on_templates("designer-only"),
    "coupled-template": on_templates("coupled"),
    "coupled-template-3x-plays": replace(on_templates("coupled"), times_the_plays=3, reference="meta-skill-3x-plays"),
    "stagewise-10-template": on_templates("stagewise"),
    "stagewise-1-template": on_templates("stagewise", swap_every=1),
    "stagewise-30-template": on_templates("stagewise", swap_every=30),
    "coupled-template-8x1": on_templates("coupled", queries=96, designs=8, executions=1),
    "coupled-template-16x1": on_templates("coupled", designs=16, executions=1),
    "coupled-template-per-role": on_templates("coupled", per_role=True),
    "coupled-template-outcome-only": on_templates("coupled", agent_weight=0.0),
    "stagewise-10-template-as-published": on_templates("stagewise", agent_weight=0.0, advantage="group"),
}
LEVELS = ("frozen-60", "frozen-75", "frozen-90", "frozen-98")
NARROW = {"plans_by": "strategy:roles-by-skill", "width": 8, "layers": 1, "agent_weight": 1.0, "learning_rate": 1e-2}
"""Executors too small to know every skill, from scratch, under a strategy that gives every subtask its specialist."""

MIXED = "28fb3d017e1bbe87"


@dataclasses.dataclass(frozen=True)
class SwappedRoles:
    """A meta-policy whose specialists are given the next one's role."""

    meta: Any
    skills: int

    def init(self) -> Any:
        """Return the carry of the meta-policy."""
        return self.meta.init()

    def apply(self, params: Any, carry: Any, team: Any, key: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Return the plan, its specialists' roles swapped round."""
        plan, carry, info = self.meta.apply(params, carry, team, key)
        role = jnp.where(plan.role < self.skills, (plan.role + 1) % self.skills, plan.role)
        return dataclasses.replace(plan, role=role), carry, info


def with_swapped_roles(policy: LoadedPolicy, world: World) -> LoadedPolicy:
    """Return a policy whose specialists are given the next one's role."""
    return replace(policy, meta=SwappedRoles(policy.meta, len(world.params.tables)))


PARTS = {
    "systems": Part("workflow-mixed-v0", MIXED, SYSTEMS, plays=153_600, seeds=10),
    "ceiling": Part(
        "workflow-mixed-v0",
        MIXED,
        {f"{level}, frozen": System("meta-skill", {}, level) for level in (*LEVELS, "scripted")}
        | {
            f"{level}, coupled": replace(on_templates("coupled", level), reference=f"{level}, frozen")
            for level in LEVELS
        }
        | {
            f"{level}, executors alone": replace(
                co_trained("executor-only", level, plans_by=BEST), reference=f"{level}, frozen"
            )
            for level in LEVELS
        },
        plays=153_600,
        seeds=5,
        reference="frozen-90, frozen",
    ),
    "crowd": Part(
        "workflow-crowd-v0",
        "1b67707c0cede16f",
        {
            "meta-skill": System("meta-skill", {}),
            "designer-only-template": on_templates("designer-only", capacity=CROWD_CAPACITY),
            "executor-only-best-strategy": co_trained("executor-only", plans_by=BEST, capacity=CROWD_CAPACITY),
            "coupled-template": on_templates("coupled", capacity=CROWD_CAPACITY),
            "meta-skill-3x-plays": System("meta-skill", {}, times_the_plays=3),
            "coupled-template-3x-plays": replace(
                on_templates("coupled", capacity=CROWD_CAPACITY), times_the_plays=3, reference="meta-skill-3x-plays"
            ),
            "stagewise-10-template": on_templates("stagewise", capacity=CROWD_CAPACITY),
        },
        plays=38_400,
        seeds=10,
        num_agents=64,
    ),
    "specialist": Part(
        "workflow-specialist-v0",
        "1a9f320ee366485d",
        {
            "shared": System("ippo", NARROW, "untrained"),
            "per-role": System("ippo", {**NARROW, "per_role": True}, "untrained"),
            "shared, three times as wide": System("ippo", {**NARROW, "width": 24}, "untrained"),
        },
        plays=25_600,
        seeds=10,
        reference="shared",
        variants={"swapped": with_swapped_roles},
    ),
}

SMALL = ("meta-skill", "executor-only-best-strategy", "coupled-template", "stagewise-10-template")
STUDY = Study("frozen_ceiling", PARTS, {"systems": SMALL})


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Size of the study; its parts are systems, ceiling, crowd, specialist."""

    study: ClassVar[Study] = STUDY
