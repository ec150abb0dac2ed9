"""What design spaces share: the logit of what cannot be chosen, decisions for people to read, categorical laws."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

FORBIDDEN = -1e9
"""The logit of what cannot be chosen: no probability, and no infinities in gradients."""


class Decision(NamedTuple):
    """One decision of a design, for people to read."""

    what: str
    value: str
    probability: float
    """Of this value, given the decisions before."""


def log_probs(logits: Array) -> Array:
    """Return the log-probabilities of a categorical law."""
    return jax.nn.log_softmax(logits, axis=-1)


def entropy_of(logits: Array) -> Array:
    """Return the entropy of a categorical law."""
    scores = log_probs(logits)
    return -jnp.sum(jnp.exp(scores) * scores, axis=-1)


def log_prob_of(logits: Array, choice: Int[Array, "*s"]) -> Array:
    """Return the log-probability of a choice under a categorical law."""
    return jnp.take_along_axis(log_probs(logits), choice[..., None], axis=-1)[..., 0]
