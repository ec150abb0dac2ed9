"""Write the table and the figures of what is kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmas import plots
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.experiments.shift.measures import recovery, regret
from jaxmas.experiments.shift.runs import cases_of, kept, strategies
from jaxmas.experiments.shift.worlds import EXECUTOR, MODES, SCENARIO, SHIFTS, Settings, config_of
from jaxmas.experiments.study import estimate
from jaxmas.experiments.study_tables import cell, given, made_by
from jaxmas.statistics import hierarchical_bootstrap

Runs = Sequence[Mapping[str, Any]]


def write(settings: Settings) -> None:
    """Write what is finished; a shift has rows once a system was trained in its new world."""
    result = collate(settings)
    atomic_write_json(settings.out / f"{settings.name}.json", result)
    atomic_write_text(settings.out / f"{settings.name}.md", markdown(result))
    for shift, found in result["shifts"].items():
        figure = plots.curves(drawn(result, found), "queries", "reward on test queries")
        plots.save_png(figure, settings.out / f"{settings.name}_{shift}.png")


def collate(settings: Settings) -> dict[str, Any]:
    """Return the table of every shift that is kept, with the learning curves as means over seeds."""
    records = {case.name: kept(case, settings) for case in cases_of(dataclasses.replace(settings, shifts=()))}
    runs = {name: list(record["runs"].values()) for name, record in records.items() if record["runs"]}
    before = runs.pop("before", [])
    found = {shift: shift_of(shift, before, runs, settings) for shift in SHIFTS if f"{shift}-new" in runs}
    return {
        "scenario": SCENARIO,
        "executor": EXECUTOR,
        "command": command(settings, tuple(found)),
        "cpu_minutes": round(sum(run["cpu_seconds"] for each in [before, *runs.values()] for run in each) / 60, 1),
        "made_by": sorted({made for record in records.values() for made in made_by({"runs": record["runs"].values()})}),
        "updates": settings.updates,
        "queries_per_update": config_of(MODES["both"], settings).queries,
        "test": settings.test,
        "before": {"reward": estimate(values(before, "last")), "curve": curve(before)},
        "shifts": found,
    }


def shift_of(shift: str, before: Runs, runs: Mapping[str, Runs], settings: Settings) -> dict[str, Any]:
    """Return the rows of a shift, and what they are measured against: training in the new world only."""
    reference = values(runs[f"{shift}-new"], "last")
    rows: dict[str, Any] = {}
    for announced in ("unannounced", "announced"):
        for learns in MODES:
            name = f"{shift}-{announced}-{learns}"
            if name in runs:
                rows[f"{learns}, {announced}"] = row_of(runs[name], before, reference)
    fixed, horizon = strategies(shift, settings), settings.updates * config_of(MODES["both"], settings).queries
    old, kept_one, chosen = (np.array(fixed[when][where], float)[None] for when, where in PLAYED)
    start = float(kept_one.mean())
    for when, scores in (("before", kept_one), ("after", chosen)):
        rows[f"strategy chosen {when}: {fixed[when]['name']}"] = {
            "seeds": None,
            "before": estimate(old),
            "after": estimate(kept_one),
            "end": estimate(scores),
            "recovery": at_once(start, float(scores.mean()), float(reference.mean())),
            "regret": regret(horizon, scores, reference),
        }
    new = {"seeds": len(reference), "reward": estimate(reference), "curve": curve(runs[f"{shift}-new"])}
    return {"shown": SHIFTS[shift].shown is not None, "horizon": horizon, "new": new, "rows": rows}


PLAYED = (("before", "old world"), ("before", "new world"), ("after", "new world"))


def row_of(runs: Runs, before: Runs, reference: np.ndarray) -> dict[str, Any]:
    """Return what a system did: rewards around the shift, queries until it recovers, regret."""
    queries = np.array(runs[0]["queries"])
    found = [recovery(queries, np.array(run["reward"]), float(reference.mean())) for run in runs]
    return {
        "seeds": len(runs),
        "before": estimate(values(before, "last")),
        "after": estimate(values(runs, "first")),
        "end": estimate(values(runs, "last")),
        "recovery": in_all(found, int(queries[-1])),
        "regret": regret(int(queries[-1]), values(runs, "average"), reference),
        "curve": curve(runs),
    }


def in_all(found: Sequence[int | None], horizon: int) -> dict[str, Any]:
    """Return who recovered, and the mean queries that it took; who did not counts as the horizon, a lower bound."""
    taken = np.array([horizon if one is None else one for one in found], float)
    row: dict[str, Any] = {"per_seed": list(found), "recovered": sum(one is not None for one in found)}
    # One value per run: queries are no part of what is resampled.
    return row | ({"queries": hierarchical_bootstrap(taken[:, None]).to_json()} if len(taken) > 1 else {})


def at_once(after: float, score: float, reference: float) -> dict[str, Any]:
    """Return whether a strategy recovers: at once or never, and without its choice's own validation queries."""
    found = recovery(np.array([0, 0]), np.array([after, score]), reference)
    return {"per_seed": [found], "recovered": int(found is not None)}


def values(runs: Runs, key: str) -> np.ndarray:
    """Return an outcome of every seed and test query."""
    return np.array([run[key] for run in runs], float)


def curve(runs: Runs) -> dict[str, list[float]]:
    """Return the mean over seeds at every measurement."""
    return {"queries": runs[0]["queries"], "reward": values(runs, "reward").mean(axis=0).round(5).tolist()}


def command(settings: Settings, shifts: tuple[str, ...]) -> str:
    """Return the command that makes the table."""
    words = ["--small"] if settings.small else [*shifts] * (len(shifts) < len(SHIFTS))
    if not settings.small:
        words += given(settings, ("seeds", "updates", "every", "test", "validation"))
    return " ".join(["python -m jaxmas.experiments.shift", *words])


def markdown(result: Mapping[str, Any]) -> str:
    """Return the tables for people."""
    half = result["updates"] * result["queries_per_update"]
    lines = [
        "# Shifts: the world changes in mid-training",
        "",
        f"`{result['command']}`, commit {', '.join(result['made_by'])}, {result['cpu_minutes']:g} CPU-minutes "
        f"of training and measuring; `{result['scenario']}`, executors "
        f"{result['executor']} at the start, {half:,} queries before the shift and as many after it; "
        f"rewards of greedy designers on {result['test']} test queries. *Recovery*: queries until 90 % of the way from "
        "the score right after the shift to that of systems trained in the new world only, with all the queries; where "
        "not all seeds recover, a lower bound. *Regret*: ∫ (score of those − score) over the queries after the shift, "
        "in rewards.",
    ]
    for shift, found in result["shifts"].items():
        how = "the designer's observation" if found["shown"] else "fresh moments and schedules; nothing is observed"
        lines += [
            "",
            f"## {shift}",
            "",
            f"Announced by {how}. Trained in the new world only: {cell(found['new']['reward'])}, "
            f"{found['new']['seeds']} seeds.",
            "",
            "| learns | seeds | before | right after | at the end | recovered | queries to recover | regret |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, row in found["rows"].items():
            again, seeds = row["recovery"], row["seeds"]
            counts = (
                f"{again['recovered']} of {len(again['per_seed'])}" if seeds else "yes" * again["recovered"] or "no"
            )
            cells = [seeds or "–", *(cell(row[key]) for key in ("before", "after", "end")), counts, taken(again)]
            lines.append(f"| {name} | {' | '.join(map(str, cells))} | {whole(row['regret'])} |")
    return "\n".join([*lines, ""])


def taken(again: Mapping[str, Any]) -> str:
    """Return the queries that recovery took, as a lower bound where some seeds never recover."""
    if not again["recovered"]:
        return "–"
    if "queries" not in again:
        return str(again["per_seed"][0])
    return ("" if again["recovered"] == len(again["per_seed"]) else "≥ ") + whole(again["queries"])


def whole(row: Mapping[str, Any]) -> str:
    """Return a mean with its interval in whole numbers."""
    low, high = row["ci95"]
    return f"{row['mean']:,.0f} [{low:,.0f}, {high:,.0f}]"


def drawn(result: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the lines of a shift's figure over all queries, those before the shift included."""
    begun = result["before"]["curve"]["queries"][-1]
    shown = {"before": (0, result["before"]["curve"]), "new world only": (0, found["new"]["curve"])}
    shown |= {name: (begun, row["curve"]) for name, row in found["rows"].items() if "curve" in row}
    series = {name: (begin + np.array(one["queries"]), np.array(one["reward"])) for name, (begin, one) in shown.items()}
    after = np.array([begun, begun + found["horizon"]])
    fixed = {name: np.full(2, row["end"]["mean"]) for name, row in found["rows"].items() if "curve" not in row}
    return series | {name: (after, scores) for name, scores in fixed.items()}
