"""The exact rule that executors are to learn, as a policy with an error rate."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxmas.distributions import Categorical
from jaxmas.environments.workflow.query import MAX_PARENTS
from jaxmas.environments.workflow.votes import VOCABULARY
from jaxmas.types import Observation

PASS = VOCABULARY


def exact_answer(
    features: Float[Array, "*s features"], tables: Int[Array, "skills 8"]
) -> tuple[Int[Array, "*s"], Bool[Array, "*s"]]:
    """Return y = T_s[(x + Σ y_p) mod V] from what an agent sees, and whether it is a critic that agrees.

    A parent of which nothing is visible counts as 0.
    """
    skills, tokens = tables.shape[0], jnp.arange(VOCABULARY, dtype=jnp.float32)
    values = features[..., : (1 + MAX_PARENTS) * VOCABULARY]
    total = jnp.sum(values * jnp.tile(tokens, 1 + MAX_PARENTS), axis=-1).astype(jnp.int32)
    start = (1 + MAX_PARENTS) * VOCABULARY + MAX_PARENTS
    peers = features[..., start : start + VOCABULARY]
    start += VOCABULARY
    skill = jnp.argmax(features[..., start : start + skills], axis=-1)
    critic = features[..., start + skills + skills + 1] > 0.5
    answer = tables[skill, total % VOCABULARY]
    agrees = critic & (jnp.max(peers, axis=-1) > 0) & (jnp.argmax(peers, axis=-1) == answer)
    return answer, agrees


@dataclasses.dataclass(frozen=True)
class ScriptedExecutor:
    """Answers by the rule, with independent mistakes; a critic passes where it agrees.

    Its parameters are the skill tables and the error rate.
    """

    def init(self, num_agents: int) -> tuple:
        """Return the empty carry."""
        return ()

    def apply(
        self,
        params: dict[str, Any],
        carry: tuple,
        observation: Observation,
        mask: Bool[Array, "num_agents"],
        key: PRNGKeyArray,
    ) -> tuple[tuple, Categorical]:
        """Return the rule's action with probability 1 - error, else any other token."""
        answer, agrees = exact_answer(observation.features, params["tables"])
        actions = jnp.arange(VOCABULARY + 1)
        right = actions == jnp.where(agrees, PASS, answer)[:, None]
        others = jnp.where(actions == PASS, 0.0, 1.0) * ~right
        error = params["error"]
        probs = right * (1 - error) + others * error / jnp.sum(others, axis=-1, keepdims=True)
        return carry, Categorical(logits=jnp.log(jnp.maximum(probs, 1e-12)))
