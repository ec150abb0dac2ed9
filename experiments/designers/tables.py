"""Write the tables and figures of what is kept."""

import dataclasses
from typing import Any

import numpy as np

from jaxmas import evaluation, headroom, plots, references
from jaxmas.anchors import coordination_score
from jaxmas.catalog import TEMPLATES
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.experiments import compare
from jaxmas.experiments.designers.systems import PARTS, Settings
from jaxmas.experiments.study import Part, estimate, remembered, rounded, sizes, stem, values_of
from jaxmas.experiments.study_tables import cell, command, percent, records_of, row_of
from jaxmas.graph_space import team_row
from jaxmas.policies import TemplatePolicy
from jaxmas.runs import LoadedPolicy
from jaxmas.statistics import paired_difference

OUTCOMES = ("success", "reward", "cost", "latency", "active_agents")
DRAWN = ("meta-skill", "masrouter", "flow-reasoner", "g-designer", "gptswarm", "aflow", "adas")
"""Systems whose learning curves are drawn; all of a part that has none of them."""
SIZES = headroom.HeadroomSettings(oracle_queries=512, oracle_plans=64, clamp_queries=32, clamp_plans=2)
"""How the references are measured; what single fields are worth is in ``headroom.json``."""


def write(name: str, part: Part, settings: Settings) -> None:
    """Write a part's table and figures of what is finished."""
    result = collate(name, part, settings)
    begin = stem(name, settings)
    atomic_write_json(settings.out / f"{begin}.json", result)
    atomic_write_text(settings.out / f"{begin}.md", markdown(result))
    methods = result["methods"]
    if any(row["designs"] for row in methods.values()):
        atomic_write_text(settings.out / f"{begin}_designs.md", designs(result))
    drawn = [method for method in DRAWN if method in methods] or list(methods)
    if drawn:
        logs = {method: methods[method]["curves"] for method in drawn}
        curves = {method: (np.array(log["plays"]), np.array(log["success"], float)) for method, log in logs.items()}
        plots.save_png(plots.curves(curves, "plays", "success"), settings.out / f"{begin}_curves.png")


def collate(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return the table of a part: systems, strategies, references."""
    part = dataclasses.replace(part, seeds=max(part.seeds, PARTS[name].seeds))
    records = records_of(name, part, settings)
    beside = baselines(name, part, settings)
    world = compare.Setting(part.scenario, part.num_agents).build()
    weight = float(world.params.reward.cost)
    methods = {}
    for system, record in records.items():
        row = row_of(part, system, records, OUTCOMES)
        reward, cost = values_of(record, "reward"), values_of(record, "cost")
        row["reward_at_cost_weight"] = {
            factor: estimate(reward + (1 - factor) * weight * cost) for factor in compare.COST_WEIGHTS
        }
        executor = part.systems[system].executor
        row["score"] = coordination_score(part.scenario, world.env, world.params, executor, row["reward"]["mean"])
        notes = [run["notes"] for run in record["runs"] if "notes" in run]
        row["designs"] = next((note["designs"] for note in notes if "designs" in note), [])
        links = [note["links"] for note in notes if "links" in note]
        # One seed has no interval.
        several = len(links) > 1
        row["links"] = {to: estimate(np.array([[one[to]] for one in links])) for to in links[0]} if several else None
        trees = [note["tree"] for note in notes if note.get("tree")]
        row["tree"] = {key: float(np.mean([tree[key] for tree in trees])) for key in trees[0]} if trees else None
        methods[system] = row
    for system, row in methods.items():
        row["against_everyone"] = against_everyone(records[system], name, part, settings) if row["links"] else None
    return {
        "part": name,
        **sizes(part, settings),
        "reference": part.reference,
        "command": command(settings, name),
        **beside,
        "methods": methods,
    }


def baselines(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return what every strategy and every reference does on the test queries."""

    def measure() -> dict[str, Any]:
        world = compare.Setting(part.scenario, part.num_agents).build()
        test = evaluation.query_keys("test", settings.test)
        strategies = {}
        for policy in compare.strategies_of(world):
            played = compare.play(world, policy, test)
            strategies[policy.name] = {key: estimate(played[key][None].astype(float)) for key in OUTCOMES}
        return {"strategies": strategies, "references": references_of(world, settings.test)}

    file = settings.out / stem(name, settings) / "baselines.json"
    known = remembered(file, sizes(part, settings), measure)
    return {key: known[key] for key in ("strategies", "references")}


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
        shown[reference]["plan"] = templates.describe(templates.rows[row])
    shown["best three plans, the better by trial"]["plan"] = "; ".join(
        templates.describe(templates.rows[row]) for row in few
    )
    return shown


def markdown(result: dict[str, Any]) -> str:
    """Return the table for people."""
    made = sorted({made for row in result["methods"].values() for made in row["made_by"]})
    lines = [
        f"# Designers: {result['part']}",
        "",
        f"`{result['command']}`, commit {', '.join(made)}; `{result['scenario']}` (parameters {result['params']}), "
        f"{result['plays']:,} plays per run, {result['test']} test queries. Published systems are simulated in their "
        f"style. Lift: of success over *{result['reference']}*, on the same queries.",
        "",
        "| system | seeds | success | reward | cost | latency | members | lift | at ½ · cost | at 2 · cost | score |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for system, row in sorted(result["methods"].items(), key=lambda item: -item[1]["reward"]["mean"]):
        at = row["reward_at_cost_weight"]
        cells = [
            *(cell(row[key]) for key in OUTCOMES),
            percent(row["lift"]["relative"]) if "lift" in row else "",
            *(f"{at[factor]['mean']:.3f}" for factor in (0.5, 2.0)),
            "–" if row["score"] is None else f"{row['score']:.2f}",
        ]
        lines.append(f"| {system} | {row['seeds']} | {' | '.join(cells)} |")
    for strategy, row in sorted(result["strategies"].items(), key=lambda item: -item[1]["reward"]["mean"]):
        lines.append(f"| strategy `{strategy}` | – | {' | '.join(cell(row[key]) for key in OUTCOMES)} | | | | |")
    lines += ["", "| reference | reward | plan |", "|---|---|---|"]
    for reference, row in result["references"].items():
        if "low" in row:
            low, high = cell(row["low"]), cell(row["high"])
            lines += [f"| {reference}, lower bound | {low} | |", f"| {reference}, upper bound | {high} | |"]
        else:
            lines.append(f"| {reference} | {cell(row['reward'])} | {row.get('plan', '')} |")
    return "\n".join([*lines, *trees(result), *links(result), ""])


def trees(result: dict[str, Any]) -> list[str]:
    """Return the table of what a depth-4 tree on the few visible numbers keeps of each designer."""
    rows = {system: row["tree"] for system, row in result["methods"].items() if row["tree"]}
    if not rows:
        return []
    head = ["", "| designer | reward, 1,024 test queries | of a depth-4 tree distilled from it | designs alike |"]
    head.append("|---|---|---|---|")
    return head + [
        f"| {system} | {row['designer']:.3f} | {row['tree']:.3f} | {row['alike']:.0%} |" for system, row in rows.items()
    ]


def links(result: dict[str, Any]) -> list[str]:
    """Return the table of who is read on a roster: the faulty and adversarial members against the honest ones."""
    rows = {system: row["links"] for system, row in result["methods"].items() if row["links"]}
    if not rows:
        return []
    lines = [
        "",
        "*Everyone* is a mesh of the whole roster; *bad* are the faulty and the adversarial members.",
        "",
        "| system | readers of a bad member | of an honest one | success less everyone's | cost, share of theirs |",
        "|---|---|---|---|---|",
    ]
    for system, row in rows.items():
        beside = result["methods"][system]["against_everyone"]
        cells = [cell(row["to bad"]), cell(row["to honest"]), cell(beside["success"]), f"{beside['cost_share']:.0%}"]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return lines


def designs(result: dict[str, Any]) -> str:
    """Return a page of what each system designs for the first test queries, and how sure it is."""
    lines = [
        f"# What is designed: {result['part']}",
        "",
        "The decisions of one seed of each system on the first test queries, each with its probability given those "
        "before it; designs that were searched for are certain. `jaxmas show … --policy RUN --query N` prints them.",
    ]
    for system, row in result["methods"].items():
        if not any(row["designs"]):
            continue
        lines += ["", f"## {system}"]
        for query, decisions in enumerate(row["designs"]):
            said = "; ".join(f"{what}: {value} ({probability:.2f})" for what, value, probability in decisions)
            lines += ["", f"Query {query}: {said or 'nobody reads anybody'}."]
    return "\n".join([*lines, ""])
