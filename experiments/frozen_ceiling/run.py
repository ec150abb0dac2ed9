"""Train the systems of a part, play them on the test queries, and keep what came of it."""

import dataclasses
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

from jaxmas import evaluation
from jaxmas.anchors import params_hash
from jaxmas.catalog import ALGORITHMS, TEMPLATES
from jaxmas.checkpoints import atomic_write, atomic_write_json
from jaxmas.errors import refuse
from jaxmas.experiments import compare
from jaxmas.experiments.frozen_ceiling.systems import BEST, FIRST_SEED, PARTS, Part, System
from jaxmas.headroom import World
from jaxmas.runs import load_policy, read_record
from jaxmas.statistics import hierarchical_bootstrap
from jaxmas.training import read_log, train


@dataclasses.dataclass(frozen=True)
class Settings:
    """Size of the study."""

    parts: tyro.conf.Positional[tuple[str, ...]] = tuple(PARTS)
    """Parts to run: systems, ceiling, crowd, specialist."""
    small: bool = False
    """Two seeds and a sixth of the plays for four of the systems: at most ten minutes on two cores."""
    only: tuple[str, ...] = ()
    """Only these systems of a part, to spread a study over machines; the tables are of all that is finished."""
    seeds: int | None = None
    plays: int | None = None
    """Instead of the part's own."""
    test: int = 2048
    """Test queries."""
    workers: int = 2
    """Processes; each trains all seeds of a system, which are one compiled program."""
    runs: Path = Path("runs/frozen_ceiling")
    out: Path = Path(__file__).resolve().parents[1] / "results"


def part_of(name: str, settings: Settings) -> Part:
    """Return a part in the size that is asked for."""
    part = PARTS[name]
    if settings.small:
        part = dataclasses.replace(part, seeds=2, plays=part.plays // 6)
    return dataclasses.replace(part, seeds=settings.seeds or part.seeds, plays=settings.plays or part.plays)


def run_system(name: str, system: str, settings: Settings) -> str:
    """Train and play all seeds of a system, and keep what came out; return a line on it."""
    part = part_of(name, settings)
    record = kept(name, part, system, settings)
    runs = record["runs"] if record else []
    if record and len(runs) >= part.seeds:
        return f"{summary(record)}, kept in {record_of(name, system, settings)}"
    made = part.systems[system]
    setting = compare.Setting(part.scenario, part.num_agents, executor=made.executor)
    world = setting.build()
    found = params_hash(world.params)
    refuse(
        found != part.params,
        f"{part.scenario} has changed since the study was written: parameters {found}, not {part.params}",
    )
    refuse(
        record is None and record_of(name, system, settings).exists(),
        f"{record_of(name, system, settings)} keeps {system} with other sizes or settings; choose another --out",
    )
    config = config_of(made, world, part.plays)
    folders = directories(name, part, system, settings)[len(runs) :]
    runs = runs + [run_seed(run, part, made, config, world, settings) for run in folders]
    record = {**sizes(part, settings), "system": described(made), "runs": runs}
    data = json.dumps(record, separators=(",", ":")).encode()
    atomic_write(record_of(name, system, settings), gzip.compress(data, mtime=0))
    return summary(record)


def run_seed(run: Path, part: Part, made: System, config: Any, world: World, settings: Settings) -> dict[str, Any]:
    """Train and play one seed, or what of it is not done; return its log and what it did on every test query."""
    seed = int(run.name.removeprefix("seed-"))
    done = json.loads((run / "test.json").read_text()) if (run / "test.json").exists() else None
    if done:
        before = read_record(run)
        then = before.scenario, before.num_agents, before.algorithm, before.executor, before.params, before.config
        settings_now = json.loads(json.dumps(dataclasses.asdict(config)))
        now = part.scenario, world.env.num_agents, made.algorithm, made.executor, part.params, settings_now
        refuse(
            then != now, f"{run} was trained in another world or with other settings; move it away, or change --runs"
        )
    if done is None or len(done["trained"]["success"]) != settings.test:
        options: dict[str, Any] = {
            "executor": made.executor,
            "num_agents": part.num_agents,
            "resume": (run / "config.json").exists(),
        }
        train(part.scenario, made.algorithm, config, out=run, seed=seed, **options)
        policy = load_policy(str(run), world.env, world.params)
        test = evaluation.query_keys("test", settings.test)
        played = {"trained": compare.play(world, policy, test)}
        if part.swap_roles:
            swapped = dataclasses.replace(policy, meta=SwappedRoles(policy.meta, len(world.params.tables)))
            played["swapped"] = compare.play(world, swapped, test)
        atomic_write_json(run / "test.json", {key: rounded(outcomes) for key, outcomes in played.items()})
    played = json.loads((run / "test.json").read_text())
    return {"seed": seed, "provenance": read_record(run).provenance, "log": read_log(run / "log.jsonl"), **played}


def rounded(outcomes: evaluation.Outcomes) -> dict[str, list[float]]:
    """Return what the tables need of every test query."""
    rows = {name: np.round(outcomes[name].astype(float), 4).tolist() for name in ("reward", "cost")}
    return {"success": outcomes["success"].astype(int).tolist(), **rows}


def record_of(name: str, system: str, settings: Settings) -> Path:
    """Return the file that keeps a finished system."""
    return settings.out / stem(name, settings) / f"{folder(system)}.json.gz"


def kept(name: str, part: Part, system: str, settings: Settings) -> dict[str, Any] | None:
    """Return a finished system, if there is one of these sizes, with no more seeds than the part has."""
    file = record_of(name, system, settings)
    if not file.exists():
        return None
    record = json.loads(gzip.decompress(file.read_bytes()))
    wanted = {**sizes(part, settings), "system": described(part.systems[system])}
    if any(record[key] != value for key, value in wanted.items()):
        return None
    return {**record, "runs": record["runs"][: part.seeds]}


def sizes(part: Part, settings: Settings) -> dict[str, Any]:
    """Return what has to be alike in systems that are compared."""
    return {"scenario": part.scenario, "params": part.params, "plays": part.plays, "test": settings.test}


def described(made: System) -> dict[str, Any]:
    """Return all settings of a system, the algorithm's defaults included: with others it is another system."""
    settings = dataclasses.asdict(ALGORITHMS[made.algorithm](**made.settings))
    trained = {"algorithm": made.algorithm, "executor": made.executor, "times_the_plays": made.times_the_plays}
    return json.loads(json.dumps({**trained, "settings": settings}))


def summary(record: Mapping[str, Any]) -> str:
    """Return a line on a system."""
    return f"success {hierarchical_bootstrap(values_of(record, 'success'))}"


def values_of(record: Mapping[str, Any], key: str, played: str = "trained") -> np.ndarray:
    """Return an outcome of every seed and test query."""
    return np.array([run[played][key] for run in record["runs"]], float)


def config_of(system: System, world: World, plays: int) -> Any:
    """Return the algorithm's settings, with as many updates as the plays allow for."""
    settings, budget = dict(system.settings), plays * system.times_the_plays
    if settings.get("plans_by") == BEST:
        settings["plans_by"] = f"strategy:{best_strategy(world)}"
    config = ALGORITHMS[system.algorithm](**settings)
    if system.algorithm == "metaagent-x" and config.warm_start and not config.plans_by:
        budget -= len(TEMPLATES[world.env.family].rows) * config.warm_queries
    sizes = config.sizes
    updates = budget // (sizes.queries * sizes.designs * sizes.executions)
    refuse(updates < 1, f"{plays} plays are too few for one update after the warm start; give more by --plays")
    return dataclasses.replace(config, updates=updates)


def best_strategy(world: World) -> str:
    """Return the strategy that earns most on validation queries."""
    keys = evaluation.query_keys("validation", 2048)
    policies = [policy for policy in compare.strategies_of(world) if policy.name != "random"]
    return max(policies, key=lambda policy: compare.play(world, policy, keys)["reward"].mean()).name


@dataclasses.dataclass(frozen=True)
class SwappedRoles:
    """A meta-policy whose specialists are given the next one's role."""

    meta: Any
    skills: int

    def init(self) -> Any:
        """Return the carry of the meta-policy."""
        return self.meta.init()

    def apply(self, params: Any, carry: Any, team: Any, key: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Return the plan, its specialists' roles swapped round."""
        plan, carry, info = self.meta.apply(params, carry, team, key)
        role = jnp.where(plan.role < self.skills, (plan.role + 1) % self.skills, plan.role)
        return dataclasses.replace(plan, role=role), carry, info


def stem(name: str, settings: Settings) -> str:
    """Return how the names of a part's results begin."""
    return f"frozen_ceiling_{name}" + ("_small" if settings.small else "")


def folder(system: str) -> str:
    """Return the name of a system's files."""
    return system.replace(", ", "-").replace(" ", "-")


def directories(name: str, part: Part, system: str, settings: Settings) -> list[Path]:
    """Return the run directory of every seed."""
    runs = settings.runs / (f"{name}-small" if settings.small else name) / folder(system)
    return [runs / f"seed-{FIRST_SEED + index}" for index in range(part.seeds)]


def baselines(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return what the best strategies on validation queries do, with the executors at the start and perfect ones."""
    file = settings.out / stem(name, settings) / "baselines.json"
    if file.exists():
        known = json.loads(file.read_text())
        if all(known[key] == value for key, value in sizes(part, settings).items()):
            return known["rows"]
    rows = {}
    # Who knows nothing yet has no best strategy.
    executors = dict.fromkeys([made.executor for made in part.systems.values()] + ["scripted"])
    for executor in (name for name in executors if name != "untrained"):
        world = compare.Setting(part.scenario, part.num_agents, executor=executor).build()
        strategy = best_strategy(world)
        policy = compare.policy_of(f"strategy:{strategy}", world)
        outcomes = compare.play(world, policy, evaluation.query_keys("test", settings.test))
        rows[f"{strategy}, {executor}"] = {
            key: estimate(outcomes[key][None].astype(float)) for key in ("success", "reward", "cost")
        }
    atomic_write_json(file, {**sizes(part, settings), "rows": rows})
    return rows


def estimate(values: np.ndarray) -> dict[str, Any]:
    """Return mean and interval over seeds and queries."""
    return hierarchical_bootstrap(values).to_json()
