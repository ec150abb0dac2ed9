"""Freeze what scores stand on: ``python -m jaxmas.experiments.freeze [SCENARIO …]``.

Tunes every strategy on validation queries with the same number of trials, then measures random play and the best
strategy on queries of their own. Writes ``jaxmas/data/anchors.json``, and leaves the scenarios that are not named as
they are; run it when a scenario's version changes.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import jaxmas
from jaxmas import anchors, evaluation
from jaxmas.algorithms.workflow_strategies import TUNABLE
from jaxmas.catalog import TEMPLATES
from jaxmas.checkpoints import atomic_write_json
from jaxmas.experiments.compare import Setting, play, strategies_of
from jaxmas.headroom import World
from jaxmas.policies import RandomPolicy, TemplatePolicy
from jaxmas.statistics import standard_error

DEFAULT = (
    "workflow-mixed-v0",
    "workflow-roster-v0",
    "workflow-specialist-v0",
    "workflow-pool-v0",
    "workflow-crowd-v0",
    "workflow-narrow-v0",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to freeze, and on how many queries."""

    scenarios: tyro.conf.Positional[tuple[str, ...]] = DEFAULT
    validation: int = 2048
    test: int = 8192
    out: Path = Path(__file__).resolve().parent.parent / "jaxmas" / "data" / "anchors.json"


def freeze(scenario: str, settings: Settings) -> dict[str, Any]:
    """Return the tuned rows and the anchors of one scenario, by the name of its setting."""
    setting = Setting(scenario)
    world = setting.build()
    env, params = world.env, world.params
    if env.family == "workflow":
        tuned, best = tune(world, settings)
        strategy: Any = TemplatePolicy(env, tuned[best])
    else:
        tuned, best = {}, strongest(world, settings)
        strategy = jaxmas.make_strategy(best, env, params)
    keys = evaluation.query_keys("validation", settings.test, seed=2)

    def measured(meta: Any) -> dict[str, float]:
        outcome = evaluation.evaluate(env, params, meta, None, world.executor, world.executor_params, keys)["reward"]
        return {"mean": float(np.mean(outcome)), "standard_error": standard_error(outcome)}

    anchor = {
        "shape": anchors.shape_name(env),
        "params": anchors.params_hash(params),
        "random": measured(RandomPolicy(env)),
        "strategy": {**measured(strategy), "name": best},
        "tuned": tuned,
    }
    return {anchors.setting(scenario, env, setting.executor_name): anchor}


def tune(world: World, settings: Settings) -> tuple[dict[str, tuple[int, ...]], str]:
    """Return the row that every strategy earns most with, and the strategy that earns most."""
    templates = TEMPLATES[world.env.family]
    rows = tuple(dict.fromkeys(row for rows in TUNABLE.values() for row in rows))
    keys = evaluation.query_keys("validation", settings.validation, seed=1)
    policy = TemplatePolicy(world.env), templates.columns(rows)
    rewards, _ = evaluation.reward_matrix(
        world.env, world.params, *policy, world.executor, world.executor_params, keys, replicates=range(1)
    )
    mean = dict(zip(rows, rewards[0].mean(axis=1), strict=True))
    tuned = {strategy: max(candidates, key=mean.__getitem__) for strategy, candidates in TUNABLE.items()}
    return tuned, max(tuned, key=lambda strategy: mean[tuned[strategy]])


def strongest(world: World, settings: Settings) -> str:
    """Return the strategy that earns most where none has anything to tune."""
    keys = evaluation.query_keys("validation", settings.validation, seed=1)
    others = [policy for policy in strategies_of(world) if policy.name != "random"]
    return max(others, key=lambda policy: play(world, policy, keys)["reward"].mean()).name


def main(settings: Settings) -> None:
    """Freeze every named scenario; others keep what they have."""
    known = json.loads(settings.out.read_text()) if settings.out.exists() else {}
    for scenario in settings.scenarios:
        known.update(freeze(scenario, settings))
        atomic_write_json(settings.out, known)
        print(f"{scenario} is frozen")


if __name__ == "__main__":
    main(tyro.cli(Settings))
