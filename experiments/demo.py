"""The main job: train the meta-skill over frozen executors, compare it with every strategy, and report.

``jaxmas demo`` (or ``python -m jaxmas.experiments.demo``) writes ``runs/demo/report.html`` and
``runs/demo/results.json`` in a few minutes on two cores.
"""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmas import evaluation, headroom, plots, references
from jaxmas.catalog import ALGORITHMS, TEMPLATES
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.environments.workflow.query import SHAPES
from jaxmas.evaluation import Outcomes
from jaxmas.experiments import compare
from jaxmas.experiments.compare import Comparison, Setting
from jaxmas.headroom import World
from jaxmas.policies import TemplatePolicy
from jaxmas.progress import progress
from jaxmas.render import RENDERERS, query_png
from jaxmas.report import report
from jaxmas.runs import LoadedPolicy, load_policy, provenance
from jaxmas.statistics import paired_difference
from jaxmas.training import read_log, train

ALGORITHM, LEARNED, RULE = "meta-skill", "meta-skill", "depth-3 rule"
PICTURES = 3


@dataclasses.dataclass(frozen=True)
class DemoSettings:
    """Size of the main job."""

    scenario: str = "workflow-mixed-v0"
    out: Path = Path("runs/demo")
    seed: int = 0
    updates: int = 400
    episodes: int = 4096
    """Test queries."""
    validation: int = 1024
    """Validation queries that the rule is fitted on."""
    algorithm: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Other settings of the algorithm, for smaller runs."""


class Stopwatch:
    """Wall seconds by part of the job."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def total(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self._began


def run(settings: DemoSettings) -> dict[str, Any]:
    """Train, compare, report; return what ``results.json`` holds."""
    watch, cpu, setting = Stopwatch(), time.process_time(), Setting(settings.scenario)
    world = setting.build()
    with watch.part("train"):
        run_dir = _train(settings)
    policy = load_policy(str(run_dir), world.env, world.params)
    policy = dataclasses.replace(policy, name=LEARNED)
    with watch.part("rule"):
        rule = _fit_rule(world, settings)
    keys = evaluation.query_keys("test", settings.episodes, settings.seed)
    with watch.part("evaluate"):
        policies = {one.name: one for one in [*compare.strategies_of(world), policy]}
        played, kinds = _play_all(world, policies, rule, keys)
        result = compare.comparison(setting, world, played, kinds)
        designs = compare.designs(world, policies, keys)
    kinds_of_query = query_kinds(world, keys)
    with watch.part("pictures"):
        pictures = _pictures(settings, world, policy, keys, kinds_of_query)
    results = setting.describe(world) | _results(settings, world, result, rule, kinds_of_query)
    results |= {"tradeoffs": compare.tradeoffs(world, result), "designs": designs}
    figures = _figures(read_log(run_dir / "log.jsonl"), result)
    results["wall_seconds"] = watch.seconds | {"total": watch.total()}
    results["cpu_seconds"] = time.process_time() - cpu
    results["training"] = read_log(run_dir / "log.jsonl")
    atomic_write_json(settings.out / "results.json", results)
    atomic_write_text(settings.out / "report.html", report(results, figures, pictures))
    return results


def _train(settings: DemoSettings) -> Path:
    """Train from the start: an earlier demo's run in the same place makes way."""
    out = settings.out / "run"
    if (out / "config.json").is_file():
        shutil.rmtree(out)
    config = ALGORITHMS[ALGORITHM](updates=settings.updates, **settings.algorithm)
    with progress(f"training {LEARNED}", settings.updates) as advance:
        return train(settings.scenario, ALGORITHM, config, out=out, seed=settings.seed, report=_updates(advance))


def _updates(advance: Callable[[int], None]) -> Callable[[dict[str, Any]], None]:
    """Turn log rows into steps of a progress bar."""
    done = 0

    def report_row(row: dict[str, Any]) -> None:
        nonlocal done
        advance(row["update"] - done)
        done = row["update"]

    return report_row


def _fit_rule(world: World, settings: DemoSettings) -> references.FittedRule:
    """Play every template on validation queries and fit the depth-3 rule to the visible numbers."""
    keys = evaluation.query_keys("validation", settings.validation, settings.seed)
    templates = TEMPLATES[world.env.family]
    replicates = headroom.HeadroomSettings().replicates
    with progress("fitting the depth-3 rule", len(templates.rows) * settings.validation * replicates) as advance:
        rewards, _ = headroom.play_table(world, templates.table(), keys, replicates, advance)
    return references.best_rule(references.global_features(world.env, world.params, keys), rewards)


def _play_all(
    world: World, policies: Mapping[str, LoadedPolicy], rule: references.FittedRule, keys: Any
) -> tuple[dict[str, Outcomes], dict[str, str]]:
    """Play the policies and the rule on the same queries."""
    kinds = {name: compare.kind_of(policy) for name, policy in policies.items()} | {RULE: "rule"}
    with progress("playing test queries", len(policies) * len(keys)) as advance:
        played = {name: compare.play(world, policy, keys, advance) for name, policy in policies.items()}
        played[RULE] = _play_rule(world, rule, keys)
    return played, kinds


def _play_rule(world: World, rule: references.FittedRule, keys: Any) -> Outcomes:
    """Play every query under the plan that the rule takes for it."""
    templates = TEMPLATES[world.env.family]
    taken = rule.taken(references.global_features(world.env, world.params, keys))
    total: Outcomes = {}
    for row in np.unique(taken):
        policy = LoadedPolicy(RULE, TemplatePolicy(world.env, templates.rows[int(row)]), None)
        for name, values in compare.play(world, policy, keys).items():
            total[name] = np.where(taken == row, values, total.get(name, 0.0))
    return total


def _results(
    settings: DemoSettings, world: World, result: Comparison, rule: references.FittedRule, kinds: np.ndarray
) -> dict[str, Any]:
    """Return everything measured, and what it was measured with."""
    best = result.best_strategy
    config = ALGORITHMS[ALGORITHM](updates=settings.updates, **settings.algorithm)
    return {
        "command": "jaxmas demo",
        "algorithm": ALGORITHM,
        "config": dataclasses.asdict(config),
        "seed": settings.seed,
        "test_queries": settings.episodes,
        "validation_queries": settings.validation,
        "learned": LEARNED,
        "best_strategy": best,
        "methods": {name: {"kind": result.kinds[name], **result.summaries[name]} for name in result.ranked()},
        "paired": {
            "over_best_strategy": result.difference(LEARNED, best),
            "over_rule": result.difference(LEARNED, RULE),
            "rule_over_best_strategy": result.difference(RULE, best),
        },
        "families": _families(result, kinds),
        "rule": rule.lines(world.env),
        **provenance(),
    }


def query_kinds(world: World, keys: Any) -> np.ndarray:
    """Return the shape of every query, a label for analysis that no policy sees; empty where there is none."""
    if world.env.family != "workflow":
        return np.array([], str)
    shape = jax.jit(jax.vmap(lambda key: world.env.reset(key, world.params)[0].query.shape))(keys)
    return np.array(SHAPES)[np.asarray(shape)]


def _families(result: Comparison, kinds: np.ndarray) -> dict[str, Any]:
    """Return means by kind of query for the learned policy, the best strategy and the rule."""
    names = {"learned": LEARNED, "best_strategy": result.best_strategy, "rule": RULE}
    families = {}
    for family in np.unique(kinds).tolist():
        inside = kinds == family
        means = {
            role: {metric: float(values[inside].mean()) for metric, values in result.outcomes[name].items()}
            for role, name in names.items()
        }
        families[family] = {"queries": int(inside.sum()), **means}
        rewards = {role: result.outcomes[name]["reward"][inside] for role, name in names.items()}
        for other in ("best_strategy", "rule"):
            difference = paired_difference(rewards["learned"], rewards[other]) if inside.sum() > 1 else None
            families[family][f"over_{other}"] = difference and difference.to_json()
    return families


def _figures(log: list[dict[str, Any]], result: Comparison) -> dict[str, str]:
    """Return the report's figures as SVG."""
    methods = result.methods()
    best, rule, learned = methods[result.best_strategy], methods[RULE], methods[LEARNED]
    drawn = {
        "learning": plots.learning_curve(log, {best.name: best, RULE: rule}, learned),
        "rewards": plots.rewards(list(methods.values())),
        "pareto": plots.success_against_cost(list(methods.values())),
    }
    return {name: plots.to_svg(figure, name) for name, figure in drawn.items()}


def _pictures(
    settings: DemoSettings, world: World, policy: LoadedPolicy, keys: Any, kinds: np.ndarray
) -> list[tuple[str, bytes]]:
    """Draw the first test query of each of several kinds, whatever came of it."""
    if world.env.family not in RENDERERS:
        return []
    kinds = kinds if len(kinds) else np.array(["any"])
    first = {str(kind): int(np.argmax(kinds == kind)) for kind in np.unique(kinds)}
    # A query of one subtask shows the least.
    wanted = sorted(first, key=lambda kind: (kind == "single", first[kind]))[:PICTURES]
    players = (policy.name, policy.meta, policy.meta_params, world.executor, world.executor_params)
    with progress("drawing queries", len(wanted)) as advance:
        pictures = []
        for kind in wanted:
            data = query_png(settings.scenario, world.env, world.params, *players, keys[first[kind]])
            pictures.append((f"Test query {first[kind]}, kind {kind}", data))
            advance(1)
    return pictures
