"""Problems of the League of Robot Runners: ``python -m jaxmas.experiments.robot_runners PROBLEM [PROBLEM …]``.

Every strategy plans with every scripted executor, and the tasks that are finished in 1,000 steps are counted. A problem
says where robots start and which tasks come; delays, and which of equally good actions is taken, are left to chance,
over which the intervals are. Writes ``robot_runners.json`` and ``.md``; docs/warehouse.md says what differs from the
league.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

import jaxmas
from jaxmas import evaluation
from jaxmas.catalog import STRATEGIES
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.experiments.compare import Setting, play, policy_of
from jaxmas.headroom import World
from jaxmas.runs import provenance

SEES = {"greedy": "a window of 7 × 7 cells, how far the goal is", "pibt": "the whole map, all robots"}
"""What executors may see. Every strategy sees all open tasks, all robots and the distances between them."""
METRICS = ("orders", "success", "blocked", "service")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is played, and how often."""

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
    out: Path = Path(__file__).resolve().parent / "results"


def main(settings: Settings) -> dict[str, Any]:
    """Play every pair on every problem; the tables are written after each of them."""
    result: dict[str, Any] = {"seeds": settings.seeds, "steps": settings.steps, "rows": []}
    result |= {"provenance": provenance()}
    for row in rows(settings):
        result["rows"].append(row)
        print(line(row), flush=True)
        atomic_write_json(settings.out / "robot_runners.json", result)
        atomic_write_text(settings.out / "robot_runners.md", "\n".join(page(result)))
    return result


def rows(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield what came of each pair of strategy and executor."""
    keys = evaluation.query_keys("test", settings.seeds)
    for problem in settings.problems:
        setting = Setting("warehouse-problem-v0", settings.num_agents, files={"problem": problem})
        world = setting.build()
        env: Any = world.env
        world = dataclasses.replace(world, env=dataclasses.replace(env, horizon=settings.steps))
        described = setting.describe(world) | {"problem": problem.stem}
        for row in pairs(world, settings.strategies, settings.executors, METRICS, keys):
            yield described | row


def pairs(
    world: World, strategies: tuple[str, ...], executors: tuple[str, ...], metrics: tuple[str, ...], keys: Any
) -> Iterator[dict[str, Any]]:
    """Yield what came of each pair of strategy, all of them where none is named, and executor."""
    for executor in executors:
        taken = jaxmas.load_executor(executor, world.env, world.params)
        for strategy in strategies or STRATEGIES.names("warehouse"):
            played = play(World(world.env, world.params, *taken), policy_of(f"strategy:{strategy}", world), keys)
            found = evaluation.summarise(played)
            row = {"strategy": strategy, "executor": executor, "sees": SEES[executor]}
            yield row | {name: found[name].to_json() for name in metrics}


HEADER = (
    "| strategy | executor | what it sees | tasks finished | useful steps | moves refused | steps per task |",
    "|---|---|---|---|---|---|---|",
)


def page(result: dict[str, Any]) -> list[str]:
    """Return the page with a table per problem, most tasks first."""
    where, seeds, steps = result["provenance"], result["seeds"], result["steps"]
    lines = [
        "# Problems of the League of Robot Runners",
        "",
        f"Tasks finished in {steps:,} steps, means and 95 % intervals (bootstrap) over {seeds} plays, which differ in",
        "delays and in which of equally good actions is taken. Every strategy sees all open tasks, all robots and how",
        "far they are apart; what an executor sees is in the table. A step is useful if it brought a robot nearer to a",
        "stop that it reached. These are not the league's own results: docs/warehouse.md says what differs.",
        "",
        f"`python -m jaxmas.experiments.robot_runners`, commit {where['commit']}, {where['device']}.",
    ]
    for problem in dict.fromkeys(row["problem"] for row in result["rows"]):
        own = [row for row in result["rows"] if row["problem"] == problem]
        lines += ["", f"## {problem}, {own[0]['num_agents']} robots", "", *HEADER]
        lines += map(line, sorted(own, key=lambda row: -row["orders"]["mean"]))
    return [*lines, ""]


def line(row: dict[str, Any]) -> str:
    """Return one row of a table."""
    (low, high), mean = row["orders"]["ci95"], row["orders"]["mean"]
    cells = (
        f"`{row['strategy']}`",
        f"`{row['executor']}`",
        row["sees"],
        f"{mean:,.0f} [{low:,.0f}, {high:,.0f}]",
        f"{row['success']['mean']:.0%}",
        f"{row['blocked']['mean']:.0%}",
        f"{row['service']['mean']:.0f}",
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main(tyro.cli(Settings))
