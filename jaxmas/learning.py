"""The equations that learners share: advantages and policy-gradient losses."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxmas.types import Scalar


def leave_one_out(
    rewards: Float[Array, "*batch group"], counts: Bool[Array, "*batch group"] | None = None
) -> Float[Array, "*batch group"]:
    """Return each reward less the mean of the others in its group, of those that count; 0 for the rest.

    A_i = r_i − (1 / (G − 1)) Σ_{j ≠ i} r_j  (Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free").
    """
    if counts is None:
        others = (jnp.sum(rewards, axis=-1, keepdims=True) - rewards) / (rewards.shape[-1] - 1)
        return rewards - others
    weight = counts.astype(rewards.dtype)
    size = jnp.sum(weight, axis=-1, keepdims=True)
    others = (jnp.sum(weight * rewards, axis=-1, keepdims=True) - rewards) / jnp.maximum(size - 1, 1)
    return jnp.where(counts & (size > 1), rewards - others, 0.0)


def group_normalised(
    rewards: Float[Array, "*batch group"], counts: Bool[Array, "*batch group"] | None = None, epsilon: float = 1e-6
) -> Float[Array, "*batch group"]:
    """Return A_i = (r_i − mean) / (std + ε) within a group, of those that count; 0 for the rest.

    GRPO, Shao et al. 2024, arXiv 2402.03300, section 4.1.
    """
    counts = jnp.ones(rewards.shape, bool) if counts is None else counts
    size = jnp.maximum(jnp.sum(counts, axis=-1, keepdims=True), 1)
    centred = jnp.where(counts, rewards - jnp.sum(jnp.where(counts, rewards, 0), axis=-1, keepdims=True) / size, 0.0)
    return centred / (jnp.sqrt(jnp.sum(centred**2, axis=-1, keepdims=True) / size) + epsilon)


def against_the_others(
    rewards: Float[Array, "*batch group"], counts: Bool[Array, "*batch group"] | None = None
) -> Float[Array, "*batch group"]:
    """Return ``leave_one_out`` in units of the spread of all rewards that count, those of all groups.

    Not of the advantages: they vanish as a group agrees, and blowing them up again would turn a settled policy's noise
    into steps of full size.
    """
    spread = jnp.std(rewards) if counts is None else jnp.where(jnp.any(counts), jnp.std(rewards, where=counts), 0.0)
    return leave_one_out(rewards, counts) / (spread + 1e-6)


def gae(
    rewards: Float[Array, "time"],
    discounts: Float[Array, "time"],
    values: Float[Array, "time"],
    next_values: Float[Array, "time"],
    going_on: Float[Array, "time"],
    trace: Scalar,
) -> Float[Array, "time"]:
    """Return generalised advantages over semi-Markov transitions.

    δ_t = r_t + γ_t V(s'_t) − V(s_t),  A_t = δ_t + γ_t λ c_t A_{t+1}  (Schulman et al. 2015, arXiv 1506.02438,
    eq. 16), where γ_t is 0 at termination and c_t is 0 wherever an episode ends, truncation included.
    """
    deltas = rewards + discounts * next_values - values

    def back(later, now):
        delta, discount, goes_on = now
        advantage = delta + discount * trace * goes_on * later
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.float32(0), (deltas, discounts, going_on), reverse=True)
    return advantages


def decision_gae(
    rewards: Float[Array, "time *batch"],
    values: Float[Array, "time *batch"],
    decided: Bool[Array, "time *batch"],
    discount: Scalar,
    trace: Scalar,
) -> Float[Array, "time *batch"]:
    """Return generalised advantages of decisions at some of the steps of an episode; elsewhere they mean nothing.

    A decision lasts until the next one of its agent: δ_k = Σ_{t_k ≤ t < t_{k+1}} γ^(t − t_k) r_t + γ^(t_{k+1} − t_k)
    V(t_{k+1}) − V(t_k),  A_k = δ_k + γ^(t_{k+1} − t_k) λ A_{k+1}, with zeros beyond the last decision
    (``gae`` over semi-Markov transitions).
    """

    def back(later, now):
        earned, value, advantage = (discount * ahead for ahead in later)
        reward, here, decides = now
        earned = earned + reward
        whole = earned + value - here + trace * advantage
        ahead = (jnp.where(decides, 0.0, earned), jnp.where(decides, here, value), jnp.where(decides, whole, advantage))
        return ahead, whole

    nothing = jnp.zeros_like(rewards[0])
    return jax.lax.scan(back, (nothing, nothing, nothing), (rewards, values, decided), reverse=True)[1]


def clipped_surrogate(log_ratio: Float[Array, "*b"], advantage: Float[Array, "*b"], clip: Scalar) -> Float[Array, "*b"]:
    """Return −min(ρ A, clip(ρ, 1 − ε, 1 + ε) A), ρ = π/π_old (PPO, Schulman et al. 2017, arXiv 1707.06347, eq. 7)."""
    ratio = jnp.exp(log_ratio)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def kl_estimate(log_ratio: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Return e^d − 1 − d, d = log(q/p) of draws from p: an estimate of KL(p‖q) that is never negative.

    Schulman 2020, "Approximating KL divergence", the estimator k3.
    """
    return jnp.exp(log_ratio) - 1 - log_ratio


def descend(
    loss: Callable[[Any], tuple[Float[Array, ""], dict[str, Array]]],
    optimiser: optax.GradientTransformation,
    weights: Any,
    moments: Any,
    epochs: int,
    pace: Any = 1.0,
) -> tuple[Any, Any, dict[str, Array]]:
    """Take a step per epoch, each ``pace`` times what the optimiser says; the loss's report is that of the first."""

    def epoch(carry, _):
        weights, moments = carry
        (_, report), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
        change, moments = optimiser.update(gradient, moments)
        change = jax.tree.map(lambda leaf: pace * leaf, change)
        return (optax.apply_updates(weights, change), moments), report

    (weights, moments), reports = jax.lax.scan(epoch, (weights, moments), None, epochs)
    return weights, moments, jax.tree.map(lambda leaf: leaf[0], reports)


def surrogate_loss(
    score: Callable[[Any], tuple[Float[Array, "*b"], Float[Array, "*b"]]],
    old: Float[Array, "*b"],
    advantage: Float[Array, "*b"],
    counts: Bool[Array, "*b"],
    *,
    clip: Scalar,
    entropy_weight: Any = 0.0,
    kl: Scalar = 0.0,
    anchor: Any = None,
) -> Callable[[Any], tuple[Float[Array, ""], dict[str, Array]]]:
    """Return the loss whose gradient is followed: clipped surrogate − entropy, the mean of the decisions that count.

    ``score`` returns log-probability and entropy under any weights, ``old`` is the former as they were made; with an
    ``anchor`` the divergence from these weights is paid for by ``kl``. The first step follows Σ A ∇log π.
    """
    near = None if anchor is None else score(anchor)[0]
    number = jnp.maximum(jnp.sum(counts), 1)

    def mean(values):
        return jnp.sum(jnp.where(counts, values, 0.0)) / number

    def loss(weights):
        log_prob, entropy = score(weights)
        total = mean(clipped_surrogate(jnp.where(counts, log_prob - old, 0.0), advantage, clip))
        total -= entropy_weight * mean(entropy)
        if near is not None:
            total += kl * mean(kl_estimate(jnp.where(counts, near - log_prob, 0.0)))
        return total, {"entropy": mean(entropy)}

    return loss


def falling_adam(rate: Scalar, steps: int, max_gradient: Scalar) -> optax.GradientTransformation:
    """Return Adam with clipped gradients and a learning rate that falls to a tenth over ``steps``."""
    schedule = optax.linear_schedule(rate, 0.1 * rate, steps)
    return optax.chain(optax.clip_by_global_norm(max_gradient), optax.adam(schedule))


def linear(start: Scalar, end: Scalar, progress: Float[Array, ""]) -> Float[Array, ""]:
    """Return the value of a linear schedule at ``progress`` in [0, 1]."""
    return start + (end - start) * jnp.clip(progress, 0, 1)
