"""The command line: each command is a frozen dataclass whose fields are its arguments.

JAX is started after the arguments were read, so that help and mistakes in them answer at once. Results go to standard
output, everything else to standard error; what a user can mend is one line and exit code 2.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from jaxmas.errors import JaxmasError, did_you_mean, printable, refuse
from jaxmas.progress import progress

Scenario = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SCENARIO")]
Policy = Annotated[str, tyro.conf.arg(metavar="strategy:NAME|DIR")]
Executor = Annotated[str, tyro.conf.arg(metavar="NAME|DIR")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Files:
    """Files that some scenarios are made of; jaxmas list says which take one."""

    pool: Path | None = None
    """A CSV file of models."""
    map: Path | None = None
    """A MovingAI map."""
    problem: Path | None = None
    """A problem file of the League of Robot Runners."""

    @property
    def files(self) -> dict[str, Path]:
        """Return those that were given."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(_Files)}
        return {name: file for name, file in given.items() if file is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """Show scenarios, strategies, algorithms and executors."""

    json: bool = False
    """Print one JSON object instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(_Files):
    """Train an algorithm on a scenario; jaxmas train ALGORITHM --help shows the algorithm's own settings."""

    algorithm: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ALGORITHM")]
    """A name from jaxmas list."""
    scenario: Scenario
    """A name from jaxmas list."""
    out: Path
    """Where the run goes: configuration, log and checkpoints."""
    seed: int = 0
    num_agents: int | None = None
    """Slots of the team; the scenario's own number by default."""
    coordination_interval: int | None = None
    """Steps between plans; one plan per query by default."""
    executor: Executor | None = None
    """Who does the work, at first where the algorithm trains it; the scenario's own executor by default."""
    resume: bool = False
    """Go on from the last good checkpoint in --out."""
    devices: int = 1
    """Devices of this process that the queries of an update are shared out over; of a CPU as many are made."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """Where the processes of several hosts meet: an address of the first one. Each runs the same command."""
    processes: int = 1
    """How many processes train together."""
    process: int = 0
    """Which of them this is, from 0; the first writes --out."""
    json: bool = False
    """Print one JSON object instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Train an algorithm with many seeds and settings, those that differ in numbers in one compiled program."""

    spec: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SPEC.toml")]
    """What is swept; docs/sweeps.md says what stands in it."""
    out: Path
    """Where the sweep goes: a run directory per trial, results.jsonl and table.md."""
    resume: bool = False
    """Go on with the sweep in --out: what is finished stays, the rest goes on from its last checkpoint."""
    engine: Literal["local", "ray", "slurm"] = "local"
    """Where programs run; ray and slurm need jaxmas[ray] and jaxmas[slurm]."""
    workers: int = 1
    """Programs at a time."""
    json: bool = False
    """Print one JSON object instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _World(_Files):
    """What every command that plays a scenario takes."""

    scenario: Scenario
    """A name from jaxmas list."""
    num_agents: int | None = None
    """Slots of the team; the scenario's own number by default."""
    coordination_interval: int | None = None
    """Steps between plans; by default those of the run that is played, else the scenario's."""
    executor: Executor | None = None
    """Who does the work; by default a run's own trained executor, else the scenario's."""
    seed: int = 0
    """Which queries are drawn."""
    json: bool = False
    """Print one JSON object instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(_World):
    """Play one policy on test queries: every metric with its 95 % interval, and the coordination score."""

    policy: Policy
    """A hand-crafted strategy, or the directory of a run."""
    episodes: int = 2048
    """Test queries."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(_World):
    """Play all strategies, and the runs that are named, on the same test queries: table, CSV and figures."""

    policy: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="strategy:NAME|DIR")] = ()
    """A run to compare; may be given several times."""
    episodes: int = 2048
    """Test queries."""
    out: Path = Path("runs/compare")
    """Where compare.csv, compare.json and the figures go."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Headroom(_World):
    """Measure what a scenario leaves to be learned: random, single agent, fixed, strategy, rule, per query."""

    episodes: int = 2048
    """Test queries."""
    validation: int = 1024
    """Validation queries, on which plans and rules are chosen."""
    oracle_queries: int = 1024
    """Test queries whose best plan is searched for."""
    clamp_queries: int = 384
    """Test queries for the loss per plan field."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Show(_World):
    """Draw one query: subtasks, team, who reads whom, the answers step by step (PNG and GIF)."""

    policy: Policy
    """A hand-crafted strategy, or the directory of a run."""
    query: int = 0
    """Which of the test queries."""
    out: Path = Path("runs/show")
    """Where query.png and query.gif go."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench(_Files):
    """Measure compile time and agent-steps per second of a roll-out with frozen executors, or of a training loop."""

    scenario: Scenario
    """A name from jaxmas list."""
    num_agents: int | None = None
    """Slots of the team; the scenario's own number by default."""
    num_envs: int | None = None
    """Environments side by side; 4096 / agents by default."""
    strategy: str | None = None
    """Who plans; the scenario's strongest team strategy by default."""
    train: Annotated[str | None, tyro.conf.arg(metavar="ALGORITHM")] = None
    """Measure whole updates of an algorithm instead, with settings as those of jaxmas train."""
    executor: Executor | None = None
    """Who does the work; the scenario's own executor by default."""
    repeats: int = 7
    """Timed calls, of which the median counts."""
    seed: int = 0
    json: bool = False
    """Print one JSON object instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Do the main job: train the meta-skill, compare it with every strategy, write a report."""

    scenario: str = "workflow-mixed-v0"
    """A name from jaxmas list."""
    out: Path = Path("runs/demo")
    """Where report.html, results.json and the run go; an earlier demo there is replaced."""
    seed: int = 0
    updates: int = 400
    """Training updates."""
    episodes: int = 4096
    """Test queries."""
    validation: int = 1024
    """Validation queries that the depth-3 rule is fitted on."""
    json: bool = False
    """Print one JSON object instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Make the leaderboard, one page that needs nothing but itself, from result files."""

    action: Annotated[Literal["build"], tyro.conf.Positional]
    """What to do: build writes the page."""
    sources: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[FILE|DIR …]")] = ()
    """Result files, and folders that are searched for them; the project's own by default."""
    out: Path = Path("runs/leaderboard.html")
    """Where the page goes."""
    json: bool = False
    """Print one JSON object instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write training runs of one method, all of its seeds, as programs that need none of its code: policy.zip."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN …]")]
    """Directories of runs that differ in their seeds alone."""
    name: str
    """What the row on the leaderboard is called."""
    by: str
    """Who submits it."""
    link: str | None = None
    """An address that begins with https://."""
    about: str | None = None
    """A line on the method."""
    out: Path = Path("policy.zip")
    """Where the archive goes."""
    json: bool = False
    """Print one JSON object instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Archive:
    """What the commands that play an archive take."""

    policy: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ZIP")]
    """An archive of jaxmas export; it is played in a process of its own, and can do nothing but compute."""
    seconds: float = 600.0
    """How long playing may take, each time."""
    memory: float = 12.0
    """Gigabytes that playing may take, on a CPU."""
    json: bool = False
    """Print one JSON object instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submit(_Archive):
    """Play an archive under the protocol and write its row for the leaderboard, a self-reported one."""

    out: Path = Path("result.json")
    """Where the row goes."""
    episodes: int = 2048
    """Test queries."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verify(_Archive):
    """Play an archive again and on secret queries: its row becomes a verified one, or what differs is said."""

    result: Path
    """The row that jaxmas submit wrote."""
    seed_file: Path
    """Secret seeds, words of at least 16 hexadecimal digits as secrets.token_hex(16) of Python gives."""
    out: Path = Path("verified.json")
    """Where the verified row goes."""
    episodes: int = 2048
    """Queries of every secret seed; the row has to stand on as many test queries, or more."""
    tolerance: float = 1e-5
    """How far means may differ from those reported: by rounding, or more where another kind of device played."""


LONGEST = 1000
"""Characters of an error message."""
EXAMPLES: dict[str, tuple[str, ...]] = {
    "list": ("jaxmas list", "jaxmas list --json"),
    "train": (
        "jaxmas train meta-skill workflow-mixed-v0 --out runs/first",
        "jaxmas train meta-skill workflow-mixed-v0 --out runs/slots --algo.space slots --algo.learner ppo",
        "jaxmas train meta-skill workflow-mixed-v0 --out runs/first --resume",
        "jaxmas train meta-skill workflow-mixed-v0 --out runs/eight --devices 8",
        "jaxmas train ippo workflow-mixed-v0 --out runs/ippo --algo.plans-by strategy:roles-by-skill",
        "jaxmas train metaagent-x workflow-crowd-v0 --num-agents 64 --executor frozen-90 --out runs/together",
    ),
    "sweep": (
        "jaxmas sweep sweep.toml --out runs/sweep",
        "jaxmas sweep sweep.toml --out runs/sweep --resume",
        "jaxmas sweep sweep.toml --out runs/sweep --engine ray --workers 8",
    ),
    "evaluate": (
        "jaxmas evaluate workflow-mixed-v0 --policy strategy:roles-by-skill",
        "jaxmas evaluate workflow-mixed-v0 --policy runs/first --episodes 4096 --json",
    ),
    "compare": (
        "jaxmas compare workflow-mixed-v0",
        "jaxmas compare workflow-mixed-v0 --policy runs/first --policy runs/slots --out runs/compare",
    ),
    "headroom": (
        "jaxmas headroom workflow-mixed-v0",
        "jaxmas headroom workflow-crowd-v0 --num-agents 64 --json",
    ),
    "show": (
        "jaxmas show workflow-mixed-v0 --policy strategy:mesh",
        "jaxmas show workflow-mixed-v0 --policy runs/first --query 7 --out runs/show",
    ),
    "bench": (
        "jaxmas bench workflow-mixed-v0 --num-agents 16",
        "jaxmas bench workflow-crowd-v0 --num-agents 256 --executor frozen-90 --json",
        "jaxmas bench warehouse-medium-v0 --executor greedy",
        "jaxmas bench workflow-mixed-v0 --train metaagent-x --algo.mode coupled",
    ),
    "demo": ("jaxmas demo", "jaxmas demo --seed 1 --out runs/demo-1"),
    "leaderboard": (
        "jaxmas leaderboard build",
        "jaxmas leaderboard build my_result.json experiments/results/leaderboard --out leaderboard.html",
    ),
    "export": (
        "jaxmas export runs/first --name 'my method' --by me",
        "jaxmas export runs/seed-0 runs/seed-1 runs/seed-2 --name 'my method' --by me --out policy.zip",
    ),
    "submit": ("jaxmas submit policy.zip", "jaxmas submit policy.zip --out result.json --episodes 4096"),
    "verify": ("jaxmas verify policy.zip --result result.json --seed-file secret.txt --out verified.json",),
}


def run_list(command: List) -> dict[str, Any]:
    """Return every registered thing with one line each."""
    from jaxmas.catalog import ALGORITHMS, DESIGN_SPACES, EXECUTORS, LEARNERS, SCENARIOS, STRATEGIES

    found: dict[str, Any] = {}
    kinds: dict[str, Any] = {
        "scenarios": SCENARIOS,
        "strategies": STRATEGIES,
        "algorithms": ALGORITHMS,
        "design spaces": DESIGN_SPACES,
        "learners": LEARNERS,
        "executors": EXECUTORS,
    }
    for kind, registry in kinds.items():
        found[kind] = [{"name": entry.name, "summary": entry.summary, "family": entry.family} for entry in registry]
    for row, entry in zip(found["scenarios"], SCENARIOS, strict=True):
        row |= {name: getattr(entry.value, name) for name in ("num_agents", "executor", "files")}
    return found


def run_train(command: Any) -> dict[str, Any]:
    """Train; the log's last line is the result, which is the first process's to tell."""
    from jaxmas.devices import among_others, is_first
    from jaxmas.experiments.compare import Setting
    from jaxmas.runs import read_record
    from jaxmas.training import read_log, train

    refuse(command.seed < 0, f"seed is {command.seed}; it has to be at least 0")
    names = ("num_agents", "coordination_interval", "executor", "files")
    options = {name: getattr(command, name) for name in names}
    setting = Setting(command.scenario, **options)
    setting.build()
    config = command.algo
    _check_out(command.out)
    done = 0
    options |= {"seed": command.seed, "executor": setting.executor_name}
    with among_others(), progress(f"training {command.algorithm}", getattr(config, "updates", None)) as advance:

        def report(row: Mapping[str, Any]) -> None:
            nonlocal done
            advance(row["update"] - done)
            done = row["update"]

        out = train(
            command.scenario,
            command.algorithm,
            config,
            out=command.out,
            resume=command.resume,
            devices=command.devices,
            report=report,
            **options,
        )
    if not is_first():
        return {}
    rows = read_log(out / "log.jsonl")
    record = dataclasses.asdict(read_record(out))
    return {"out": str(out), "seconds": sum(row["seconds"] for row in rows), "last": rows[-1], "run": record}


def run_sweep(command: Sweep) -> dict[str, Any]:
    """Train and evaluate every trial of a sweep."""
    from jaxmas import sweeps

    _check_counts(command, workers=1)
    _check_out(command.out)
    spec = sweeps.read(command.spec)
    with progress("planning the sweep"):
        plan = sweeps.open_sweep(spec, command.out, command.resume, command.engine)
    total = sweeps.total_updates(plan, command.out)
    with progress(f"training {spec.algorithm}, {len(plan.trials)} trials", total) as advance:
        result = sweeps.run(plan, command.out, engine=command.engine, workers=command.workers, advance=advance)
    described = {"scenario": spec.scenario, "algorithm": spec.algorithm, "episodes": spec.episodes}
    return {"out": str(command.out), **described, **result}


def run_evaluate(command: Evaluate) -> dict[str, Any]:
    """Play one policy."""
    from jaxmas.experiments.compare import evaluate

    _check_counts(command, episodes=2)
    with progress("playing test queries", command.episodes) as advance:
        return evaluate(_setting(command), command.policy, command.episodes, command.seed, advance)


def run_compare(command: Compare) -> dict[str, Any]:
    """Play all policies on the same queries."""
    from jaxmas.experiments.compare import compare, num_methods

    _check_counts(command, episodes=2)
    _check_out(command.out)
    total = num_methods(command.scenario, command.policy) * command.episodes
    with progress("playing test queries", total) as advance:
        return compare(_setting(command), command.policy, command.episodes, command.seed, command.out, advance)


def run_headroom(command: Headroom) -> dict[str, Any]:
    """Measure headroom."""
    from jaxmas.headroom import HeadroomSettings, measure

    _check_counts(command, episodes=2, validation=2, oracle_queries=2, clamp_queries=2)
    setting = _setting(command)
    world = setting.build()
    settings = HeadroomSettings(
        validation=command.validation,
        test=command.episodes,
        oracle_queries=command.oracle_queries,
        clamp_queries=command.clamp_queries,
        seed=command.seed,
    )
    with progress("measuring headroom") as advance:
        measured = measure(world, settings, advance)
    return setting.describe(world) | {"settings": dataclasses.asdict(settings)} | measured


def run_show(command: Show) -> dict[str, Any]:
    """Draw one query."""
    from jaxmas.evaluation import query_keys
    from jaxmas.render import show

    _check_counts(command, query=0)
    _check_out(command.out)
    setting = _setting(command)
    world = setting.build()
    policy = setting.policy(command.policy, world)
    key = query_keys("test", 1, command.seed, start=command.query)[0]
    executor, weights = policy.executor or (world.executor, world.executor_params)
    designer = policy.name, policy.meta, policy.meta_params
    with progress("drawing"):
        files = show(command.scenario, world.env, world.params, *designer, executor, weights, command.out, key)
    described = {"policy": command.policy, "query": command.query, "seed": command.seed}
    described |= {"design": _explained(policy, world, key)}
    return setting.describe(world) | described | {"files": [str(file) for file in files]}


def _explained(policy: Any, world: Any, key: Any) -> list[dict[str, Any]]:
    """Return the decisions of a learned design on a query, each with its probability; of strategies there are none."""
    if not hasattr(policy.meta, "explain"):
        return []
    team = world.env.reset(key, world.params)[1]
    return [decision._asdict() for decision in policy.meta.explain(policy.meta_params, team, key)]


def run_bench(command: Bench) -> dict[str, Any]:
    """Measure speed."""
    from jaxmas import benchmark
    from jaxmas.catalog import ALGORITHMS
    from jaxmas.experiments.compare import Setting, policy_of
    from jaxmas.runs import starting_policies

    setting = Setting(command.scenario, command.num_agents, None, command.executor, command.files)
    world = setting.build()
    if command.train is not None:
        given = command.num_envs is not None or command.strategy is not None
        refuse(
            given, "bench --train takes no --num-envs and no --strategy: the algorithm's settings say what is played"
        )
        config = getattr(command, "algo", None) or ALGORITHMS[command.train]()
        start = starting_policies(config, setting.executor_name, world.env, world.params)
        with progress("measuring speed"):
            options = {"repeats": command.repeats, "seed": command.seed}
            measured = benchmark.measure_training(world, config, start, **options)
        described = {"scenario": command.scenario, "algorithm": command.train, "executor": setting.executor_name}
        return measured | described | {"config": dataclasses.asdict(config)}
    if command.strategy is not None:
        policy_of(f"strategy:{command.strategy}", world)
    num_envs = benchmark.default_envs(world.env.num_agents) if command.num_envs is None else command.num_envs
    settings = benchmark.BenchSettings(num_envs, repeats=command.repeats, seed=command.seed)
    with progress("measuring speed"):
        measured = benchmark.measure(command.scenario, world, command.strategy, settings)
    return measured | {"executor": setting.executor_name}


def run_demo(command: Demo) -> dict[str, Any]:
    """Do the main job."""
    from jaxmas.experiments import demo

    _check_counts(command, updates=1, episodes=2, validation=2)
    _check_out(command.out)
    names = ("scenario", "out", "seed", "updates", "episodes", "validation")
    results = demo.run(demo.DemoSettings(**{name: getattr(command, name) for name in names}))
    files = {"report": str(command.out / "report.html"), "results": str(command.out / "results.json")}
    return results | {"files": files}


def run_leaderboard(command: Leaderboard) -> dict[str, Any]:
    """Build the leaderboard's page."""
    from jaxmas import leaderboard

    _check_file(command.out)
    with progress("building the leaderboard"):
        return leaderboard.build(command.sources, command.out)


def run_export(command: Export) -> dict[str, Any]:
    """Write an archive."""
    from jaxmas import submissions

    _check_file(command.out)
    author = submissions.Author(command.name, command.by, command.link, command.about)
    with progress("exporting"):
        manifest = submissions.export([str(run) for run in command.runs], author, command.out)
    return {"out": str(command.out), "bytes": command.out.stat().st_size, **manifest}


def run_submit(command: Submit) -> dict[str, Any]:
    """Play an archive on the test queries."""
    from jaxmas import submissions

    _check_counts(command, episodes=2)
    _check_file(command.out)
    with progress("playing test queries"):
        result = submissions.submit(command.policy, command.out, command.episodes, _limits(command))
    return {"out": str(command.out), **result}


def run_verify(command: Verify) -> dict[str, Any]:
    """Play an archive on the test queries and on secret ones."""
    from jaxmas import submissions

    _check_counts(command, episodes=2)
    _check_file(command.out)
    files = command.policy, command.result, command.seed_file, command.out
    with progress("playing test queries and secret ones"):
        result = submissions.verify(*files, command.episodes, command.tolerance, _limits(command))
    return {"out": str(command.out), **result}


def _limits(command: _Archive) -> Any:
    from jaxmas.submissions import Limits

    for name in ("seconds", "memory"):
        value = getattr(command, name)
        refuse(not 0 < value < float("inf"), f"{name} is {value}; it has to be above 0")
    return Limits(command.seconds, int(command.memory * 2**30))


def _setting(command: _World) -> Any:
    from jaxmas.experiments.compare import Setting

    fields = ("scenario", "num_agents", "coordination_interval", "executor", "files")
    setting = Setting(*(getattr(command, name) for name in fields))
    if setting.coordination_interval is None:
        return dataclasses.replace(setting, coordination_interval=_own_interval(command))
    return setting


def _own_interval(command: _World) -> int | None:
    """Return the steps between the plans of the run that is played alone in its own scenario; None elsewhere."""
    from jaxmas.runs import read_record

    policy = getattr(command, "policy", ())
    if not isinstance(policy, str) or not (Path(policy) / "config.json").is_file():
        return None
    record = read_record(Path(policy))
    return record.coordination_interval if record.scenario == command.scenario else None


def _check_counts(command: Any, **least: int) -> None:
    """Refuse numbers that are too small."""
    for name, bound in ({"seed": 0} | least).items():
        value = getattr(command, name, bound)
        refuse(value < bound, f"{name.replace('_', '-')} is {value}; it has to be at least {bound}")


def _check_out(out: Path) -> None:
    """Refuse a place that cannot be written to, before any work is done and without making anything."""
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    refuse(not place.is_dir(), f"{out} cannot be written: {place} is a file; choose another --out")
    refuse(not os.access(place, os.W_OK | os.X_OK), f"{out} cannot be written: no right to write to {place}")


def _check_file(out: Path) -> None:
    """Refuse a file that cannot be written."""
    refuse(out.is_dir(), f"{out} is a folder; choose a file for --out")
    _check_out(out.parent)


Command = tuple[type, Callable[[Any], dict[str, Any]]]
COMMANDS: dict[str, Command] = {
    "list": (List, run_list),
    "train": (Train, run_train),
    "sweep": (Sweep, run_sweep),
    "evaluate": (Evaluate, run_evaluate),
    "compare": (Compare, run_compare),
    "headroom": (Headroom, run_headroom),
    "show": (Show, run_show),
    "bench": (Bench, run_bench),
    "demo": (Demo, run_demo),
    "leaderboard": (Leaderboard, run_leaderboard),
    "export": (Export, run_export),
    "submit": (Submit, run_submit),
    "verify": (Verify, run_verify),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except JaxmasError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        more = "; what was saved is kept, --resume goes on from it" if words[:1] in (["train"], ["sweep"]) else ""
        return _fail(f"interrupted{more}", 130, "")
    except BrokenPipeError:
        # The reader of the output has gone, as `head` does; Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", 2)


def _fail(message: str, code: int, kind: str = "error: ") -> int:
    print(kind + printable(message, LONGEST), file=sys.stderr)
    return code


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        from jaxmas import __version__

        print(f"jaxmas {__version__}")
        return 0
    command = _parse(words)
    if command is None:
        return 0
    _start_jax(command)
    name = next(name for name, (kind, _) in COMMANDS.items() if isinstance(command, kind))
    result = COMMANDS[name][1](command)
    if not result:
        return 0
    if command.json:
        print(json.dumps(_plain(result), allow_nan=False))
    else:
        from jaxmas.tables import show_result

        show_result(name, result)
    sys.stdout.flush()
    return 0


def _parse(words: list[str]) -> Any:
    """Return the command, or None where help was asked for and given; mistakes are one line."""
    kinds = {name: kind for name, (kind, _) in COMMANDS.items()}
    named = next((word for word in words if not word.startswith("-")), "")
    refuse(bool(named) and named not in kinds, f"unknown command {named!r}; {did_you_mean(named, kinds)}")
    if words[:1] == ["train"]:
        kinds["train"] = _with_settings(Train, [word for word in words[1:] if not word.startswith("-")])
    if words[:1] == ["bench"]:
        kinds["bench"] = _with_settings(Bench, _given("--train", words))
    choices = [Annotated[kind, tyro.conf.subcommand(name, description=_summary(kind))] for name, kind in kinds.items()]
    union: Any = Union[tuple(choices)]  # noqa: UP007
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                union,
                prog="jaxmas",
                description="Benchmark and trainer for multi-agent coordination in JAX.",
                args=words,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            _print_examples(words)
            return None
        about = f" {words[0]}" if words and words[0] in COMMANDS else ""
        raise JaxmasError(f"{_one_line(said.getvalue())}; see jaxmas{about} --help") from None


def _summary(kind: type) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]


def _given(option: str, words: list[str]) -> list[str]:
    """Return the values of an option among the words."""
    apart = [value for name, value in itertools.pairwise(words) if name == option]
    return apart + [word.removeprefix(f"{option}=") for word in words if word.startswith(f"{option}=")]


def _with_settings(command: type, named: list[str]) -> type:
    """Return a command with the settings of the algorithm that is among the words, as ``--algo.…``."""
    if not named:
        return command
    from jaxmas.catalog import ALGORITHMS

    name = next((word for word in named if word in ALGORITHMS.names()), None)
    # Without any algorithm the first word is what was meant to be one.
    config = ALGORITHMS[name or named[0]]
    field = ("algo", config, dataclasses.field(default_factory=config))
    kind = dataclasses.make_dataclass(command.__name__, [field], bases=(command,), frozen=True, kw_only=True)
    kind.__doc__ = f"Train {name} on a scenario." if command is Train else command.__doc__
    return kind


def _print_examples(words: list[str]) -> None:
    name = words[0] if words and words[0] in EXAMPLES else ""
    lines = EXAMPLES[name] if name else [examples[0] for examples in EXAMPLES.values()]
    print("\nexamples:\n" + "\n".join(f"  {line}" for line in lines))


def _one_line(box: str) -> str:
    """Return what a box of the argument parser says, without its frame, its help texts and all below its ruler."""
    said = []
    for line in box.splitlines():
        # Where the output takes no frames, blanks stand in their place.
        inside = line[2:].rstrip(" │") if line[:2] in ("│ ", "  ") else ""
        if inside and set(inside) <= {"─", "-"}:
            break
        # The texts about an argument stand deeper than the argument.
        if inside and not inside.startswith(8 * " "):
            said.append(inside.strip())
    text = ", ".join(said).replace(":, ", ": ") if said[:1] and said[0].endswith(":") else " ".join(said)
    return text[:1].lower() + text[1:].rstrip(".") or "the arguments cannot be read"


def _start_jax(command: Any) -> None:
    """Start JAX's backend; a platform that this machine lacks is one clear line."""
    import jax

    if isinstance(command, Train):
        from jaxmas.devices import start_jax

        start_jax(command.devices, command.coordinator, command.processes, command.process)
    try:
        jax.devices()
    except RuntimeError as error:
        raise JaxmasError(f"JAX cannot start: {error}; check JAX_PLATFORMS") from error


def _plain(value: Any) -> Any:
    """Turn what a result may hold into JSON; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, str | int | bool) or value is None:
        return value
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


if __name__ == "__main__":
    sys.exit(main())
