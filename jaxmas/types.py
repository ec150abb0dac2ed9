"""The contract: observations, time steps, and the interfaces of environments, meta-policies and executors.

Agents are always a leading array axis. Shapes are written once, in the annotations; ``num_agents``, ``tasks`` and
``inbox`` mean the same everywhere.
"""

import abc
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from jaxmas.errors import refuse
from jaxmas.plans import Plan, PlanSpace
from jaxmas.pytrees import pytree

Scalar: TypeAlias = float | Float[Array, ""]
"""A number among the settings; a sweep gives each run of a program its own."""


@pytree
class Observation:
    """What the agents see: one row each."""

    features: Float[Array, "num_agents features"]
    role: Int[Array, "num_agents"]
    tier: Int[Array, "num_agents"]
    action_mask: Bool[Array, "num_agents actions"]
    """Which actions are legal."""
    acting: Bool[Array, "num_agents"]
    """Has this agent something to do in this step? Others are masked out of actions and losses."""


@pytree
class TeamObservation:
    """What the meta-policy sees at a plan boundary: tokens with masks, so that any team size fits one network."""

    task_tokens: Float[Array, "tasks task_features"]
    task_mask: Bool[Array, "tasks"]
    task_parents: Int[Array, "tasks parents"]
    """Which tasks each task depends on; -1 is none, size 0 where an environment has no graph."""
    agent_tokens: Float[Array, "num_agents agent_features"]
    agent_mask: Bool[Array, "num_agents"]
    pair_features: Float[Array, "num_agents tasks pair_features"]
    """Agent-task features, last axis of size 0 where an environment has none."""
    global_features: Float[Array, "global_features"]
    """Numbers of about 0 to 1: networks centre and scale them for that range."""


@pytree
class TimeStep:
    """The outcome of one executor step."""

    observation: Observation
    reward: Float[Array, ""]
    agent_reward: Float[Array, "num_agents"]
    """What each agent did by itself, a help to executors' learning; no score counts it."""
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    metrics: dict[str, Shaped[Array, ""]]
    """Running totals of the episode; those at its last step describe it."""


class Environment(abc.ABC):
    """A two-timescale game of static sizes; a frozen, hashable dataclass, safe as a jit-static argument.

    ``params`` is a pytree of numbers, so that scenarios can be mapped over and shifted without recompiling. All
    methods take one instance; callers ``vmap``.
    """

    family: ClassVar[str]
    """The environment's name, by which strategies, templates and renderers find it."""
    num_agents: int
    horizon: int
    """Executor steps after which an episode is over at the latest."""
    coordination_interval: int
    """Steps between plans; ``== horizon`` means one plan per query."""

    def __post_init__(self) -> None:
        """Refuse no agents, and an interval that does not divide the horizon."""
        refuse(self.num_agents < 1, f"num_agents is {self.num_agents}; it has to be at least 1")
        interval = self.coordination_interval
        wrong = interval < 1 or self.horizon % interval != 0
        refuse(wrong, f"coordination_interval is {interval}; it has to divide the horizon of {self.horizon}")

    @property
    @abc.abstractmethod
    def plan_space(self) -> PlanSpace:
        """Return the legal plans."""

    @property
    @abc.abstractmethod
    def num_actions(self) -> int:
        """Return the number of executor actions."""

    @abc.abstractmethod
    def reset(self, key: PRNGKeyArray, params: Any) -> tuple[Any, TeamObservation]:
        """Draw a query. Nobody has a plan yet."""

    @abc.abstractmethod
    def reseed(self, key: PRNGKeyArray, state: Any, params: Any) -> Any:
        """Give a freshly reset query new noise, so that one query can be met many times."""

    @abc.abstractmethod
    def coordinate(self, key: PRNGKeyArray, state: Any, plan: Plan, params: Any) -> tuple[Any, Observation]:
        """Apply a plan; the agents' observations follow from it."""

    @abc.abstractmethod
    def step(
        self, key: PRNGKeyArray, state: Any, actions: Int[Array, "num_agents"], params: Any
    ) -> tuple[Any, TimeStep]:
        """Take one executor step. An episode that is over stays as it is and pays nothing."""

    @abc.abstractmethod
    def is_over(self, state: Any) -> Bool[Array, ""]:
        """Return whether the episode has terminated or been truncated."""

    def steps_left(self, state: Any) -> Int[Array, ""]:
        """Return after how many executor steps the episode is over at the latest: what need not be computed."""
        return jnp.int32(self.horizon)

    @abc.abstractmethod
    def observe_team(self, state: Any, params: Any) -> TeamObservation:
        """Return what the meta-policy sees; asked for at plan boundaries only."""


@runtime_checkable
class MetaPolicy(Protocol):
    """Maps team observations to plans. Strategies, search results, networks and submissions are all this."""

    def init(self) -> Any:
        """Return the carry at the start of a query."""
        ...

    def apply(
        self, params: Any, carry: Any, team: TeamObservation, key: PRNGKeyArray
    ) -> tuple[Plan, Any, dict[str, Any]]:
        """Return a plan, the next carry, and what learners want to remember of the decision."""
        ...


@runtime_checkable
class Executor(Protocol):
    """The small policy that every agent runs at each step."""

    def init(self, num_agents: int) -> Any:
        """Return the carry at the start of a query; it survives re-planning."""
        ...

    def apply(
        self,
        params: Any,
        carry: Any,
        observation: Observation,
        mask: Bool[Array, "num_agents"],
        key: PRNGKeyArray,
    ) -> tuple[Any, Any]:
        """Return the next carry and a distribution over actions, one row per agent."""
        ...
