"""What the tables of studies share: rows, lifts over a reference, learning curves, cells."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmas.experiments.study import Part, Settings, estimate, kept, values_of
from jaxmas.statistics import Estimate, paired_difference, relative_difference


def records_of(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return what is kept of every system of a part, with all seeds, however few were asked for now."""
    found = {system: kept(name, part, system, settings) for system in part.systems}
    return {system: record for system, record in found.items() if record}


def row_of(
    part: Part, system: str, records: Mapping[str, Any], outcomes: Sequence[str] = ("success", "reward", "cost")
) -> dict[str, Any]:
    """Return what a table says of a system: outcomes with intervals, its lift over the reference, its training."""
    record = records[system]
    logs = [run["log"] for run in record["runs"]]
    row: dict[str, Any] = {key: estimate(values_of(record, key)) for key in outcomes}
    row |= {
        "seeds": len(logs),
        "per_seed": values_of(record, "success").mean(axis=1).round(4).tolist(),
        "environment_steps": float(np.mean([sum_of(log, "steps") for log in logs])),
        "seconds": float(np.mean([sum(line["seconds"] for line in log) for log in logs])),
        "made_by": made_by(record),
        "curves": curves(logs),
    }
    against = part.systems[system].reference or part.reference
    reference = records.get(against)
    if reference and system != against:
        row["reference"] = against
        row["lift"] = lift(values_of(record, "success"), values_of(reference, "success"))
        row["reward_lift"] = paired_difference(values_of(record, "reward"), values_of(reference, "reward")).to_json()
    return row


def made_by(record: Mapping[str, Any]) -> list[str]:
    """Return the commits and devices that a system's runs were made with."""
    made = [run["provenance"] for run in record["runs"]]
    return sorted({f"{one['commit']} on {one['device']}" for one in made})


def lift(success: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Return how much more success there is than in the reference: in points, and as a share of the reference's.

    There is no share of a success that may be none, as with a handful of queries.
    """
    points = paired_difference(success, reference).to_json()
    try:
        relative = relative_difference(success, reference)
    except ValueError:
        return {"points": points, "relative": None}
    return {"points": points, "relative": [relative.mean, *relative.ci95]}


def spans(log: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Return how many updates each line of a log is the mean of."""
    return np.diff([0] + [row["update"] for row in log])


def sum_of(log: Sequence[Mapping[str, float]], key: str) -> float:
    """Return the sum over all updates of what is logged as means."""
    return float(np.sum(spans(log) * [row[key] for row in log]))


def curves(logs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, list[float | None]]:
    """Return each logged value over training, as the mean of the seeds that have it."""
    length = min(len(log) for log in logs if log)
    rows = [log[:length] for log in logs if log]
    names = [name for name in rows[0][0] if name != "seconds"]

    def mean(values):
        known = [value for value in values if value is not None]
        return round(float(np.mean(known)), 5) if known else None

    return {name: [mean([log[index].get(name) for log in rows]) for index in range(length)] for name in names}


def command(settings: Settings, name: str = "") -> str:
    """Return the command line that runs a part, or everything."""
    words = ["--small"] if settings.small else [name] * bool(name)
    words += given(settings, ("seeds", "plays", "test"))
    return " ".join([settings.study.program, *map(shlex.quote, words)])


def given(settings: Any, fields: Sequence[str]) -> list[str]:
    """Return the options of a command line that are not the defaults."""
    values = {field: getattr(settings, field) for field in fields}
    changed = {field: value for field, value in values.items() if value != getattr(type(settings), field)}
    return [word for field, value in changed.items() for word in (f"--{field}", str(value))]


def cell(row: Mapping[str, Any]) -> str:
    """Return a mean with its interval."""
    return str(Estimate(row["mean"], tuple(row["ci95"])))


def percent(values: Sequence[float] | None) -> str:
    """Return a relative change with its interval."""
    if values is None:
        return "–"
    mean, low, high = (f"{100 * value:+.1f}" for value in values)
    return f"{mean} [{low}, {high}] %"
