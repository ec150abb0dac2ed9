"""The equations that learners share: advantages and policy-gradient losses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def leave_one_out(rewards: Float[Array, "*batch group"]) -> Float[Array, "*batch group"]:
    """Return each reward less the mean of the others in its group.

    A_i = r_i − (1 / (G − 1)) Σ_{j ≠ i} r_j  (Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free").
    """
    size = rewards.shape[-1]
    others = (jnp.sum(rewards, axis=-1, keepdims=True) - rewards) / (size - 1)
    return rewards - others


def group_normalised(rewards: Float[Array, "*batch group"], epsilon: float = 1e-6) -> Float[Array, "*batch group"]:
    """Return A_i = (r_i − mean) / (std + ε) within a group (GRPO, Shao et al. 2024, arXiv 2402.03300, section 4.1)."""
    centred = rewards - jnp.mean(rewards, axis=-1, keepdims=True)
    return centred / (jnp.std(rewards, axis=-1, keepdims=True) + epsilon)


def gae(
    rewards: Float[Array, "time"],
    discounts: Float[Array, "time"],
    values: Float[Array, "time"],
    next_values: Float[Array, "time"],
    going_on: Float[Array, "time"],
    trace: float,
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
    discount: float,
    trace: float,
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


def clipped_surrogate(log_ratio: Float[Array, "*b"], advantage: Float[Array, "*b"], clip: float) -> Float[Array, "*b"]:
    """Return −min(ρ A, clip(ρ, 1 − ε, 1 + ε) A), ρ = π/π_old (PPO, Schulman et al. 2017, arXiv 1707.06347, eq. 7)."""
    ratio = jnp.exp(log_ratio)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def linear(start: float, end: float, progress: Float[Array, ""]) -> Float[Array, ""]:
    """Return the value of a linear schedule at ``progress`` in [0, 1]."""
    return start + (end - start) * jnp.clip(progress, 0, 1)
