"""Evaluation: the same queries for every method, episode means first, intervals by bootstrap.

Queries come from three disjoint streams: training, validation (all tuning, of learners and of strategies) and test.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxmas.plans import Plan
from jaxmas.rollout import Policies, meet, play_query
from jaxmas.statistics import Estimate, hierarchical_bootstrap
from jaxmas.types import Environment, Executor, MetaPolicy

STREAMS = {"train": 0, "validation": 1, "test": 2}
CHUNK = 256
"""Queries played at once: large enough for full speed, small enough that like deadlines come together."""

Outcomes = dict[str, np.ndarray]
"""``reward`` and every metric of the environment, one value per query."""


def query_keys(stream: str, num: int, seed: int | Key[Array, ""] = 0, start: int = 0) -> Key[Array, "queries"]:
    """Return the keys of queries ``start … start + num - 1`` of a stream; streams never share a key.

    A seed may be a key as well: a whole number has 32 bits, which can be searched through.
    """
    is_key = isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)
    first = seed if is_key else jax.random.key(seed)
    root = jax.random.fold_in(jax.random.fold_in(first, 0x6A78), STREAMS[stream])
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
    return _play(env, params, meta, meta_params, executor, executor_params, keys, noise, axis=None)


def _play(env, params, meta, meta_params, executor, executor_params, keys, noise, *, axis: int | None):
    """Play until all queries are over; ``axis`` is that of the queries in ``meta_params``, None where they share it."""
    states, _ = jax.vmap(lambda key: env.reset(key, params))(keys)
    limit = jnp.max(jax.vmap(env.steps_left)(states))

    def one(state, meta_params, noise_key):
        policies = Policies(meta, meta_params, executor, executor_params)
        episode = meet(env, params, policies, state, noise_key)
        episode, steps, _ = play_query(env, params, policies, episode, noise_key, limit=limit)
        outcome = {name: values[-1] for name, values in steps.metrics.items()}
        said = _reported(meta, episode.meta_carry) | _reported(executor, episode.executor_carry)
        return {"reward": jnp.sum(steps.reward), **outcome, **said}, jax.tree.map(lambda leaf: leaf[0], steps.plan)

    return jax.vmap(one, in_axes=(0, axis, 0))(states, meta_params, noise)


def _reported(policy: Any, carry: Any) -> dict[str, Array]:
    """Return what a policy says of itself at the end of a query, if it does."""
    return policy.report(carry) if hasattr(policy, "report") else {}


def _chunks(env: Environment, params: Any, keys: Key[Array, "queries"]) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the positions of the queries in parts, and how many are not padding: one shape compiles once.

    Queries of like length come together, so that a part is over soon after its queries are.
    """
    order = np.argsort(_lengths(env, params, keys), kind="stable")
    size = min(CHUNK, len(keys))
    for start in range(0, len(keys), size):
        places = order[start : start + size]
        yield np.pad(places, (0, size - len(places)), mode="edge"), len(places)


@functools.partial(jax.jit, static_argnames=("env",))
def _lengths(env, params, keys):
    return jax.vmap(lambda key: env.steps_left(env.reset(key, params)[0]))(keys)


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
    outcomes: Outcomes = {}
    for places, count in _chunks(env, params, keys):
        chunk = keys[places]
        played = [
            play(env, params, meta, meta_params, executor, executor_params, chunk, noise_keys(chunk, replicate))[0]
            for replicate in range(replicates)
        ]
        for name in played[0]:
            mean = np.mean([np.asarray(one[name]) for one in played], axis=0)
            outcomes.setdefault(name, np.zeros(len(keys), mean.dtype))[places] = mean
        advance(count * replicates)
    return outcomes


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
    rewards, costs = np.zeros((2, len(replicates), rows, len(keys)), np.float32)
    for places, count in _chunks(env, params, keys):
        chunk = keys[places]
        for at, replicate in enumerate(replicates):
            noise = noise_keys(chunk, replicate)
            part = _play_table(env, params, meta, table, executor, executor_params, chunk, noise)
            rewards[at][:, places], costs[at][:, places] = part
            advance(rows * count)
    return rewards, costs.mean(axis=0)


@functools.partial(jax.jit, static_argnames=("env", "meta", "executor"))
def _play_index(env, params, meta, table, index, executor, executor_params, keys, noise):
    """Play row ``index[i, q]`` of ``table`` for query q; return rewards ``[i, queries]``."""

    def row(rows):
        own = jax.tree.map(lambda column: column[rows], table)
        return _play(env, params, meta, own, executor, executor_params, keys, noise, axis=0)[0]["reward"]

    return jax.lax.map(row, index)


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
    rewards = np.zeros((len(replicates), rows, len(keys)), np.float32)
    for places, count in _chunks(env, params, keys):
        chunk, own = keys[places], padded[:, places]
        for at, replicate in enumerate(replicates):
            noise = noise_keys(chunk, replicate)
            parts = [
                _play_index(env, params, meta, table, own[i : i + block], executor, executor_params, chunk, noise)
                for i in range(0, len(own), block)
            ]
            rewards[at][:, places] = np.concatenate(parts)[:rows]
            advance(rows * count)
    return rewards


@functools.partial(jax.jit, static_argnames=("env",))
def team_observations(env: Environment, params: Any, keys: Key[Array, "queries"]):
    """Return the first team observation of every query."""
    return jax.vmap(lambda key: env.reset(key, params)[1])(keys)
