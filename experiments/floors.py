"""Warehouse floors: ``python -m jaxmas.experiments.floors``.

Every strategy plans with every scripted executor on the small, the medium and the large floor, all on the same test
queries. Writes ``floors.json`` and ``.md``, in which floors that are not played again stay as they are.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import tyro

from jaxmas import evaluation
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.experiments.compare import Setting
from jaxmas.experiments.robot_runners import SEES, pairs
from jaxmas.runs import provenance

METRICS = ("throughput", "reward", "success", "blocked", "service")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is played, and how often."""

    scenarios: tuple[str, ...] = ("warehouse-small-v0", "warehouse-medium-v0", "warehouse-large-v0")
    queries: int = 32
    """Test queries of each pair of strategy and executor."""
    strategies: tuple[str, ...] = ()
    """All by default."""
    executors: tuple[str, ...] = tuple(SEES)
    out: Path = Path(__file__).resolve().parent / "results"


def main(settings: Settings) -> dict[str, Any]:
    """Play every pair on every floor; the tables are written after each of them."""
    file, where = settings.out / "floors.json", provenance()
    known = json.loads(file.read_text())["rows"] if file.exists() else []
    result = {"rows": [row for row in known if row["scenario"] not in settings.scenarios]}
    keys = evaluation.query_keys("test", settings.queries)
    for scenario in settings.scenarios:
        setting = Setting(scenario)
        world = setting.build()
        described = setting.describe(world) | {"queries": settings.queries, "provenance": where}
        for row in pairs(world, settings.strategies, settings.executors, METRICS, keys):
            result["rows"].append(described | row)
            print(line(row), flush=True)
            atomic_write_json(file, result)
            atomic_write_text(settings.out / "floors.md", "\n".join(page(result)))
    return result


HEADER = (
    "| strategy | executor | orders per step | orders per robot | useful steps | moves refused | steps per order |",
    "|---|---|---|---|---|---|---|",
)


def page(result: dict[str, Any]) -> list[str]:
    """Return the page with a table per floor, most orders first."""
    lines = [
        "# Warehouse floors",
        "",
        "Orders delivered per step by all robots together, means and 95 % intervals (bootstrap) over test queries, the",
        "same for all. Every strategy sees all open orders, all robots and how far they are apart; of the executors",
        "`greedy` sees a window of 7 × 7 cells and how far its goal is, `pibt` the whole map and all robots. A step is",
        "useful if it brought a robot nearer to a stop that it reached. Made by `python -m jaxmas.experiments.floors`.",
    ]
    for scenario in dict.fromkeys(row["scenario"] for row in result["rows"]):
        own = [row for row in result["rows"] if row["scenario"] == scenario]
        robots, queries, where = (own[0][name] for name in ("num_agents", "queries", "provenance"))
        lines += ["", f"## {scenario}, {robots} robots", ""]
        lines += [f"{queries} queries, commit {where['commit']}, {where['device']}.", ""]
        lines += HEADER
        lines += map(line, sorted(own, key=lambda row: -row["throughput"]["mean"]))
    return [*lines, ""]


def line(row: dict[str, Any]) -> str:
    """Return one row of a table."""
    (low, high), mean = row["throughput"]["ci95"], row["throughput"]["mean"]
    cells = (
        f"`{row['strategy']}`",
        f"`{row['executor']}`",
        f"{mean:.3f} [{low:.3f}, {high:.3f}]",
        f"{row['reward']['mean']:.2f}",
        f"{row['success']['mean']:.0%}",
        f"{row['blocked']['mean']:.0%}",
        f"{row['service']['mean']:.0f}",
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main(tyro.cli(Settings))
