"""Everything that is registered: importing this module imports the environments and algorithms."""

import importlib

from jaxmas.registry import ALGORITHMS, DESIGN_SPACES, EXECUTORS, LEARNERS, SCENARIOS, STRATEGIES, TEMPLATES

__all__ = ["ALGORITHMS", "DESIGN_SPACES", "EXECUTORS", "LEARNERS", "SCENARIOS", "STRATEGIES", "TEMPLATES"]

for _package in ("jaxmas.environments", "jaxmas.algorithms"):
    importlib.import_module(_package).register()
