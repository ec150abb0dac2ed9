"""Critics of executors: what a situation is worth, from what the agent sees itself or from the whole team."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxmas.decisions import Rows
from jaxmas.executors import Trainable
from jaxmas.networks import TeamEncoder
from jaxmas.types import TeamObservation


class TeamSummary(nn.Module):
    """What a central critic makes of the whole team."""

    width: int

    @nn.compact
    def __call__(self, team: TeamObservation) -> Float[Array, "width"]:
        """Return the encoder's summary."""
        summary, _, _ = TeamEncoder(self.width)(team)
        return summary


@dataclasses.dataclass(frozen=True)
class Critic:
    """Values an agent's situation from its features, with ``central`` from the team observation too."""

    network: Trainable
    central: bool
    interval: int
    """Steps between team observations."""
    width: int = 32
    """Of the team's summary."""

    def initial_params(self, key: PRNGKeyArray, features: int, team: TeamObservation) -> dict[str, Any]:
        """Return fresh parameters."""
        if not self.central:
            return {"agent": self.network.initial_params(key, features)}
        own_key, team_key = jax.random.split(key)
        agent = self.network.initial_params(own_key, features + self.width)
        return {"agent": agent, "team": TeamSummary(self.width).init(team_key, team)}

    def values(self, params: dict[str, Any], rows: Rows, teams: TeamObservation) -> Float[Array, "rows time"]:
        """Return the value of every decision; ``teams`` are ``[episodes, boundaries, …]``."""
        features = rows.observation.features
        if self.central:
            place = rows.episode * teams.task_mask.shape[1] + rows.step // self.interval
            teams = jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), teams)
            summaries = jnp.asarray(jax.vmap(functools.partial(TeamSummary(self.width).apply, params["team"]))(teams))
            # A product and no index, whose gradient is a slow scatter on CPUs.
            summary = jax.nn.one_hot(place, len(summaries)) @ summaries
            features = jnp.concatenate([features, summary], axis=-1)
        return self.network.unroll(params["agent"], features, rows.observation.role, rows.acting)[..., 0]
