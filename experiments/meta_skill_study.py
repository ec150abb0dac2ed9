"""Q1 and Q3: does a learned meta-policy over frozen executors beat what people wrote, and by how much of what is there?

``python -m jaxmas.experiments.meta_skill_study [--seeds 5] [--updates 400]`` trains meta-skill in its variants, plays
all of them, every strategy and the depth-3 rule on the same test queries, and writes
``experiments/results/meta_skill.json`` and ``.md``.

Expected before the run: template space with the group learner passes the best strategy and the rule with the whole
interval and captures at least 60 % of the way from best strategy to best per query; slots comes close to it; PPO needs
more queries; the policy that sees nothing stays at the best fixed template.
"""

import dataclasses
import shlex
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import jaxmas
from jaxmas import evaluation, headroom, references
from jaxmas.algorithms.meta_skill import MetaSkillConfig
from jaxmas.anchors import params_hash
from jaxmas.catalog import SCENARIOS, STRATEGIES
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.experiments import compare
from jaxmas.policies import RandomPolicy
from jaxmas.rollout import Policies
from jaxmas.runs import provenance
from jaxmas.statistics import Estimate, hierarchical_bootstrap
from jaxmas.training import first_state, run_updates

VARIANTS: dict[str, dict[str, Any]] = {
    "template, group": {},
    "slots, group": {"space": "slots"},
    "template, PPO": {"learner": "ppo"},
    "template, group, fresh noise per plan": {"shared_noise": False},
    "template, group, sees global features": {"sees": "global"},
    "template, group, sees nothing": {"sees": "nothing"},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Size of the study."""

    scenario: str = "workflow-mixed-v0"
    seeds: int = 5
    updates: int = 400
    test: int = 4096
    oracle_queries: int = 512
    """The first so many test queries bracket what the best plan per query gains."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    out: Path = Path(__file__).resolve().parent / "results"


def main(settings: Settings) -> dict[str, Any]:
    """Run the study and write its table."""
    env, params = jaxmas.make(settings.scenario)
    executor = jaxmas.load_executor(SCENARIOS[settings.scenario].executor, env, params)
    world = headroom.World(env, params, *executor)
    test = evaluation.query_keys("test", settings.test)
    chosen = headroom.choose(world)
    baselines = play_baselines(world, chosen, test)
    best = max(STRATEGIES.names(env.family), key=lambda name: baselines[name].mean())
    bracket = headroom_gain(world, chosen, best, test[: settings.oracle_queries])
    learned: dict[str, np.ndarray] = {}
    result: dict[str, Any] = {
        "settings": {**dataclasses.asdict(settings), "out": None},
        "provenance": provenance(),
        "params": params_hash(params),
        "best_strategy": best,
        "per_query_over_best_strategy": bracket,
        "curves": {},
    }
    for name in settings.variants:
        rewards, result["curves"][name], seconds = zip(
            *(train_one(world, name, seed, settings.updates, test) for seed in range(settings.seeds)), strict=True
        )
        learned[name] = np.stack(rewards)
        print(f"{name}: {hierarchical_bootstrap(learned[name])} ({np.mean(seconds):.0f} s per seed)", flush=True)
        # Written after every variant: a study that is cut short has those that it finished.
        result["command"] = command(dataclasses.replace(settings, variants=tuple(learned)))
        result["methods"] = table(baselines, learned, best, bracket)
        atomic_write_json(settings.out / "meta_skill.json", result)
        atomic_write_text(settings.out / "meta_skill.md", markdown(result))
    return result


def command(settings: Settings) -> str:
    """Return the command line that runs the study with these settings, wherever it writes."""
    words = ["python", "-m", "jaxmas.experiments.meta_skill_study"]
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if field.name != "out" and value != field.default:
            words += [f"--{field.name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [value])]
    return shlex.join(map(str, words))


def play_baselines(world: headroom.World, chosen: headroom.Chosen, test: Any) -> dict[str, np.ndarray]:
    """Return every strategy's rewards and the rule's, one per test query."""
    rewards = {policy.name: compare.play(world, policy, test)["reward"] for policy in compare.strategies_of(world)}
    index = chosen.rule.taken(references.global_features(world.env, world.params, test))[None]
    rewards["depth-3 rule"] = headroom.play_rows(world, index, test, 1)[0]
    return rewards


def train_one(
    world: headroom.World, variant: str, seed: int, updates: int, test: Any
) -> tuple[np.ndarray, list[float], float]:
    """Train one seed; return its test rewards, its learning curve and the seconds that training took."""
    config = MetaSkillConfig(updates=updates, **VARIANTS[variant])
    began = time.perf_counter()
    state = first_state(config, world.env, world.params, jax.random.key(seed))
    executor = world.executor, world.executor_params
    start = Policies(RandomPolicy(world.env), None, *executor)
    state, logs = run_updates(config, world.env, world.params, start, state, updates)
    curve = np.asarray(logs["reward"]).reshape(-1, 20).mean(axis=1).round(4).tolist() if updates % 20 == 0 else []
    seconds = time.perf_counter() - began
    designer = config.designer(world.env, state, greedy=True)
    outcome = evaluation.evaluate(world.env, world.params, *designer, *executor, test)
    return outcome["reward"], curve, seconds


def headroom_gain(world: headroom.World, chosen: headroom.Chosen, best: str, keys: Any) -> dict[str, Any]:
    """Return what the best plan per query gains over the best strategy on these queries."""
    settings = headroom.HeadroomSettings()
    bracket = headroom.best_per_query(world, chosen, keys, settings, lambda episodes: None)
    same = compare.play(world, compare.policy_of(f"strategy:{best}", world), keys, replicates=128)["reward"]
    return {
        "low": _json((bracket.low_values - same)[None]),
        "high": bracket.high.mean - float(same.mean()),
        "queries": len(keys),
    }


def table(
    baselines: dict[str, np.ndarray], learned: dict[str, np.ndarray], best: str, bracket: dict[str, Any]
) -> dict[str, Any]:
    """Return mean rewards, paired differences to the best strategy and the rule, and the share of the way captured."""
    rows: dict[str, Any] = {name: {"reward": _json(values[None])} for name, values in baselines.items()}
    for name, values in learned.items():
        gain = values - baselines[best]
        rows[name] = {
            "reward": _json(values),
            "runs": values.mean(axis=1).round(4).tolist(),
            "over_best_strategy": _json(gain),
            "over_rule": _json(values - baselines["depth-3 rule"]),
            "captured": float(gain.mean()) / bracket["low"]["mean"],
        }
    return rows


def _json(values: np.ndarray) -> dict[str, Any]:
    return hierarchical_bootstrap(values).to_json()


def markdown(result: dict[str, Any]) -> str:
    """Return the table for people."""

    def cell(estimate: dict[str, Any] | None) -> str:
        return "" if estimate is None else str(Estimate(estimate["mean"], tuple(estimate["ci95"])))

    lines = [
        f"# Meta-skill on `{result['settings']['scenario']}`",
        "",
        f"`{result['command']}`, commit {result['provenance']['commit']}, {result['provenance']['device']}; "
        f"{result['settings']['seeds']} seeds, {result['settings']['test']} test queries; "
        f"parameters {result['params']}.",
        "",
        "| method | reward | over best strategy | over depth-3 rule | captured |",
        "|---|---|---|---|---|",
    ]
    for name, row in sorted(result["methods"].items(), key=lambda item: -item[1]["reward"]["mean"]):
        share = f"{row['captured']:.0%}" if "captured" in row else ""
        over = [cell(row.get(key)) for key in ("over_best_strategy", "over_rule")]
        lines.append(f"| {name} | {cell(row['reward'])} | {over[0]} | {over[1]} | {share} |")
    bounds = result["per_query_over_best_strategy"]
    lines += [
        "",
        f"Best strategy: {result['best_strategy']}. On the first {bounds['queries']} of the queries the best plan per "
        f"query earns {cell(bounds['low'])} over it (lower bound; upper bound {bounds['high']:+.3f}); *captured* "
        "is the learned gain on all queries over that mean, and as uncertain as its interval is wide.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Settings))
