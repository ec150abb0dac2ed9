"""Plays pairs of strategy and executor, and keeps what came of them in a table per world."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jaxmas
from jaxmas import evaluation
from jaxmas.anchors import params_hash
from jaxmas.catalog import STRATEGIES
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.experiments.compare import play, policy_of
from jaxmas.headroom import World
from jaxmas.runs import provenance

RESULTS = Path(__file__).resolve().parents[1] / "results"
SEES = {
    "greedy": "a window of 7 × 7 cells, how far the goal is",
    "frozen-ippo": "a window of 7 × 7 cells, how far the goal is, messages",
    "pibt": "the whole map, all robots",
}
"""What executors may see. Every strategy sees all open orders, all robots and the distances between them."""
METRICS = ("orders", "throughput", "success", "blocked", "service")


@dataclasses.dataclass(frozen=True)
class Table:
    """What is told of the pairs: an introduction, and which metric is counted, as what and with which format."""

    name: str
    intro: str
    metric: str
    counted: str
    form: str

    def keep(self, rows: Iterable[dict[str, Any]], out: Path) -> list[dict[str, Any]]:
        """Write the table after every row; pairs that are not played again stay as they are."""
        file, kept = out / f"{self.name}.json", []
        for row in rows:
            print(self.line(row), flush=True)
            # Read anew for each row: another process may have kept some meanwhile.
            known = json.loads(file.read_text())["rows"] if file.exists() else []
            same = ("world", "strategy", "executor")
            kept = [old for old in known if any(old[name] != row[name] for name in same)] + [row]
            atomic_write_json(file, {"rows": kept})
            atomic_write_text(out / f"{self.name}.md", "\n".join(self.page(kept)))
        return kept

    def page(self, rows: list[dict[str, Any]]) -> list[str]:
        """Return the page with a table per world, the highest counts first."""
        lines = self.intro.splitlines()
        for world in dict.fromkeys(row["world"] for row in rows):
            own = [row for row in rows if row["world"] == world]
            made = sorted({f"commit {row['commit']} on {row['device']}" for row in own})
            plays = ", ".join(sorted({str(row["plays"]) for row in own}))
            lines += ["", f"## {world}, {own[0]['num_agents']} robots", ""]
            lines += [f"{own[0]['steps']:,} steps, {plays} plays of each pair; {', '.join(made)}.", ""]
            columns = ("strategy", "executor", "what it sees", self.counted, "useful steps", "moves refused", "service")
            lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
            lines += map(self.line, sorted(own, key=lambda row: -row[self.metric]["mean"]))
        return [*lines, ""]

    def line(self, row: dict[str, Any]) -> str:
        """Return one row of a table."""
        low, high = row[self.metric]["ci95"]
        mean, low, high = (format(number, self.form) for number in (row[self.metric]["mean"], low, high))
        shares = (f"{row[name]['mean']:.0%}" for name in ("success", "blocked"))
        who = (f"`{row['strategy']}`", f"`{row['executor']}`", row["sees"])
        return "| " + " | ".join((*who, f"{mean} [{low}, {high}]", *shares, f"{row['service']['mean']:.0f}")) + " |"


def pairs(
    name: str, world: World, strategies: tuple[str, ...], executors: tuple[str, ...], keys: Any
) -> Iterator[dict[str, Any]]:
    """Yield what came of each pair of strategy, all of them where none is named, and executor."""
    env: Any = world.env
    described = {"world": name, "params": params_hash(world.params), "num_agents": env.num_agents}
    described |= {"steps": env.horizon, "plays": len(keys)}
    described |= {name: provenance()[name] for name in ("commit", "device")}
    for executor in executors:
        taken = jaxmas.load_executor(executor, env, world.params)
        for strategy in strategies or STRATEGIES.names("warehouse"):
            played = play(World(env, world.params, *taken), policy_of(f"strategy:{strategy}", world), keys)
            found = evaluation.summarise(played)
            row = described | {"strategy": strategy, "executor": executor, "sees": SEES[executor]}
            yield row | {metric: found[metric].to_json() for metric in METRICS}
