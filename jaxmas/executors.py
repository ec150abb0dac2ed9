"""Executors: the small policy that every agent runs at each step."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxmas.distributions import Categorical
from jaxmas.networks import MLP
from jaxmas.types import Observation


@dataclasses.dataclass(frozen=True)
class MLPExecutor:
    """A feed-forward network shared by all agents; role and tier are among its inputs."""

    num_actions: int
    hidden: tuple[int, ...] = (64, 64)

    @property
    def network(self) -> MLP:
        """Return the network."""
        return MLP(self.hidden, self.num_actions)

    def logits(self, params: Any, features: Float[Array, "*batch features"]) -> Float[Array, "*batch actions"]:
        """Return action scores, illegal actions included."""
        return jnp.asarray(self.network.apply(params, features))

    def init(self, num_agents: int) -> tuple:
        """Return the empty carry of a feed-forward policy."""
        return ()

    def apply(
        self,
        params: Any,
        carry: tuple,
        observation: Observation,
        mask: Bool[Array, "num_agents"],
        key: PRNGKeyArray,
    ) -> tuple[tuple, Categorical]:
        """Return the action distribution, illegal actions excluded."""
        logits = self.logits(params, observation.features)
        return carry, Categorical(logits=jnp.where(observation.action_mask, logits, -1e9))
