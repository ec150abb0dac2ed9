"""The executors of ``workflow``: the exact rule, and the frozen networks that ship with the package."""

import functools
from typing import Any

from jaxmas.environments.workflow.observe import feature_size
from jaxmas.environments.workflow.scripted import ScriptedExecutor
from jaxmas.errors import JaxmasError
from jaxmas.executors import MLPExecutor, read_frozen
from jaxmas.registry import EXECUTORS

FROZEN_LEVELS = (60, 75, 90, 98)
"""Accuracy in percent on single, role-matched subtasks seen cleanly."""
VERSION = "workflow-v0"


def frozen_name(level: int) -> str:
    """Return the name of a frozen executor, and of its file."""
    return f"{VERSION}-{level}"


def load_frozen(level: int, env: Any, params: Any) -> tuple[MLPExecutor, Any]:
    """Return a frozen executor; its file is checked against the recorded SHA-256."""
    weights, metadata = read_frozen(frozen_name(level))
    size = feature_size(params.mismatch.shape[1])
    if metadata["features"] != size:
        raise JaxmasError(
            f"frozen executor {frozen_name(level)} sees {metadata['features']} features, this world has {size}: "
            "train one for it with python -m jaxmas.experiments.frozen_executors"
        )
    return MLPExecutor(env.num_actions, tuple(metadata["hidden"])), weights


def _scripted(error: float, env: Any, params: Any) -> tuple[ScriptedExecutor, Any]:
    return ScriptedExecutor(), {"tables": params.tables, "error": error}


for _level in FROZEN_LEVELS:
    EXECUTORS.add(
        f"frozen-{_level}",
        functools.partial(load_frozen, _level),
        f"network trained by imitation to {_level} % on single subtasks, never trained again",
        "workflow",
    )
for _error in (0, 5, 10):
    EXECUTORS.add(
        "scripted" if _error == 0 else f"scripted-{100 - _error}",
        functools.partial(_scripted, _error / 100),
        "the exact rule" + (f" with {_error} % independent mistakes" if _error else ""),
        "workflow",
    )
