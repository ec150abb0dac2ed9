"""Speed over team sizes: ``python -m jaxmas.experiments.speed`` (``make bench``).

Measures ``jaxmas bench`` at 16 to 1,024 agents in one run and writes ``experiments/results/bench.json`` and ``.md``.
"""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

import jaxmas
from jaxmas.benchmark import FROZEN, BenchSettings, default_envs, measure
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.headroom import World
from jaxmas.runs import provenance

CASES = (
    ("workflow-mixed-v0", 16),
    ("workflow-crowd-v0", 64),
    ("workflow-crowd-v0", 256),
    ("workflow-crowd-v0", 1024),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where to write, and how often to measure."""

    repeats: int = 7
    out: Path = Path(__file__).resolve().parent / "results"


def main(settings: Settings) -> list[dict[str, Any]]:
    """Measure every case and write the table."""
    rows = []
    for scenario, num_agents in CASES:
        env, params = jaxmas.make(scenario, num_agents=num_agents)
        world = World(env, params, *jaxmas.load_executor(FROZEN, env, params))
        timing = BenchSettings(num_envs=default_envs(num_agents), repeats=settings.repeats)
        rows.append(measure(scenario, world, None, timing))
        print(line(rows[-1]), flush=True)
    atomic_write_json(settings.out / "bench.json", {"rows": rows, "provenance": provenance()})
    atomic_write_text(settings.out / "bench.md", "\n".join([*HEADER, *map(line, rows), ""]))
    return rows


HEADER = (
    "| scenario | agents | subtasks | environments | agent-steps per CPU-second | µs per agent-step | "
    "compile, CPU-s | live | acting (slots) | strategy |",
    "|---|---|---|---|---|---|---|---|---|---|",
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
        f"{row['acting_agents_share']:.0%}",
        row["strategy"],
    )
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main(tyro.cli(Settings))
