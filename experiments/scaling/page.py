"""The page of tables."""

from collections.abc import Mapping
from typing import Any

from jaxmas.experiments.scaling.systems import BEST, OUTCOMES, UNITS
from jaxmas.experiments.study_tables import cell


def markdown(result: Mapping[str, Any]) -> str:
    """Return the tables for people."""
    families = result["families"]
    made = sorted({made for found in families.values() for row in found["rows"].values() for made in row["made_by"]})
    lines = [
        "# Scaling from 8 to 1,024 agents",
        "",
        f"`{result['command']}`, commit {', '.join(made)}. Means and 95 % intervals over seeds and test queries, all "
        "methods on the same ones. Score: random plans are 0, the best strategy on validation queries 1, both on these "
        "queries; – where the two are less than five standard errors apart, or the executors are others.",
    ]
    for family, found in families.items():
        if found["rows"]:
            lines += [*methods(family, found), *speeds(found), *laws(family, found)]
    for name, numbers in result["sweeps"].items():
        lines += ["", f"## Sweeps at {name}", ""]
        for number, systems in numbers.items():
            lines += sweep(number, systems)
    return "\n".join([*lines, ""])


def methods(family: str, found: Mapping[str, Any]) -> list[str]:
    """Return the table of what every method does at every size."""
    measured = [
        key for key in OUTCOMES if any(key in row for one in found["rows"].values() for row in one["methods"].values())
    ]
    lines = [
        "",
        f"## {family}",
        "",
        f"Executors `{found['executor']}`, {found['test']} test queries per size.",
        "",
        f"| agents | method | seeds | success | {' | '.join(measured)} | score |",
        "|---|---|---|---|" + "---|" * (len(measured) + 1),
    ]
    for agents, one in found["rows"].items():
        for method, row in one["methods"].items():
            title = f"{method}: `{one['best']}`" if method == BEST else method
            cells = [cell(row[key]) for key in ("success", *measured)]
            scored = "–" if row["score"] is None else cell(row["score"])
            lines.append(f"| {agents} | {title} | {row['seeds'] or '–'} | {' | '.join(cells)} | {scored} |")
    return lines


def speeds(found: Mapping[str, Any]) -> list[str]:
    """Return the table of time: to compile and to run, apart."""
    lines = [
        "",
        "Roll-outs of the best strategy, and training runs: compiling and running apart.",
        "",
        "| agents | scenario | µs of CPU per agent-step | roll-out compiles, CPU-s | wall, s | "
        "training run: plays, wall s, compile wall s |",
        "|---|---|---|---|---|---|",
    ]
    for agents, one in found["rows"].items():
        speed = one["speed"]
        runs = "; ".join(
            f"{system}: {run['plays']:,}, {run['wall_seconds']:.0f}, {run['compile_wall_seconds']:.0f}"
            for system, run in one["training"].items()
        )
        rate = speed["agent_steps_per_cpu_second"]
        numbers = (rate and 1e6 / rate, speed["compile_seconds"], speed["compile_wall_seconds"])
        cells = [
            "–" if number is None else f"{number:.{digits}f}" for number, digits in zip(numbers, (2, 1, 1), strict=True)
        ]
        cells.append(runs or "–")
        lines.append(f"| {agents} | {one['scenario']} | {' | '.join(cells)} |")
    return lines


def laws(family: str, found: Mapping[str, Any]) -> list[str]:
    """Return the table of the laws that the curves follow."""
    if not found["fits"]:
        return []
    lines = [
        "",
        f"Laws of {UNITS[family]} over the number of agents n. Error: root mean square at each size, of the curve "
        "fitted to the others; the better law is named, and told apart where it is better in 95 % of the resamples.",
        "",
        "| method | law | numbers | error of the fit | error left out | better |",
        "|---|---|---|---|---|---|",
    ]
    for method, fit in found["fits"].items():
        for name, law in fit["laws"].items():
            numbers = "; ".join(f"{key} {cell(value)}" for key, value in law["numbers"].items())
            verdict = f"{fit['share']:.0%} of resamples" + ("" if fit["told_apart"] else ", not told apart")
            better = verdict if name == fit["better"] else ""
            cells = [f"{name}: {law['formula']}", numbers, f"{law['rmse']:.4f}", cell(law["left_out"]), better]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def sweep(number: str, systems: Mapping[str, Any]) -> list[str]:
    """Return the table of one number's sweep; the first column is the scenario's own."""
    values = list(next(iter(systems.values())))
    lines = [f"| {number}: reward | {' | '.join(values)} |", "|---|" + "---|" * len(values)]
    for system, rows in systems.items():
        cells = [cell(rows[value]["reward"]) for value in values]
        lost = [f" ({-rows[value]['reward lost']['mean']:+.3f})" if value != values[0] else "" for value in values]
        lines.append(f"| {system} | {' | '.join(map(''.join, zip(cells, lost, strict=True)))} |")
    return [*lines, ""]
