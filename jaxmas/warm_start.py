"""Warm start: a designer begins with the templates that earn most, learned by imitation."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxmas.design_policies import LearnedPolicy
from jaxmas.groups import GroupSizes, play_groups, returns
from jaxmas.registry import TEMPLATES
from jaxmas.rollout import Policies
from jaxmas.types import Environment, Scalar

BATCH = 64
"""Designs per supervised step."""


@functools.partial(jax.jit, static_argnames=("env", "designer", "steps", "queries"))
def imitate_templates(
    env: Environment,
    params: Any,
    policies: Policies,
    designer: LearnedPolicy,
    weights: Any,
    key: PRNGKeyArray,
    *,
    steps: int,
    queries: int,
    temperature: Scalar,
    learning_rate: Scalar,
) -> Any:
    """Return the designer's weights after imitation of the templates, in proportion to exp(reward / temperature).

    Every template is tried on ``queries`` training queries with the executors of ``policies``, whose meta-policy is a
    ``TemplatePolicy``; what is learned does not hang on the query, so that all that a designer makes of it is left to
    reinforcement learning.
    """
    try_key, learn_key = jax.random.split(key)
    law = template_rewards(env, params, policies, try_key, queries) / temperature
    adam = optax.adam(learning_rate)

    def step(carry, key):
        weights, moments = carry
        row_key, query_key = jax.random.split(key)
        rows = jax.random.categorical(row_key, law, shape=(BATCH,))
        teams = jax.vmap(lambda key: env.reset(key, params)[1])(jax.random.split(query_key, BATCH))
        choices = jax.vmap(designer.space.from_template)(rows)

        def loss(weights):
            return -jnp.mean(jax.vmap(functools.partial(designer.score, weights))(teams, choices)[0])

        change, moments = adam.update(jax.grad(loss)(weights), moments)
        return (optax.apply_updates(weights, change), moments), None

    (weights, _), _ = jax.lax.scan(step, (weights, adam.init(weights)), jax.random.split(learn_key, steps))
    return weights


def template_rewards(
    env: Environment, params: Any, policies: Policies, key: PRNGKeyArray, queries: int
) -> Float[Array, "templates"]:
    """Return what every template earns on average, all of them on the same queries."""
    query_key, play_key = jax.random.split(key)

    def earned(row):
        tried = dataclasses.replace(policies, meta_params=row)
        return jnp.mean(returns(play_groups(env, params, tried, query_key, play_key, GroupSizes(queries))[0]))

    return jax.lax.map(earned, TEMPLATES[env.family].table())
