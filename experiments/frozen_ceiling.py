"""Q2: how much do frozen executors cost a designer, and does training both sides together win it back?

``python -m jaxmas.experiments.frozen_ceiling [PART …] [--small]`` trains every system of a part with every seed, plays
it on the same test queries, and writes ``experiments/results/frozen_ceiling_PART.json``, ``.md`` and figures. Runs are
ordinary run directories under ``--runs``: a study that was cut goes on where it stopped. What a finished system did on
every query is kept beside the tables, in ``frozen_ceiling_PART/SYSTEM.json.gz``: it is not run again, on no machine,
until that file is deleted.

All systems of a part begin with the same executors and are given the same number of plays, the designers' warm start
included. The environment steps of these are in the table; not in it are those of the warm start and of the validation
that chooses the best strategy (2,048 queries for each).

Expected before the run, hypotheses of the published system included (arXiv 2605.14212):

- the best co-trained system has at least 21.7 % more success than the designer over frozen executors, intervals apart;
- stagewise ≥ coupled ≥ designer-only;
- against the first speaks that perfect executors raise the success of the best strategies on ``workflow-mixed-v0`` by
  no more than 11 to 17 % over ``frozen-90`` (validation queries): most of what fails there is noise and deadlines;
- the less able the frozen executors are, the higher is the lift over the designer with these same executors;
- on ``workflow-specialist-v0`` one small network per role earns more than one shared by all, and swapped roles lose it.

Systems whose designer chooses templates were added when five of the others had been seen: a part of what co-training
lost there was the slower learning of programs, as ``designer-only`` against ``meta-skill`` showed. They do better, and
so the variants and the ceiling's curve, whose frozen designers choose templates as well, are of them. Three times the
plays were added when their curves still rose at the end.
"""

import dataclasses
import gzip
import json
import multiprocessing
import shlex
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

from jaxmas import evaluation, plots
from jaxmas.anchors import params_hash
from jaxmas.catalog import ALGORITHMS, TEMPLATES
from jaxmas.checkpoints import atomic_write, atomic_write_json, atomic_write_text
from jaxmas.environments.workflow.params import role_names
from jaxmas.errors import refuse
from jaxmas.experiments import compare
from jaxmas.headroom import World
from jaxmas.runs import load_policy, read_record
from jaxmas.statistics import Estimate, hierarchical_bootstrap, paired_difference
from jaxmas.structures import STRUCTURES
from jaxmas.training import read_log, train

NUM_SKILLS = 4
"""Of every scenario here."""
FIRST_SEED = 100
"""Seeds below were used to choose settings."""


@dataclasses.dataclass(frozen=True)
class System:
    """What is trained, and from which executors."""

    algorithm: str
    settings: Mapping[str, Any]
    executor: str = "frozen-90"
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
    swap_roles: bool = False
    """Play every trained system with its specialists' roles swapped, too."""


CAPACITY = 32
"""Rows per play: more than there are decisions, so that no system learns from fewer than all of its own."""


def co_trained(mode: str, executor: str = "frozen-90", **settings: Any) -> System:
    """Return MetaAgent-X in one of its modes."""
    return System("metaagent-x", {"mode": mode, "capacity": CAPACITY, **settings}, executor)


def on_templates(mode: str, executor: str = "frozen-90", **settings: Any) -> System:
    """Return the same with a designer that chooses templates."""
    return co_trained(mode, executor, space="template", **settings)


BEST = "strategy:BEST"
"""Stands for the strategy that earns most on validation queries with the executors at the start."""

SYSTEMS = {
    "meta-skill": System("meta-skill", {}),
    "meta-skill-3x-plays": System("meta-skill", {}, times_the_plays=3),
    "designer-only": co_trained("designer-only"),
    "executor-only": co_trained("executor-only"),
    "executor-only-best-strategy": co_trained("executor-only", plans_by=BEST),
    "coupled": co_trained("coupled"),
    "stagewise-10": co_trained("stagewise"),
    "coupled-template": on_templates("coupled"),
    "coupled-template-3x-plays": replace(on_templates("coupled"), times_the_plays=3, reference="meta-skill-3x-plays"),
    "stagewise-10-template": on_templates("stagewise"),
    "stagewise-1-template": on_templates("stagewise", swap_every=1),
    "stagewise-30-template": on_templates("stagewise", swap_every=30),
    "coupled-template-8x1": on_templates("coupled", queries=96, designs=8, executions=1),
    "coupled-template-16x1": on_templates("coupled", designs=16, executions=1),
    "coupled-template-per-role": on_templates("coupled", per_role=True),
    "coupled-template-outcome-only": on_templates("coupled", agent_weight=0.0),
    "stagewise-10-template-as-published": on_templates("stagewise", agent_weight=0.0, advantage="group"),
}
DRAWN = (
    "meta-skill",
    "designer-only",
    "executor-only-best-strategy",
    "coupled",
    "stagewise-10",
    "coupled-template",
    "stagewise-10-template",
)
"""Systems whose learning curves are drawn; all of a part that has none of them."""
LEVELS = ("frozen-60", "frozen-75", "frozen-90", "frozen-98")
NARROW = {"plans_by": "strategy:roles-by-skill", "width": 8, "layers": 1, "agent_weight": 1.0, "learning_rate": 1e-2}
"""Executors too small to know every skill, from scratch, under a strategy that gives every subtask its specialist."""

MIXED = "28fb3d017e1bbe87"

PARTS = {
    "systems": Part("workflow-mixed-v0", MIXED, SYSTEMS, plays=153_600, seeds=10),
    "ceiling": Part(
        "workflow-mixed-v0",
        MIXED,
        {f"{level}, frozen": System("meta-skill", {}, level) for level in (*LEVELS, "scripted")}
        | {
            f"{level}, coupled": replace(on_templates("coupled", level), reference=f"{level}, frozen")
            for level in LEVELS
        }
        | {
            f"{level}, executors alone": replace(
                co_trained("executor-only", level, plans_by=BEST), reference=f"{level}, frozen"
            )
            for level in LEVELS
        },
        plays=153_600,
        seeds=5,
        reference="frozen-90, frozen",
    ),
    "crowd": Part(
        "workflow-crowd-v0",
        "1b67707c0cede16f",
        {name: SYSTEMS[name] for name in ("meta-skill", "coupled-template", "stagewise-10-template")},
        plays=38_400,
        seeds=10,
        num_agents=64,
    ),
    "specialist": Part(
        "workflow-specialist-v0",
        "1a9f320ee366485d",
        {
            "shared": System("ippo", NARROW, "untrained"),
            "per-role": System("ippo", {**NARROW, "per_role": True}, "untrained"),
            "shared, three times as wide": System("ippo", {**NARROW, "width": 24}, "untrained"),
        },
        plays=25_600,
        seeds=10,
        reference="shared",
        swap_roles=True,
    ),
}


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
    out: Path = Path(__file__).resolve().parent / "results"


SMALL = ("meta-skill", "executor-only-best-strategy", "coupled-template", "stagewise-10-template")


def main(settings: Settings) -> None:
    """Run the parts one after the other; tables are written anew whenever a system is done."""
    for name in settings.parts:
        refuse(name not in PARTS, f"unknown part {name!r}; the parts are {', '.join(PARTS)}")
    if settings.small:
        settings = replace(settings, parts=("systems",), only=SMALL)
    for name in settings.parts:
        part = part_of(name, settings)
        refuse(
            not any(only in part.systems for only in settings.only or part.systems),
            f"{name} has no system {', '.join(settings.only)}; its systems are {'; '.join(part.systems)}",
        )
        names = [system for system in part.systems if not settings.only or system in settings.only]
        with ProcessPoolExecutor(settings.workers, multiprocessing.get_context("spawn")) as pool:
            waiting = {pool.submit(run_system, name, system, settings): system for system in names}
            for done in as_completed(waiting):
                print(f"{name}: {waiting[done]}: {done.result()}", flush=True)
                write(name, part, settings)


def part_of(name: str, settings: Settings) -> Part:
    """Return a part in the size that is asked for."""
    part = PARTS[name]
    if settings.small:
        part = replace(part, seeds=2, plays=part.plays // 6)
    return replace(part, seeds=settings.seeds or part.seeds, plays=settings.plays or part.plays)


def run_system(name: str, system: str, settings: Settings) -> str:
    """Train and play all seeds of a system, and keep what came out; return a line on it."""
    part = part_of(name, settings)
    record = kept(name, part, system, settings)
    if record and len(record["runs"]) >= part.seeds:
        return f"{summary(record)}, kept in {record_of(name, system, settings)}"
    made = part.systems[system]
    setting = compare.Setting(part.scenario, part.num_agents, executor=made.executor)
    world = setting.build()
    found = params_hash(world.params)
    refuse(
        found != part.params,
        f"{part.scenario} has changed since the study was written: parameters {found}, not {part.params}",
    )
    config = config_of(made, world, part.plays)
    folders = directories(name, part, system, settings)
    runs = [run_seed(run, part, made, config, world, settings) for run in folders]
    made_by = read_record(folders[0]).provenance
    record = {**sizes(part, settings), "system": described(made), "provenance": made_by, "runs": runs}
    data = json.dumps(record, separators=(",", ":")).encode()
    atomic_write(record_of(name, system, settings), gzip.compress(data, mtime=0))
    return summary(record)


def run_seed(run: Path, part: Part, made: System, config: Any, world: World, settings: Settings) -> dict[str, Any]:
    """Train and play one seed, or what of it is not done; return its log and what it did on every test query."""
    seed = int(run.name.removeprefix("seed-"))
    done = json.loads((run / "test.json").read_text()) if (run / "test.json").exists() else None
    if done:
        refuse(
            read_record(run).config != json.loads(json.dumps(dataclasses.asdict(config))),
            f"{run} was trained with other settings; move it away, or choose another --runs",
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
            swapped = replace(policy, meta=SwappedRoles(policy.meta, len(world.params.tables)))
            played["swapped"] = compare.play(world, swapped, test)
        atomic_write_json(run / "test.json", {key: rounded(outcomes) for key, outcomes in played.items()})
    return {"seed": seed, "log": read_log(run / "log.jsonl"), **json.loads((run / "test.json").read_text())}


def rounded(outcomes: evaluation.Outcomes) -> dict[str, list[float]]:
    """Return what the tables need of every test query."""
    rows = {name: np.round(outcomes[name].astype(float), 4).tolist() for name in ("reward", "cost")}
    return {"success": outcomes["success"].astype(int).tolist(), **rows}


def record_of(name: str, system: str, settings: Settings) -> Path:
    """Return the file that keeps a finished system."""
    return settings.out / stem(name, settings) / f"{folder(system)}.json.gz"


def kept(name: str, part: Part, system: str, settings: Settings) -> dict[str, Any] | None:
    """Return a finished system, if there is one of these sizes, with as many seeds as the part has."""
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
    return replace(config, updates=updates)


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
        return replace(plan, role=role), carry, info


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


def write(name: str, part: Part, settings: Settings) -> None:
    """Write a part's table and figures of what is finished."""
    result = collate(name, part, settings)
    begin = stem(name, settings)
    atomic_write_json(settings.out / f"{begin}.json", result)
    atomic_write_text(settings.out / f"{begin}.md", markdown(result))
    for kind, figure in figures(result):
        plots.save_png(figure, settings.out / f"{begin}_{kind}.png")


def collate(name: str, part: Part, settings: Settings) -> dict[str, Any]:
    """Return the table of a part, the learning curves and the histograms of structures over training."""
    found = {system: kept(name, part, system, settings) for system in part.systems}
    records = {system: record for system, record in found.items() if record}
    methods: dict[str, Any] = {}
    for system, record in records.items():
        logs = [run["log"] for run in record["runs"]]
        row: dict[str, Any] = {key: estimate(values_of(record, key)) for key in ("success", "reward", "cost")}
        row |= {
            "seeds": len(logs),
            "per_seed": values_of(record, "success").mean(axis=1).round(4).tolist(),
            "environment_steps": float(np.mean([sum_of(log, "steps") for log in logs])),
            "seconds": float(np.mean([sum(line["seconds"] for line in log) for log in logs])),
            "commit": record["provenance"]["commit"],
            "device": record["provenance"]["device"],
            "curves": curves(logs),
        }
        against = part.systems[system].reference or part.reference
        reference = records.get(against)
        if reference and system != against:
            row["reference"] = against
            row["lift"] = lift(values_of(record, "success"), values_of(reference, "success"))
            row["reward_lift"] = paired_difference(
                values_of(record, "reward"), values_of(reference, "reward")
            ).to_json()
        if part.swap_roles:
            swapped = values_of(record, "success", "swapped")
            row["swapped"] = estimate(swapped)
            row["lost_by_swapping"] = estimate(swapped - values_of(record, "success"))
        methods[system] = row
    return {
        "part": name,
        **sizes(part, settings),
        "num_agents": part.num_agents,
        "reference": part.reference,
        "command": command(settings, name),
        "baselines": baselines(name, part, settings),
        "methods": methods,
    }


def estimate(values: np.ndarray) -> dict[str, Any]:
    """Return mean and interval over seeds and queries."""
    return hierarchical_bootstrap(values).to_json()


def lift(success: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Return how much more success there is than in the reference: in points, and as a share of the reference's."""
    points = paired_difference(success, reference)
    base = float(reference.mean())
    return {"points": points.to_json(), "relative": [value / base for value in (points.mean, *points.ci95)]}


def spans(log: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Return how many updates each line of a log is the mean of."""
    return np.diff([0] + [row["update"] for row in log])


def sum_of(log: Sequence[Mapping[str, float]], key: str) -> float:
    """Return the sum over all updates of what is logged as means."""
    return float(np.sum(spans(log) * [row[key] for row in log]))


def curves(logs: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, list[float | None]]:
    """Return each logged value over training, as the mean of the seeds that have it."""
    length = min(len(log) for log in logs if log)
    rows = [log[:length] for log in logs if log]
    names = [name for name in rows[0][0] if name != "seconds"]

    def mean(values):
        known = [value for value in values if value is not None]
        return round(float(np.mean(known)), 5) if known else None

    return {name: [mean([log[index].get(name) for log in rows]) for index in range(length)] for name in names}


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


def command(settings: Settings, name: str) -> str:
    """Return the command line that runs a part."""
    words = ["python", "-m", "jaxmas.experiments.frozen_ceiling", *(["--small"] if settings.small else [name])]
    for field in ("seeds", "plays", "test"):
        value = getattr(settings, field)
        words += [] if value == getattr(Settings, field) else [f"--{field}", str(value)]
    return shlex.join(words)


def markdown(result: dict[str, Any]) -> str:
    """Return the table for people."""
    agents = f", {result['num_agents']} agents" if result["num_agents"] else ""
    made = sorted({f"{row['commit']} on {row['device']}" for row in result["methods"].values()})
    lines = [
        f"# The frozen-executor ceiling: {result['part']}",
        "",
        f"`{result['command']}`, commit {', '.join(made)}; `{result['scenario']}`{agents} (parameters "
        f"{result['params']}), {result['plays']:,} plays per run, {result['test']} test queries. Lift: over "
        f"*{result['reference']}* or what is named, on the same queries; as a share of the reference's mean success.",
        "",
        "| system | seeds | success | reward | cost | lift, points | lift, share | lift, reward | steps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for system, row in result["baselines"].items():
        lines.append(
            f"| strategy {system} | – | {cell(row['success'])} | {cell(row['reward'])} | {cell(row['cost'])} ||||"
        )
    for system, row in sorted(result["methods"].items(), key=lambda item: -item[1]["success"]["mean"]):
        values = [cell(row[key]) for key in ("success", "reward", "cost")]
        if "lift" in row:
            values += [cell(row["lift"]["points"]), percent(row["lift"]["relative"]), cell(row["reward_lift"])]
        else:
            values += ["", "", ""]
        values.append(f"{row['environment_steps'] / 1e6:.2f} M")
        named = (
            f" (over {row['reference']})" if row.get("reference", result["reference"]) != result["reference"] else ""
        )
        lines.append(f"| {system}{named} | {row['seeds']} | {' | '.join(values)} |")
    swapped = {system: row for system, row in result["methods"].items() if "swapped" in row}
    if swapped:
        lines += ["", "| system | success | with the specialists' roles swapped | lost |", "|---|---|---|---|"]
    for system, row in swapped.items():
        lines.append(
            f"| {system} | {' | '.join(cell(row[key]) for key in ('success', 'swapped', 'lost_by_swapping'))} |"
        )
    return "\n".join([*lines, ""])


def cell(row: Mapping[str, Any]) -> str:
    """Return a mean with its interval."""
    return str(Estimate(row["mean"], tuple(row["ci95"])))


def percent(values: Sequence[float]) -> str:
    """Return a relative change with its interval."""
    mean, low, high = (f"{100 * value:+.1f}" for value in values)
    return f"{mean} [{low}, {high}] %"


def figures(result: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield learning curves, rewards by role and structures over training."""
    methods = result["methods"]
    if not methods:
        return
    drawn = [name for name in DRAWN if name in methods] or list(methods)
    plays = {name: np.array(row["curves"]["plays"]) for name, row in methods.items()}
    yield (
        "curves",
        plots.curves(
            {name: (plays[name], np.array(methods[name]["curves"]["success"], float)) for name in drawn},
            "plays",
            "success",
        ),
    )
    for name, row in methods.items():
        roles = {f"role_{index}_reward": role for index, role in enumerate(role_names(NUM_SKILLS))}
        kinds = [f"structure_{kind}" for kind in STRUCTURES if f"structure_{kind}" in row["curves"]]
        if name not in ("coupled", "stagewise-10", "coupled-template"):
            continue
        by_role = {
            role: (plays[name], np.array(row["curves"][key], float))
            for key, role in roles.items()
            if key in row["curves"]
        }
        yield f"roles_{name}", plots.curves(by_role, "plays", "own reward per decision")
        shares = {key.removeprefix("structure_"): np.array(row["curves"][key]) for key in kinds}
        yield f"structures_{name}", plots.shares(plays[name], shares, "plays", "share of designs")


if __name__ == "__main__":
    main(tyro.cli(Settings))
