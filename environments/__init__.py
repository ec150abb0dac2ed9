"""Task environments: one file or folder each."""

import importlib

PARTS = (
    *("probes", "signals", "longchain"),
    *("workflow.executors", "workflow.pool", "workflow.scenarios"),
    *("warehouse.executors", "warehouse.scenarios"),
)
"""The modules that register scenarios and executors."""


def register() -> None:
    """Enter every scenario and executor into the registry."""
    for part in PARTS:
        importlib.import_module(f"jaxmas.environments.{part}")
