"""What designs look like: a few classes of who reads whom, and how often a meta-policy uses each.

They are labels for analysis. The classes follow from the plan alone, in the order below: the first that fits is taken.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from jaxmas.plans import Plan
from jaxmas.types import Environment, MetaPolicy

STRUCTURES = ("alone", "apart", "hub", "forest", "sparse", "dense")
"""One member; members who read nobody; one reader of the others; nobody is read twice (chains, trees); the rest, with
less or more than half of the possible reads."""
SIZES = (1, 2, 3, 5, 9)
"""Least members of each class of team size."""
QUERIES = 512
"""Designs that a histogram is taken over."""


def structure(plan: Plan) -> Int[Array, ""]:
    """Return the index into ``STRUCTURES`` of a projected plan's reads."""
    slots, inbox = plan.reads.shape
    edge = plan.reads >= 0
    members, edges = jnp.sum(plan.active), jnp.sum(edge)
    readers = jnp.sum(jnp.any(edge, axis=1))
    read = jnp.zeros(slots, jnp.int32).at[jnp.where(edge, plan.reads, slots)].add(1, mode="drop")
    possible = members * jnp.minimum(members - 1, inbox)
    fits = [members <= 1, edges == 0, readers == 1, jnp.max(read) <= 1, 2 * edges < possible]
    return jnp.select(fits, list(range(5)), 5)


@functools.partial(jax.jit, static_argnames=("env", "meta"))
def designs(
    env: Environment, params: Any, meta: MetaPolicy, meta_params: Any, keys: Key[Array, "queries"]
) -> tuple[Int[Array, "queries"], Int[Array, "queries"]]:
    """Return structure and team size of the first plan of every query."""

    def one(key):
        reset_key, plan_key = jax.random.split(key)
        _, team = env.reset(reset_key, params)
        plan = env.plan_space.project(meta.apply(meta_params, meta.init(), team, plan_key)[0])[0]
        return structure(plan), jnp.sum(plan.active)

    return jax.vmap(one)(keys)


def histogram(env: Environment, params: Any, meta: MetaPolicy, meta_params: Any, keys: Any) -> dict[str, Any]:
    """Return how often each structure and team size is designed, as shares of up to ``QUERIES`` queries."""
    kinds, members = (np.asarray(values) for values in designs(env, params, meta, meta_params, keys[:QUERIES]))
    names = [f"{low}" if high == low + 1 else f"{low}–{high - 1}" for low, high in itertools.pairwise(SIZES)]
    sizes = np.digitize(members, SIZES[1:])
    return {
        "structure": {name: float(np.mean(kinds == index)) for index, name in enumerate(STRUCTURES)},
        "members": {name: float(np.mean(sizes == index)) for index, name in enumerate([*names, f"{SIZES[-1]}+"])},
    }
