"""What the study of generalisation compares, and in which worlds.

Expected before the run: designers per query trained on the narrow scenario lose some of their lead on the held-out
shapes, yet stay above the best strategy; twice the agents cost little, as few are used; another pool, with other prices
and errors per tier, costs the most, and takes the lead over the best strategy there.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from jaxmas import evaluation
from jaxmas.environments.workflow.query import SHAPES
from jaxmas.environments.workflow.scenarios import SEEN, only_shapes
from jaxmas.experiments import compare, study
from jaxmas.experiments.study import Part, Study, System
from jaxmas.headroom import World
from jaxmas.runs import LoadedPolicy

PLAYS = 153_600
SYSTEMS = {
    "meta-skill": System("meta-skill", {}),
    "meta-skill, sees global features": System("meta-skill", {"sees": "global"}),
    "masrouter": System("masrouter", {}),
    "aflow": System("aflow", {}),
}
WORLDS: Mapping[str, tuple[str, int | None]] = {
    "narrow": ("workflow-narrow-v0", None),
    "held-out shapes": ("workflow-mixed-v0", None),
    "mixed": ("workflow-mixed-v0", None),
    "mixed, 32 agents": ("workflow-mixed-v0", 32),
    "pool of models": ("workflow-pool-v0", None),
}
"""Scenario and number of agents of each world; of the held-out shapes only those that the narrow one has not."""
QUERIES = 2048


@functools.cache
def world_of(name: str) -> World:
    """Return a world by its name."""
    scenario, num_agents = WORLDS[name]
    world = compare.Setting(scenario, num_agents).build()
    if name == "held-out shapes":
        mix = only_shapes(world.params.mix, tuple(shape for shape in SHAPES if shape not in SEEN))
        world = dataclasses.replace(world, params=dataclasses.replace(world.params, mix=mix))
    return world


def carried_over(policy: LoadedPolicy, world: World) -> LoadedPolicy | None:
    """Return the policy for another world, or None where it does not fit: other tiers, weights of another shape."""
    there = study.planning_in(world.env, policy)
    before: Any = policy.meta
    meta: Any = there.meta
    key = jax.random.key(0)
    team = jax.eval_shape(lambda key: world.env.reset(key, world.params)[1], key)
    wanted = jax.eval_shape(getattr(meta, "initial_params", meta.space.propose), key, team)
    shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (policy.meta_params, wanted)]
    # A template's tiers are grades of however many there are.
    tiers = {one.plan_space.num_tiers for one in (before.space.env, world.env)}
    fits = shapes[0] == shapes[1] and (len(tiers) == 1 or before.space.name == "template")
    return there if fits else None


def notes(policy: LoadedPolicy, world: World) -> dict[str, Any]:
    """Return what a policy earns in every world that its weights fit, query by query."""
    found: dict[str, Any] = {}
    for name in WORLDS:
        there = carried_over(policy, world_of(name))
        if there is not None:
            played = compare.play(world_of(name), there, evaluation.query_keys("test", QUERIES))
            found[name] = study.rounded(played, ("reward", "cost"))
    return {"worlds": found}


PARTS = {
    "narrow": Part("workflow-narrow-v0", "c45abe9ad0a6e008", SYSTEMS, PLAYS, seeds=5),
    "mixed": Part("workflow-mixed-v0", "28fb3d017e1bbe87", SYSTEMS, PLAYS, seeds=5),
}
STUDY = Study("generalisation", PARTS, {"narrow": ("meta-skill",), "mixed": ("meta-skill",)}, notes=notes)


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Size of the study; its parts, what designers are trained on, are narrow and mixed."""

    study: ClassVar[Study] = STUDY
