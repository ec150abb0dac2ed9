"""Frozen anchors: what random play and the best hand-crafted strategy earn, per scenario version and setting.

The coordination score stands between them. Anchors, and the rows that strategies were tuned to, are package data
written by ``python -m jaxmas.experiments.freeze``; they change only with a scenario's version.
"""

import functools
import hashlib
import json
from importlib import resources
from typing import Any

import jax
import numpy as np

from jaxmas.statistics import coordination_score as score_between


@functools.cache
def frozen_anchors() -> dict[str, Any]:
    """Return all anchors, by setting."""
    text = (resources.files("jaxmas") / "data" / "anchors.json").read_text()
    return json.loads(text)


def setting(scenario: str, env: Any, executor: str) -> str:
    """Return the name of a setting that anchors are frozen for."""
    return f"{scenario}/agents={env.num_agents}/interval={env.coordination_interval}/{executor}"


def params_hash(params: Any) -> str:
    """Return a hash of a scenario's numbers: two worlds are the same where it agrees."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
    return digest.hexdigest()[:16]


def coordination_score(scenario: str, env: Any, params: Any, executor: str, reward: float) -> float | None:
    """Return (reward − random) / (best strategy − random), or None where no anchors were frozen for the setting.

    Anchors hold for one scenario version, size, interval, executor and one set of numbers: overridden parameters get
    no score, nor do settings in which random and the best strategy differ by less than five standard errors.
    """
    anchor = frozen_anchors().get(setting(scenario, env, executor))
    if anchor is None or anchor["params"] != params_hash(params):
        return None
    errors = (anchor["random"]["standard_error"], anchor["strategy"]["standard_error"])
    return score_between(reward, anchor["random"]["mean"], anchor["strategy"]["mean"], standard_errors=errors)


def tuned_row(strategy: str, env: Any, params: Any = None) -> tuple[int, ...] | None:
    """Return the row that a strategy was tuned to for these numbers, else on the first world of this shape.

    None where no world of this shape was ever frozen.
    """
    anchors = [anchor for anchor in frozen_anchors().values() if anchor["shape"] == shape_name(env)]
    wanted = None if params is None else params_hash(params)
    exact = [anchor for anchor in anchors if anchor["params"] == wanted]
    row = (exact or anchors)[0]["tuned"].get(strategy) if anchors else None
    return tuple(row) if row else None


def shape_name(env: Any) -> str:
    """Return the environment shape that tuned strategies belong to."""
    return f"{env.family}/tasks={env.plan_space.num_tasks}/tiers={env.plan_space.num_tiers}"
