"""Problems of the League of Robot Runners: ``python -m jaxmas.experiments.warehouse.robot_runners PROBLEM […]``.

Every strategy plans with every scripted executor, and the tasks that are finished in 1,000 steps are counted. A problem
says where robots start and which tasks come; delays, and which of equally good actions is taken, are left to chance,
over which the intervals are. Writes ``warehouse_robot_runners.json`` and ``.md``; docs/warehouse.md says what differs
from the league.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from jaxmas import evaluation
from jaxmas.experiments.compare import Setting
from jaxmas.experiments.warehouse.pairs import RESULTS, SEES, Table, pairs

TABLE = Table(
    "warehouse_robot_runners",
    """# Problems of the League of Robot Runners

Tasks finished, means and 95 % intervals (bootstrap) over plays, which differ in delays and in which of equally good
actions is taken. Every strategy sees all open tasks, all robots and how far they are apart; what an executor sees is in
the table. A step is useful if it brought a robot nearer to a stop that it reached; service is the steps from a task's
release to its end. These are not the league's own results: docs/warehouse.md says what differs. Made by
`python -m jaxmas.experiments.warehouse.robot_runners`.
""",
    metric="orders",
    counted="tasks finished",
    form=",.0f",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is played, and how often; pairs that are not played stay in the table as they are."""

    problems: tyro.conf.Positional[tuple[Path, ...]]
    """Problem files."""
    seeds: int = 5
    """Plays of each pair of strategy and executor."""
    steps: int = 1000
    num_agents: int | None = None
    """The first robots of each problem; by default all of them."""
    strategies: tuple[str, ...] = ()
    """All by default."""
    executors: tuple[str, ...] = tuple(SEES)
    out: Path = RESULTS


def main(settings: Settings) -> list[dict[str, Any]]:
    """Play every pair on every problem."""
    return TABLE.keep(rows(settings), settings.out)


def rows(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield what came of each pair of strategy and executor."""
    keys = evaluation.query_keys("test", settings.seeds)
    for problem in settings.problems:
        world = Setting("warehouse-problem-v0", settings.num_agents, files={"problem": problem}).build()
        env: Any = world.env
        world = dataclasses.replace(world, env=dataclasses.replace(env, horizon=settings.steps))
        yield from pairs(problem.stem, world, settings.strategies, settings.executors, keys)


if __name__ == "__main__":
    main(tyro.cli(Settings))
