"""Write the tables and figures of what is kept."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

import jaxmas
from jaxmas import plots
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.environments.workflow.params import role_names
from jaxmas.experiments.frozen_ceiling.systems import PARTS, Settings
from jaxmas.experiments.study import Part, baselines, estimate, sizes, stem, values_of
from jaxmas.experiments.study_tables import cell, command, percent, records_of, row_of
from jaxmas.structures import STRUCTURES

DRAWN = (
    "meta-skill",
    "designer-only",
    "executor-only-best-strategy",
    "coupled",
    "stagewise-10",
    "coupled-template",
    "stagewise-10-template",
)
"""Systems whose learning curves are drawn; all of a part that has none of them."""


def write(name: str, part: Part, settings: Settings) -> None:
    """Write a part's table and figures of what is finished."""
    result = collate(name, part, settings)
    begin = stem(name, settings)
    atomic_write_json(settings.out / f"{begin}.json", result)
    atomic_write_text(settings.out / f"{begin}.md", markdown(result))
    for kind, figure in figures(result):
        plots.save_png(figure, settings.out / f"{begin}_{kind}.png")


def collate(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return the table of a part, the learning curves and the histograms of structures over training."""
    # All seeds that are kept, however few were asked for now.
    part = dataclasses.replace(part, seeds=max(part.seeds, PARTS[name].seeds))
    records = records_of(name, part, settings)
    methods: dict[str, Any] = {}
    for system, record in records.items():
        row = row_of(part, system, records)
        if part.variants:
            swapped = values_of(record, "success", "swapped")
            row["swapped"] = estimate(swapped)
            row["lost_by_swapping"] = estimate(swapped - values_of(record, "success"))
        methods[system] = row
    return {
        "part": name,
        **sizes(part, settings),
        "num_agents": part.num_agents,
        "reference": part.reference,
        "command": command(settings, name),
        "baselines": baselines(name, part, settings),
        "methods": methods,
    }


def markdown(result: dict[str, Any]) -> str:
    """Return the table for people."""
    agents = f", {result['num_agents']} agents" if result["num_agents"] else ""
    made = sorted({made for row in result["methods"].values() for made in row["made_by"]})
    lines = [
        f"# The frozen-executor ceiling: {result['part']}",
        "",
        f"`{result['command']}`, commit {', '.join(made)}; `{result['scenario']}`{agents} (parameters "
        f"{result['params']}), {result['plays']:,} plays per run, {result['test']} test queries. Lift: over "
        f"*{result['reference']}* or what is named, on the same queries; as a share of the reference's mean success.",
        "",
        "| system | seeds | success | reward | cost | lift, points | lift, share | lift, reward | steps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for system, row in result["baselines"].items():
        lines.append(
            f"| strategy {system} | – | {cell(row['success'])} | {cell(row['reward'])} | {cell(row['cost'])} ||||"
        )
    for system, row in sorted(result["methods"].items(), key=lambda item: -item[1]["success"]["mean"]):
        values = [cell(row[key]) for key in ("success", "reward", "cost")]
        if "lift" in row:
            values += [cell(row["lift"]["points"]), percent(row["lift"]["relative"]), cell(row["reward_lift"])]
        else:
            values += ["", "", ""]
        values.append(f"{row['environment_steps'] / 1e6:.2f} M")
        named = (
            f" (over {row['reference']})" if row.get("reference", result["reference"]) != result["reference"] else ""
        )
        lines.append(f"| {system}{named} | {row['seeds']} | {' | '.join(values)} |")
    swapped = {system: row for system, row in result["methods"].items() if "swapped" in row}
    if swapped:
        lines += ["", "| system | success | with the specialists' roles swapped | lost |", "|---|---|---|---|"]
    for system, row in swapped.items():
        lines.append(
            f"| {system} | {' | '.join(cell(row[key]) for key in ('success', 'swapped', 'lost_by_swapping'))} |"
        )
    return "\n".join([*lines, ""])


def figures(result: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield learning curves, rewards by role and structures over training."""
    methods = result["methods"]
    if not methods:
        return
    drawn = [name for name in DRAWN if name in methods] or list(methods)
    plays = {name: np.array(row["curves"]["plays"]) for name, row in methods.items()}
    yield (
        "curves",
        plots.curves(
            {name: (plays[name], np.array(methods[name]["curves"]["success"], float)) for name in drawn},
            "plays",
            "success",
        ),
    )
    names = role_names(getattr(jaxmas.make(result["scenario"])[0], "num_skills", 0))
    roles = {f"role_{index}_reward": role for index, role in enumerate(names)}
    for name, row in methods.items():
        kinds = [f"structure_{kind}" for kind in STRUCTURES if f"structure_{kind}" in row["curves"]]
        if name not in ("coupled", "stagewise-10", "coupled-template"):
            continue
        by_role = {
            role: (plays[name], np.array(row["curves"][key], float))
            for key, role in roles.items()
            if key in row["curves"]
        }
        yield f"roles_{name}", plots.curves(by_role, "plays", "own reward per decision")
        shares = {key.removeprefix("structure_"): np.array(row["curves"][key]) for key in kinds}
        yield f"structures_{name}", plots.shares(plays[name], shares, "plays", "share of designs")
