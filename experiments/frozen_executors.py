"""Regenerate the frozen executors: ``python -m jaxmas.experiments.frozen_executors [--out DIR]``.

Trains by imitation, once, and keeps the network at 60, 75, 90 and 98 % accuracy. The files are package data, with
their checksums; the same seed on the same machine gives the same bytes.
"""

import dataclasses
from pathlib import Path

import jax
import tyro

from jaxmas.algorithms.imitation import accuracy, imitate, sample_features
from jaxmas.checkpoints import atomic_write_json, save_params
from jaxmas.environments.workflow.executors import FROZEN_LEVELS, frozen_name
from jaxmas.environments.workflow.observe import feature_size
from jaxmas.environments.workflow.scenarios import skill_tables
from jaxmas.executors import MLPExecutor


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where to write, and what to train."""

    out: Path = Path(__file__).resolve().parent.parent / "jaxmas" / "data"
    seed: int = 0
    hidden: tuple[int, ...] = (64, 64)


def main(settings: Settings) -> dict[str, dict]:
    """Train, write the files and return what was measured."""
    tables = skill_tables()
    executor = MLPExecutor(9, settings.hidden)
    targets = tuple(level / 100 for level in FROZEN_LEVELS)
    kept = imitate(jax.random.key(settings.seed), executor, tables, targets)
    test = sample_features(jax.random.key(settings.seed + 1), 65_536, tables, (1.0,), matched=True)
    report = {}
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
        metadata = {"features": feature_size(len(tables)), "hidden": list(settings.hidden), **measured}
        digest = save_params(settings.out / f"{frozen_name(level)}.npz", params, metadata)
        report[frozen_name(level)] = {"sha256": digest, **measured}
    atomic_write_json(settings.out / "executors.json", report)
    return report


if __name__ == "__main__":
    for name, row in main(tyro.cli(Settings)).items():
        print(name, row["single_matched"], row["by_number_of_parents"])
