"""What a sweep saves: ``python -m jaxmas.experiments.sweep_speed`` measures 64 trials in one program against 64 runs.

Both are real commands, ``jaxmas sweep`` and ``jaxmas train``, each a process of its own; what counts is the time of all
CPUs. Of the separate runs a sample is measured, one per learning rate, and scaled to all. The sweep plays the policies
of its trials on test queries besides, which the runs do not. Writes ``experiments/results/sweep_speed.json``, ``.md``.
"""

import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.runs import provenance

SCENARIO, ALGORITHM = "workflow-mixed-v0", "meta-skill"
RATES = (3e-4, 6e-4, 1e-3, 2e-3, 3e-3, 6e-3, 1e-2, 2e-2)
SEEDS = 8
EPISODES = 256
"""Test queries on which the sweep evaluates every policy."""
WAYS = ("sweep", "separate", "cached")
NO_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much to measure, and where to write."""

    updates: tuple[int, ...] = (20, 40)
    """Updates per trial, at the algorithm's own batch."""
    sample: int = 4
    """Learning rates whose separate runs are measured."""
    warm: int = 1
    """Of these, how many once more with their programs in a cache on disk."""
    out: Path = Path(__file__).resolve().parent / "results"


def main(settings: Settings) -> dict[str, Any]:
    """Measure every size and write the table."""
    trials = SEEDS * len(RATES)
    setting = {"scenario": SCENARIO, "algorithm": ALGORITHM, "trials": trials, "rates": RATES, "seeds": SEEDS}
    result: dict[str, Any] = {**setting, "rows": [], "provenance": provenance()}
    for updates in settings.updates:
        with tempfile.TemporaryDirectory() as folder:
            result["rows"].append(_measured(updates, settings, Path(folder)))
        result["parts"] = {way: _parts(result["rows"], f"{way}_cpu_seconds") for way in WAYS}
        print(_line(result["rows"][-1]), flush=True)
        atomic_write_json(settings.out / "sweep_speed.json", result)
        atomic_write_text(settings.out / "sweep_speed.md", _page(result))
    return result


def _measured(updates: int, settings: Settings, folder: Path) -> dict[str, Any]:
    """Return the CPU-seconds of all trials of one size, by a sweep and by separate runs."""
    spec = folder / "sweep.toml"
    spec.write_text(
        f'scenario = "{SCENARIO}"\nalgorithm = "{ALGORITHM}"\nseeds = {SEEDS}\nepisodes = {EPISODES}\n'
        f"[fixed]\nupdates = {updates}\n[sweep]\nlearning_rate = {list(RATES)}\n"
    )
    swept, wall = _spent(["sweep", str(spec), "--out", str(folder / "sweep")], NO_CACHE)
    rates = [RATES[place] for place in np.linspace(0, len(RATES) - 1, settings.sample).round().astype(int)]
    alone = [_spent(_train(updates, rate, seed, folder), NO_CACHE)[0] for seed, rate in enumerate(rates)]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    cached = []
    for seed, rate in enumerate(rates[: settings.warm]):
        # A learning rate is a constant of the program: each one has to be compiled before its cache is warm.
        _spent(_train(updates, rate, 100 + seed, folder), cache)
        cached.append(_spent(_train(updates, rate, 200 + seed, folder), cache)[0])
    trials = SEEDS * len(RATES)
    return {
        "updates": updates,
        "sweep_cpu_seconds": swept,
        "sweep_wall_seconds": wall,
        "separate_each": alone,
        "separate_cpu_seconds": trials * float(np.mean(alone)),
        "cached_each": cached,
        "cached_cpu_seconds": trials * float(np.mean(cached)),
    }


def _train(updates: int, rate: float, seed: int, folder: Path) -> list[str]:
    options = ["--seed", str(seed), "--algo.updates", str(updates), "--algo.learning-rate", str(rate)]
    return ["train", ALGORITHM, SCENARIO, "--out", str(folder / f"run-{seed}"), *options]


def _spent(words: list[str], variables: dict[str, str]) -> tuple[float, float]:
    """Run a command of jaxmas; return its CPU-seconds and its seconds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    before, began = _children(), time.perf_counter()
    command = [sys.executable, "-m", "jaxmas", *words, "--json"]
    subprocess.run(command, env=environment | variables, stdout=subprocess.DEVNULL, check=True)
    return round(_children() - before, 2), round(time.perf_counter() - began, 2)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _parts(rows: list[dict[str, Any]], name: str) -> dict[str, float] | None:
    """Return what every update costs and what is left at none, from the smallest and the largest size."""
    if len(rows) < 2:
        return None
    small, large = rows[0], rows[-1]
    slope = (large[name] - small[name]) / (large["updates"] - small["updates"])
    return {"fixed": small[name] - slope * small["updates"], "per_update": slope}


def _line(row: dict[str, Any]) -> str:
    sweep, separate, cached = (row[f"{way}_cpu_seconds"] for way in WAYS)
    cells = (row["updates"], f"{sweep:,.0f}", f"{separate:,.0f}", f"{separate / sweep:.1f}", f"{cached:,.0f}")
    return "| " + " | ".join(map(str, (*cells, f"{cached / sweep:.1f}"))) + " |"


def _page(result: dict[str, Any]) -> str:
    """Return the table with what has to be said about it."""
    rows, trials = result["rows"], result["trials"]
    sample, warm = len(rows[0]["separate_each"]), len(rows[0]["cached_each"])
    lines = [
        f"{trials} trials of {result['algorithm']} on {result['scenario']} ({result['seeds']} seeds, "
        f"{len(result['rates'])} learning rates), CPU-seconds of all processes. Separate runs: {sample} of {trials} "
        f"measured, with a warm cache {warm}, scaled to {trials}. The sweep evaluates every policy besides, on "
        f"{EPISODES} test queries.",
        "",
        "| updates per trial | one program | separate runs | ratio | separate, programs cached | ratio |",
        "|---|---|---|---|---|---|",
        *map(_line, rows),
        "",
    ]
    if result["parts"]["sweep"] is not None:
        lines += [
            "| CPU-seconds of all trials | one program | separate runs | separate, programs cached |",
            "|---|---|---|---|",
            *(
                f"| {label} | " + " | ".join(f"{part[name]:,.1f}" for part in result["parts"].values()) + " |"
                for label, name in (("compilation, start and end", "fixed"), ("each update", "per_update"))
            ),
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Settings))
