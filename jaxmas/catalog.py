"""Everything that is registered: importing this module imports the environments and algorithms."""

import importlib

from jaxmas.registry import ALGORITHMS, EXECUTORS, SCENARIOS, STRATEGIES, TEMPLATES

__all__ = ["ALGORITHMS", "EXECUTORS", "SCENARIOS", "STRATEGIES", "TEMPLATES"]

for _package in ("jaxmas.environments", "jaxmas.algorithms"):
    importlib.import_module(_package).register()
