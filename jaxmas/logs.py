"""What learners log of an update's plays, beside what they say of their own losses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmas.decisions import Decisions, at_rows, mean_over
from jaxmas.rollout import MetaStep
from jaxmas.structures import STRUCTURES, structure
from jaxmas.types import Environment


def log_plays(steps: MetaStep, earned: Float[Array, "*groups"]) -> dict[str, Array]:
    """Return the mean reward, the mean of the environment's metrics at the end, and the steps that were played."""
    final = {name: jnp.mean(values[..., -1]) for name, values in steps.metrics.items()}
    return {"reward": jnp.mean(earned), **final, "steps": jnp.sum(steps.steps)}


def log_decisions(decisions: Decisions, env: Environment) -> dict[str, Array]:
    """Return what agents' own decisions earned on average by role, and the share of decisions that is learned from.

    The mean of a role that nobody had is NaN.
    """
    rows, rewards = decisions.rows, decisions.rewards.agent
    earned = at_rows(rows, rewards.reshape(-1, *rewards.shape[-2:]))

    def mean(mine):
        return jnp.where(jnp.any(rows.acting & mine), mean_over(rows, earned, mine), jnp.nan)

    by_role = {f"role_{role}_reward": mean(rows.observation.role == role) for role in range(env.plan_space.num_roles)}
    return {**by_role, "kept": jnp.sum(rows.acting) / jnp.maximum(decisions.count, 1)}


def log_designs(
    steps: MetaStep, earned: Float[Array, "queries designs executions"], valid: Bool[Array, "queries designs"]
) -> dict[str, Array]:
    """Return where the rewards vary, what the designs look like, and how many are invalid."""
    plans = jax.tree.map(lambda leaf: leaf[:, :, 0, 0], steps.plan)
    kinds = jax.vmap(jax.vmap(structure))(plans)
    shares = {f"structure_{name}": jnp.mean(kinds == index) for index, name in enumerate(STRUCTURES)}
    return {
        "invalid": jnp.mean(~valid),
        "between_designs": jnp.mean(jnp.var(jnp.mean(earned, axis=-1), axis=-1)),
        "within_designs": jnp.mean(jnp.var(earned, axis=-1)),
        "members": jnp.mean(jnp.sum(plans.active, axis=-1)),
        **shares,
    }
