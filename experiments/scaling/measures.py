"""What is measured without training, and of policies away from where they were trained; all of it is kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmas import evaluation
from jaxmas.benchmark import BenchSettings, default_envs
from jaxmas.benchmark import measure as timed
from jaxmas.experiments import compare, freeze
from jaxmas.experiments.freeze import tune
from jaxmas.experiments.scaling.systems import DESIGNED, EXECUTORS, OUTCOMES, TRAINED_AT, Settings, family_of
from jaxmas.experiments.study import Part, directories, part_of, remembered, rounded, sizes, stem
from jaxmas.headroom import World
from jaxmas.policies import TemplatePolicy
from jaxmas.runs import LoadedPolicy, load_policy, provenance


def world_of(name: str, part: Part) -> World:
    """Return the world of a part with the executors of its family."""
    return compare.Setting(part.scenario, part.num_agents, executor=EXECUTORS[family_of(name)]).build()


def file_of(name: str, what: str, settings: Settings) -> Path:
    """Return where something that was measured in a part is kept."""
    return settings.out / stem(name, settings) / f"{what}.json"


def played(world: World, policy: LoadedPolicy, settings: Settings) -> dict[str, list[float]]:
    """Return what a policy does on every test query."""
    return rounded(compare.play(world, policy, evaluation.query_keys("test", settings.test)), OUTCOMES)


def strategies(world: World, settings: Settings) -> dict[str, LoadedPolicy]:
    """Return the strategies that are rows of the templates, which share one program, tuned to this world.

    The others plan more often, or take minutes where robots are many. A warehouse's have nothing to tune.
    """
    if world.env.family == "workflow":
        tuned, _ = tune(world, freeze.Settings(validation=max(2, settings.test // 8)))
        return {name: LoadedPolicy(name, TemplatePolicy(world.env, row), None) for name, row in tuned.items()}
    return {one.name: one for one in compare.strategies_of(world) if isinstance(one.meta, TemplatePolicy)}


def references(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return what random plans and the best strategy do.

    Rows are tuned on an eighth as many validation queries as there are test queries, and the best strategy is the one
    that earns most on others, a quarter as many.
    """

    def measure() -> dict[str, Any]:
        world = world_of(name, part)
        tried, keys = strategies(world, settings), evaluation.query_keys("validation", max(2, settings.test // 4))
        best = max(tried, key=lambda strategy: compare.play(world, tried[strategy], keys)["reward"].mean())
        meta: Any = tried[best].meta
        policies = {"random": compare.policy_of("strategy:random", world), best: tried[best]}
        return {
            "best": best,
            "row": meta.row,
            "rows": {which: played(world, policy, settings) for which, policy in policies.items()},
            "provenance": provenance(),
        }

    known = {key: value for key, value in sizes(part, settings).items() if key != "plays"}
    return remembered(file_of(name, "references", settings), {**known, "tuned": settings.test // 8}, measure)


def speed(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return how fast the best strategy is played; nothing before it is known."""

    def measure() -> dict[str, Any]:
        world = world_of(name, part)
        timing = BenchSettings(default_envs(world.env.num_agents), repeats=3)
        return {**timed(part.scenario, world, best["best"], timing), "provenance": provenance()}

    best = references(name, part, settings)
    return remembered(file_of(name, "speed", settings), {"params": part.params, "strategy": best["best"]}, measure)


def best_of(kept: Mapping[str, Any], world: World) -> LoadedPolicy:
    """Return the best strategy that references keep."""
    return LoadedPolicy(kept["best"], TemplatePolicy(world.env, tuple(kept["row"])), None)


def runs_of(name: str, system: str, settings: Settings) -> list[Path]:
    """Return the finished runs of a system, as many as there are seeds; none where one lacks."""
    runs = directories(name, part_of(name, settings), system, settings)
    return runs if all((run / "test.json").exists() for run in runs) else []


def moved(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return what the policies that were trained with few agents do here; nothing before they are trained."""
    home = f"{family_of(name)}-{TRAINED_AT}"
    file = file_of(name, f"{DESIGNED}-from-{TRAINED_AT}", settings)
    trained = part_of(home, settings)
    known = {**sizes(part, settings), "seeds": trained.seeds, "trained": trained.params}
    runs = runs_of(home, DESIGNED, settings)
    if not runs and not file.exists():
        return {}

    def measure() -> dict[str, Any]:
        world = world_of(name, part)
        return {"runs": [played(world, load_policy(str(run), world.env, world.params), settings) for run in runs]}

    return remembered(file, known, measure)
