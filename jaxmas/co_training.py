"""Two sides that learn together, by turns or at once: whose turn it is, and the step that each side takes.

``config`` is that of ``metaagent-x``; a side is ``designer`` or ``executor``, the key of its weights in the state.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxmas.decisions import Decisions, advantages, mean_over, score
from jaxmas.design_policies import LearnedPolicy
from jaxmas.executors import Trainable
from jaxmas.groups import score_designs
from jaxmas.learning import descend, falling_adam, linear, surrogate_loss
from jaxmas.rollout import MetaStep


def optimisers(config: Any) -> dict[str, optax.GradientTransformation]:
    """Return each side's Adam with clipped gradients; learning rates fall with the steps that a side takes itself."""
    learning = {"designer": config.updates, "executor": config.updates}
    if config.mode == "stagewise" and config.freeze == "hard":
        learning["executor"] = sum(_executors_turn(config, update) for update in range(config.updates))
        learning["designer"] = config.updates - learning["executor"]
    rates = {"designer": config.designer_rate, "executor": config.executor_rate}
    steps = {side: max(updates * config.epochs, 1) for side, updates in learning.items()}
    return {side: falling_adam(rate, steps[side], config.max_gradient) for side, rate in rates.items()}


def turns(config: Any, update: Int[Array, ""]) -> dict[str, Bool[Array, ""]]:
    """Return whose turn it is to learn."""
    if config.mode == "stagewise":
        executor = _executors_turn(config, update)
        return {"designer": ~executor, "executor": executor}
    return {side: jnp.array(config.mode in ("coupled", f"{side}-only")) for side in ("designer", "executor")}


def _executors_turn(config: Any, update: Any) -> Any:
    return (update // config.swap_every) % 2 == 0


def take_turns(
    config: Any,
    state: Any,
    turn: dict[str, Bool[Array, ""]],
    learners: Mapping[str, Callable[..., tuple[Any, Any, dict[str, Array]]]],
) -> tuple[Any, dict[str, Array]]:
    """Let every side learn that has its turn. A frozen side is left as it is, to the bit; its logs are NaN."""
    weights, moments = dict(state.params), dict(state.optimiser)
    logs: dict[str, Array] = {}
    soft = config.mode == "stagewise" and config.freeze == "soft"
    for side, learn in learners.items():
        anchor = state.start.get(side)

        def go(weights, moments, learn=learn, anchor=anchor, side=side):
            pace = jnp.where(turn[side], 1.0, config.soft_rate) if soft else 1.0
            return learn(weights, moments, anchor, optimisers(config)[side], pace)

        shapes = jax.eval_shape(go, weights[side], moments[side])[2]

        def stay(weights, moments, shapes=shapes):
            return weights, moments, jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)

        learns = jnp.array(True) if soft else turn[side]
        weights[side], moments[side], learned = jax.lax.cond(learns, go, stay, weights[side], moments[side])
        logs |= {f"{side}_{name}": value for name, value in learned.items()}
        logs[f"{side}_learns"] = turn[side].astype(jnp.float32)
    return dataclasses.replace(state, params=weights, optimiser=moments), logs


def learn_designer(
    config: Any,
    designer: LearnedPolicy,
    steps: MetaStep,
    advantage: Float[Array, "queries designs"],
    progress: Float[Array, ""],
    weights: Any,
    moments: Any,
    anchor: Any,
    optimiser: optax.GradientTransformation,
    pace: Any,
) -> tuple[Any, Any, dict[str, Array]]:
    """Follow the clipped surrogate of the designs' advantages."""
    if steps.reward.shape[-1] == 1:
        steps = jax.tree.map(lambda leaf: leaf[:, :, :1], steps)  # every execution is of one and the same decision
    advantage = jnp.broadcast_to(advantage[..., None, None], steps.reward.shape)
    steps, advantage = jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 1, 3), (steps, advantage))
    loss = surrogate_loss(
        lambda weights: score_designs(designer, weights, steps), steps.info["log_prob"], advantage, steps.steps > 0,
        entropy_weight=linear(config.designer_entropy, 0.1 * config.designer_entropy, progress),
        clip=config.clip, kl=config.kl, anchor=anchor,
    )  # fmt: skip
    return descend(loss, optimiser, weights, moments, config.epochs, pace)


def learn_executor(
    config: Any,
    executor: Trainable,
    decisions: Decisions,
    advantage: Float[Array, "queries designs executions"],
    progress: Float[Array, ""],
    weights: Any,
    moments: Any,
    anchor: Any,
    optimiser: optax.GradientTransformation,
    pace: Any,
) -> tuple[Any, Any, dict[str, Array]]:
    """Follow the clipped surrogate: every decision has its execution's advantage, mixed with its agent's own reward."""
    rows = decisions.rows
    mean = functools.partial(mean_over, rows)
    of_team = advantage.reshape(-1)[rows.episode]
    rewards = decisions.rewards.agent.reshape(-1, *decisions.rewards.agent.shape[-2:])
    own = advantages(rows, jnp.zeros_like(rows.log_prob), rewards, config.agent_discount, 1.0)
    own = own - mean(own)
    own = own / (jnp.sqrt(mean(own**2)) + 1e-6)
    mixed = (1 - config.agent_weight) * of_team + config.agent_weight * own
    loss = surrogate_loss(
        lambda weights: score(executor, weights, rows), rows.log_prob, mixed, rows.acting,
        entropy_weight=linear(config.executor_entropy, 0.1 * config.executor_entropy, progress),
        clip=config.clip, kl=config.kl, anchor=anchor,
    )  # fmt: skip
    return descend(loss, optimiser, weights, moments, config.epochs, pace)
