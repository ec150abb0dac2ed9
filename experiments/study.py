"""Studies: train the systems of a part with several seeds, play them on the same test queries, keep what came of it.

A study is a module with a ``Study``: parts, which are systems on one scenario, and tables of its own. Runs are ordinary
run directories under ``--runs``: a study that was cut goes on where it stopped. What a finished system did on every
query is kept beside the tables, in ``STUDY_PART/SYSTEM.json.gz``: it is not run again, on no machine, until that file
is deleted; more seeds add to it.
"""

import dataclasses
import gzip
import json
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tyro

from jaxmas import evaluation
from jaxmas.anchors import params_hash
from jaxmas.catalog import ALGORITHMS, TEMPLATES
from jaxmas.checkpoints import atomic_write, atomic_write_json
from jaxmas.errors import JaxmasError, refuse
from jaxmas.experiments import compare
from jaxmas.headroom import World
from jaxmas.runs import LoadedPolicy, load_policy, plain, read_record, with_defaults
from jaxmas.statistics import hierarchical_bootstrap
from jaxmas.training import read_log, train
from jaxmas.types import Environment

FIRST_SEED = 100
"""Seeds below were used to choose settings."""


@dataclasses.dataclass(frozen=True)
class System:
    """What is trained, and from which executors."""

    algorithm: str
    settings: Mapping[str, Any]
    executor: str = "frozen-90"
    coordination_interval: int | None = None
    """Steps between plans, where a system has to plan more often than the scenario lets it."""
    times_the_plays: int = 1
    """More plays than the others are given, where marked so in its name."""
    reference: str | None = None
    """What its lift is measured against, where that is not the part's reference."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Systems that are compared on one scenario; ``reference`` is what the others' lift is measured against."""

    scenario: str
    params: str
    """Hash of the scenario's numbers, written down before the run."""
    systems: Mapping[str, System]
    plays: int
    seeds: int
    num_agents: int | None = None
    reference: str = "meta-skill"
    variants: Mapping[str, Callable[[LoadedPolicy, World], LoadedPolicy]] = dataclasses.field(default_factory=dict)
    """What every trained system is played as besides, by name."""


BEST = "strategy:BEST"
"""Stands for the strategy that earns most on validation queries with the executors at the start."""


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared."""

    name: str
    """How the names of its results begin, and of the module that runs it."""
    parts: Mapping[str, Part]
    small: Mapping[str, tuple[str, ...]]
    """Systems of the parts of the small version."""
    outcomes: tuple[str, ...] = ("reward", "cost")
    """What is kept of every test query, besides its success."""
    notes: Callable[[LoadedPolicy, World], dict[str, Any]] | None = None
    """What else is kept of a trained policy."""
    module: str = ""
    """What runs it, within ``jaxmas.experiments``; the study's name by default."""

    @property
    def program(self) -> str:
        """Return how the command that runs it begins."""
        return f"python -m jaxmas.experiments.{self.module or self.name}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Size of a study."""

    study: ClassVar[Study]
    parts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Parts to run; all of them where none is named."""
    small: bool = False
    """Two seeds and a sixth of the plays for a few of the systems: some minutes on two cores."""
    only: tuple[str, ...] = ()
    """Only these systems of a part, to spread a study over machines; the tables are of all that is finished."""
    seeds: int | None = None
    plays: int | None = None
    """Instead of the part's own."""
    test: int = 2048
    """Test queries."""
    workers: int = 2
    """Processes; each trains all seeds of a system, which are one compiled program."""
    runs: Path = Path("runs")
    out: Path = Path(__file__).resolve().parent / "results"


def part_of(name: str, settings: Settings) -> Part:
    """Return a part in the size that is asked for."""
    part = settings.study.parts[name]
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
    world = compare.Setting(part.scenario, part.num_agents, made.coordination_interval, made.executor).build()
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
        then = [getattr(before, field) for field in ("scenario", "num_agents", "coordination_interval")]
        then += [getattr(before, field) for field in ("algorithm", "executor", "params", "config")]
        now = [part.scenario, world.env.num_agents, world.env.coordination_interval]
        now += [made.algorithm, made.executor, part.params, plain(config)]
        refuse(
            then != now, f"{run} was trained in another world or with other settings; move it away, or change --runs"
        )
    if done is None or len(done["trained"]["success"]) != settings.test:
        options: dict[str, Any] = {
            "executor": made.executor,
            "num_agents": part.num_agents,
            "coordination_interval": made.coordination_interval,
            "resume": (run / "config.json").exists(),
        }
        train(part.scenario, made.algorithm, config, out=run, seed=seed, **options)
        policy = load_policy(str(run), world.env, world.params)
        test = evaluation.query_keys("test", settings.test)
        played = {"trained": compare.play(world, policy, test)}
        for variant, change in part.variants.items():
            played[variant] = compare.play(world, change(policy, world), test)
        result: dict[str, Any] = {key: rounded(row, settings.study.outcomes) for key, row in played.items()}
        if settings.study.notes is not None:
            result["notes"] = settings.study.notes(policy, world)
        atomic_write_json(run / "test.json", result)
    played = json.loads((run / "test.json").read_text())
    return {"seed": seed, "provenance": read_record(run).provenance, "log": read_log(run / "log.jsonl"), **played}


def planning_in(env: Environment, policy: LoadedPolicy) -> LoadedPolicy:
    """Return a policy as it plans in another environment, whose teams and plans are of the same kind."""
    meta: Any = policy.meta
    if hasattr(meta, "space"):
        meta = dataclasses.replace(meta, space=dataclasses.replace(meta.space, env=env))
    else:
        meta = dataclasses.replace(meta, env=env)
    return dataclasses.replace(policy, meta=meta)


def rounded(outcomes: evaluation.Outcomes, names: tuple[str, ...]) -> dict[str, list[float]]:
    """Return what the tables need of every test query, of what the environment counts."""
    rows = {name: np.round(outcomes[name].astype(float), 4).tolist() for name in names if name in outcomes}
    success = np.round(outcomes["success"].astype(float), 4)
    whole = np.all(success == success.astype(int))
    return {"success": success.astype(int if whole else float).tolist(), **rows}


def record_of(name: str, system: str, settings: Settings) -> Path:
    """Return the file that keeps a finished system."""
    return settings.out / stem(name, settings) / f"{folder(system)}.json.gz"


def kept(name: str, part: Part, system: str, settings: Settings) -> dict[str, Any] | None:
    """Return a finished system, if there is one of these sizes, with no more seeds than the part has."""
    file = record_of(name, system, settings)
    if not file.exists():
        return None
    record = json.loads(gzip.decompress(file.read_bytes()))
    made = record["system"]
    record["system"] = {**made, "settings": with_defaults(made["algorithm"], made["settings"])}
    wanted = {**sizes(part, settings), "system": described(part.systems[system])}
    if any(record[key] != value for key, value in wanted.items()):
        return None
    return {**record, "runs": record["runs"][: part.seeds]}


def sizes(part: Part, settings: Settings) -> dict[str, Any]:
    """Return what has to be alike in systems that are compared."""
    return {"scenario": part.scenario, "params": part.params, "plays": part.plays, "test": settings.test}


def described(made: System) -> dict[str, Any]:
    """Return all settings of a system, the algorithm's defaults included: with others it is another system."""
    settings = plain(ALGORITHMS[made.algorithm](**made.settings))
    trained = {"algorithm": made.algorithm, "executor": made.executor, "times_the_plays": made.times_the_plays}
    if made.coordination_interval is not None:
        trained["coordination_interval"] = made.coordination_interval
    return {**trained, "settings": settings}


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


def best_strategy(world: World, queries: int = 2048) -> str:
    """Return the strategy that earns most on validation queries."""
    keys = evaluation.query_keys("validation", queries)
    policies = [policy for policy in compare.strategies_of(world) if policy.name != "random"]
    return max(policies, key=lambda policy: compare.play(world, policy, keys)["reward"].mean()).name


def stem(name: str, settings: Settings) -> str:
    """Return how the names of a part's results begin."""
    return f"{settings.study.name}_{name}" + ("_small" if settings.small else "")


def folder(system: str) -> str:
    """Return the name of a system's files."""
    return system.replace(", ", "-").replace(" ", "-")


def directories(name: str, part: Part, system: str, settings: Settings) -> list[Path]:
    """Return the run directory of every seed."""
    runs = settings.runs / settings.study.name / (f"{name}-small" if settings.small else name) / folder(system)
    return [runs / f"seed-{FIRST_SEED + index}" for index in range(part.seeds)]


def remembered(file: Path, sizes: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a file keeps of these sizes; where it keeps nothing of them, measure and keep that."""
    known = json.loads(file.read_text()) if file.exists() else {}
    if any(known.get(key) != value for key, value in sizes.items()):
        known = {**sizes, **measure()}
        atomic_write_json(file, known)
    return known


def baselines(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return what the best strategies on validation queries do, with the executors at the start and perfect ones."""

    def measure() -> dict[str, Any]:
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
        return {"rows": rows}

    file = settings.out / stem(name, settings) / "baselines.json"
    return remembered(file, sizes(part, settings), measure)["rows"]


def estimate(values: np.ndarray) -> dict[str, Any]:
    """Return mean and interval over seeds and queries."""
    return hierarchical_bootstrap(values).to_json()


def run_study(settings: Settings, write: Callable[[str, Part, Any], None]) -> None:
    """Run the parts one after the other; tables are written anew whenever a system is done."""
    study = settings.study
    for name in settings.parts:
        refuse(name not in study.parts, f"unknown part {name!r}; the parts are {', '.join(study.parts)}")
    names = settings.parts or tuple(study.small if settings.small else study.parts)
    for name in names:
        part, only = part_of(name, settings), settings.only or (study.small.get(name, ()) if settings.small else ())
        refuse(
            bool(only) and not any(system in part.systems for system in only),
            f"{name} has no system {', '.join(only)}; its systems are {'; '.join(part.systems)}",
        )
        with ProcessPoolExecutor(settings.workers, multiprocessing.get_context("spawn")) as pool:
            systems = [system for system in part.systems if not only or system in only]
            waiting = {pool.submit(run_system, name, system, settings): system for system in systems}
            for done in as_completed(waiting):
                print(f"{name}: {waiting[done]}: {done.result()}", flush=True)
                write(name, part, settings)


def command_line(kind: type[Settings], run: Callable[[Any], None], description: str | None) -> None:
    """Run a study from the command line; what a user can mend is one line."""
    try:
        run(tyro.cli(kind, prog=kind.study.program, description=description))
    except JaxmasError as error:
        raise SystemExit(f"error: {error}") from None
