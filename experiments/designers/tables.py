"""Write the tables and figures of what is kept."""

from typing import Any

import numpy as np

from jaxmas import plots
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.experiments.designers.measures import OUTCOMES, collate
from jaxmas.experiments.designers.systems import Settings
from jaxmas.experiments.study import Part, stem
from jaxmas.experiments.study_tables import cell, percent
from jaxmas.statistics import Estimate

DRAWN = ("meta-skill", "masrouter", "flow-reasoner", "g-designer", "gptswarm", "aflow", "adas")
"""Systems whose learning curves are drawn; all of a part that has none of them."""
REFERENCES = ("best strategy", "roles-by-skill", "single-strong")
"""Strategies whose rewards are shown by family, too."""


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
    plots.save_png(plots.success_against_cost(points(result)), settings.out / f"{begin}_front.png")


def points(result: dict[str, Any]) -> list[plots.Method]:
    """Return the systems and strategies as points of success against cost."""
    rows = {**result["methods"], **{row: result["strategies"][row] for row in result["strategies"] if row != "random"}}
    kinds = {**dict.fromkeys(result["methods"], "learned"), "best strategy": "best"}

    def point(method: str) -> plots.Method:
        estimates = [rows[method][key] for key in ("reward", "success", "cost")]
        made = [Estimate(row["mean"], tuple(row["ci95"])) for row in estimates]
        return plots.Method(method, kinds.get(method, "other"), *made)

    return [point(method) for method in rows]


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
        title = strategy.capitalize() if strategy in result["references"] else f"strategy `{strategy}`"
        lines.append(f"| {title} | – | {' | '.join(cell(row[key]) for key in OUTCOMES)} | | | | |")
    lines += ["", f"On the front of success against cost, from cheap to dear: {', '.join(result['front'])}."]
    lines += ["", "| reference | reward | plan |", "|---|---|---|"]
    for reference, row in result["references"].items():
        if "low" in row:
            low, high = cell(row["low"]), cell(row["high"])
            lines += [f"| {reference}, lower bound | {low} | |", f"| {reference}, upper bound | {high} | |"]
        else:
            lines.append(f"| {reference} | {cell(row['reward'])} | {row.get('plan', '')} |")
    return "\n".join([*lines, *families(result), *learning(result), *trees(result), *links(result), ""])


def families(result: dict[str, Any]) -> list[str]:
    """Return the table of rewards by family of queries."""
    shapes = result["families"]
    lines = ["", f"| reward by family | {' | '.join(f'{shape} ({count})' for shape, count in shapes.items())} |"]
    lines.append("|---|" + "---|" * len(shapes))
    rows = {
        **result["methods"],
        **{row: result["strategies"][row] for row in REFERENCES if row in result["strategies"]},
    }
    for title, row in sorted(rows.items(), key=lambda item: -item[1]["reward"]["mean"]):
        lines.append(f"| {title} | {' | '.join(cell(row['by_family'][shape]) for shape in shapes)} |")
    return lines


def learning(result: dict[str, Any]) -> list[str]:
    """Return the table of how many training queries it takes to pass the best strategy."""
    lines = [
        "",
        "Training queries until the rewards of training, exploration included, first pass those of the best strategy, "
        "counted where the log has a line:",
        "",
        "| system | median of the seeds that pass | seeds that pass |",
        "|---|---|---|",
    ]
    for system, row in result["methods"].items():
        passed = [queries for queries in row["queries_to_pass"] if queries is not None]
        median = f"{np.median(passed):,.0f}" if passed else "–"
        lines.append(f"| {system} | {median} | {len(passed)} of {row['seeds']} |")
    return lines


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
