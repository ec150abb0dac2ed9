"""Meta-skill: reinforcement learning of the coordination policy while every executor stays frozen.

One update draws queries, lets the meta-policy plan, plays the plans with frozen executors and follows the policy
gradient of the team's reward. Two learners:

- ``group``: several plans per query, advantage against the other plans of the same query (leave-one-out baseline),
  several clipped epochs.
- ``ppo``: one plan per query boundary, a value network, several clipped epochs.

The file reads in the order of an update: draw → play → advantages → loss → step.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxmas.design_spaces import LearnedPolicy
from jaxmas.errors import check_numbers, refuse
from jaxmas.groups import GroupSizes, play_groups, returns, score_designs
from jaxmas.learning import against_the_others, clipped_surrogate, descend, falling_adam, gae, linear, surrogate_loss
from jaxmas.logs import log_plays
from jaxmas.pytrees import pytree
from jaxmas.registry import ALGORITHMS, DESIGN_SPACES
from jaxmas.rollout import MetaStep, Policies
from jaxmas.types import Environment


@dataclasses.dataclass(frozen=True)
class MetaSkillConfig:
    """Settings of meta-skill."""

    space: Literal["template", "slots", "script", "script-free"] = "template"
    """How the policy expresses a plan."""
    learner: Literal["group", "ppo"] = "group"
    updates: int = 400
    queries: int = 96
    """Queries per update."""
    plans: int = 12
    """Plans per query; PPO plays each of them as a query of its own."""
    shared_noise: bool = True
    """Let the plans of one query meet the same environment noise (group only)."""
    learning_rate: float = 3e-3
    entropy: float = 0.05
    final_entropy: float = 0.02
    max_gradient: float = 1.0
    width: int = 128
    sees: Literal["all", "global", "nothing"] = "all"
    """What the policy sees of a query: everything, the global features only, or nothing (references)."""
    epochs: int = 4
    """Passes over the batch of an update."""
    minibatches: int = 4
    """PPO: parts that a pass is made in."""
    clip: float = 0.2
    discount: float = 1.0
    trace: float = 0.95
    value_weight: float = 0.5

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        check = functools.partial(check_numbers, "meta-skill", self)
        check(("updates", "queries", "plans", "width", "epochs", "minibatches"), 1)
        check(("learning_rate", "entropy", "final_entropy", "max_gradient", "clip", "value_weight"), 0)
        check(("discount", "trace"), 0, 1)
        refuse(self.learner == "group" and self.plans < 2, "meta-skill: the group learner needs plans of at least 2")
        batch = self.queries * self.plans
        refuse(
            self.learner == "ppo" and batch % self.minibatches != 0,
            f"meta-skill: {batch} plans per update do not divide into {self.minibatches} minibatches",
        )

    @property
    def sizes(self) -> GroupSizes:
        """Return what is played in an update: for PPO every plan is one of a query of its own."""
        if self.learner == "group":
            return GroupSizes(self.queries, self.plans, shared_noise=self.shared_noise)
        return GroupSizes(self.queries * self.plans)

    def designer(self, env: Environment, state: "TrainState", greedy: bool = False) -> tuple[Any, Any]:
        """Return the meta-policy that is trained, and its parameters."""
        return make_policy(self, env, greedy), state.params

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
    key: PRNGKeyArray
    update: Int[Array, ""]


def make_policy(config: MetaSkillConfig, env: Environment, greedy: bool = False) -> LearnedPolicy:
    """Return the meta-policy that a configuration describes."""
    return LearnedPolicy(DESIGN_SPACES[config.space](env, config.width), greedy, config.sees)


def optimiser(config: MetaSkillConfig) -> optax.GradientTransformation:
    """Return Adam with clipped gradients and a learning rate that falls to a tenth."""
    steps = config.updates * config.epochs * (config.minibatches if config.learner == "ppo" else 1)
    return falling_adam(config.learning_rate, steps, config.max_gradient)


def initial_state(config: MetaSkillConfig, env: Environment, params: Any, key: PRNGKeyArray) -> TrainState:
    """Return the state before the first update."""
    init_key, team_key, key = jax.random.split(key, 3)
    _, team = env.reset(team_key, params)
    weights = make_policy(config, env).initial_params(init_key, team)
    return TrainState(weights, optimiser(config).init(weights), key, jnp.int32(0))


def update(
    config: MetaSkillConfig, env: Environment, params: Any, start: Policies, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """Draw queries, play plans, and take one step of the chosen learner."""
    key, query_key, play_key, batch_key = jax.random.split(state.key, 4)
    policy = make_policy(config, env)
    policies = dataclasses.replace(start, meta=policy, meta_params=state.params)
    steps, _ = play_groups(env, params, policies, query_key, play_key, config.sizes, discount=config.discount)
    steps = jax.tree.map(lambda leaf: leaf[:, :, 0], steps)
    progress = state.update / config.updates
    learn = {"group": learn_group, "ppo": learn_ppo}[config.learner]
    weights, moments, learned = learn(
        config, policy, state, steps, linear(config.entropy, config.final_entropy, progress), batch_key
    )
    logs = log_plays(steps, jnp.sum(steps.reward, axis=-1)) | learned
    return TrainState(weights, moments, key, state.update + 1), logs


def learn_group(config, policy, state: TrainState, steps: MetaStep, entropy_weight, key) -> tuple[Any, Any, dict]:
    """Follow the clipped surrogate of each plan's leave-one-out advantage over several epochs of the whole batch."""
    advantage = jnp.broadcast_to(against_the_others(returns(steps))[..., None], steps.reward.shape)
    loss = surrogate_loss(
        lambda weights: score_designs(policy, weights, steps), steps.info["log_prob"], advantage, steps.steps > 0,
        clip=config.clip, entropy_weight=entropy_weight,
    )  # fmt: skip
    return descend(loss, optimiser(config), state.params, state.optimiser, config.epochs)


def learn_ppo(config, policy, state: TrainState, steps: MetaStep, entropy_weight, key) -> tuple[Any, Any, dict]:
    """Follow the clipped surrogate of generalised advantages over several epochs of minibatches."""
    rows = jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), steps)
    value = functools.partial(policy.score, state.params)
    last = jax.tree.map(lambda leaf: leaf[:, -1], rows)
    bootstrap = jax.vmap(value)(last.next_team, last.info["choice"])[2]
    values = rows.info["value"]
    following = jnp.concatenate([values[:, 1:], bootstrap[:, None]], axis=1)
    going_on = 1.0 - (rows.terminated | rows.truncated)
    advantages = jax.vmap(functools.partial(gae, trace=config.trace))(
        rows.reward, rows.discount, values, following, going_on
    )
    batch = {
        "team": rows.team,
        "choice": rows.info["choice"],
        "old": rows.info["log_prob"],
        "advantage": advantages,
        "target": advantages + values,
        "live": (rows.steps > 0).astype(jnp.float32),
    }
    batch = jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), batch)
    size = steps.reward.size

    def epoch(carry, key):
        order = jax.random.permutation(key, size).reshape(config.minibatches, -1)
        parts = jax.tree.map(lambda leaf: leaf[order], batch)
        return jax.lax.scan(functools.partial(_ppo_step, config, policy, entropy_weight), carry, parts)

    carry, spread = jax.lax.scan(epoch, (state.params, state.optimiser), jax.random.split(key, config.epochs))
    return *carry, {"entropy": jnp.mean(spread)}


def _ppo_step(config: MetaSkillConfig, policy, entropy_weight: Float[Array, ""], carry, part: dict[str, Any]):
    """Take one minibatch step of −surrogate + value error − entropy."""
    weights, moments = carry
    live, count = part["live"], jnp.maximum(jnp.sum(part["live"]), 1)
    mean = jnp.sum(part["advantage"] * live) / count
    deviation = jnp.sqrt(jnp.sum(live * (part["advantage"] - mean) ** 2) / count)
    advantage = (part["advantage"] - mean) / (deviation + 1e-6)

    def loss(weights):
        log_prob, entropy, value = jax.vmap(functools.partial(policy.score, weights))(part["team"], part["choice"])
        surrogate = clipped_surrogate(log_prob - part["old"], advantage, config.clip)
        error = 0.5 * (value - part["target"]) ** 2
        total = surrogate + config.value_weight * error - entropy_weight * entropy
        return jnp.sum(live * total) / count, jnp.sum(live * entropy) / count

    (_, spread), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    change, moments = optimiser(config).update(gradient, moments)
    return (optax.apply_updates(weights, change), moments), spread


ALGORITHMS.add("meta-skill", MetaSkillConfig, "RL on the coordination policy over frozen executors")
