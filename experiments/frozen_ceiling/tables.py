"""Write the tables and figures of what is kept."""

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import jaxmas
from jaxmas import plots
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.environments.workflow.params import role_names
from jaxmas.experiments.frozen_ceiling.systems import PARTS, Settings
from jaxmas.experiments.study import Part, baselines, estimate, kept, sizes, stem, values_of
from jaxmas.statistics import Estimate, paired_difference, relative_difference
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
    found = {system: kept(name, part, system, settings) for system in part.systems}
    records = {system: record for system, record in found.items() if record}
    methods: dict[str, Any] = {}
    for system, record in records.items():
        logs = [run["log"] for run in record["runs"]]
        row: dict[str, Any] = {key: estimate(values_of(record, key)) for key in ("success", "reward", "cost")}
        row |= {
            "seeds": len(logs),
            "per_seed": values_of(record, "success").mean(axis=1).round(4).tolist(),
            "environment_steps": float(np.mean([sum_of(log, "steps") for log in logs])),
            "seconds": float(np.mean([sum(line["seconds"] for line in log) for log in logs])),
            "made_by": sorted(
                {f"{made['commit']} on {made['device']}" for made in (run["provenance"] for run in record["runs"])}
            ),
            "curves": curves(logs),
        }
        against = part.systems[system].reference or part.reference
        reference = records.get(against)
        if reference and system != against:
            row["reference"] = against
            row["lift"] = lift(values_of(record, "success"), values_of(reference, "success"))
            row["reward_lift"] = paired_difference(
                values_of(record, "reward"), values_of(reference, "reward")
            ).to_json()
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


def lift(success: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Return how much more success there is than in the reference: in points, and as a share of the reference's."""
    relative = relative_difference(success, reference)
    points = paired_difference(success, reference).to_json()
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


def command(settings: Settings, name: str) -> str:
    """Return the command line that runs a part."""
    words = ["python", "-m", "jaxmas.experiments.frozen_ceiling", *(["--small"] if settings.small else [name])]
    for field in ("seeds", "plays", "test"):
        value = getattr(settings, field)
        words += [] if value == getattr(Settings, field) else [f"--{field}", str(value)]
    return shlex.join(words)


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


def cell(row: Mapping[str, Any]) -> str:
    """Return a mean with its interval."""
    return str(Estimate(row["mean"], tuple(row["ci95"])))


def percent(values: Sequence[float]) -> str:
    """Return a relative change with its interval."""
    mean, low, high = (f"{100 * value:+.1f}" for value in values)
    return f"{mean} [{low}, {high}] %"


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
