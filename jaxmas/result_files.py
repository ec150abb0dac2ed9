"""Result files: what one method did in one setting, as a JSON document that anyone may write and nobody has to trust.

Everything in a file is checked when it is read, down to the score, which is worked out again from the frozen anchors:
what is wrong is one line that names the file, the place in it and what was expected. ``docs/leaderboard.md`` describes
the format.
"""

import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import jaxmas
from jaxmas import anchors
from jaxmas.catalog import EXECUTORS, SCENARIOS
from jaxmas.checkpoints import atomic_write_json
from jaxmas.errors import JaxmasError, did_you_mean, refuse
from jaxmas.schema import mapping, number, one_of, or_null, parsed, sequence, shown, structure, text, whole

FORMAT = "jaxmas-result-1"
KINDS = ("strategy", "random", "learned", "reference")
UNTRAINED = ("strategy", "random")
"""Kinds that no training made: they are one run, without a seed."""
LARGEST = 2**18
"""Bytes of a file: it holds means, no values of single queries."""
TOLERANCE = 1e-5
"""How far numbers that follow from each other may differ by rounding."""

Result: TypeAlias = dict[str, Any]


def read(path: Path) -> Result:
    """Return a result file's contents once all of it is known to be sound."""
    try:
        refuse(path.stat().st_size > LARGEST, f"it has more than {LARGEST:,} bytes; leave out values of single queries")
        return checked(parsed(path.read_bytes()))
    except JaxmasError as error:
        raise JaxmasError(f"{path}: {error}") from error


def write(path: str | Path, result: Result) -> None:
    """Write a result file, in whole or not at all, if it is sound."""
    atomic_write_json(path, checked(result))


def checked(result: Any) -> Result:
    """Return a result if it is sound; otherwise raise a ``JaxmasError``."""
    tag = result.get("format") if isinstance(result, dict) else None
    refuse(tag != FORMAT, f"its format is {shown(tag)}; a result file is an object whose format is {FORMAT!r}")
    SCHEMA(result, "")
    check_entry(result)
    _check_status(result)
    _check_metrics(result)
    check_world(result["setting"])
    _check_score(result)
    return result


def score(setting: Mapping[str, Any], reward: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the coordination score of a reward, with its interval; None where no anchors hold for the setting."""
    if reward is None or setting["files"]:
        return None
    env, params = _world(setting["scenario"], setting["num_agents"], setting["coordination_interval"])
    rewards = (reward["mean"], *reward["ci95"])
    values = [anchors.coordination_score(setting["scenario"], env, params, setting["executor"], one) for one in rewards]
    mean, *ci95 = values
    return None if mean is None else {"mean": mean, "ci95": ci95}


def key_of(result: Result) -> tuple[str, ...]:
    """Return what no two files may share: setting, method and author."""
    return json.dumps(result["setting"], sort_keys=True), result["entry"]["name"], result["entry"]["by"]


NAME = text(40, r"[a-z][a-z0-9_-]*", "small letters, digits, - and _, a letter first")
ESTIMATE = structure(mean=number(), ci95=sequence(number(), 2, 2))
SHA256 = text(64, "[0-9a-f]{64}", "a SHA-256 in hexadecimal")
SETTING = structure(
    scenario=text(60),
    num_agents=whole(1, 10**6),
    coordination_interval=whole(1, 10**6),
    executor=text(60),
    files=mapping(NAME, SHA256, 0, 8),
    params=text(16, "[0-9a-f]{16}", "16 of them hexadecimal"),
)
DESCRIPTION = {
    "name": text(60),
    "kind": one_of(*KINDS),
    "by": text(60),
    "link": or_null(
        text(200, r"https://[A-Za-z0-9.-]+(/[A-Za-z0-9._~/?=&%+-]*)?", "an address that begins with https://")
    ),
    "about": or_null(text(240)),
    "training": or_null(
        structure(
            plays=whole(1, 10**15),
            runs=whole(1, 1000),
            command=or_null(text(400)),
            trains_executors=one_of(False, True),
        )
    ),
}
"""What is said of a method."""
MADE_BY = {
    "commit": or_null(text(200, r"[\w., -]+", "commits as git names them, with a comma between them")),
    "date": or_null(text(10, r"\d{4}-\d{2}-\d{2}", "a date as 2026-01-31")),
    "device": or_null(text(120)),
}
PROVENANCE = structure(versions=mapping(NAME, or_null(text(60)), 0, 30), **MADE_BY)
SCHEMA = structure(
    format=one_of(FORMAT),
    setting=SETTING,
    protocol=structure(
        split=one_of("test"), seed=or_null(whole(0, 2**32 - 1)), queries=whole(2, 10**8), replicates=whole(1, 10**6)
    ),
    entry=structure(**DESCRIPTION, status=one_of("self-reported", "verified")),
    artifact=or_null(SHA256),
    verification=or_null(structure(queries=whole(2, 10**8), seeds=SHA256, reward=ESTIMATE, **MADE_BY)),
    provenance=PROVENANCE,
    metrics=mapping(NAME, ESTIMATE, 1, 40),
    runs=sequence(structure(seed=or_null(whole(0, 2**63)), metrics=mapping(NAME, number(), 1, 40)), 1, 1000),
    score=or_null(ESTIMATE),
)
"""What a file holds; what its parts have to do with each other is checked after that."""


# --- checks of what belongs together


def check_entry(result: Result) -> None:
    """Refuse training that a kind cannot have, and runs that do not go with it."""
    entry, runs = result["entry"], result["runs"]
    kind, training = entry["kind"], entry["training"]
    seeds = [run["seed"] for run in runs]
    refuse(kind in UNTRAINED and training is not None, f"entry.training has to be null: no training makes a {kind}")
    refuse(kind == "learned" and training is None, "entry.training is null; say how a learned method was trained")
    if training is None:
        refuse(seeds != [None], "runs has to be one run whose seed is null: what was not trained is one run")
        return
    refuse(
        training["runs"] != len(runs),
        f"entry.training.runs is {training['runs']} and runs has {len(runs)}; every training run has to be there",
    )
    refuse(None in seeds, "a run's seed is null; every training run needs the seed that it began with")
    refuse(len(set(seeds)) < len(seeds), "two of the runs have the same seed; every run has to be there once")


def _check_status(result: Result) -> None:
    """Refuse a verified row that does not say what was verified, and how."""
    verified, verification = result["entry"]["status"] == "verified", result["verification"]
    refuse(verified and not verification, "verification is null for a verified row; jaxmas verify sets both")
    refuse(not verified and bool(verification), "verification has to be null: entry.status is 'self-reported'")
    refuse(verified and result["artifact"] is None, "artifact is null; a verified row names the policy that was played")
    secret = result["protocol"]["seed"] is None
    rows = "protocol.seed has to be null for a verified row, which is of secret queries, and for no other"
    refuse(verified != secret, rows)
    if verified:
        _check_interval("verification.reward", verification["reward"])


def _check_metrics(result: Result) -> None:
    """Refuse means outside their intervals, and those that are not the means of the runs."""
    metrics, runs = result["metrics"], result["runs"]
    for index, run in enumerate(runs):
        other = sorted(set(run["metrics"]) ^ set(metrics))
        refuse(bool(other), f"runs[{index}] and metrics differ in {', '.join(other)}; both need the same metrics")
    for name, estimate in metrics.items():
        _check_interval(f"metrics.{name}", estimate)
        mean = float(np.mean([run["metrics"][name] for run in runs]))
        refuse(
            not math.isclose(mean, estimate["mean"], rel_tol=TOLERANCE, abs_tol=TOLERANCE),
            f"metrics.{name}.mean is {estimate['mean']:g} and the mean of the runs is {mean:g}; they have to agree",
        )
    success = metrics.get("success", {"ci95": [0.0, 1.0]})["ci95"]
    refuse(not -TOLERANCE <= success[0] <= success[1] <= 1 + TOLERANCE, "metrics.success has to lie between 0 and 1")


def _check_interval(where: str, estimate: Mapping[str, Any]) -> None:
    low, high = estimate["ci95"]
    inside = low - TOLERANCE <= estimate["mean"] <= high + TOLERANCE
    refuse(not inside, f"{where}.mean is {estimate['mean']:g}; it has to lie within its ci95, {low:g} to {high:g}")


def check_world(setting: Mapping[str, Any]) -> None:
    """Refuse a setting that is not one of the scenarios as they are installed."""
    scenario, files = SCENARIOS[setting["scenario"]], setting["files"]
    executor, known = setting["executor"], EXECUTORS.names(SCENARIOS.entry(scenario.name).family)
    refuse(
        executor not in known,
        f"setting.executor is {shown(executor)}, not a registered one; {did_you_mean(executor, known)}",
    )
    for name in files:
        refuse(name not in scenario.files, f"setting.files has {name}; {scenario.name} is made of no such file")
    if files:
        return
    env, params = _world(scenario.name, setting["num_agents"], setting["coordination_interval"])
    found = anchors.params_hash(params)
    refuse(
        setting["params"] != found,
        f"setting.params is {setting['params']} and the installed {scenario.name} has {found}: it was changed, or "
        "is of another version; play the method again with this one",
    )
    for name in ("num_agents", "coordination_interval"):
        refuse(setting[name] != getattr(env, name), f"setting.{name} is {setting[name]}, not {getattr(env, name)}")


@functools.cache
def _world(scenario: str, num_agents: int, coordination_interval: int) -> tuple[Any, Any]:
    """Return environment and parameters of an installed scenario."""
    return jaxmas.make(scenario, num_agents=num_agents, coordination_interval=coordination_interval)


def _check_score(result: Result) -> None:
    """Refuse a score that is not the one that the frozen anchors give."""
    given, training = result["score"], result["entry"]["training"]
    if training is not None and training["trains_executors"]:
        refuse(given is not None, "score has to be null: anchors do not hold for executors that were trained")
        return
    right = score(result["setting"], result["metrics"].get("reward"))
    if right is None:
        refuse(given is not None, "score has to be null: no anchors are frozen for this setting, or there is no reward")
        return
    refuse(given is None, f"score is null; with this reward it is {right['mean']:.4f}")
    for mine, theirs in zip(_numbers(right), _numbers(given), strict=True):
        refuse(
            not math.isclose(mine, theirs, rel_tol=10 * TOLERANCE, abs_tol=10 * TOLERANCE),
            f"score has {theirs:g} where the anchors give {mine:g}; leave it to jaxmas.result_files.score",
        )


def _numbers(estimate: Mapping[str, Any]) -> Iterator[float]:
    yield estimate["mean"]
    yield from estimate["ci95"]
