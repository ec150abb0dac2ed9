"""Regenerate the frozen executors: ``python -m jaxmas.experiments.frozen_executors [FAMILY …] [--out DIR]``.

Those of ``workflow`` learn by imitation, once, and are kept at 60, 75, 90 and 98 % accuracy; that of ``warehouse``
learns by IPPO to find its way through the others, once for every way to move. The files are package data, with their
checksums; the same seed on the same machine gives the same bytes.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from jaxmas import evaluation
from jaxmas.algorithms.imitation import accuracy, imitate, sample_features
from jaxmas.algorithms.ippo import IPPOConfig
from jaxmas.checkpoints import atomic_write_json, save_params
from jaxmas.environments.warehouse import executors as warehouse
from jaxmas.environments.warehouse.motion import Motion
from jaxmas.environments.workflow.executors import FROZEN_LEVELS, frozen_name
from jaxmas.environments.workflow.observe import feature_size
from jaxmas.environments.workflow.scenarios import skill_tables
from jaxmas.errors import refuse
from jaxmas.executors import MLPExecutor
from jaxmas.experiments.compare import Setting, play
from jaxmas.experiments.warehouse.learning import WINDOW
from jaxmas.runs import load_policy
from jaxmas.training import train

HIDDEN = (64, 64)
FLOORS: dict[Motion, str] = {"cardinal": "warehouse-medium-v0", "turning": "warehouse-problem-v0"}
"""Where robots learn to move."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to train, and where to write."""

    families: tyro.conf.Positional[tuple[str, ...]] = ()
    """Environments whose executors are made anew, workflow and warehouse; all by default."""
    out: Path = Path(__file__).resolve().parent.parent / "jaxmas" / "data"
    seed: int = 0
    updates: int = 800
    """Of IPPO."""
    plays: int = 32
    """Validation queries on which the robots are measured."""


def main(settings: Settings) -> dict[str, dict[str, Any]]:
    """Train, write the files and return what was measured; what is not made anew stays as it is."""
    for family in settings.families:
        refuse(family not in FAMILIES, f"no executors of {family!r} are made here; there are {', '.join(FAMILIES)}")
    file = settings.out / "executors.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    made = {}
    for family in settings.families or tuple(FAMILIES):
        for name, params, metadata, measured in FAMILIES[family](settings):
            made[name] = {
                "sha256": save_params(settings.out / f"{name}.npz", params, {**metadata, **measured})
            } | measured
            atomic_write_json(file, known | made)
    return made


Made = Iterator[tuple[str, Any, dict[str, Any], dict[str, Any]]]
"""Name, weights, what they are for and what was measured of each network."""


def imitated(settings: Settings) -> Made:
    """Yield the networks of ``workflow``."""
    tables = skill_tables()
    executor = MLPExecutor(9, HIDDEN)
    targets = tuple(level / 100 for level in FROZEN_LEVELS)
    kept = imitate(jax.random.key(settings.seed), executor, tables, targets)
    test = sample_features(jax.random.key(settings.seed + 1), 65_536, tables, (1.0,), matched=True)
    for level in FROZEN_LEVELS:
        params, _ = kept[level / 100]
        by_parents = [
            float(accuracy(executor, params, tables, sample_features(jax.random.key(9), 16_384, tables, law)))
            for law in ((1.0,), (0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0))
        ]
        measured = {
            "single_matched": round(float(accuracy(executor, params, tables, test)), 4),
            "by_number_of_parents": [round(value, 4) for value in by_parents],
        }
        yield frozen_name(level), params, {"features": feature_size(len(tables)), "hidden": list(HIDDEN)}, measured


def reinforced(settings: Settings) -> Made:
    """Yield the networks of ``warehouse``."""
    for motion, scenario in FLOORS.items():
        world = Setting(scenario).build()
        queries = max(1, 512 // world.env.num_agents)
        sizes = {"queries": queries, "capacity": 16_384 // queries, "width": HIDDEN[0], "layers": len(HIDDEN)}
        config = IPPOConfig(**{**WINDOW, **sizes}, updates=settings.updates)
        with tempfile.TemporaryDirectory() as folder:
            run = train(
                scenario, "ippo", config, out=Path(folder) / "run", seed=settings.seed, executor="untrained",
                report=lambda row: print(row["update"], round(row["throughput"], 3), flush=True),
            )  # fmt: skip
            policy = load_policy(str(run), world.env, world.params)
        assert policy.executor is not None
        _, weights = policy.executor
        played = play(world, policy, evaluation.query_keys("validation", settings.plays))
        measured = {"scenario": scenario, "orders_per_step": round(float(np.mean(played["throughput"])), 3)}
        yield warehouse.frozen_name(motion), weights, {"hidden": list(HIDDEN)}, measured


FAMILIES = {"workflow": imitated, "warehouse": reinforced}


if __name__ == "__main__":
    for name, row in main(tyro.cli(Settings)).items():
        print(name, {key: value for key, value in row.items() if key != "sha256"})
