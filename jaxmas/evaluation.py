"""Evaluation: the same queries for every method, episode means first, intervals by bootstrap.

Queries come from three disjoint streams: training, validation (all tuning, of learners and of strategies) and test.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxmas.plans import Plan
from jaxmas.rollout import Episode, Policies, play_query
from jaxmas.statistics import Estimate, hierarchical_bootstrap
from jaxmas.types import Environment, Executor, MetaPolicy

STREAMS = {"train": 0, "validation": 1, "test": 2}
CHUNK = 256
"""Queries played at once: large enough for full speed, small enough for a progress bar."""

Outcomes = dict[str, np.ndarray]
"""``reward`` and every metric of the environment, one value per query."""


def query_keys(stream: str, num: int, seed: int = 0, start: int = 0) -> Key[Array, "queries"]:
    """Return the keys of queries ``start … start + num - 1`` of a stream; streams never share a key."""
    root = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0x6A78), STREAMS[stream])
    return jax.vmap(lambda index: jax.random.fold_in(root, index))(jnp.arange(start, start + num))


def noise_keys(keys: Key[Array, "queries"], replicate: int) -> Key[Array, "queries"]:
    """Return the keys of one replicate's noise: the same queries, met afresh."""
    return jax.vmap(lambda key: jax.random.fold_in(key, 1 + replicate))(keys)


@functools.partial(jax.jit, static_argnames=("env", "meta", "executor"))
def play(
    env: Environment,
    params: Any,
    meta: MetaPolicy,
    meta_params: Any,
    executor: Executor,
    executor_params: Any,
    keys: Key[Array, "queries"],
    noise: Key[Array, "queries"],
) -> tuple[dict[str, Array], Plan]:
    """Play one query per key from start to end; return its outcomes and its first plan."""

    def one(key, noise_key):
        policies = Policies(meta, meta_params, executor, executor_params)
        state, team = env.reset(key, params)
        state = env.reseed(noise_key, state, params)
        episode = Episode(state, team, meta.init(), executor.init(env.num_agents))
        _, steps, _ = play_query(env, params, policies, episode, noise_key)
        outcome = {name: values[-1] for name, values in steps.metrics.items()}
        return {"reward": jnp.sum(steps.reward), **outcome}, jax.tree.map(lambda leaf: leaf[0], steps.plan)

    return jax.vmap(one)(keys, noise)


def evaluate(
    env: Environment,
    params: Any,
    meta: MetaPolicy,
    meta_params: Any,
    executor: Executor,
    executor_params: Any,
    keys: Key[Array, "queries"],
    *,
    replicates: int = 1,
    advance: Callable[[int], None] = lambda episodes: None,
) -> Outcomes:
    """Play every query ``replicates`` times and average: one value per query and metric."""
    rows = []
    for start in range(0, len(keys), CHUNK):
        chunk = _padded(keys[start : start + CHUNK], min(CHUNK, len(keys)))
        size = min(CHUNK, len(keys) - start)
        played = [
            play(env, params, meta, meta_params, executor, executor_params, chunk, noise_keys(chunk, replicate))[0]
            for replicate in range(replicates)
        ]
        rows.append({name: np.mean([np.asarray(one[name]) for one in played], axis=0)[:size] for name in played[0]})
        advance(size * replicates)
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _padded(keys: Key[Array, "queries"], size: int) -> Key[Array, "padded"]:
    """Repeat the last key, so that every chunk has one shape and compiles once."""
    missing = size - len(keys)
    return jnp.concatenate([keys, jnp.repeat(keys[-1:], missing, axis=0)]) if missing else keys


def summarise(outcomes: Outcomes | list[Outcomes], seed: int = 0) -> dict[str, Estimate]:
    """Return mean and 95 % interval of every metric, over queries and, where several are given, runs."""
    runs = outcomes if isinstance(outcomes, list) else [outcomes]
    return {name: hierarchical_bootstrap(np.stack([run[name] for run in runs]), seed=seed) for name in runs[0]}


@functools.partial(jax.jit, static_argnames=("env", "meta", "executor"))
def _play_table(env, params, meta, table, executor, executor_params, keys, noise):
    """Play every query under every row of parameters; return rewards and costs ``[rows, queries]``."""

    def row(meta_params):
        outcome, _ = play(env, params, meta, meta_params, executor, executor_params, keys, noise)
        return outcome["reward"], outcome["cost"]

    return jax.lax.map(row, table)


def reward_matrix(
    env: Environment,
    params: Any,
    meta: MetaPolicy,
    table: Any,
    executor: Executor,
    executor_params: Any,
    keys: Key[Array, "queries"],
    *,
    replicates: range,
    advance: Callable[[int], None] = lambda episodes: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Play every query under every row of ``table`` (a tree with a leading axis of rows).

    Rows meet the same noise within a replicate. Returns rewards ``[replicates, rows, queries]`` and mean costs
    ``[rows, queries]``.
    """
    rows = len(jax.tree.leaves(table)[0])
    rewards, costs = [], []
    for replicate in replicates:
        parts = []
        for start in range(0, len(keys), CHUNK):
            chunk = _padded(keys[start : start + CHUNK], min(CHUNK, len(keys)))
            noise = noise_keys(chunk, replicate)
            part = _play_table(env, params, meta, table, executor, executor_params, chunk, noise)
            size = min(CHUNK, len(keys) - start)
            parts.append([np.asarray(values)[:, :size] for values in part])
            advance(rows * size)
        rewards.append(np.concatenate([part[0] for part in parts], axis=1))
        costs.append(np.concatenate([part[1] for part in parts], axis=1))
    return np.stack(rewards), np.mean(costs, axis=0)


@functools.partial(jax.jit, static_argnames=("env", "meta", "executor"))
def _play_index(env, params, meta, table, index, executor, executor_params, keys, noise):
    """Play row ``index[i, q]`` of ``table`` for query q; return rewards ``[i, queries]``."""

    def one(row, key, noise_key):
        meta_params = jax.tree.map(lambda column: column[row], table)
        outcome, _ = play(env, params, meta, meta_params, executor, executor_params, key[None], noise_key[None])
        return outcome["reward"][0]

    return jax.lax.map(lambda rows: jax.vmap(one)(rows, keys, noise), index)


def reward_of_rows(
    env: Environment,
    params: Any,
    meta: MetaPolicy,
    table: Any,
    executor: Executor,
    executor_params: Any,
    keys: Key[Array, "queries"],
    index: np.ndarray,
    *,
    replicates: range,
    block: int = 4,
    advance: Callable[[int], None] = lambda episodes: None,
) -> np.ndarray:
    """Play row ``index[i, q]`` for every query q; return rewards ``[replicates, i, queries]``.

    Rows are played in blocks of one shape, so that racing with fewer and fewer rows compiles once.
    """
    rows = len(index)
    padded = np.concatenate([index, np.repeat(index[-1:], -rows % block, axis=0)])
    rewards = []
    for replicate in replicates:
        noise = noise_keys(keys, replicate)
        parts = [
            _play_index(env, params, meta, table, padded[i : i + block], executor, executor_params, keys, noise)
            for i in range(0, len(padded), block)
        ]
        rewards.append(np.concatenate([np.asarray(part) for part in parts])[:rows])
        advance(rows * len(keys))
    return np.stack(rewards)


@functools.partial(jax.jit, static_argnames=("env",))
def team_observations(env: Environment, params: Any, keys: Key[Array, "queries"]):
    """Return the first team observation of every query."""
    return jax.vmap(lambda key: env.reset(key, params)[1])(keys)
