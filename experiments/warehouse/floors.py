"""Warehouse floors: ``python -m jaxmas.experiments.warehouse.floors``.

Every strategy plans with every scripted executor on the small, the medium and the large floor, all on the same test
queries. Writes ``warehouse_floors.json`` and ``.md``.
"""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from jaxmas import evaluation
from jaxmas.experiments.compare import Setting
from jaxmas.experiments.warehouse.pairs import RESULTS, SEES, Table, pairs

TABLE = Table(
    "warehouse_floors",
    """# Warehouse floors

Orders delivered per step by all robots together, means and 95 % intervals (bootstrap) over test queries, the same for
all. Every strategy sees all open orders, all robots and how far they are apart; what an executor sees is in the table.
A step is useful if it brought a robot nearer to a stop that it reached; service is the steps from an order's release to
its delivery. Made by `python -m jaxmas.experiments.warehouse.floors`.
""",
    metric="throughput",
    counted="orders per step",
    form=".3f",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is played, and how often; pairs that are not played stay in the table as they are."""

    scenarios: tuple[str, ...] = ("warehouse-small-v0", "warehouse-medium-v0", "warehouse-large-v0")
    queries: int = 32
    """Test queries of each pair of strategy and executor."""
    strategies: tuple[str, ...] = ()
    """All by default."""
    executors: tuple[str, ...] = tuple(SEES)
    out: Path = RESULTS


def main(settings: Settings) -> list[dict[str, Any]]:
    """Play every pair on every floor."""
    keys = evaluation.query_keys("test", settings.queries)
    worlds = ((scenario, Setting(scenario).build()) for scenario in settings.scenarios)
    chosen = settings.strategies, settings.executors
    return TABLE.keep((row for name, world in worlds for row in pairs(name, world, *chosen, keys)), settings.out)


if __name__ == "__main__":
    main(tyro.cli(Settings))
