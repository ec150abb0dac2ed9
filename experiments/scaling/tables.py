"""Write the tables and figures of whatever is kept so far."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmas import plots
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.experiments.scaling.fits import compared, interval
from jaxmas.experiments.scaling.measures import file_of
from jaxmas.experiments.scaling.page import markdown
from jaxmas.experiments.scaling.systems import (
    BEST,
    DESIGNED,
    EXECUTORS,
    FAMILIES,
    MOVED,
    OUTCOMES,
    RANDOM,
    SWEPT_AT,
    TRAINED_AT,
    UNITS,
    Settings,
    of_part,
    size_of,
)
from jaxmas.experiments.study import estimate, part_of, values_of
from jaxmas.experiments.study_tables import command, made_by, records_of
from jaxmas.statistics import Estimate, bootstrap_means, coordination_score, standard_error

FITTED = {"crowd": (BEST, DESIGNED, MOVED), "warehouse": (RANDOM, BEST, MOVED)}
"""Whose rewards laws are fitted to."""
SPEED = ("agent_steps_per_cpu_second", "compile_seconds", "compile_wall_seconds", "num_envs")
LEAST = 6
"""Sizes that a fit needs: a law has up to four numbers, and one size is left out."""

Played = dict[str, dict[str, np.ndarray]]
"""Outcomes ``[runs, queries]`` by method and name."""


def write(settings: Settings) -> None:
    """Write the table and figures of all parts."""
    families = {family: collate(family, settings) for family in FAMILIES}
    result = {"command": command(settings), "families": families, "sweeps": sweeps_of(settings)}
    begin = settings.study.name + ("_small" if settings.small else "")
    atomic_write_json(settings.out / f"{begin}.json", result)
    atomic_write_text(settings.out / f"{begin}.md", markdown(result))
    for family, found in families.items():
        draw(found["rows"], found["fits"], UNITS[family], settings.out / f"{begin}_{family}.png")


def read(file: Path) -> dict[str, Any]:
    """Return what a file keeps; nothing where there is none."""
    return json.loads(file.read_text()) if file.exists() else {}


def played(name: str, settings: Settings) -> tuple[Played, dict[str, Any]]:
    """Return what every method did in a part, and what else is kept of it."""
    part, settings = part_of(name, settings), of_part(name, settings)
    kept = read(file_of(name, "references", settings))
    if not kept:
        return {}, {}
    rows = {RANDOM: kept["rows"][RANDOM], BEST: kept["rows"][kept["best"]]}
    methods = {method: {key: np.array([row[key]], float) for key in row} for method, row in rows.items()}
    records = records_of(name, part, settings)
    for system, record in records.items():
        methods[system] = {key: values_of(record, key) for key in record["runs"][0]["trained"]}
    runs = read(file_of(name, f"{DESIGNED}-from-{TRAINED_AT}", settings)).get("runs")
    if runs:
        methods[MOVED] = {key: np.array([run[key] for run in runs], float) for key in runs[0]}
    return methods, {"references": kept, "records": records}


def collate(family: str, settings: Settings) -> dict[str, Any]:
    """Return the rows of every size, and the laws that the curves follow."""
    rows: dict[int, Any] = {}
    curves: dict[str, dict[int, np.ndarray]] = {}
    for name, part in FAMILIES[family].items():
        methods, kept = played(name, settings)
        if not methods:
            continue
        speed = read(file_of(name, "speed", settings))
        made = [one["provenance"] for one in (kept["references"], speed) if one]
        devices = {f"{one['commit']} on {one['device']}" for one in made}
        agents = size_of(name)
        rows[agents] = {
            "scenario": part.scenario,
            "params": part.params,
            "best": kept["references"]["best"],
            "methods": {method: row_of(family, part, method, methods) for method in methods},
            "speed": {key: speed.get(key) for key in SPEED},
            "training": {system: training(record) for system, record in kept["records"].items()},
            "made_by": sorted(devices.union(*map(made_by, kept["records"].values()))),
        }
        for method in FITTED[family]:
            if method in methods:
                curves.setdefault(method, {})[agents] = methods[method]["reward"]
    fits = {
        method: compared(list(curve), list(curve.values()), same_runs=method == MOVED)
        for method, curve in curves.items()
        if len(curve) >= LEAST
    }
    test = of_part(next(iter(FAMILIES[family])), settings).test
    return {"executor": EXECUTORS[family], "test": test, "rows": rows, "fits": fits}


def row_of(family: str, part: Any, method: str, methods: Played) -> dict[str, Any]:
    """Return what the table says of a method at one size; a score only where the executors are the family's own."""
    found = methods[method]
    row: dict[str, Any] = {key: estimate(found[key]) for key in ("success", *OUTCOMES) if key in found}
    own = method not in part.systems or part.systems[method].executor == EXECUTORS[family]
    row["seeds"] = len(found["reward"]) if method not in (RANDOM, BEST) else None
    row["score"] = score(found["reward"], methods[RANDOM]["reward"], methods[BEST]["reward"]) if own else None
    return row


def score(reward: np.ndarray, random: np.ndarray, best: np.ndarray) -> dict[str, Any] | None:
    """Return the coordination score on these queries with its interval; None where random and best are one."""
    errors = [standard_error(anchor[0]) for anchor in (random, best)]
    point = coordination_score(reward.mean(), random.mean(), best.mean(), standard_errors=errors)
    if point is None:
        return None
    # One seed: all three meet the same resampled queries.
    drawn, low, high = (bootstrap_means(values) for values in (reward, random, best))
    return interval(np.append(point, (drawn - low) / (high - low)))


def training(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seconds that a run takes, and those that compiling took: the first log line's over a usual one's."""
    logs = [run["log"] for run in record["runs"]]
    usual = [line["seconds"] for log in logs for line in log[1:]] or [min(log[0]["seconds"] for log in logs)]
    lines = max(len(log) for log in logs)
    first = max(log[0]["seconds"] for log in logs)
    return {
        "plays": logs[0][-1]["plays"],
        "wall_seconds": float(np.median(usual) * lines),
        "compile_wall_seconds": float(max(0.0, first - np.median(usual))),
    }


def sweeps_of(settings: Settings) -> dict[str, Any]:
    """Return what is kept of the sweeps: rows by family, number, method and value."""
    found: dict[str, Any] = {}
    for family in FAMILIES:
        name = f"{family}-{SWEPT_AT}"
        for file in sorted(file_of(name, "sweep", settings).parent.glob("sweep-*.json")):
            for number, systems in read(file)["rows"].items():
                found.setdefault(name, {}).setdefault(number, {}).update(systems)
    return found


def draw(rows: Mapping[int, Any], fits: Mapping[str, Any], unit: str, file: Path) -> None:
    """Draw every method over the number of agents, and the better law of those that laws were fitted to."""
    series: dict[str, tuple[list[int], list[Estimate]]] = {}
    for agents, one in rows.items():
        for method, row in one["methods"].items():
            x, estimates = series.setdefault(method, ([], []))
            x.append(agents)
            estimates.append(Estimate(row["reward"]["mean"], tuple(row["reward"]["ci95"])))
    fitted = {method: (fit["agents"], fit["laws"][fit["better"]]["fitted"]) for method, fit in fits.items()}
    if series:
        plots.save_png(plots.over_agents(series, fitted, "agents", unit), file)
