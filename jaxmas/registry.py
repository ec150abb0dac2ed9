"""The one registry: scenarios, strategies, plan templates, design spaces, algorithms and executors by name.

Whatever is registered is met by the same contract tests and shown by ``jaxmas list``.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from jaxmas.errors import JaxmasError, did_you_mean, refuse

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered thing: its name, one line about it, and the environment family it is for ("" is any)."""

    name: str
    summary: str
    value: T
    family: str = ""


class Registry(Generic[T]):
    """Names to things, in the order of registration."""

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def add(self, name: str, value: T, summary: str, family: str = "") -> T:
        """Register a thing; a name can be taken once."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = Entry(name, summary, value, family)
        return value

    def register(self, name: str, summary: str = "", family: str = "") -> Callable[[T], T]:
        """Register a function or class; its docstring's first line is the summary by default."""

        def decorate(value: T) -> T:
            line = summary or (value.__doc__ or "").strip().split("\n")[0]
            return self.add(name, value, line, family)

        return decorate

    def __getitem__(self, name: str) -> T:
        return self.entry(name).value

    def entry(self, name: str) -> Entry[T]:
        """Return an entry, or say which names there are."""
        if name not in self._entries:
            raise JaxmasError(f"unknown {self.kind} {name!r}; {did_you_mean(name, list(self._entries))}")
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(self._entries.values())

    def names(self, family: str | None = None) -> list[str]:
        """Return the names, of one environment family where given."""
        return [entry.name for entry in self if family is None or entry.family in ("", family)]


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A versioned configuration of an environment. The version is bumped when its behaviour changes."""

    name: str
    make: Callable[..., tuple[Any, Any]]
    """``make(num_agents, coordination_interval=None, **options)`` returns the environment and its parameters."""
    num_agents: int
    """The default number of agents."""
    executor: str
    """The name of the executor that ranked results use."""
    files: tuple[str, ...] = ()
    """Options of ``make`` that name a file to make the scenario of; without one it has numbers of its own."""

    def build(self, num_agents: int | None = None, **options: Any) -> tuple[Any, Any]:
        """Return the environment and its parameters; sizes that cannot be raise a ``JaxmasError``.

        An option that is None is left to the scenario, the number of agents to its file where it is made of one.
        """
        given = {name: value for name, value in options.items() if value is not None}
        for name in set(given) - set(self.files):
            takers = [entry.name for entry in SCENARIOS if name in entry.value.files]
            refuse(bool(takers), f"{self.name} takes no {name}; {' and '.join(takers)} does")
        count = self.num_agents if num_agents is None else num_agents
        refuse(count < 1, f"{self.name}: num_agents is {count}; it has to be at least 1")
        left_to_file = num_agents is None and set(self.files) & set(given)
        try:
            return self.make(*() if left_to_file else (count,), **given)
        except TypeError as error:
            raise JaxmasError(f"{self.name}: {error}") from error


SCENARIOS: Registry[Scenario] = Registry("scenario")
STRATEGIES: Registry[Callable[..., Any]] = Registry("strategy")
"""Name to ``make(env, params) -> MetaPolicy``; ``params`` may be None."""
TEMPLATES: Registry[Any] = Registry("template family")
"""Environment family to ``Templates``: the rows of the template design space."""
EXECUTORS: Registry[Callable[..., Any]] = Registry("executor")
"""Name to ``load(env, params) -> (Executor, its parameters)``."""
DESIGN_SPACES: Registry[Any] = Registry("design space")
"""Name to ``make(env) -> space``."""
LEARNERS: Registry[Any] = Registry("learner")
"""Name to a ``Learner`` of designs."""
ALGORITHMS: Registry[Any] = Registry("algorithm")
"""Name to its configuration class; ``jaxmas.training.train`` runs it."""
