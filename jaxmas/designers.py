"""Designers that learn over frozen executors: the settings and the update that every such system shares.

One update draws queries, lets the designer plan, plays the plans with frozen executors, weighs what came of them, and
hands it to a learner. A published system is a design space, a learner, and what its own file changes of these.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxmas.design_policies import LearnedPolicy
from jaxmas.errors import check_numbers, refuse
from jaxmas.groups import GroupSizes, play_groups
from jaxmas.learners import LEARNERS, Learner
from jaxmas.pytrees import pytree
from jaxmas.registry import DESIGN_SPACES
from jaxmas.rollout import MetaStep, Policies
from jaxmas.types import Environment, MetaPolicy, TeamObservation

SpaceName = Literal[
    "template", "slots", "pairs", "script", "script-free", "cascade", "graph", "graph-fixed", "layers", "steps"
]
LearnerName = Literal[
    "group", "ppo", "grpo", "reinforce", "reinforce-baseline", "evolution", "distil", "mcts", "archive"
]


@dataclasses.dataclass(frozen=True)
class DesignerConfig:
    """Settings of a designer that learns over frozen executors."""

    called: ClassVar[str] = "designer"
    """The algorithm's name, for messages."""
    space: SpaceName = "template"
    """How the designer expresses a plan."""
    learner: LearnerName = "group"
    updates: int = 400
    queries: int = 96
    """Queries per update."""
    plans: int = 12
    """Plans per query; PPO plays each of them as a query of its own, evolution one per member of its population, and
    search that many designs on all queries."""
    shared_noise: bool = True
    """Let the plans of one query meet the same environment noise (not PPO)."""
    learning_rate: float = 3e-3
    entropy: float = 0.05
    final_entropy: float = 0.02
    max_gradient: float = 1.0
    width: int = 128
    sees: Literal["all", "global", "nothing"] = "all"
    """What the policy sees of a query: everything, the global features only, or nothing (references)."""
    epochs: int = 4
    """Passes over the batch of an update; REINFORCE makes one."""
    minibatches: int = 4
    """PPO: parts that a pass is made in."""
    clip: float = 0.2
    discount: float = 1.0
    trace: float = 0.95
    value_weight: float = 0.5
    deviation: float = 0.1
    """Evolution: of the weights of its population."""
    temperature: float = 0.1
    """Distillation: the teacher's designs are imitated in proportion to exp(reward / temperature)."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        check = functools.partial(check_numbers, self.called, self)
        check(("updates", "queries", "plans", "width", "epochs", "minibatches"), 1)
        check(("learning_rate", "entropy", "final_entropy", "max_gradient", "clip", "value_weight"), 0)
        check(("discount", "trace"), 0, 1)
        for name in ("deviation", "temperature"):
            refuse(not getattr(self, name) > 0, f"{self.called}: {name} is {getattr(self, name)}; it has to be above 0")
        self.how.check(self)

    @property
    def how(self) -> Learner:
        """Return the learner."""
        return LEARNERS[self.learner]

    @property
    def sizes(self) -> GroupSizes:
        """Return what is played in an update."""
        return self.how.sizes(self)

    def policy(self, env: Environment, greedy: bool = False) -> LearnedPolicy:
        """Return the designer as a meta-policy of its network's weights."""
        return LearnedPolicy(DESIGN_SPACES[self.space](env, self.width), greedy, self.sees)

    def utility(self, step: MetaStep) -> Float[Array, ""]:
        """Return what is learned from: the scenario's reward, unless a system weighs success and cost otherwise."""
        return step.reward

    def designer(self, env: Environment, state: "TrainState", greedy: bool = False) -> tuple[MetaPolicy, Any]:
        """Return the meta-policy that is trained, and its parameters."""
        return self.how.deployed(self, self.policy(env, greedy), state.params)

    def executor(self, env: Environment, state: "TrainState") -> None:
        """Return nothing: executors are frozen."""

    def initial_state(
        self, env: Environment, params: Any, key: PRNGKeyArray, start: Policies | None = None
    ) -> "TrainState":
        """Return the state before the first update; it owes nothing to the policies that the run starts from."""
        return initial_state(self, env, params, key)

    def update(self, env: Environment, params: Any, start: Policies, state: "TrainState"):
        """Play and learn once."""
        return update(self, env, params, start, state)


@pytree
class TrainState:
    """All that a run needs to go on."""

    params: Any
    optimiser: Any
    """What the learner remembers besides."""
    key: PRNGKeyArray
    update: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One update's queries, and how far training has come: what a learner may try its designers on."""

    play: Callable[..., MetaStep]
    """``play(meta, meta_params, sizes=config.sizes)`` returns utilities and all else, ``[queries, designs,
    boundaries]``."""
    team: TeamObservation
    """What a designer sees of one query, for search without a query."""
    progress: Float[Array, ""]
    key: PRNGKeyArray


def initial_state(config: DesignerConfig, env: Environment, params: Any, key: PRNGKeyArray) -> TrainState:
    """Return the state before the first update."""
    init_key, team_key, key = jax.random.split(key, 3)
    _, team = env.reset(team_key, params)
    weights, memory = config.how.begin(config, config.policy(env), init_key, team)
    return TrainState(weights, memory, key, jnp.int32(0))


def update(
    config: DesignerConfig, env: Environment, params: Any, start: Policies, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """Draw queries, let the learner play plans on them, and learn once."""
    key, query_key, play_key, learn_key = jax.random.split(state.key, 4)

    def play(meta: MetaPolicy, meta_params: Any, sizes: GroupSizes = config.sizes) -> MetaStep:
        policies = dataclasses.replace(start, meta=meta, meta_params=meta_params)
        steps, _ = play_groups(env, params, policies, query_key, play_key, sizes, discount=config.discount)
        steps = jax.tree.map(lambda leaf: leaf[:, :, 0], steps)
        return jax.vmap(jax.vmap(jax.vmap(weigh)))(steps)

    def weigh(step: MetaStep) -> MetaStep:
        return dataclasses.replace(step, reward=config.utility(step))

    team = env.reset(query_key, params)[1]
    trial = Trial(play, team, state.update / config.updates, learn_key)
    weights, memory, logs = config.how.learn(config, config.policy(env), trial, state.params, state.optimiser)
    return TrainState(weights, memory, key, state.update + 1), logs


def at_the_end(step: MetaStep, earned: Float[Array, ""]) -> Float[Array, ""]:
    """Return what a query earned at the decision in whose interval it ended, and nothing before and after."""
    return jnp.where((step.terminated | step.truncated) & (step.steps > 0), earned, 0.0)


@dataclasses.dataclass(frozen=True)
class PricedConfig(DesignerConfig):
    """Settings of a designer that weighs success against cost alone, whatever else the scenario charges for."""

    cost_weight: float = 0.12
    """λ: what a cost of 1 is worth in successes."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        super().__post_init__()
        check_numbers(self.called, self, ("cost_weight",), 0)

    def utility(self, step: MetaStep) -> Float[Array, ""]:
        """Return success − λ · cost, at the end of a query."""
        return at_the_end(step, step.metrics["success"] - self.cost_weight * step.metrics["cost"])
