"""Signal probes: tiny worlds in which the executors have to learn, with an optimum that is known exactly.

All agents answer in the last step of an episode, whoever is on the team, and only these answers are paid. The right one
depends on a context, which the designer alone sees, and on a cue of each agent's own, which it alone sees and only in
the first step. The plan's ``role`` is all that an agent hears of the designer.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxmas.plans import Plan, PlanSpace
from jaxmas.pytrees import pytree
from jaxmas.registry import SCENARIOS, TEMPLATES, Scenario
from jaxmas.types import Environment, Observation, TeamObservation, TimeStep


@pytree
class SignalParams:
    """Which answer is right, and what right answers earn."""

    answer: Int[Array, "contexts symbols"]
    single: Float[Array, ""]
    """What an agent that is right earns; the team gets the mean over agents."""
    joint: Float[Array, ""]
    """What the team earns if all agents are right."""


@pytree
class SignalState:
    """What the designer sees, what the agents see, the time, and what the team has earned."""

    context: Int[Array, ""]
    cue: Int[Array, "num_agents"]
    role: Int[Array, "num_agents"]
    step: Int[Array, ""]
    success: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Signal(Environment):
    """A context, a role and a cue for each agent, an answer in the last step."""

    family: ClassVar[str] = "signal"
    num_agents: int = 2
    contexts: int = 1
    symbols: int = 1
    """Values of a cue; a single one says nothing."""
    roles: int = 2
    answers: int = 2
    horizon: int = 1
    coordination_interval: int = 1

    @property
    def plan_space(self) -> PlanSpace:
        """Return the legal plans: the role alone matters."""
        return PlanSpace(self.num_agents, 1, self.roles, 1, 1, 1, fields=("role",))

    @property
    def num_actions(self) -> int:
        """Return the number of answers."""
        return self.answers

    def reset(self, key: PRNGKeyArray, params: SignalParams) -> tuple[SignalState, TeamObservation]:
        """Draw a context and cues."""
        context_key, cue_key = jax.random.split(key)
        context = jax.random.randint(context_key, (), 0, self.contexts)
        role = jnp.zeros(self.num_agents, jnp.int32)
        state = SignalState(context, self._cues(cue_key), role, jnp.int32(0), jnp.float32(0))
        return state, self.observe_team(state, params)

    def reseed(self, key: PRNGKeyArray, state: SignalState, params: SignalParams) -> SignalState:
        """Draw the cues anew: to the designer they are noise."""
        return dataclasses.replace(state, cue=self._cues(key))

    def coordinate(
        self, key: PRNGKeyArray, state: SignalState, plan: Plan, params: SignalParams
    ) -> tuple[SignalState, Observation]:
        """Take up the roles."""
        plan, _ = self.plan_space.project(plan)
        state = dataclasses.replace(state, role=jnp.where(self.is_over(state), state.role, plan.role))
        return state, self._observe(state)

    def step(
        self, key: PRNGKeyArray, state: SignalState, actions: Int[Array, "num_agents"], params: SignalParams
    ) -> tuple[SignalState, TimeStep]:
        """Pay for the answers of the last step."""
        over, paying = self.is_over(state), state.step == self.horizon - 1
        right = paying & (actions == params.answer[state.context, state.cue])
        agent_reward = params.single * right
        reward = jnp.mean(agent_reward) + params.joint * jnp.all(right)
        state = dataclasses.replace(state, step=state.step + ~over, success=state.success + reward)
        timestep = TimeStep(
            observation=self._observe(state),
            reward=reward,
            agent_reward=agent_reward,
            terminated=self.is_over(state),
            truncated=jnp.array(False),
            metrics={"success": state.success, "cost": jnp.float32(0)},
        )
        return state, timestep

    def is_over(self, state: SignalState) -> Array:
        """Return whether the horizon is reached."""
        return state.step >= self.horizon

    def observe_team(self, state: SignalState, params: SignalParams) -> TeamObservation:
        """Show the context and the time."""
        context = jax.nn.one_hot(state.context, self.contexts)
        return TeamObservation(
            task_tokens=context[None],
            task_mask=jnp.ones(1, bool),
            task_parents=jnp.zeros((1, 0), jnp.int32),
            agent_tokens=jnp.zeros((self.num_agents, 1)),
            agent_mask=jnp.ones(self.num_agents, bool),
            pair_features=jnp.zeros((self.num_agents, 1, 0)),
            global_features=jnp.append(context, state.step / self.horizon),
        )

    def _cues(self, key: PRNGKeyArray) -> Int[Array, "num_agents"]:
        return jax.random.randint(key, (self.num_agents,), 0, self.symbols)

    def _observe(self, state: SignalState) -> Observation:
        """Show each agent its cue (a blank after the first step), its role and the time, in this order."""
        cue = jax.nn.one_hot(state.cue, self.symbols) * (state.step == 0)
        time = jnp.full((self.num_agents, 1), state.step / self.horizon)
        return Observation(
            features=jnp.concatenate([cue, jax.nn.one_hot(state.role, self.roles), time], axis=1),
            role=state.role,
            tier=jnp.zeros(self.num_agents, jnp.int32),
            action_mask=jnp.ones((self.num_agents, self.answers), bool),
            acting=jnp.ones(self.num_agents, bool) & ~self.is_over(state),
        )


@dataclasses.dataclass(frozen=True)
class SignalTemplates:
    """One row per role."""

    rows: tuple[tuple[int, ...], ...] = ((0,), (1,))
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"role": ()}
    """The one column; its values are plain numbers."""

    def table(self) -> Int[Array, "rows"]:
        """Return the roles."""
        return jnp.array([row[0] for row in self.rows])

    def row(self, row: tuple[int, ...]) -> Int[Array, ""]:
        """Return one role."""
        return jnp.int32(row[0])

    def build(self, env: Signal, row: Int[Array, ""], team: TeamObservation) -> Plan:
        """Give the role to every slot."""
        plan = env.plan_space.empty()
        return env.plan_space.project(dataclasses.replace(plan, active=~plan.active, role=plan.role + row))[0]

    def describe(self, row: tuple[int, ...]) -> str:
        """Name the role."""
        return f"role {row[0]}"


def _params(answer: list[list[int]], *, joint: bool = False) -> SignalParams:
    return SignalParams(jnp.array(answer), jnp.float32(not joint), jnp.float32(joint))


def _cue(num_agents: int, *, coordination_interval: int = 1) -> tuple[Signal, SignalParams]:
    env = Signal(num_agents, symbols=4, answers=4, coordination_interval=coordination_interval)
    return env, _params([[2, 0, 3, 1]])


def _memory(num_agents: int, *, coordination_interval: int = 3) -> tuple[Signal, SignalParams]:
    env = Signal(num_agents, symbols=2, horizon=3, coordination_interval=coordination_interval)
    return env, _params([[1, 0]])


def _context(num_agents: int, *, coordination_interval: int = 1) -> tuple[Signal, SignalParams]:
    return Signal(num_agents, contexts=2, coordination_interval=coordination_interval), _params([[0], [1]])


def _team(num_agents: int, *, coordination_interval: int = 1) -> tuple[Signal, SignalParams]:
    return Signal(num_agents, symbols=2, coordination_interval=coordination_interval), _params([[1, 0]], joint=True)


TEMPLATES.add("signal", SignalTemplates(), "one template per role", "signal")
OPTIMAL = {"signal-cue-v0": 1.0, "signal-memory-v0": 1.0, "signal-context-v0": 1.0, "signal-team-v0": 1.0}
"""The best mean return of each signal probe."""
UNTRAINED = {"signal-cue-v0": 0.25, "signal-memory-v0": 0.5, "signal-context-v0": 0.5, "signal-team-v0": 0.25}
"""What executors earn on average that answer at random, whatever the plan; at the default numbers of agents."""
for _name, _make, _agents, _summary in (
    ("signal-cue-v0", _cue, 4, "each agent answers to its own cue"),
    ("signal-memory-v0", _memory, 2, "each agent answers to a cue that it saw two steps before"),
    (
        "signal-context-v0",
        _context,
        2,
        "the designer tells by roles what it alone sees, and agents learn what roles mean",
    ),
    ("signal-team-v0", _team, 2, "nothing is paid unless all agents answer rightly to their own cues"),
):
    SCENARIOS.add(_name, Scenario(_name, _make, _agents, "untrained"), _summary, "signal")
