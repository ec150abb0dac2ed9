"""How much of a learned designer a small tree keeps: an if-else on a few visible numbers that names its own designs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmas import evaluation, references
from jaxmas.algorithms.rules import fit_rule
from jaxmas.design_policies import FixedDesign, LearnedPolicy
from jaxmas.headroom import World
from jaxmas.runs import LoadedPolicy

DEPTH = 4
DESIGNS = 40
"""Designs that a tree chooses among: those that the designer makes most often."""
QUERIES = 2048
"""Validation queries that a tree learns from."""


def retained(policy: LoadedPolicy, world: World, test: Any) -> dict[str, float] | None:
    """Return what the tree earns on test queries, the designer itself, and how often the tree does as it does.

    None for who makes one design for all queries, or one decision after another within a query.
    """
    meta = policy.meta
    if type(meta) is not LearnedPolicy:
        return None
    keys = evaluation.query_keys("validation", QUERIES)
    choices = designs_of(meta, policy.meta_params, world, keys)
    which, kept = commonest(choices)
    matches = (which[:, None] == np.arange(len(kept))).astype(float)
    rule = fit_rule(references.global_features(world.env, world.params, keys), matches, DEPTH)
    features = references.global_features(world.env, world.params, test)
    # As many rows in every run: they are played by one program.
    padded = np.pad(kept, (0, DESIGNS - len(kept)), mode="edge")
    table = jax.tree.map(lambda leaf: jnp.asarray(leaf[padded]), choices)
    own = designs_of(meta, policy.meta_params, world, test)
    arguments = (world.env, world.params, FixedDesign(meta.space))
    executor = (world.executor, world.executor_params)
    taken = rule(features)
    tree = evaluation.reward_of_rows(*arguments, table, *executor, test, taken[None], replicates=range(1))
    every, each = jax.tree.map(jnp.asarray, own), np.arange(len(test))[None]
    itself = evaluation.reward_of_rows(*arguments, every, *executor, test, each, replicates=range(1))
    made, named = rows_of(own), rows_of(jax.tree.map(lambda leaf: leaf[kept][taken], choices))
    alike = np.array([one == other for one, other in zip(made, named, strict=True)])
    return {"tree": float(tree.mean()), "designer": float(itself.mean()), "alike": float(alike.mean())}


def designs_of(meta: LearnedPolicy, weights: Any, world: World, keys: Any) -> Any:
    """Return what the designer chooses for every query."""
    return jax.tree.map(np.asarray, _choices(world.env, meta, world.params, weights, keys))


@functools.partial(jax.jit, static_argnames=("env", "meta"))
def _choices(env, meta, params, weights, keys):
    def choose(key):
        team = env.reset(key, params)[1]
        return meta.apply(weights, meta.init(), team, key)[2]["choice"]

    return jax.vmap(choose)(keys)


def rows_of(choices: Any) -> list[bytes]:
    """Return every query's choice as bytes, to tell like from unlike."""
    leaves = [np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(choices)]
    return [b"".join(row.tobytes() for row in rows) for rows in zip(*leaves, strict=True)]


def commonest(choices: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return for every query the number of its design among the commonest, -1 for others, and a query of each."""
    rows = rows_of(choices)
    names, first, inverse, counts = np.unique(
        np.array(rows, dtype=object), return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")[:DESIGNS]
    place = np.full(len(names), -1)
    place[order] = np.arange(len(order))
    return place[inverse], first[order]
