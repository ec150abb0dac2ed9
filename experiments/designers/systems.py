"""What the study of designers compares.

Expected before the run, hypotheses of the published systems included:

- per query beats fixed: ``meta-skill``, ``masrouter`` and ``flow-reasoner`` earn more than ``aflow`` and ``adas``,
  whose one design is for all queries, and than the best strategy;
- routing saves cost: with a higher λ, ``masrouter`` comes to the success of the best fixed plan at no more than 48 % of
  its cost (the published saving is up to 52 %, against other methods on one benchmark);
- distillation and reinforcement learning both help ``flow-reasoner``;
- links alone are not enough: ``gptswarm`` and ``g-designer``, who decide only who reads whom, earn less than those who
  decide on roles, tiers and numbers as well;
- on the roster, ``dylan``'s six of sixteen come within a point of the success of all of them at no more than 60 % of
  the cost, and learned links leave out faulty and adversarial members.

Settings were tried on seed 0 and validation queries. Group-relative learners measure a plan against the others of its
query over the spread of the batch: over the group's own, as published for GRPO, they end at the cheapest agent, because
where all plans of a query fail, only their cost differs, and is blown up.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmas import evaluation
from jaxmas.experiments import study
from jaxmas.experiments.designers.trees import retained
from jaxmas.experiments.study import Part, Study, System
from jaxmas.headroom import World
from jaxmas.runs import LoadedPolicy

PLAYS = 153_600
TEAM = "roles-by-skill-voting"
"""Whose links the graph designers decide on: the best team among the strategies on ``workflow-mixed-v0``."""
REPLAN = 3
"""Steps between plans, for what plans in mid-episode: four plans until the last deadline."""


def designers(team: str = TEAM, **graph: Any) -> dict[str, System]:
    """Return the systems of every scenario; GPTSwarm does better with the usual mesh than with that team."""
    return {
        "meta-skill": System("meta-skill", {}),
        "meta-skill, sees global features": System("meta-skill", {"sees": "global"}),
        "meta-skill, sees nothing": System("meta-skill", {"sees": "nothing"}),
        "meta-skill, evolution": System("meta-skill", {"learner": "evolution", "plans": 48, "queries": 24}),
        "masrouter": System("masrouter", {}),
        "masrouter, cost x 2": System("masrouter", {"cost_weight": 0.24}),
        "masrouter, cost x 4": System("masrouter", {"cost_weight": 0.48}),
        "flow-reasoner": System("flow-reasoner", {}),
        "flow-reasoner, no distillation": System("flow-reasoner", {"distil_share": 0.0}),
        "flow-reasoner, no RL": System("flow-reasoner", {"distil_share": 1.0}),
        "flow-reasoner, group spread": System("flow-reasoner", {"advantage": "group"}),
        "gptswarm": System("gptswarm", dict(graph)),
        "g-designer": System("g-designer", {"team": team, **graph}),
        "agent-prune": System("agent-prune", {"team": team, **graph}),
        "maas": System("maas", {}),
        "puppeteer": System("puppeteer", {}, coordination_interval=REPLAN),
        "aflow": System("aflow", {}),
        "adas": System("adas", {}),
        "bandit": System("bandit", {}),
        "bandit, sees nothing": System("bandit", {"sees": "nothing"}),
        "neighbours": System("neighbours", {}),
    }


ROSTER = {
    **designers("mesh", members=16),
    "dylan, 6 of 16": System("dylan", {"team": "mesh", "keep": 6}),
    "dylan, 8 of 16": System("dylan", {"team": "mesh", "keep": 8}),
    "dylan, all 16": System("dylan", {"team": "mesh", "keep": 16}),
}

PARTS = {
    "mixed": Part("workflow-mixed-v0", "28fb3d017e1bbe87", designers(), PLAYS, seeds=10),
    "pool": Part("workflow-pool-v0", "f26316b2147849a0", designers(), PLAYS, seeds=5),
    "roster": Part("workflow-roster-v0", "fc9df8809287562f", ROSTER, PLAYS, seeds=5),
}
SHOWN = 3
"""Test queries whose designs are kept."""
ASKED = 64
"""Test queries that links are counted over."""


def notes(policy: LoadedPolicy, world: World) -> dict[str, Any]:
    """Return what a policy designs, how sure it is, what a tree keeps of it, and on a roster whose links are left."""
    keys = evaluation.query_keys("test", ASKED)
    teams = evaluation.team_observations(world.env, world.params, keys)
    found: dict[str, Any] = {}
    explain: Any = getattr(policy.meta, "explain", None)
    if explain:
        for query in range(SHOWN):
            team = jax.tree.map(lambda leaf, query=query: leaf[query], teams)
            decisions = explain(policy.meta_params, team, jax.random.key(query))
            found.setdefault("designs", []).append([list(decision) for decision in decisions])
    found["tree"] = retained(policy, world, evaluation.query_keys("test", 1024))
    bad = np.asarray((world.params.faulty + world.params.adversarial) > 0) if world.params.faulty.ndim else None
    if bad is not None and bad.any():

        def links(team: Any) -> Any:
            reads = policy.meta.apply(policy.meta_params, policy.meta.init(), team, jax.random.key(0))[0].reads
            return jnp.sum(reads[:, :, None] == jnp.arange(len(bad)), axis=(0, 1))

        of_member = np.asarray(jax.jit(jax.vmap(links))(teams)).mean(axis=0)
        found["links"] = {"to bad": float(of_member[bad].mean()), "to honest": float(of_member[~bad].mean())}
    return found


SMALL = {"mixed": ("meta-skill", "masrouter", "flow-reasoner", "aflow")}
STUDY = Study("designers", PARTS, SMALL, outcomes=("reward", "cost", "latency", "active_agents"), notes=notes)


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Size of the study; its parts are mixed, pool, roster."""

    study: ClassVar[Study] = STUDY
