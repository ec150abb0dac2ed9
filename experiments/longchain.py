"""Chains of a million steps against the formulas: ``python -m jaxmas.experiments.longchain``.

MAKER's claim, simulated: a chain of 2^20 − 1 steps, as many as 20 disks of the towers of Hanoi take, is solved without
one mistake by voting first-to-ahead-by-k, though an attempt errs with chance 0.0022. For every margin k the table puts
success and attempts of many chains beside 1 / (1 + ρ^k) per step and the duration of the gambler's ruin. Writes
``longchain.json`` and ``.md``.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.stats import beta

from jaxmas.algorithms.maker import Race
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.environments.longchain import Votes, play_chain
from jaxmas.progress import progress
from jaxmas.runs import provenance


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the chains and how many of them."""

    length: int = 2**20 - 1
    """Steps of a chain."""
    error: float = 0.0022
    """Chance that an attempt is wrong; all wrong answers of a step are the same."""
    margins: tuple[int, ...] = (1, 2, 3, 4)
    chains: int = 100
    """Chains per margin, for k = 1 a tenth of them: every one of those is lost."""
    seed: int = 0
    out: Path = Path(__file__).resolve().parent / "results"


def main(settings: Settings) -> dict[str, Any]:
    """Play the chains and write the table."""
    votes = Votes(*(jnp.array([number]) for number in (1 - settings.error, settings.error, 0.0, 1.0)))
    race = Race(1 - settings.error, settings.error)
    rows = []
    for margin in settings.margins:
        rows.append(measure(settings, votes, race, margin))
        print(line(rows[-1]), flush=True)
    result = {"settings": plain(settings), "least_margin": least(race, settings), "rows": rows}
    result |= {"provenance": provenance()}
    atomic_write_json(settings.out / "longchain.json", result)
    atomic_write_text(
        settings.out / "longchain.md", "\n".join([*heading(settings, result), *HEADER, *map(line, rows), ""])
    )
    return result


def measure(settings: Settings, votes: Votes, race: Race, margin: int) -> dict[str, Any]:
    """Play chains of one margin; return what came of them beside the formulas."""
    chains = settings.chains if margin > 1 else max(settings.chains // 10, 1)
    key = jax.random.fold_in(jax.random.key(settings.seed), margin)
    compiled = play_chain.lower(key, votes, margin, length=settings.length).compile()
    began, wrong, attempts = time.process_time(), [], []
    with progress(f"k = {margin}", chains) as advance:
        for chain in range(chains):
            lost, rounds = compiled(jax.random.fold_in(key, chain), votes, margin)
            wrong.append(int(lost))
            attempts.append(int(rounds))
            advance(1)
    seconds = (time.process_time() - began) / chains
    solved = int(np.sum(np.array(wrong) == 0))
    mean, error = float(np.mean(attempts)), float(np.std(attempts, ddof=1) / np.sqrt(chains)) if chains > 1 else 0.0
    return {
        "margin": margin,
        "chains": chains,
        "success": solved / chains,
        "success_interval": clopper_pearson(solved, chains),
        "success_formula": float(race.chain(margin, settings.length)),
        "wrong_steps": float(np.mean(wrong)),
        "wrong_steps_formula": settings.length * float(1 - race.success(margin)),
        "attempts": mean,
        "attempts_interval": [mean - 1.96 * error, mean + 1.96 * error],
        "attempts_formula": settings.length * float(race.attempts(margin)),
        "cpu_seconds_per_chain": seconds,
    }


def clopper_pearson(successes: int, trials: int) -> list[float]:
    """Return the exact 95 % interval of a share (Clopper and Pearson 1934)."""
    low = 0.0 if successes == 0 else float(beta.ppf(0.025, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.ppf(0.975, successes + 1, trials - successes))
    return [low, high]


def least(race: Race, settings: Settings) -> int:
    """Return the least margin with which nine of ten chains are solved."""
    return int(race.least_margin(settings.length, 0.9))


def plain(settings: Settings) -> dict[str, Any]:
    """Return the settings without the place of the results."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if name != "out"}


def heading(settings: Settings, result: dict[str, Any]) -> list[str]:
    """Return what stands above the table."""
    text = f"Chains of {settings.length:,} steps, an attempt errs with chance {settings.error}; least k for success"
    where = result["provenance"]
    return [
        "# Long chains: first to be k ahead (MAKER-style, simulated)",
        "",
        f"{text} 0.9 by the formula: {result['least_margin']}. Intervals are 95 % (Clopper-Pearson; normal).",
        "",
        f"`python -m jaxmas.experiments.longchain`, commit {where['commit']}, {where['device']}.",
        "",
    ]


HEADER = (
    "| k | chains | success | formula | wrong steps per chain | formula | attempts per chain | formula | "
    "CPU-seconds per chain |",
    "|---|---|---|---|---|---|---|---|---|",
)


def line(row: dict[str, Any]) -> str:
    """Return one row of the table."""
    low, high = row["success_interval"]
    least_, most = row["attempts_interval"]
    cells = (
        row["margin"],
        row["chains"],
        f"{row['success']:.2f} [{low:.2f}, {high:.2f}]",
        f"{row['success_formula']:.3f}",
        f"{row['wrong_steps']:,.2f}",
        f"{row['wrong_steps_formula']:,.2f}",
        f"{row['attempts']:,.0f} [{least_:,.0f}, {most:,.0f}]",
        f"{row['attempts_formula']:,.0f}",
        f"{row['cpu_seconds_per_chain']:.2f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main(tyro.cli(Settings))
