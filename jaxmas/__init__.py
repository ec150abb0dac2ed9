"""jaxmas: a JAX benchmark and trainer for multi-agent coordination."""

from typing import Any

from jaxmas.errors import JaxmasError
from jaxmas.plans import Plan, PlanSpace
from jaxmas.types import Environment, Executor, MetaPolicy, Observation, TeamObservation, TimeStep

__version__ = "0.1.0"
__all__ = [
    "Environment",
    "Executor",
    "JaxmasError",
    "MetaPolicy",
    "Observation",
    "Plan",
    "PlanSpace",
    "TeamObservation",
    "TimeStep",
    "load_executor",
    "make",
    "make_strategy",
]


def make(scenario: str, **sizes: Any) -> tuple[Environment, Any]:
    """Return a registered scenario's environment and parameters.

    ``sizes`` may hold ``num_agents`` and ``coordination_interval``; what else a scenario takes, its own page says.
    """
    from jaxmas.catalog import SCENARIOS

    return SCENARIOS[scenario].build(**sizes)


def make_strategy(name: str, env: Environment, params: Any = None) -> MetaPolicy:
    """Return a hand-crafted strategy for an environment; it has no parameters.

    With the scenario's ``params`` it uses what it was tuned to on that scenario, else what suits worlds of this shape.
    """
    from jaxmas.catalog import STRATEGIES

    entry = STRATEGIES.entry(name)
    if entry.family not in ("", env.family):
        raise JaxmasError(f"strategy {name!r} is for {entry.family}, not for {env.family}; see jaxmas list")
    return entry.value(env, params)


def load_executor(name: str, env: Environment, params: Any) -> tuple[Executor, Any]:
    """Return a registered executor and its parameters."""
    from jaxmas.catalog import EXECUTORS

    return EXECUTORS[name](env, params)
