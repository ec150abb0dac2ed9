"""Probe environments: tiny worlds whose optimal value is known exactly, to test learners with.

One agent slot matters at most, an episode lasts one or two plan intervals, and the executor only has to act at all.
The plan's ``tier`` of slot 0 is the designer's choice.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxmas.distributions import Categorical
from jaxmas.plans import Plan, PlanSpace
from jaxmas.pytrees import pytree
from jaxmas.registry import EXECUTORS, SCENARIOS, TEMPLATES, Scenario
from jaxmas.types import Environment, Observation, TeamObservation, TimeStep


@pytree
class ProbeParams:
    """What each tier earns in each context ``[contexts, tiers]``, now and, with two intervals, at the second plan."""

    payoff: Float[Array, "contexts tiers"]
    later: Float[Array, "contexts tiers"]


@pytree
class ProbeState:
    """The context that the designer sees, the tier that it chose, and the time."""

    context: Int[Array, ""]
    tier: Int[Array, ""]
    step: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Probe(Environment):
    """A context, a choice of tier, a payoff; with two intervals the first choice sets the second context."""

    family: ClassVar[str] = "probe"
    num_agents: int = 2
    contexts: int = 2
    tiers: int = 2
    horizon: int = 1
    coordination_interval: int = 1

    @property
    def plan_space(self) -> PlanSpace:
        """Return the legal plans: the tier alone matters."""
        return PlanSpace(self.num_agents, 1, 1, self.tiers, 1, 1, fields=("tier",))

    @property
    def num_actions(self) -> int:
        """Return the number of actions: one."""
        return 1

    def reset(self, key: PRNGKeyArray, params: ProbeParams) -> tuple[ProbeState, TeamObservation]:
        """Draw a context."""
        context = jax.random.randint(key, (), 0, self.contexts)
        state = ProbeState(context, jnp.int32(0), jnp.int32(0))
        return state, self.observe_team(state, params)

    def reseed(self, key: PRNGKeyArray, state: ProbeState, params: ProbeParams) -> ProbeState:
        """Return the state: nothing here is noisy."""
        return state

    def coordinate(
        self, key: PRNGKeyArray, state: ProbeState, plan: Plan, params: ProbeParams
    ) -> tuple[ProbeState, Observation]:
        """Take up the chosen tier; at the second plan the first choice has become the context."""
        plan, _ = self.plan_space.project(plan)
        over = self.is_over(state)
        context = jnp.where((state.step > 0) & ~over, jnp.minimum(state.tier, self.contexts - 1), state.context)
        tier = jnp.where(over, state.tier, plan.tier[0])
        state = ProbeState(context, tier, state.step)
        return state, self._observe(state)

    def step(
        self, key: PRNGKeyArray, state: ProbeState, actions: Int[Array, "num_agents"], params: ProbeParams
    ) -> tuple[ProbeState, TimeStep]:
        """Pay for the chosen tier."""
        over = self.is_over(state)
        payoff = jnp.where(state.step == 0, params.payoff, params.later)[state.context, state.tier]
        state = ProbeState(state.context, state.tier, state.step + ~over)
        reward = jnp.where(over, 0.0, payoff)
        timestep = TimeStep(
            observation=self._observe(state),
            reward=reward,
            agent_reward=jnp.zeros(self.num_agents),
            terminated=self.is_over(state),
            truncated=jnp.array(False),
            metrics={"success": payoff, "cost": jnp.float32(0)},
        )
        return state, timestep

    def is_over(self, state: ProbeState) -> Array:
        """Return whether the horizon is reached."""
        return state.step >= self.horizon

    def observe_team(self, state: ProbeState, params: ProbeParams) -> TeamObservation:
        """Show the context; after the first plan, the tier that was chosen."""
        shown = jnp.where(state.step > 0, jnp.minimum(state.tier, self.contexts - 1), state.context)
        context = jax.nn.one_hot(shown, self.contexts)
        time = (state.step > 0).astype(jnp.float32)
        return TeamObservation(
            task_tokens=context[None],
            task_mask=jnp.ones(1, bool),
            task_parents=jnp.zeros((1, 0), jnp.int32),
            agent_tokens=jnp.zeros((self.num_agents, 1)),
            agent_mask=jnp.ones(self.num_agents, bool),
            pair_features=jnp.zeros((self.num_agents, 1, 0)),
            global_features=jnp.concatenate([context, time[None]]),
        )

    def _observe(self, state: ProbeState) -> Observation:
        agents = jnp.zeros(self.num_agents, jnp.int32)
        acting = jnp.ones(self.num_agents, bool) & ~self.is_over(state)
        mask = jnp.ones((self.num_agents, 1), bool)
        return Observation(jnp.zeros((self.num_agents, 1)), agents, agents + state.tier, mask, acting)


@dataclasses.dataclass(frozen=True)
class ProbeTemplates:
    """One row per tier."""

    rows: tuple[tuple[int, ...], ...] = ((0,), (1,))
    parts: ClassVar[dict[str, tuple[str, ...]]] = {"tier": ()}
    """The one column; its values are plain numbers."""

    def table(self) -> Int[Array, "rows"]:
        """Return the tiers."""
        return jnp.array([row[0] for row in self.rows])

    def row(self, row: tuple[int, ...]) -> Int[Array, ""]:
        """Return one tier."""
        return jnp.int32(row[0])

    def build(self, env: Probe, row: Int[Array, ""], team: TeamObservation) -> Plan:
        """Give the tier to every slot."""
        plan = env.plan_space.empty()
        return env.plan_space.project(dataclasses.replace(plan, active=~plan.active, tier=plan.tier + row))[0]

    def describe(self, row: tuple[int, ...]) -> str:
        """Name the tier."""
        return f"tier {row[0]}"


@dataclasses.dataclass(frozen=True)
class ActExecutor:
    """Takes the only action there is."""

    def init(self, num_agents: int) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(self, params, carry: tuple, observation: Observation, mask, key) -> tuple[tuple, Categorical]:
        """Return a distribution over one action."""
        return carry, Categorical(logits=jnp.zeros(observation.action_mask.shape))


def _bandit(num_agents: int, *, coordination_interval: int = 1) -> tuple[Probe, ProbeParams]:
    payoff = jnp.array([[0.2, 1.0], [0.2, 1.0]])
    return Probe(num_agents, coordination_interval=coordination_interval), ProbeParams(payoff, payoff)


def _context(num_agents: int, *, coordination_interval: int = 1) -> tuple[Probe, ProbeParams]:
    payoff = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    return Probe(num_agents, coordination_interval=coordination_interval), ProbeParams(payoff, payoff)


def _delayed(num_agents: int, *, coordination_interval: int = 1) -> tuple[Probe, ProbeParams]:
    now = jnp.array([[0.3, 0.0], [0.3, 0.0]])
    later = jnp.array([[0.0, 0.0], [0.0, 1.0]])
    return Probe(num_agents, horizon=2, coordination_interval=coordination_interval), ProbeParams(now, later)


TEMPLATES.add("probe", ProbeTemplates(), "one template per tier", "probe")
EXECUTORS.add("act", lambda env, params: (ActExecutor(), None), "takes the only action", "probe")
OPTIMAL = {"probe-bandit-v0": 1.0, "probe-context-v0": 1.0, "probe-delayed-v0": 1.0}
"""The best mean return of each probe."""
for _name, _make, _summary in (
    ("probe-bandit-v0", _bandit, "one choice, no context: the learner finds the better arm"),
    ("probe-context-v0", _context, "the right choice depends on what the designer sees"),
    ("probe-delayed-v0", _delayed, "the greedy first choice forgoes the reward of the second"),
):
    SCENARIOS.add(_name, Scenario(_name, _make, 2, "act"), _summary, "probe")
