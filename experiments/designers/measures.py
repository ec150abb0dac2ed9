"""What the tables tell: outcomes, families, what it took to learn; strategies and references, which are kept."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmas import evaluation, headroom, references
from jaxmas.anchors import coordination_score
from jaxmas.catalog import TEMPLATES
from jaxmas.environments.workflow.query import SHAPES
from jaxmas.experiments import compare
from jaxmas.experiments.designers.systems import PARTS, REPLAN, Settings
from jaxmas.experiments.study import Part, estimate, remembered, rounded, sizes, stem, values_of
from jaxmas.experiments.study_tables import command, records_of, row_of
from jaxmas.policies import TemplatePolicy
from jaxmas.runs import LoadedPolicy
from jaxmas.spaces.graph import team_row
from jaxmas.statistics import paired_difference, pareto_front

OUTCOMES = ("success", "reward", "cost", "latency", "active_agents")
REPLANNING = ("dylan-ranker", "cheap-first")
"""Strategies that look at a query again."""
SIZES = headroom.HeadroomSettings(oracle_queries=512, oracle_plans=64, clamp_queries=32, clamp_plans=2)
"""How the references are measured; what single fields are worth is in ``headroom.json``."""


def collate(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return the table of a part: systems, strategies, references."""
    part = dataclasses.replace(part, seeds=max(part.seeds, PARTS[name].seeds))
    records = records_of(name, part, settings)
    known = references_kept(name, part, settings)
    played = strategies(name, part, settings, known)
    world = compare.Setting(part.scenario, part.num_agents).build()
    families = families_of(world, settings.test)
    methods = {
        system: {
            **row_of(part, system, records, OUTCOMES),
            **noted(record),
            **beside(record, world, families),
            "score": score(part, system, record, world),
            "queries_to_pass": queries_to_pass(record, known["best strategy"]["reward"]["mean"]),
        }
        for system, record in records.items()
    }
    for system, row in methods.items():
        row["against_everyone"] = against_everyone(records[system], name, part, settings) if row["links"] else None
    front = {**methods, **{f"strategy:{strategy}": row for strategy, row in played.items()}}
    cost, success = (np.array([row[key]["mean"] for row in front.values()]) for key in ("cost", "success"))
    return {
        "part": name,
        **sizes(part, settings),
        "reference": part.reference,
        "command": command(settings, name),
        "families": {shape: int(np.sum(which)) for shape, which in members(families).items()},
        "front": [list(front)[index] for index in pareto_front(cost, success)],
        "strategies": played,
        "references": known,
        "methods": methods,
    }


def noted(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was noted of trained policies: designs of one seed, links and trees over seeds."""
    notes = [run["notes"] for run in record["runs"] if "notes" in run]
    links = [note["links"] for note in notes if "links" in note]
    trees = [note["tree"] for note in notes if note.get("tree")]
    # One seed has no interval.
    several = len(links) > 1
    return {
        "designs": next((note["designs"] for note in notes if "designs" in note), []),
        "links": {to: estimate(np.array([[one[to]] for one in links])) for to in links[0]} if several else None,
        "tree": {key: float(np.mean([tree[key] for tree in trees])) for key in trees[0]} if trees else None,
    }


def beside(record: Mapping[str, Any], world: headroom.World, families: np.ndarray) -> dict[str, Any]:
    """Return a system's reward with the cost weighing otherwise, and on every family of queries."""
    weight = float(world.params.reward.cost)
    reward, cost = values_of(record, "reward"), values_of(record, "cost")
    at = {factor: estimate(reward + (1 - factor) * weight * cost) for factor in compare.COST_WEIGHTS}
    return {"reward_at_cost_weight": at, "by_family": by_family(reward, families)}


def by_family(reward: np.ndarray, families: np.ndarray) -> dict[str, Any]:
    """Return the reward ``[seeds, queries]`` on every family."""
    return {shape: estimate(reward[:, which]) for shape, which in members(families).items()}


def members(families: np.ndarray) -> dict[str, np.ndarray]:
    """Return which queries are of each family; a family of one query tells nothing."""
    found = {SHAPES[family]: families == family for family in np.unique(families)}
    return {shape: which for shape, which in found.items() if np.sum(which) > 1}


def families_of(world: headroom.World, queries: int) -> np.ndarray:
    """Return the family of every test query: the shape of its graph, which no designer is told."""
    shape = jax.jit(jax.vmap(lambda key: world.env.reset(key, world.params)[0].query.shape))
    return np.asarray(shape(evaluation.query_keys("test", queries)))


def score(part: Part, system: str, record: Mapping[str, Any], world: headroom.World) -> float | None:
    """Return the coordination score; anchors are of teams that plan when the scenario lets them."""
    made = part.systems[system]
    if made.coordination_interval is not None:
        return None
    reward = float(values_of(record, "reward").mean())
    return coordination_score(part.scenario, world.env, world.params, made.executor, reward)


def queries_to_pass(record: Mapping[str, Any], bar: float) -> list[int | None]:
    """Return for each seed how many training queries it had met when its rewards first passed the bar.

    Rewards are those of training, exploration included, as means over the updates between two lines of the log.
    """
    each = record["system"]["settings"]["queries"]
    passed = [[row["update"] for row in run["log"] if row["reward"] > bar] for run in record["runs"]]
    return [each * updates[0] if updates else None for updates in passed]


def references_kept(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return what every reference does on the test queries."""

    def measure() -> dict[str, Any]:
        world = compare.Setting(part.scenario, part.num_agents).build()
        return {"references": references_of(world, settings.test)}

    file = settings.out / stem(name, settings) / "references.json"
    return remembered(file, sizes(part, settings), measure)["references"]


def strategies(name: str, part: Part, settings: Settings, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every strategy does on the test queries, and the best rows of the grammar as one would play them."""
    worlds = {
        interval: compare.Setting(part.scenario, part.num_agents, interval).build() for interval in (None, REPLAN)
    }
    policies: dict[str, tuple[int | None, LoadedPolicy]]
    policies = {policy.name: (None, policy) for policy in compare.strategies_of(worlds[None])}
    for strategy in REPLANNING:
        again = compare.policy_of(f"strategy:{strategy}", worlds[REPLAN])
        policies[f"{strategy}, every {REPLAN} steps"] = (REPLAN, again)
    for reference in ("best fixed plan", "best strategy"):
        row = TemplatePolicy(worlds[None].env, tuple(known[reference]["row"]))
        policies[reference] = (None, LoadedPolicy(reference, row, None))

    def measure() -> dict[str, Any]:
        test, rows = evaluation.query_keys("test", settings.test), {}
        families = families_of(worlds[None], settings.test)
        for title, (interval, policy) in policies.items():
            played = compare.play(worlds[interval], policy, test)
            rows[title] = {key: estimate(played[key][None].astype(float)) for key in OUTCOMES}
            rows[title]["by_family"] = by_family(played["reward"][None].astype(float), families)
        return {"strategies": rows}

    file = settings.out / stem(name, settings) / "strategies.json"
    return remembered(file, {**sizes(part, settings), "played": list(policies)}, measure)["strategies"]


def against_everyone(record: dict[str, Any], name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return a system's success less that of a roster's whole team, a mesh, and its cost as a share of theirs."""

    def measure() -> dict[str, Any]:
        world = compare.Setting(part.scenario, part.num_agents).build()
        everyone = TemplatePolicy(world.env, team_row("mesh", world.env.num_agents, world.env))
        test = evaluation.query_keys("test", settings.test)
        return rounded(compare.play(world, LoadedPolicy("everyone", everyone, None), test), ("cost",))

    known = remembered(settings.out / stem(name, settings) / "everyone.json", sizes(part, settings), measure)
    success, cost = values_of(record, "success"), values_of(record, "cost")
    whole = np.tile(np.array(known["success"], float), (len(success), 1))
    return {
        "success": paired_difference(success, whole).to_json(),
        "cost_share": float(cost.mean() / np.mean(known["cost"])),
    }


def references_of(world: headroom.World, queries: int) -> dict[str, Any]:
    """Return the rewards of the best fixed plan, the best three, the rule, and the best plan per query."""
    sized = dataclasses.replace(SIZES, test=queries, oracle_queries=min(SIZES.oracle_queries, queries))
    chosen = headroom.choose(world, sized)
    test = evaluation.query_keys("test", queries)
    features = references.global_features(world.env, world.params, test)
    few = references.best_few(chosen.rewards, 3)
    rows = {
        "best fixed plan": np.full(queries, chosen.fixed),
        "best strategy": np.full(queries, chosen.strategy),
    }
    index = np.stack([*rows.values(), chosen.rule.taken(features)])
    values = headroom.play_rows(world, index, test, sized.replicates)
    found = dict(zip((*rows, "depth-3 rule"), values, strict=True))
    three = np.stack([np.full(queries, row) for row in few])
    first, all_of_them = (headroom.play_rows(world, three, test, replicates) for replicates in (8, 16))
    # Chosen on the first half of the replicates, scored on the second.
    found["best three plans, the better by trial"] = (2 * all_of_them - first)[first.argmax(axis=0), np.arange(queries)]
    bracket = headroom.best_per_query(world, chosen, test[: sized.oracle_queries], sized, lambda done: None)
    shown: dict[str, Any] = {reference: {"reward": estimate(rewards[None])} for reference, rewards in found.items()}
    shown["best plan per query"] = headroom.shifted(bracket, found["best strategy"], sized.oracle_queries)
    templates = TEMPLATES[world.env.family]
    for reference, row in (("best fixed plan", chosen.fixed), ("best strategy", chosen.strategy)):
        shown[reference] |= {"plan": templates.describe(templates.rows[row]), "row": list(templates.rows[row])}
    shown["best three plans, the better by trial"]["plan"] = "; ".join(
        templates.describe(templates.rows[row]) for row in few
    )
    return shown
