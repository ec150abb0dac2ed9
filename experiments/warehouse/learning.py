"""What learns on the warehouse floors: executors that see a window, designers that give out the orders.

``python -m jaxmas.experiments.warehouse.learning [PART …]`` trains every system of a part with every seed and plays it
on the same test queries as every strategy with the scripted executors; then, as it is, on other floors and with other
numbers of robots. It writes ``experiments/results/warehouse_learning_PART.json``, ``.md`` and learning curves.

Expected before the run: executors that learn pass the greedy one, which sees the same, and stay below PIBT, which knows
the whole map; learned assignment gains where the best two strategies differ, so more with executors that see a window
than with PIBT; and what was learned on one floor is of use on others, less so the more crowded they are.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from jaxmas import evaluation, plots
from jaxmas.catalog import STRATEGIES
from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.experiments import compare, study
from jaxmas.experiments.study import Part, Study, System, estimate, rounded, sizes, stem, values_of
from jaxmas.experiments.study_tables import cell, command, curves, made_by, records_of
from jaxmas.headroom import World
from jaxmas.runs import LoadedPolicy
from jaxmas.statistics import paired_difference

OUTCOMES = ("throughput", "service", "blocked", "cost")
SCRIPTED = ("greedy", "pibt")
"""Executors that every strategy is played with."""
ELSEWHERE: Mapping[str, tuple[str, int]] = {
    "small, 32": ("warehouse-small-v0", 32),
    "small, 64": ("warehouse-small-v0", 64),
    "medium, 64": ("warehouse-medium-v0", 64),
    "medium, 128": ("warehouse-medium-v0", 128),
    "large, 512": ("warehouse-large-v0", 512),
}
"""Floor and number of robots of the worlds in which everything is played besides."""
QUERIES = 8
"""Test queries in each of them."""
QUICK = ("nearest-first", "congestion-aware", "shortest-first")
"""Strategies that are played there; the others take minutes on the large floor."""

WINDOW: dict[str, Any] = {
    "plans_by": "strategy:nearest-first", "queries": 4, "capacity": 4096, "discount": 0.97, "agent_weight": 1.0,
}  # fmt: skip
ORDERS = {
    "space": "pairs", "width": 1, "learner": "evolution", "plans": 32, "queries": 4, "deviation": 0.25,
    "learning_rate": 0.1,
}  # fmt: skip
MEDIUM = "c729ba6c11a26ca4"
PARTS = {
    "executors": Part(
        "warehouse-medium-v0",
        MEDIUM,
        {
            "ippo": System("ippo", WINDOW, "untrained"),
            "mappo": System("mappo", WINDOW, "untrained"),
        },
        plays=2_400,
        seeds=3,
        reference="ippo",
    ),
    "assignment": Part(
        "warehouse-medium-v0",
        MEDIUM,
        {
            "orders, pibt": System("meta-skill", ORDERS, "pibt"),
            "orders, greedy": System("meta-skill", ORDERS, "greedy"),
        },
        plays=10_240,
        seeds=3,
        reference="orders, pibt",
    ),
}


@functools.cache
def floor_of(name: str) -> World:
    """Return one of the worlds that everything is played in besides, with PIBT."""
    scenario, num_agents = ELSEWHERE[name]
    return compare.Setting(scenario, num_agents, executor="pibt").build()


def moved(policy: LoadedPolicy, world: World, floor: World) -> tuple[World, LoadedPolicy]:
    """Return another floor with the executor of this world, and the policy for it."""
    # The parameters of PIBT are those of the floor.
    of_floor = world.executor_params is world.params
    there = World(floor.env, floor.params, world.executor, floor.params if of_floor else world.executor_params)
    return there, study.planning_in(floor.env, policy)


def elsewhere(policy: LoadedPolicy, world: World) -> dict[str, Any]:
    """Return the orders per step of a policy on every floor, query by query."""
    keys, found = evaluation.query_keys("test", QUERIES), {}
    for name in ELSEWHERE:
        played = compare.play(*moved(policy, world, floor_of(name)), keys)
        found[name] = rounded(played, ("throughput",))["throughput"]
    return {"elsewhere": found}


STUDY = Study("warehouse_learning", PARTS, {"executors": ("ippo",)}, OUTCOMES, elsewhere, "warehouse.learning")


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Size of the study; its parts are executors and assignment."""

    study: ClassVar[Study] = STUDY
    test: int = 128
    """Test queries."""


def strategies(part: Part, settings: Settings) -> dict[str, Any]:
    """Return what every strategy does with the scripted executors, on the test queries and on the other floors.

    Parts share it, row by row: what a file keeps is not played again until it is deleted.
    """
    file = settings.out / "warehouse_learning_strategies.json"
    played_in = {name: value for name, value in sizes(part, settings).items() if name != "plays"}
    known = json.loads(file.read_text()) if file.exists() else {}
    rows = known["rows"] if all(known.get(key) == value for key, value in played_in.items()) else {}
    for executor in SCRIPTED:
        world = compare.Setting(part.scenario, part.num_agents, executor=executor).build()
        for strategy in STRATEGIES.names("warehouse"):
            name = f"{strategy}, {executor}"
            if name in rows:
                continue
            policy = compare.policy_of(f"strategy:{strategy}", world)
            played = compare.play(world, policy, evaluation.query_keys("test", settings.test))
            rows[name] = rounded(played, OUTCOMES) | {"executor": executor}
            if strategy in QUICK:
                rows[name] |= elsewhere(policy, world)
            atomic_write_json(file, {**played_in, "rows": rows})
    return rows


def write(name: str, part: Part, settings: Settings) -> None:
    """Write a part's table and learning curves of what is finished."""
    part = dataclasses.replace(part, seeds=max(part.seeds, PARTS[name].seeds))
    records, scripted = records_of(name, part, settings), strategies(part, settings)
    methods = {system: row_of(part.systems[system], record, scripted) for system, record in records.items()}
    methods |= {f"strategy {name}": scripted_row(row) for name, row in scripted.items()}
    result = {"part": name, **sizes(part, settings), "command": command(settings, name), "methods": methods}
    begin = stem(name, settings)
    atomic_write_json(settings.out / f"{begin}.json", result)
    atomic_write_text(settings.out / f"{begin}.md", markdown(result))
    lines = {
        system: (np.array(row["curves"]["plays"]), np.array(row["curves"]["throughput"], float))
        for system, row in methods.items()
        if "curves" in row
    }
    plots.save_png(plots.curves(lines, "plays", "orders per step"), settings.out / f"{begin}_curves.png")


def row_of(made: System, record: Mapping[str, Any], scripted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table says of a system: how far it is above the best strategy with executors that see as much.

    The strategy is the best on the test queries, a choice that favours it.
    """
    executor = made.executor if made.executor in SCRIPTED else "greedy"
    best = max(
        (name for name, row in scripted.items() if row["executor"] == executor),
        key=lambda name: np.mean(scripted[name]["throughput"]),
    )
    throughput, logs = values_of(record, "throughput"), [run["log"] for run in record["runs"]]
    there = [run["notes"]["elsewhere"] for run in record["runs"]]
    return {
        "seeds": len(logs),
        **{key: estimate(values_of(record, key)) for key in OUTCOMES},
        "beside": best,
        "over": paired_difference(throughput, np.array(scripted[best]["throughput"])).to_json(),
        "per_seed": throughput.mean(axis=1).round(4).tolist(),
        "elsewhere": {name: estimate(np.array([one[name] for one in there])) for name in ELSEWHERE},
        "seconds": float(np.mean([sum(line["seconds"] for line in log) for log in logs])),
        "made_by": made_by(record),
        "curves": curves(logs),
    }


def scripted_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table says of a strategy with one of the scripted executors."""
    there = row.get("elsewhere", {})
    return {
        **{key: estimate(np.array([row[key]])) for key in OUTCOMES},
        "elsewhere": {name: estimate(np.array([values])) for name, values in there.items()},
    }


def markdown(result: Mapping[str, Any]) -> str:
    """Return the table for people."""
    methods = result["methods"]
    made = sorted({made for row in methods.values() for made in row.get("made_by", ())})
    ranked = sorted(methods.items(), key=lambda item: -item[1]["throughput"]["mean"])
    lines = [
        f"# Warehouse, learning: {result['part']}",
        "",
        f"`{result['command']}`, commit {', '.join(made)}; `{result['scenario']}` (parameters {result['params']}), "
        f"{result['plays']:,} plays per run, {result['test']} test queries. Gain: over the best strategy, on these "
        "queries, with executors that see as much.",
        "",
        "| system | seeds | orders per step | gain | moves refused | service |",
        "|---|---|---|---|---|---|",
    ]
    for system, row in ranked:
        gain = f"{cell(row['over'])} over {row['beside']}" if "over" in row else ""
        cells = [str(row.get("seeds", "–")), cell(row["throughput"]), gain, f"{row['blocked']['mean']:.0%}"]
        lines.append(f"| {system} | {' | '.join(cells)} | {row['service']['mean']:.0f} |")
    lines += [
        "",
        f"As they are, on {QUERIES} test queries of other floors and numbers of robots, orders per step:",
        "",
        f"| system | {' | '.join(ELSEWHERE)} |",
        "|---|" + "---|" * len(ELSEWHERE),
    ]
    for system, row in ranked:
        if row["elsewhere"]:
            lines.append(f"| {system} | {' | '.join(cell(row['elsewhere'][name]) for name in ELSEWHERE)} |")
    return "\n".join([*lines, ""])


def main(settings: Settings) -> None:
    """Run the study."""
    study.run_study(settings, write)


if __name__ == "__main__":
    study.command_line(Settings, main, __doc__)
