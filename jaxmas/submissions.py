"""Submissions: policies leave as an archive, are played from nothing else, and their row is verified on secret queries.

The archive is played in a process of its own, which has a time limit, a memory limit and no right to write a file;
what is wrong with it is one line.
"""

import dataclasses
import datetime
import hashlib
import json
import math
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmas
from jaxmas import archive, evaluation, portable, result_files
from jaxmas.anchors import params_hash
from jaxmas.catalog import EXECUTORS
from jaxmas.errors import JaxmasError, printable, refuse
from jaxmas.evaluation import Outcomes
from jaxmas.result_files import Result
from jaxmas.runs import LoadedPolicy, RunRecord, load_policy, plain, provenance, read_record
from jaxmas.runs import algorithm_config as config_of
from jaxmas.training import read_log
from jaxmas.types import Environment

FAULTS = {
    "repairs": "{count:,} entries of its plans are not legal; a submission's plans have to be legal as they are",
    "faults": "in {count:,} agent-steps its executor gives no law to act by (NaN, or no legal action)",
}
"""What a policy may not do while it plays, by what is reported of it."""
SECRET = "words of at least 16 hexadecimal digits, each from python -c 'import secrets; print(secrets.token_hex(16))'"
"""What a file of secret seeds holds: too many bits to find a seed from a query's key by search, as 32 bits allow."""
ALONE = "what a program gives for a query has to follow from that query alone"
ROUNDED = 0.05
"""The share of queries that may be played otherwise beside other ones: where rounding tips a decision."""
SURE = 4.0
"""Standard errors by which rewards on secret queries may differ from those on the test queries."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What playing an archive may take."""

    seconds: float = 600.0
    memory: int = 12 * 2**30
    """Bytes; not asked for where another device than the CPU plays."""


@dataclasses.dataclass(frozen=True)
class Author:
    """Who submits what."""

    name: str
    """What the row is called."""
    by: str
    link: str | None = None
    """An address that begins with https://."""
    about: str | None = None
    """A line on the method."""


# --- leaving


def export(specs: Sequence[str], author: Author, out: Path) -> dict[str, Any]:
    """Write training runs of one method, which differ in their seeds alone, as an archive; return its manifest."""
    refuse(not specs, "nothing to export; name the directories of runs")
    records = [read_record(Path(spec)) for spec in specs]
    first = records[0]
    for spec, record in zip(specs, records, strict=True):
        for field in ("scenario", "num_agents", "coordination_interval", "executor", "algorithm", "config", "params"):
            was, now = getattr(first, field), getattr(record, field)
            refuse(was != now, f"{spec} and {specs[0]} differ in {field}: {now}, {was}; export runs of one method")
    refuse(bool(first.files), f"{specs[0]} plays a scenario made of a file, which whoever verifies does not have")
    refuse(
        first.executor not in EXECUTORS.names(),
        f"{specs[0]} began with the executors of {first.executor}; only registered ones are known everywhere",
    )
    sizes = {"num_agents": first.num_agents, "coordination_interval": first.coordination_interval}
    env, params = jaxmas.make(first.scenario, **sizes)
    policies = [load_policy(spec, env, params) for spec in specs]
    training = {
        "plays": read_log(Path(specs[0]) / "log.jsonl")[-1]["plays"],
        "runs": len(specs),
        "command": command_of(first),
        "trains_executors": policies[0].executor is not None,
    }
    seeds = [record.seed for record in records]
    return pack(first.scenario, env, params, first.executor, policies, seeds, training, author, out)


def pack(
    scenario: str,
    env: Environment,
    params: Any,
    executor: str,
    policies: Sequence[LoadedPolicy],
    seeds: Sequence[int | None],
    training: Mapping[str, Any] | None,
    author: Author,
    out: Path,
) -> dict[str, Any]:
    """Write policies, one per training run, as an archive; return its manifest. They differ in their weights alone.

    ``executor`` is the registered one that they play with or began with; ``training`` is None for what was not trained,
    otherwise ``plays``, ``runs``, ``command`` and ``trains_executors``.
    """
    first = policies[0]
    files = portable.designer_programs(env, params, first.meta, first.meta_params)
    if first.executor is not None:
        files |= portable.executor_programs(env, params, *first.executor)
    for run, policy in enumerate(policies):
        files[f"{run}/designer"] = portable.weights_of(policy.meta_params)
        if policy.executor is not None:
            files[f"{run}/executor"] = portable.weights_of(policy.executor[1])
    made = provenance()
    setting = {
        "scenario": scenario,
        "num_agents": env.num_agents,
        "coordination_interval": env.coordination_interval,
        "executor": executor,
        "files": {},
        "params": params_hash(params),
    }
    manifest = {
        "setting": setting,
        "entry": {
            **dataclasses.asdict(author),
            "kind": "strategy" if training is None else "learned",
            "training": None if training is None else dict(training),
        },
        "provenance": {
            "versions": {"python": made["python"], **made["versions"]},
            "commit": made["commit"],
            "date": datetime.date.today().isoformat(),
            "device": made["device"],
        },
        "runs": [{"seed": seed} for seed in seeds],
    }
    archive.write(out, manifest, files)
    return archive.read(out)[0]


def command_of(record: RunRecord) -> str:
    """Return the command that a run was made by, with the settings that are not the defaults."""
    config = config_of(record)
    default = plain(type(config)())
    changed = {name: value for name, value in record.config.items() if value != default[name]}
    given = [f"--algo.{name.replace('_', '-')} {value}" for name, value in changed.items()]
    executor = f"--executor {record.executor}"
    return " ".join(["jaxmas train", record.algorithm, record.scenario, executor, *given])


# --- playing


def played(path: Path, seeds: Sequence[int | str], queries: int, limits: Limits) -> list[Outcomes]:
    """Return what every run of an archive does on the test queries of each seed, one after the other."""
    # Secret seeds go in by a pipe: everyone on a machine can read the words of a command.
    asked = json.dumps({"path": str(path), "seeds": list(seeds), "queries": queries, "memory": limits.memory})
    # Without -P a file beside the archive could be taken for a module.
    words = [sys.executable, "-B", "-P", "-m", "jaxmas.submissions"]
    package = Path(jaxmas.__file__).resolve().parents[1]
    found = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH", "")]))
    settings = {"PYTHONPATH": found, "JAX_ENABLE_COMPILATION_CACHE": "0", "JAX_TRACEBACK_FILTERING": "off"}
    given: dict[str, Any] = {"input": asked.encode(), "env": os.environ | settings, "timeout": limits.seconds}
    try:
        done = subprocess.run(words, capture_output=True, check=False, **given)
    except subprocess.TimeoutExpired:
        raise JaxmasError(
            f"{path}: it was not through with {queries * len(seeds):,} queries in {limits.seconds:g} seconds, the limit"
        ) from None
    answer = done.stdout.decode(errors="replace").splitlines()[-1:]
    if done.returncode != 0 or not answer:
        said = printable(done.stderr[-200:].decode(errors="replace"), 200)
        raise JaxmasError(f"{path}: its process ended with {_ending(done.returncode)} while it played ({said})")
    result = json.loads(answer[0])
    refuse("error" in result, f"{path}: {printable(result.get('error'), 500)}")
    outcomes = [{name: np.array(values) for name, values in run.items()} for run in result["runs"]]
    for run, outcome in enumerate(outcomes):
        for name, fault in FAULTS.items():
            count = int(outcome.pop(name, np.zeros(1)).sum())
            refuse(count > 0, f"{path}: run {run}: {fault.format(count=count)}")
    return outcomes


def _ending(code: int) -> str:
    return f"signal {-code}, as when it runs out of memory or crashes" if code < 0 else f"exit code {code}"


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what an archive does, or in one line why it does nothing."""
    try:
        return _serve(**asked)
    except JaxmasError as error:
        return {"error": str(error).removeprefix(f"{asked['path']}: ")}
    except Exception as error:
        first = printable(str(error).strip().partition("\n")[0], 150)
        return {"error": f"its programs cannot be run here ({type(error).__name__}: {first})"}


def _serve(path: str, seeds: Sequence[int | str], queries: int, memory: int) -> dict[str, Any]:
    """Play an archive, in the process that does nothing else."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if jax.default_backend() == "cpu":
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    manifest, files, _ = archive.read(Path(path))
    setting = manifest["setting"]
    sizes = {name: setting[name] for name in ("num_agents", "coordination_interval")}
    env, params = jaxmas.make(setting["scenario"], **sizes)
    designer = portable.load_designer(env, params, files["designer-start"], files["designer-apply"])
    trained = "executor-apply" in files
    if trained:
        workers: Any = portable.load_executor(env, params, files["executor-start"], files["executor-apply"])
    else:
        workers, weights = jaxmas.load_executor(setting["executor"], env, params)
    runs = []
    for run in range(len(manifest["runs"])):
        plans = portable.load_weights(f"{run}/designer", designer, files[f"{run}/designer"])
        if trained:
            weights = portable.load_weights(f"{run}/executor", workers, files[f"{run}/executor"])
        policies = env, params, designer, plans, workers, weights
        others = _others(policies, queries, root_of(seeds[0]))
        refuse(others > 0, f"run {run}: it plays {others:,} queries otherwise beside other ones; {ALONE}")
        parts = [
            evaluation.evaluate(*policies, evaluation.query_keys("test", queries, root_of(seed))) for seed in seeds
        ]
        runs.append({name: np.concatenate([part[name] for part in parts]).tolist() for name in parts[0]})
    return {"runs": runs}


def _others(policies: tuple, queries: int, root: Any) -> int:
    """Return how many queries are played otherwise at another place and beside other queries; 0 if rounding may do so.

    All are those of the first chunk; every second one gives way to a query that is not asked, and their order turns.
    """
    count = min(queries, evaluation.CHUNK)
    keys, strangers = (evaluation.query_keys("test", count, root, start) for start in (0, queries))
    stay = np.arange(count) % 2 == 0
    once, again = (
        [np.asarray(leaf) for leaf in (outcome["reward"], *jax.tree.leaves(plan))]
        for outcome, plan in (
            evaluation.play(*policies, given, evaluation.noise_keys(given, 0))
            for given in (keys, jnp.where(stay, keys, strangers)[::-1])
        )
    )
    same = [
        np.isclose(one, other[::-1], rtol=1e-4).reshape(count, -1).all(axis=1)
        for one, other in zip(once, again, strict=True)
    ]
    found = int(np.sum(stay & ~np.all(same, axis=0)))
    return found if found > ROUNDED * stay.sum() else 0


# --- rows


def submit(path: Path, out: Path, queries: int = 2048, limits: Limits = Limits()) -> Result:
    """Play an archive on the public test queries and write its row, a self-reported one."""
    manifest, _, artifact = archive.read(path)
    result = _row(manifest, artifact, played(path, [0], queries, limits), queries)
    result_files.write(out, result)
    return result


def verify(
    path: Path,
    reported: Path,
    seed_file: Path,
    out: Path,
    queries: int = 2048,
    tolerance: float = 1e-5,
    limits: Limits = Limits(),
) -> Result:
    """Play an archive again and on secret queries; write its row as a verified one, or say what differs.

    On the public test queries every mean has to come out again, up to the tolerance; on the secret ones the reward has
    to be the same as far as chance allows, and the verified row is of these. The reported row has to stand on as many
    public queries as there are of each secret seed, or more: of few queries, a lucky number could be chosen.
    """
    seeds, digest = read_seeds(seed_file)
    row = result_files.read(reported)
    manifest, _, artifact = archive.read(path)
    for place, difference in _differences(row, manifest, artifact):
        raise JaxmasError(f"{reported} is not of {path}: {place} is {difference}; jaxmas submit writes the row of it")
    asked = row["protocol"]["queries"]
    refuse(
        asked < queries,
        f"{reported} stands on {asked:,} test queries, fewer than the {queries:,} that verification plays; "
        f"submit with --episodes {queries} or more, or verify with --episodes {asked}",
    )
    public = played(path, [0], asked, limits)
    again = _row(manifest, artifact, public, asked)
    for index, (one, other) in enumerate(zip(row["runs"], again["runs"], strict=True)):
        odd = sorted(set(one["metrics"]) ^ set(other["metrics"]))
        refuse(bool(odd), f"{reported} and what comes out again differ in having {', '.join(odd)}")
        for name, mean in other["metrics"].items():
            claimed = one["metrics"][name]
            refuse(
                not abs(claimed - mean) <= tolerance * max(1.0, abs(mean)),
                f"{reported} does not come out again: {name} of run {index} is {mean:.6f}, not {claimed:.6f}; "
                "give --tolerance if it was played on another kind of device",
            )
    secret = played(path, seeds, queries, limits)
    # Its numbers are those on queries that nobody could choose, or learn by heart.
    found = _row(manifest, artifact, secret, queries * len(seeds))
    hidden, known = (row["metrics"]["reward"] for row in (found, again))
    spread = math.hypot(_error(public), _error(secret))
    refuse(
        abs(hidden["mean"] - known["mean"]) > SURE * spread,
        f"its reward is {known['mean']:.3f} on the test queries and {hidden['mean']:.3f} on secret ones, more than "
        "chance; it fits the test queries, not the scenario",
    )
    made = provenance()
    found["protocol"]["seed"] = None
    found["entry"]["status"] = "verified"
    found["verification"] = {
        "queries": asked,
        "seeds": digest,
        "reward": known,
        "commit": made["commit"],
        "date": datetime.date.today().isoformat(),
        "device": made["device"],
    }
    result_files.write(out, found)
    return found


def read_seeds(path: Path) -> tuple[list[str], str]:
    """Return the secret seeds of a file, words apart from each other by blanks, and the file's SHA-256."""
    refuse(not path.is_file(), f"{path} is no file; write secret seeds into it, {SECRET}")
    data = path.read_bytes()
    words = data.decode(errors="replace").split()
    # What is wrong may be half a secret; its place is enough to find it.
    wrong = next((at for at, word in enumerate(words, 1) if not re.fullmatch("[0-9a-fA-F]{16,}", word)), None)
    refuse(wrong is not None, f"word {wrong} of {path} is no secret seed; seeds are {SECRET}")
    refuse(not words, f"{path} holds no seed; write secret seeds into it, {SECRET}")
    refuse(len(set(words)) < len(words), f"{path} holds a seed twice; every query has to be another one")
    return words, hashlib.sha256(data).hexdigest()


def root_of(seed: int | str) -> Any:
    """Return what the queries of a seed are drawn from: a public number as it is, the key of a secret word."""
    if isinstance(seed, int):
        return seed
    words = np.frombuffer(hashlib.sha256(seed.encode()).digest()[:8], ">u4").astype(np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words))


def _row(manifest: Mapping[str, Any], artifact: str, outcomes: list[Outcomes], queries: int) -> Result:
    """Return the result file's contents of what the runs of an archive did."""
    setting, training = manifest["setting"], manifest["entry"]["training"]
    metrics = {name: _rounded(value.to_json()) for name, value in evaluation.summarise(outcomes).items()}
    own = training is not None and training["trains_executors"]
    scored = None if own else result_files.score(setting, metrics["reward"])
    return {
        "format": result_files.FORMAT,
        "setting": setting,
        "protocol": {"split": "test", "seed": 0, "queries": queries, "replicates": 1},
        "entry": {**manifest["entry"], "status": "self-reported"},
        "artifact": artifact,
        "verification": None,
        "provenance": manifest["provenance"],
        "metrics": metrics,
        "runs": [
            {**run, "metrics": {name: round(float(values.mean()), 6) for name, values in outcome.items()}}
            for run, outcome in zip(manifest["runs"], outcomes, strict=True)
        ],
        "score": scored and _rounded(scored),
    }


def _differences(row: Result, manifest: Mapping[str, Any], artifact: str) -> Iterator[tuple[str, str]]:
    """Yield where a row is not of an archive."""
    entry = {name: value for name, value in row["entry"].items() if name != "status"}
    protocol = {name: value for name, value in row["protocol"].items() if name != "queries"}
    pairs = {
        "artifact": (row["artifact"], artifact),
        "setting": (row["setting"], manifest["setting"]),
        "entry": (entry, manifest["entry"]),
        "the list of seeds": ([run["seed"] for run in row["runs"]], [run["seed"] for run in manifest["runs"]]),
        "protocol": (protocol, {"split": "test", "seed": 0, "replicates": 1}),
    }
    for place, (one, other) in pairs.items():
        if one != other:
            yield place, f"{ascii(one)[:80]}, not {ascii(other)[:80]}"


def _rounded(estimate: Mapping[str, Any]) -> dict[str, Any]:
    return {"mean": round(float(estimate["mean"]), 6), "ci95": [round(float(end), 6) for end in estimate["ci95"]]}


def _error(outcomes: list[Outcomes]) -> float:
    """Return the standard error of the mean reward over queries alone: the runs are the same wherever they play."""
    rewards = np.mean([outcome["reward"] for outcome in outcomes], axis=0)
    return float(np.std(rewards, ddof=1) / math.sqrt(len(rewards)))


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
