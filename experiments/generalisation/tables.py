"""Write the tables of what is kept."""

import dataclasses
import functools
import json
from typing import Any

import numpy as np

from jaxmas.anchors import params_hash
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.experiments.designers import systems as designers
from jaxmas.experiments.designers.measures import references_of
from jaxmas.experiments.generalisation.systems import PARTS, WORLDS, Settings, world_of
from jaxmas.experiments.study import Part, estimate, folder, remembered, sizes, stem
from jaxmas.experiments.study_tables import cell, command, records_of

SHOWN = ("best strategy", "best three plans, the better by trial", "depth-3 rule", "best plan per query")


def write(name: str, part: Part, settings: Settings) -> None:
    """Write a part's table of what is finished."""
    part = dataclasses.replace(part, seeds=max(part.seeds, PARTS[name].seeds))
    records = records_of(name, part, settings)
    methods = {
        system: {
            world: {
                key: estimate(np.array([run["notes"]["worlds"][world][key] for run in record["runs"]], float))
                for key in ("reward", "success", "cost")
            }
            for world in record["runs"][0]["notes"]["worlds"]
        }
        for system, record in records.items()
    }
    made = sorted({run["provenance"]["commit"] for record in records.values() for run in record["runs"]})
    result = {
        "trained on": name,
        **sizes(part, settings),
        "command": command(settings, name),
        "commits": made,
        "seeds": {system: len(record["runs"]) for system, record in records.items()},
        "references": references(settings),
        "methods": methods,
    }
    atomic_write_json(settings.out / f"{stem(name, settings)}.json", result)
    atomic_write_text(settings.out / f"{stem(name, settings)}.md", markdown(result))


def references(settings: Settings) -> dict[str, Any]:
    """Return what the references of every world earn there."""
    found = {}
    for name in WORLDS:
        world = world_of(name)
        known = {"params": params_hash(world.params), "num_agents": world.env.num_agents, "test": settings.test}
        file = settings.out / "generalisation_references" / f"{folder(name)}.json"
        found[name] = remembered(file, known, functools.partial(measured, name, settings))["references"]
    return found


def measured(name: str, settings: Settings) -> dict[str, Any]:
    """Measure the references of a world, or take what the study of designers keeps of the same."""
    world, (scenario, num_agents) = world_of(name), WORLDS[name]
    for part, made in designers.PARTS.items():
        file = settings.out / stem(part, designers.Settings()) / "references.json"
        if file.exists() and (made.scenario, made.num_agents) == (scenario, num_agents):
            kept = json.loads(file.read_text())
            if (kept["params"], kept["test"]) == (params_hash(world.params), settings.test):
                return {"references": kept["references"]}
    return {"references": references_of(world, settings.test)}


def markdown(result: dict[str, Any]) -> str:
    """Return the table for people."""
    lines = [
        f"# Generalisation: trained on {result['trained on']}",
        "",
        f"`{result['command']}`, commit {', '.join(result['commits'])}; trained on `{result['scenario']}` (parameters "
        f"{result['params']}), {result['plays']:,} plays per run, played on {result['test']} test queries of every "
        "world. Rewards; – where the weights do not fit.",
        "",
        f"| designer | seeds | {' | '.join(WORLDS)} |",
        "|---|---|" + "---|" * len(WORLDS),
    ]
    for system, worlds in result["methods"].items():
        cells = [cell(worlds[world]["reward"]) if world in worlds else "–" for world in WORLDS]
        lines.append(f"| {system} | {result['seeds'][system]} | {' | '.join(cells)} |")
    for reference in SHOWN:
        rows = [result["references"][world][reference] for world in WORLDS]
        cells = [cell(row["reward"] if "reward" in row else row["low"]) for row in rows]
        lines.append(f"| {reference} there | – | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
