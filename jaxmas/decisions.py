"""Decisions: the few steps of a roll-out at which an agent acted, gathered into rows that executors learn from.

Most agents wait most of the time, so a batch of all agents at all steps is mostly padding. A *row* is one decision of a
feed-forward executor, or the first few of one agent's episode for a recurrent one; rows have a time axis either way.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxmas.devices import split
from jaxmas.executors import Trainable, legal
from jaxmas.learning import decision_gae
from jaxmas.pytrees import pytree
from jaxmas.rollout import ExecutorStep
from jaxmas.types import Scalar


@pytree
class Rewards:
    """What was earned at every step: episodes played side by side, leading axes ``[queries, designs, executions]``."""

    team: Float[Array, "*groups time"]
    agent: Float[Array, "*groups time num_agents"]


@pytree
class Rows:
    """Decisions ``[rows, time]``, and where they come from; parts that ``merge`` makes one have an axis before."""

    observation: Any
    """An ``Observation`` whose agents are rows and time."""
    action: Int[Array, "*parts rows time"]
    log_prob: Float[Array, "*parts rows time"]
    """Under the parameters that played."""
    acting: Bool[Array, "*parts rows time"]
    """False for padding."""
    episode: Int[Array, "*parts rows time"]
    """Index into the episodes, all groups' in one line."""
    step: Int[Array, "*parts rows time"]
    agent: Int[Array, "*parts rows time"]


@pytree
class Decisions:
    """The rows of a roll-out, the rewards of all its steps, and how many decisions there were."""

    rows: Rows
    rewards: Rewards
    count: Int[Array, "*parts"]
    """Decisions made; those beyond the capacity are in no row, their rewards count."""


def gather(steps: ExecutorStep, capacity: int, sequence: int | None = None) -> Decisions:
    """Gather decisions of steps ``[queries, designs, executions, boundaries, interval, …]`` into rows.

    ``capacity`` is how many decisions there is room for per episode, on average. With ``sequence`` a row holds an
    agent's first so many, one after another as a recurrent network remembers them; without, each has its own row.
    Where there are more than fit, rows are taken at even distances over all of these steps.
    """
    groups = steps.live.shape[:3]
    steps = jax.tree.map(lambda leaf: leaf.reshape(math.prod(groups), -1, *leaf.shape[5:]), steps)
    acting = steps.mask & steps.live[..., None]
    episodes, time, agents = acting.shape
    if sequence is None:
        found, places = _spread(acting, capacity * episodes)
        episode, step, agent = (place[:, None] for place in places)
    else:
        sequence = min(sequence, time)
        found, places = _spread(jnp.any(acting, axis=1), max(capacity * episodes // sequence, 1))
        episode, agent = (jnp.tile(place[:, None], (1, sequence)) for place in places)
        step = jnp.argsort(~acting[episode[:, 0], :, agent[:, 0]], axis=1, stable=True)[:, :sequence]
    at = episode, step, agent
    rows = Rows(
        observation=jax.tree.map(lambda leaf: leaf[at], steps.observation),
        action=steps.action[at],
        log_prob=steps.log_prob[at],
        acting=acting[at] & found[:, None],
        episode=episode,
        step=step,
        agent=agent,
    )
    rewards = Rewards(steps.reward.reshape(*groups, time), steps.agent_reward.reshape(*groups, time, agents))
    return Decisions(rows, rewards, jnp.sum(acting))


def collector(config: Any, executor: Trainable) -> Callable[[ExecutorStep], Decisions]:
    """Return ``gather`` with an algorithm's settings ``capacity`` and ``sequence``, as its executor needs it."""
    sequence = config.sequence if executor.recurrent else None
    return functools.partial(gather, capacity=config.capacity, sequence=sequence)


def _spread(flags: Bool[Array, "*axes"], capacity: int) -> tuple[Bool[Array, "places"], tuple[Array, ...]]:
    """Return up to ``capacity`` places of flags, evenly spaced where there are more, and which of them are some."""
    capacity = min(capacity, flags.size)
    rank = jnp.cumsum(flags.reshape(-1))
    stride = jnp.maximum(rank[-1] / capacity, 1.0)
    wanted = 1 + jnp.floor(jnp.arange(capacity) * stride).astype(jnp.int32)
    place = jnp.searchsorted(rank, wanted)
    return wanted <= rank[-1], jnp.unravel_index(jnp.minimum(place, flags.size - 1), flags.shape)


def merge(parts: Decisions) -> Decisions:
    """Return as one the decisions of parts that were played one after another, stacked along a leading axis."""
    episodes = math.prod(parts.rewards.team.shape[1:-1])
    begun = jnp.repeat(episodes * jnp.arange(len(parts.count)), parts.rows.episode.shape[1])
    rows, rewards = split(jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), (parts.rows, parts.rewards)))
    rows = dataclasses.replace(rows, episode=rows.episode + begun[:, None])
    return Decisions(rows, rewards, jnp.sum(parts.count))


def score(executor: Trainable, params: Any, rows: Rows) -> tuple[Float[Array, "rows time"], Float[Array, "rows time"]]:
    """Return the log-probability of every decision and the entropy of the distribution that it is drawn from."""
    seen = rows.observation
    distribution = legal(executor.unroll(params, seen.features, seen.role, rows.acting), seen.action_mask)
    return jnp.asarray(distribution.log_prob(rows.action)), jnp.asarray(distribution.entropy())


def at_rows(rows: Rows, table: Shaped[Array, "episodes steps num_agents"]) -> Shaped[Array, "rows time"]:
    """Return a table's entries at the decisions."""
    return table[rows.episode, rows.step, rows.agent]


def as_table(
    rows: Rows, values: Float[Array, "rows time"], shape: tuple[int, ...]
) -> Float[Array, "episodes steps num_agents"]:
    """Return a table with the values of decisions at their places, and zeros."""
    return jnp.zeros(shape).at[rows.episode, rows.step, rows.agent].add(jnp.where(rows.acting, values, 0.0))


def advantages(
    rows: Rows,
    values: Float[Array, "rows time"],
    rewards: Float[Array, "episodes steps num_agents"],
    discount: Scalar,
    trace: Scalar,
) -> Float[Array, "rows time"]:
    """Return generalised advantages along every agent's own decisions."""
    decided = as_table(rows, jnp.ones_like(values), rewards.shape) > 0
    valued = as_table(rows, values, rewards.shape)
    reward, value, decides = (jnp.moveaxis(table, 1, 0) for table in (rewards, valued, decided))
    return at_rows(rows, jnp.moveaxis(decision_gae(reward, value, decides, discount, trace), 0, 1))


def mean_over(rows: Rows, values: Float[Array, "rows time"], where: Bool[Array, "rows time"] | bool = True) -> Array:
    """Return the mean over decisions, over some of them; 0 where there are none."""
    counts = rows.acting & where
    return jnp.sum(jnp.where(counts, values, 0.0)) / jnp.maximum(jnp.sum(counts), 1)


def decisions_under(decisions: Decisions, valid: Bool[Array, "queries designs"]) -> Decisions:
    """Return the decisions under valid designs only."""
    rows = decisions.rows
    executions = decisions.rewards.team.shape[2]
    acting = rows.acting & valid.reshape(-1)[rows.episode // executions]
    return dataclasses.replace(decisions, rows=dataclasses.replace(rows, acting=acting))
