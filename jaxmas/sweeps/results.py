"""Results of a sweep: ``result.json`` in the directory of every finished trial, and tables that are made of these."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.errors import JaxmasError
from jaxmas.statistics import standard_error
from jaxmas.sweeps.plan import Plan, Trial
from jaxmas.training import read_log

METRICS = ("reward", "success", "cost", "score")
"""Columns of the table, where the scenario has them."""


def folder_of(out: Path, trial: Trial) -> Path:
    """Return the directory of a trial, a run like any other."""
    return out / "trials" / trial.name


def is_finished(out: Path, trial: Trial) -> bool:
    """Return whether a trial has its result, be it an error."""
    return (folder_of(out, trial) / "result.json").is_file()


def write_result(
    out: Path, trial: Trial, *, outcome: Mapping[str, Any] | None = None, error: str | None = None, seconds: float = 0.0
) -> None:
    """Finish a trial: with the metrics of its policy on test queries, or with what went wrong.

    ``seconds`` are those of the evaluation; those of the training stand in the log.
    """
    folder = folder_of(out, trial)
    rows = read_log(folder / "log.jsonl")
    result = {
        "trial": trial.name,
        "settings": trial.settings,
        "seed": trial.seed,
        "outcome": outcome,
        "curve": _curve(rows),
        "seconds": round(sum(row["seconds"] for row in rows) + seconds, 3),
        "error": error,
    }
    atomic_write_json(folder / "result.json", result)


def _curve(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what the curve of the training reward comes to; None before the first line of the log."""
    if not rows:
        return None
    rewards = [row["reward"] for row in rows]
    ends = {"first": rewards[0], "last": rewards[-1], "best": max(rewards), "mean": float(np.mean(rewards))}
    return {"updates": rows[-1]["update"], **ends}


def read_results(out: Path, plan: Plan) -> list[dict[str, Any]]:
    """Return the results of the finished trials, in the order of the plan."""
    paths = [folder_of(out, trial) / "result.json" for trial in plan.trials.values() if is_finished(out, trial)]
    try:
        return [json.loads(path.read_text()) for path in paths]
    except ValueError as error:
        raise JaxmasError(f"a result in {out / 'trials'} cannot be read ({error}); delete it, and --resume") from error


def write_tables(out: Path, plan: Plan) -> list[dict[str, Any]]:
    """Write ``results.jsonl``, a line per finished trial, and ``table.md`` anew; return the table's rows."""
    results = read_results(out, plan)
    rows = _ranked(results, plan)
    atomic_write_text(out / "results.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in results))
    atomic_write_text(out / "table.md", _markdown(plan, rows))
    return rows


def _ranked(results: Iterable[Mapping[str, Any]], plan: Plan) -> list[dict[str, Any]]:
    """Return a row per combination of settings, with means over its seeds: those that earn most first."""
    groups: dict[str, dict[str, Any]] = {}
    for trial in plan.trials.values():
        row = {"settings": trial.settings, "trials": 0, "finished": [], "errors": []}
        groups.setdefault(json.dumps(trial.settings), row)["trials"] += 1
    for result in results:
        group = groups[json.dumps(plan.trials[result["trial"]].settings)]
        group["errors" if result["error"] else "finished"].append(result["error"] or result["outcome"])
    rows = []
    for group in groups.values():
        outcomes = group.pop("finished")
        rows.append({**group, "finished": len(outcomes), **_means(outcomes)})
    return sorted(rows, key=lambda row: -row["reward"]["mean"] if "reward" in row else np.inf)


def _means(outcomes: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean over seeds of every metric, with its 95 % interval where there are two seeds or more.

    x̄ ± t₀.₉₇₅,ₙ₋₁ SE: the seeds are a sample of all seeds, the queries are the same ones for all.
    """
    means: dict[str, Any] = {}
    for name in METRICS:
        values = [outcome[name] for outcome in outcomes if outcome.get(name) is not None]
        values = [value["mean"] if isinstance(value, Mapping) else value for value in values]
        if values:
            mean, count = float(np.mean(values)), len(values)
            half = stats.t.ppf(0.975, count - 1) * standard_error(values) if count > 1 else None
            means[name] = {"mean": mean, "ci95": None if half is None else [mean - half, mean + half]}
    return means


def _markdown(plan: Plan, rows: list[dict[str, Any]]) -> str:
    """Return the table for people."""
    metrics = [name for name in METRICS if any(name in row for row in rows)]
    head = [*plan.spec.swept, "seeds", *metrics, "error"]
    lines = [
        f"# {plan.spec.algorithm} on {plan.spec.scenario}",
        "",
        f"Means over seeds on {plan.spec.episodes} test queries, ± half of the 95 % interval over seeds; best first.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for row in rows:
        seeds = f"{row['finished']} of {row['trials']}"
        errors = "; ".join(dict.fromkeys(row["errors"])).replace("|", "/")
        cells = [*row["settings"].values(), seeds, *(number(row.get(name)) for name in metrics), errors]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def number(value: Mapping[str, Any] | None) -> str:
    """Return a mean with the half width of its interval."""
    if value is None:
        return "–"
    interval = value["ci95"]
    return f"{value['mean']:.4f}" + (f" ± {(interval[1] - interval[0]) / 2:.4f}" if interval else "")
