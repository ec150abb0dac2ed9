"""Networks shared by executors and meta-policies."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmas.types import TeamObservation


class MLP(nn.Module):
    """A plain multi-layer perceptron with ReLU between its layers."""

    hidden: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Return one output row per input row."""
        # One axis of rows: with two, CPUs take half as long again for the gradient.
        batch, x = x.shape[:-1], x.reshape(-1, x.shape[-1])
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x).reshape(*batch, self.outputs)


class TeamEncoder(nn.Module):
    """Embeds a team observation: a summary, one row per task, one row per agent.

    Tasks exchange one round of messages along their graph where there is one; the summary pools all tokens by mean
    and maximum, so that the same parameters fit any number of tasks and agents.
    """

    width: int

    @nn.compact
    def __call__(
        self, team: TeamObservation
    ) -> tuple[Float[Array, "summary"], Float[Array, "tasks width"], Float[Array, "num_agents width"]]:
        """Return the summary, the task rows and the agent rows."""
        mask = team.task_mask[:, None]
        tasks = nn.relu(nn.Dense(self.width)(team.task_tokens)) * mask
        if team.task_parents.shape[1]:
            present = (team.task_parents >= 0)[:, :, None]
            upstream = jnp.sum(tasks[jnp.maximum(team.task_parents, 0)] * present, axis=1)
            tasks = jnp.concatenate([tasks, upstream], axis=-1)
        tasks = nn.relu(nn.Dense(self.width)(tasks)) * mask
        agents = nn.relu(nn.Dense(self.width)(team.agent_tokens)) * team.agent_mask[:, None]
        count = jnp.maximum(jnp.sum(mask), 1)
        pooled = [jnp.sum(tasks, axis=0) / count, jnp.max(tasks, axis=0), jnp.sum(tasks, axis=0) / 8]
        crowd = jnp.sum(agents, axis=0) / jnp.maximum(jnp.sum(team.agent_mask), 1)
        # A few numbers of 0 to 1 among hundreds of pooled ones: unscaled, they would hardly be heard.
        overall = nn.relu(nn.Dense(self.width)(4 * team.global_features - 2))
        summary = jnp.concatenate([*pooled, crowd, overall])
        return nn.relu(nn.Dense(self.width)(summary)), tasks, agents
