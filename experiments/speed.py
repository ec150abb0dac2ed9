"""Speed over team sizes: ``python -m jaxmas.experiments.speed`` (``make bench``).

Measures ``jaxmas bench`` at 16 to 1,024 agents, and the training loops of the algorithms, in one run, and writes
``experiments/results/bench.json`` and ``.md``.
"""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

import jaxmas
from jaxmas.benchmark import FROZEN, BenchSettings, default_envs, measure, measure_training
from jaxmas.catalog import ALGORITHMS
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.headroom import World
from jaxmas.runs import provenance, starting_policies

CASES = (
    ("workflow-mixed-v0", 16, FROZEN),
    ("workflow-crowd-v0", 64, FROZEN),
    ("workflow-crowd-v0", 256, FROZEN),
    ("workflow-crowd-v0", 1024, FROZEN),
    ("warehouse-small-v0", 32, "greedy"),
    ("warehouse-medium-v0", 128, "greedy"),
    ("warehouse-large-v0", 512, "greedy"),
    ("warehouse-large-v0", 1024, "greedy"),
    ("warehouse-medium-v0", 128, "frozen-ippo"),
    ("warehouse-medium-v0", 128, "pibt"),
)
"""Scenario, number of agents, executor."""
TRAINING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ippo", {}),
    ("ippo", {"network": "gru"}),
    ("mappo", {}),
    ("meta-skill", {}),
    ("metaagent-x", {"mode": "coupled"}),
    ("metaagent-x", {"mode": "designer-only"}),
    ("metaagent-x", {"mode": "executor-only"}),
)
"""Algorithms, and what of their settings is not the default, on ``workflow-mixed-v0``."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where to write, and how often to measure."""

    repeats: int = 7
    out: Path = Path(__file__).resolve().parent / "results"


def main(settings: Settings) -> dict[str, Any]:
    """Measure every case and write the tables."""
    rows = []
    for scenario, num_agents, executor in CASES:
        world = world_of(scenario, num_agents, executor)
        timing = BenchSettings(num_envs=default_envs(num_agents), repeats=settings.repeats)
        rows.append({**measure(scenario, world, None, timing), "executor": executor})
        print(line(rows[-1]), flush=True)
    training = []
    for name, changes in TRAINING:
        world, config = world_of("workflow-mixed-v0", None), ALGORITHMS[name](**changes)
        start = starting_policies(config, "untrained" if changes.get("network") else FROZEN, world.env, world.params)
        measured = measure_training(world, config, start, repeats=settings.repeats)
        training.append({"algorithm": " ".join([name, *changes.values()]), **measured})
        print(training_line(training[-1]), flush=True)
    result = {"rows": rows, "training": training, "provenance": provenance()}
    lines = [*HEADER, *map(line, rows), "", *TRAINING_HEADER, *map(training_line, training), ""]
    atomic_write_json(settings.out / "bench.json", result)
    atomic_write_text(settings.out / "bench.md", "\n".join(lines))
    return result


def world_of(scenario: str, num_agents: int | None, executor: str = FROZEN) -> World:
    """Return a scenario with its executor."""
    env, params = jaxmas.make(scenario, num_agents=num_agents)
    return World(env, params, *jaxmas.load_executor(executor, env, params))


HEADER = (
    "| scenario | agents | subtasks | environments | agent-steps per CPU-second | µs per agent-step | "
    "compile, CPU-s | live | acting (slots) | strategy | executor |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def line(row: dict[str, Any]) -> str:
    """Return one row of the table."""
    speed = row["agent_steps_per_cpu_second"]
    cells = (
        row["scenario"],
        row["num_agents"],
        row["num_tasks"],
        row["num_envs"],
        f"{speed:,.0f}",
        f"{1e6 / speed:.2f}",
        f"{row['compile_seconds']:.1f}",
        f"{row['live_share']:.0%}",
        # It is counted where a query ends, which a warehouse does not within a measurement.
        f"{row['acting_agents_share']:.0%}" if row["acting_agents_share"] else "–",
        row["strategy"],
        row["executor"],
    )
    return "| " + " | ".join(map(str, cells)) + " |"


TRAINING_HEADER = (
    "| algorithm | plays per update | agent-steps per CPU-second | updates per CPU-second | roll-out | gathering | "
    "learning | compile, CPU-s |",
    "|---|---|---|---|---|---|---|---|",
)


def training_line(row: dict[str, Any]) -> str:
    """Return one row of the table of training loops."""
    shares = [f"{row[name]:.0%}" for name in ("rollout_share", "gather_share", "learning_share")]
    speed, updates = f"{row['agent_steps_per_cpu_second']:,.0f}", f"{row['updates_per_cpu_second']:.2f}"
    cells = (row["algorithm"], row["num_envs"], speed, updates, *shares, f"{row['compile_seconds']:.1f}")
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main(tyro.cli(Settings))
