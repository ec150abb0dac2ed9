"""Result files of all that the project has measured: ``python -m jaxmas.experiments.leaderboard``.

Nothing is played: the files are made of what the studies of designers, of the frozen-executor ceiling and of warehouse
floors keep in ``experiments/results``, and hold what is kept there and no more. Where two studies trained one method in
one setting, the one with more runs counts. Files of the project's own that nothing stands behind any more are removed.
"""

import dataclasses
import functools
import json
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tyro

from jaxmas import result_files
from jaxmas.catalog import ALGORITHMS, SCENARIOS, STRATEGIES
from jaxmas.errors import JaxmasError, refuse
from jaxmas.experiments import study
from jaxmas.experiments.compare import Setting
from jaxmas.experiments.designers import systems as designer_systems
from jaxmas.experiments.designers.measures import REPLAN
from jaxmas.experiments.frozen_ceiling import systems as ceiling_systems
from jaxmas.experiments.study import Part, System, estimate, values_of
from jaxmas.experiments.study_tables import command, records_of
from jaxmas.experiments.warehouse import learning as warehouse_learning
from jaxmas.result_files import Result

BY = "jaxmas"
RESULTS = Path(__file__).resolve().parent / "results"
STUDIES = (designer_systems, ceiling_systems, warehouse_learning)
EVERY = 10**6
"""More runs than any system has: all that are kept count."""
AGAIN = f", every {REPLAN} steps"
OF_LEVELS = {"frozen": "meta-skill", "coupled": "coupled-template", "executors alone": "executor-only-best-strategy"}
"""What the part on able and less able executors calls a system, and what the others call it."""
LOWER = "best plan per query, lower bound"
REPLICATES = {"depth-3 rule": 2, "best three plans, the better by trial": 8, LOWER: 192}
"""How often a test query was played for a reference's reward, plays that it was chosen on not counted."""
UNKNOWN: dict[str, Any] = {"versions": {}, "commit": None, "date": None, "device": None}
"""The studies keep no provenance of strategies."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where the studies' results are, and where the result files go."""

    results: Path = RESULTS
    out: Path = RESULTS / "leaderboard"


def main(settings: Settings) -> list[Path]:
    """Write a file per method and setting; return them."""
    kept: dict[tuple[str, ...], Result] = {}
    for result in [*learned(settings.results), *untrained(settings.results), *floors(settings.results)]:
        known = kept.setdefault(result_files.key_of(result), result)
        if weight(result) > weight(known):
            kept[result_files.key_of(result)] = result
    files = {settings.out / file_of(result): result for result in kept.values()}
    for file, result in files.items():
        result_files.write(file, result)
    for file in set(settings.out.rglob("*.json")) - set(files):
        if json.loads(file.read_text())["entry"]["by"] == BY:
            file.unlink()
            print(f"removed {file}: no study stands behind it")
    print(f"{len(files)} result files in {settings.out}")
    return list(files)


def weight(result: Result) -> tuple[int, int]:
    """Return what decides between two results of one method: more runs, then more metrics."""
    return len(result["runs"]), len(result["metrics"])


def file_of(result: Result) -> Path:
    """Return a result's place: a folder per setting."""
    setting = result["setting"]
    sizes = f"{setting['num_agents']}-agents-every-{setting['coordination_interval']}"
    return Path(f"{setting['scenario']}-{sizes}-{setting['executor']}", f"{study.folder(result['entry']['name'])}.json")


# --- what was trained


def learned(results: Path) -> Iterator[Result]:
    """Yield every system that a study has trained."""
    for module in STUDIES:
        options = module.Settings(out=results)
        for name, part in module.PARTS.items():
            records = records_of(name, dataclasses.replace(part, seeds=EVERY), options)
            for system, record in records.items():
                line = f"{command(options, name)} --only {shlex.quote(system)}"
                yield of_system(part, method_name(name, part, system), part.systems[system], record, line)


def method_name(name: str, part: Part, system: str) -> str:
    """Return what a system is called wherever it is played; it begins with its algorithm."""
    called = OF_LEVELS[system.split(", ")[1]] if name == "ceiling" else system
    algorithm = part.systems[system].algorithm
    return called if called.startswith(algorithm) else f"{algorithm}, {called}"


def of_system(part: Part, name: str, made: System, record: Mapping[str, Any], line: str) -> Result:
    """Return the result of one system from what it did on every test query."""
    values = {metric: values_of(record, metric) for metric in record["runs"][0]["trained"]}
    seeds = [run["seed"] for run in record["runs"]]
    runs = [
        {"seed": seed, "metrics": {metric: rounded(rows[index].mean()) for metric, rows in values.items()}}
        for index, seed in enumerate(seeds)
    ]
    training = {
        "plays": record["plays"] * made.times_the_plays,
        "runs": len(runs),
        "command": line,
        "trains_executors": trains_executors(made),
    }
    about = ALGORITHMS.entry(made.algorithm).summary
    return result(
        setting_of(part.scenario, part.params, part.num_agents, made.coordination_interval, made.executor),
        {"queries": record["test"]},
        {"name": name, "kind": "learned", "about": about, "training": training},
        made_by([run["provenance"] for run in record["runs"]]),
        {metric: estimate(rows) for metric, rows in values.items()},
        runs,
    )


def trains_executors(made: System) -> bool:
    """Return whether a system trained executors: then the executor of its setting is what they began with."""
    mode = getattr(ALGORITHMS[made.algorithm](**made.settings), "mode", None)
    return made.algorithm in ("ippo", "mappo") or mode not in (None, "designer-only")


def made_by(provenances: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what several runs were made with; where they differ, all of it."""

    def joined(values: list[str | None]) -> str | None:
        return ", ".join(sorted({value for value in values if value})) or None

    versions = [{"python": one["python"], **one["versions"]} for one in provenances]
    commits = [one["commit"] for one in provenances]
    return {
        "versions": {package: joined([one.get(package) for one in versions]) for package in versions[-1]},
        "commit": joined(commits),
        "date": max(filter(None, map(date_of, set(commits))), default=None),
        "device": joined([one["device"] for one in provenances]),
    }


def date_of(commit: str | None) -> str | None:
    """Return the date of a commit, None where this repository does not have it."""
    name = (commit or "").removesuffix("-dirty")
    shown = ["git", "-C", str(RESULTS), "show", "--no-patch", "--format=%cs", f"{name}^{{commit}}"]
    done = subprocess.run(shown, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


# --- strategies and references


def untrained(results: Path) -> Iterator[Result]:
    """Yield every strategy and reference that a study has played."""
    for module in STUDIES:
        for name, part in module.PARTS.items():
            folder = results / study.stem(name, module.Settings(out=results))
            yield from strategies(part, kept(folder / "strategies.json", part))
            yield from references(part, kept(folder / "references.json", part))
            yield from baselines(part, kept(folder / "baselines.json", part))


def kept(file: Path, part: Part) -> dict[str, Any]:
    """Return what a study keeps in a file, if it is of the part's own world."""
    found = json.loads(file.read_text()) if file.exists() else {}
    refuse(bool(found) and found["params"] != part.params, f"{file} is of parameters {found.get('params')}")
    return found


def strategies(part: Part, found: Mapping[str, Any]) -> Iterator[Result]:
    """Yield the strategies of a study of designers, and the best rows of the grammar."""
    for title, row in found.get("strategies", {}).items():
        metrics = {metric: value for metric, value in row.items() if metric != "by_family"}
        again = REPLAN if title.endswith(AGAIN) else None
        setting = setting_of(part.scenario, part.params, part.num_agents, again)
        yield of_means(setting, title.removesuffix(AGAIN), metrics, {"queries": found["test"]})


def references(part: Part, found: Mapping[str, Any]) -> Iterator[Result]:
    """Yield the references that are known by their reward alone."""
    rows = dict(found.get("references", {}))
    if "best plan per query" in rows:
        rows[LOWER] = {"reward": rows["best plan per query"]["low"], "queries": rows["best plan per query"]["queries"]}
    for name in REPLICATES.keys() & rows.keys():
        row = rows[name]
        protocol = {"queries": row.get("queries", found["test"]), "replicates": REPLICATES[name]}
        setting = setting_of(part.scenario, part.params, part.num_agents)
        yield of_means(setting, name, {"reward": row["reward"]}, protocol, about=row.get("plan"))


def baselines(part: Part, found: Mapping[str, Any]) -> Iterator[Result]:
    """Yield the best strategies that the study of the ceiling played."""
    for title, metrics in found.get("rows", {}).items():
        name, executor = title.rsplit(", ", 1)
        setting = setting_of(part.scenario, part.params, part.num_agents, executor=executor)
        yield of_means(setting, name, metrics, {"queries": found["test"]})


def floors(results: Path) -> Iterator[Result]:
    """Yield every strategy on the warehouse floors."""
    file = results / "warehouse_floors.json"
    for row in json.loads(file.read_text())["rows"] if file.exists() else []:
        setting = setting_of(row["world"], row["params"], row["num_agents"], executor=row["executor"])
        metrics = {metric: value for metric, value in row.items() if isinstance(value, dict)}
        made = {"commit": row["commit"], "date": date_of(row["commit"]), "device": row["device"]}
        yield of_means(setting, row["strategy"], metrics, {"queries": row["plays"]}, made=made)


def of_means(
    setting: dict[str, Any],
    name: str,
    metrics: Mapping[str, Any],
    protocol: dict[str, Any],
    *,
    about: str | None = None,
    made: Mapping[str, Any] | None = None,
) -> Result:
    """Return the result of what was not trained, from means with intervals: it is one run."""
    kind = "random" if name == "random" else "strategy" if name in STRATEGIES.names() else "reference"
    about = STRATEGIES.entry(name).summary if kind != "reference" else about
    runs = [{"seed": None, "metrics": {metric: rounded(value["mean"]) for metric, value in metrics.items()}}]
    entry = {"name": name, "kind": kind, "about": about, "training": None}
    return result(setting, protocol, entry, UNKNOWN | dict(made or {}), metrics, runs)


# --- what all have


@functools.cache
def setting_of(
    scenario: str, params: str, num_agents: int | None, interval: int | None = None, executor: str | None = None
) -> dict[str, Any]:
    """Return the setting of a result, if the scenario is still the one that was played."""
    asked = Setting(scenario, num_agents, interval, executor or SCENARIOS[scenario].executor)
    setting = asked.describe(asked.build())
    refuse(setting["params"] != params, f"{scenario} has changed since: parameters {setting['params']}, not {params}")
    return setting


def result(
    setting: dict[str, Any],
    protocol: dict[str, Any],
    entry: dict[str, Any],
    provenance: dict[str, Any],
    metrics: Mapping[str, Any],
    runs: list[dict[str, Any]],
) -> Result:
    """Return a result file's contents, with the score where anchors hold."""
    means = {
        metric: {"mean": rounded(value["mean"]), "ci95": [rounded(end) for end in value["ci95"]]}
        for metric, value in metrics.items()
    }
    own = entry["training"] is not None and entry["training"]["trains_executors"]
    scored = None if own else result_files.score(setting, means.get("reward"))
    return {
        "format": result_files.FORMAT,
        "setting": setting,
        "protocol": {"split": "test", "seed": 0, "replicates": 1, **protocol},
        "entry": {"by": BY, "link": None, "status": "self-reported", **entry},
        "artifact": None,
        "verification": None,
        "provenance": provenance,
        "metrics": means,
        "runs": runs,
        "score": scored and {"mean": rounded(scored["mean"]), "ci95": [rounded(end) for end in scored["ci95"]]},
    }


def rounded(value: float) -> float:
    """Return a number with six digits behind the point."""
    return round(float(value), 6)


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings, description=__doc__))
    except JaxmasError as error:
        raise SystemExit(f"error: {error}") from None
