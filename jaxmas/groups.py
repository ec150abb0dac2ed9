"""Groups: queries × designs × executions, played side by side.

A *design* is one draw from the meta-policy for a query, an *execution* one try at it under noise of its own (the
executor-designer hierarchical roll-out of MetaAgent-X, arXiv 2605.14212). With one design and one execution a group is
a plain roll-out; with several designs of one execution each it is a group of GRPO.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxmas.devices import num_devices, shared_out, split
from jaxmas.errors import refuse
from jaxmas.rollout import ExecutorStep, MetaStep, Policies, meet, play_query
from jaxmas.types import Environment

PARTS = 4
"""Parts that the queries of an update are played in, by their length: a part is over when its longest query is."""


@dataclasses.dataclass(frozen=True)
class GroupSizes:
    """How much is played in an update."""

    queries: int
    designs: int = 1
    """Per query."""
    executions: int = 1
    """Per design."""
    shared_noise: bool = True
    """Let the designs of a query meet the same noise, execution by execution."""

    @property
    def parts(self) -> int:
        """Return how many parts the queries are played in."""
        return math.gcd(self.queries, PARTS)

    def check_devices(self, devices: int) -> None:
        """Refuse devices that cannot have equal shares of a part's queries."""
        part = self.queries // self.parts
        fewer = max(count for count in range(1, devices + 1) if part % count == 0)
        refuse(
            fewer < devices,
            f"{devices} devices cannot share out {self.queries} queries, of which {part} are played at a time; "
            f"take {fewer}, or a multiple of {PARTS * devices} queries",
        )


def play_groups(
    env: Environment,
    params: Any,
    policies: Policies,
    query_key: PRNGKeyArray,
    play_key: PRNGKeyArray,
    sizes: GroupSizes,
    *,
    discount: float = 1.0,
    collect: Callable[[ExecutorStep], Any] | None = None,
) -> tuple[MetaStep, Any]:
    """Play every execution of every design of every query.

    Leaves of the ``MetaStep`` are ``[queries, designs, executions, boundaries, …]``; queries of like length are played
    together, and come back in that order. Designs that share noise share the executors' draws too, so that they differ
    by the plan alone; but not where executors learn, as a like action in a like situation would be its own baseline.

    ``collect`` takes what is wanted of a part's executor steps, whose leaves are
    ``[queries in part, designs, executions, boundaries, interval, …]``; what it returns is stacked over parts.
    """

    def draw(key, params):
        # One more split than it takes: these are the queries that the published tables were trained on.
        state, _ = env.reset(jax.random.split(key, 1)[0], params)
        return state, env.steps_left(state)

    def group(query, limit, params, policies):
        state, key = query
        noise, plan_keys = _group_keys(key, sizes)

        def execution(noise_key, plan_key):
            episode = meet(env, params, policies, state, noise_key)
            learned = collect is not None
            options = {"plan_key": plan_key, "discount": discount, "limit": limit}
            options |= {"keep_steps": learned, "own_actions": learned}
            return play_query(env, params, policies, episode, noise_key, **options)[1:]

        each = jax.vmap(execution, in_axes=(0, None))
        return jax.vmap(each, in_axes=(None if sizes.shared_noise else 0, 0))(noise, plan_keys)

    def part(inputs):
        states, keys, lengths = inputs
        play = shared_out(jax.vmap(group, in_axes=(0, None, None, None)))
        meta, steps = play((states, keys), jnp.max(lengths), params, policies)
        return meta, None if steps is None or collect is None else collect(steps)

    sizes.check_devices(num_devices())
    draws = shared_out(jax.vmap(draw, in_axes=(0, None)))
    states, lengths = draws(jax.random.split(query_key, sizes.queries), params)
    inputs = states, jax.random.split(play_key, sizes.queries), lengths
    order = jnp.argsort(lengths).reshape(sizes.parts, -1)
    meta, collected = jax.lax.map(part, jax.tree.map(lambda leaf: leaf[order], inputs))
    return split(jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), meta)), collected


def _group_keys(key: PRNGKeyArray, sizes: GroupSizes) -> tuple[Array, Array]:
    """Return keys of the noise ``[designs?, executions]``, without designs where they share it, and of the designs."""
    noise_key, plan_key = jax.random.split(key)
    if not sizes.shared_noise:
        noise = jax.random.split(noise_key, sizes.designs * sizes.executions).reshape(sizes.designs, -1)
    elif sizes.executions == 1:
        noise = noise_key[None]
    else:
        noise = jax.random.split(noise_key, sizes.executions)
    return noise, jax.random.split(plan_key, sizes.designs)


def returns(steps: MetaStep) -> Float[Array, "*groups"]:
    """Return Σ_k (Π_{j<k} γ_j) r_k over an episode's plan intervals."""
    before = jnp.cumprod(steps.discount, axis=-1)[..., :-1]
    weight = jnp.concatenate([jnp.ones_like(steps.discount[..., :1]), before], axis=-1)
    return jnp.sum(weight * steps.reward, axis=-1)


def valid_designs(steps: MetaStep) -> Bool[Array, "queries designs"]:
    """Return which designs are programs; whoever else plans makes no mistakes of that kind."""
    if "valid" not in steps.info:
        return jnp.ones(steps.reward.shape[:2], bool)
    return jnp.all(steps.info["valid"] | (steps.steps == 0), axis=(2, 3))


def score_designs(policy: Any, weights: Any, steps: MetaStep) -> tuple[Array, Array]:
    """Return log-probability and entropy under ``weights`` of every decision ``[queries, designs, boundaries]``."""

    def one(team, choice):
        return policy.score(weights, team, choice)[:2]

    if steps.reward.shape[-1] > 1:
        return jax.vmap(jax.vmap(jax.vmap(one)))(steps.team, steps.info["choice"])
    # All designs of a query answer one observation: it is encoded once.
    first = jax.tree.map(lambda leaf: leaf[:, 0, 0], steps.team)
    return jax.vmap(jax.vmap(jax.vmap(one, (None, 0)), (None, 0)))(first, steps.info["choice"])
