"""The two-timescale roll-out: a scan over plan intervals, inside it a scan over executor steps.

An episode that ends within an interval stays as it is (environments see to that) until the next plan boundary and
gives way to a new one there, so that the meta-policy runs only at boundaries. Functions here take one instance;
callers ``vmap`` over environments.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, Shaped

from jaxmas.distributions import invert
from jaxmas.plans import Plan
from jaxmas.pytrees import pytree
from jaxmas.types import Environment, Executor, MetaPolicy, Observation, TeamObservation, TimeStep


@pytree
class Episode:
    """An episode under way, with the carries of those who play it."""

    state: Any
    meta_carry: Any
    executor_carry: Any


@pytree
class ExecutorStep:
    """What one executor step leaves for executor learning and for renderers."""

    observation: Observation
    action: Int[Array, "num_agents"]
    log_prob: Float[Array, "num_agents"]
    mask: Bool[Array, "num_agents"]
    """Agents that acted in a live episode: the others are left out of losses."""
    reward: Float[Array, ""]
    agent_reward: Float[Array, "num_agents"]
    live: Bool[Array, ""]


@pytree
class MetaStep:
    """One decision of the meta-policy, a semi-Markov transition.

    ``reward`` is Σ γⁱ r over the interval's steps, ``discount`` γⁿ (1 − terminated). ``next_team`` is the team
    observation before any reset, from which the next value follows.
    """

    team: TeamObservation
    plan: Plan
    info: dict[str, Any]
    reward: Float[Array, ""]
    discount: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    next_team: TeamObservation
    steps: Int[Array, ""]
    """Steps lived in the interval."""
    acting: Int[Array, ""]
    """Agent-steps with work in the interval."""
    metrics: dict[str, Shaped[Array, ""]]
    """The episode's running totals at its last live step."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["meta_params", "executor_params"],
    meta_fields=["meta", "executor"],
)
@dataclasses.dataclass(frozen=True)
class Policies:
    """Who plays: a meta-policy and an executor with their parameters; a pytree of the parameters."""

    meta: MetaPolicy
    meta_params: Any
    executor: Executor
    executor_params: Any


def begin(env: Environment, params: Any, policies: Policies, key: PRNGKeyArray) -> Episode:
    """Draw a query and start everyone's carry."""
    return _fresh(env, policies, env.reset(key, params)[0])


def meet(env: Environment, params: Any, policies: Policies, state: Any, noise_key: PRNGKeyArray) -> Episode:
    """Meet a query as ``reset`` drew it, once more: under new noise."""
    return _fresh(env, policies, env.reseed(noise_key, state, params))


def _fresh(env: Environment, policies: Policies, state: Any) -> Episode:
    return Episode(state, policies.meta.init(), policies.executor.init(env.num_agents))


def play_interval(
    env: Environment,
    params: Any,
    policies: Policies,
    episode: Episode,
    key: PRNGKeyArray,
    *,
    plan_key: PRNGKeyArray | None = None,
    discount: float = 1.0,
    keep_steps: bool = False,
    own_actions: bool = False,
    limit: Int[Array, ""] | None = None,
) -> tuple[Episode, MetaStep, ExecutorStep | None]:
    """Plan once, then let the executors act until the next plan boundary.

    With ``keep_steps`` every executor step is returned as well, stacked over time. A ``plan_key`` of its own lets
    several plans of one query meet the same chance otherwise; with ``own_actions`` the executors' draws are the plan's
    own, too. A ``limit`` that is the same for all episodes played side by side says after how many steps each of them
    is over: the steps beyond are not computed, and kept as zeros.
    """
    own_key, coordinate_key, sample_key, step_key = jax.random.split(key, 4)
    chance = own_key if plan_key is None else plan_key
    if own_actions:
        sample_key = jax.random.fold_in(sample_key, jax.random.bits(chance))
    team = env.observe_team(episode.state, params)
    plan, meta_carry, info = policies.meta.apply(policies.meta_params, episode.meta_carry, team, chance)
    state, observation = env.coordinate(coordinate_key, episode.state, plan, params)
    uniforms = jax.random.uniform(sample_key, (env.coordination_interval, env.num_agents))
    step_keys = jax.random.split(step_key, (env.coordination_interval, 2))

    def act(carry, inputs):
        state, observation, executor_carry, ended, tally = carry
        uniform, (executor_key, step_key) = inputs
        executor_carry, distribution = policies.executor.apply(
            policies.executor_params, executor_carry, observation, observation.acting, executor_key
        )
        action = invert(distribution, uniform)
        state, timestep = _step(env, step_key, state, action, params)
        step = _executor_step(observation, action, distribution, timestep, ~ended) if keep_steps else None
        tally = _Tally(
            reward=tally.reward + tally.weight * timestep.reward,
            weight=tally.weight * discount,
            steps=tally.steps + ~ended,
            acting=tally.acting + jnp.sum(observation.acting),
            terminated=timestep.terminated,
            truncated=timestep.truncated,
            metrics=timestep.metrics,
        )
        ended = timestep.terminated | timestep.truncated
        return (state, timestep.observation, executor_carry, ended, tally), step

    carry = (state, observation, episode.executor_carry, env.is_over(state), _no_tally(env, params, state))
    # At least one step: an episode that is over still has metrics to report.
    last = None if limit is None else jnp.clip(limit, 1, env.coordination_interval)
    carry, steps = scan_up_to(act, carry, (uniforms, step_keys), last)
    state, _, executor_carry, _, tally = carry
    meta_step = MetaStep(
        team=team,
        plan=plan,
        info=info,
        reward=tally.reward,
        discount=jnp.where(tally.terminated, 0.0, jnp.float32(discount) ** tally.steps),
        terminated=tally.terminated,
        truncated=tally.truncated,
        next_team=env.observe_team(state, params),
        steps=tally.steps,
        acting=tally.acting,
        metrics=tally.metrics,
    )
    return Episode(state, meta_carry, executor_carry), meta_step, steps


def scan_up_to(step: Callable, carry: Any, inputs: Any, last: Int[Array, ""] | None) -> tuple[Any, Any]:
    """Scan over the first ``last`` of the inputs, all where it is None; outputs beyond are zeros."""
    if last is None:
        return jax.lax.scan(step, carry, inputs)
    count = len(jax.tree.leaves(inputs)[0])
    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    shapes = jax.eval_shape(lambda carry, now: step(carry, now)[1], carry, first)
    outputs = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), shapes)

    def loop(at, both):
        carry, outputs = both
        carry, output = step(carry, jax.tree.map(lambda leaf: leaf[at], inputs))
        return carry, jax.tree.map(lambda every, one: every.at[at].set(one), outputs, output)

    return jax.lax.fori_loop(0, last, loop, (carry, outputs))


@pytree
class _Tally:
    """What an interval has come to so far; ``weight`` is γⁱ."""

    reward: Float[Array, ""]
    weight: Float[Array, ""]
    steps: Int[Array, ""]
    acting: Int[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    metrics: dict[str, Shaped[Array, ""]]


@functools.partial(jax.jit, static_argnums=0)
def _step(env: Environment, *arguments: Any) -> tuple[Any, TimeStep]:
    """Step; traced once, though its result's shape is asked for before."""
    return env.step(*arguments)


def _no_tally(env: Environment, params: Any, state: Any) -> _Tally:
    """Return the tally before the first step, whose metrics take the place of the zeros here."""
    actions = jnp.zeros(env.num_agents, jnp.int32)
    _, timestep = jax.eval_shape(functools.partial(_step, env), jax.random.key(0), state, actions, params)
    metrics = jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), timestep.metrics)
    nothing, no = jnp.float32(0), jnp.array(False)
    return _Tally(nothing, nothing + 1, jnp.int32(0), jnp.int32(0), no, no, metrics)


def _executor_step(observation, action, distribution, timestep: TimeStep, live) -> ExecutorStep:
    return ExecutorStep(
        observation=observation,
        action=action,
        log_prob=distribution.log_prob(action),
        mask=observation.acting,
        reward=timestep.reward,
        agent_reward=timestep.agent_reward,
        live=live,
    )


def play_query(
    env: Environment,
    params: Any,
    policies: Policies,
    episode: Episode,
    key: PRNGKeyArray,
    *,
    plan_key: PRNGKeyArray | None = None,
    limit: Int[Array, ""] | None = None,
    **options: Any,
) -> tuple[Episode, MetaStep, ExecutorStep | None]:
    """Play one query from its start to its end, without reset: one ``MetaStep`` per plan boundary, stacked.

    ``limit`` is ``play_interval``'s, counted from the start of the query.
    """
    intervals = env.horizon // env.coordination_interval
    if intervals == 1:
        # No scan: what callers share between episodes, such as the observation of one query, stays shared.
        key, own_key = jax.random.split(key)
        own_key = own_key if plan_key is None else jax.random.split(plan_key, 1)[0]
        episode, *rest = play_interval(env, params, policies, episode, key, plan_key=own_key, limit=limit, **options)
        return episode, *jax.tree.map(lambda leaf: leaf[None], tuple(rest))
    plan_keys = None if plan_key is None else jax.random.split(plan_key, intervals)

    def interval(episode, inputs):
        key, plan_key, begun = inputs
        left = None if limit is None else limit - begun
        played = play_interval(env, params, policies, episode, key, plan_key=plan_key, limit=left, **options)
        return played[0], played[1:]

    begun = jnp.arange(intervals) * env.coordination_interval
    inputs = jax.random.split(key, intervals), plan_keys, begun
    episode, (meta_steps, steps) = jax.lax.scan(interval, episode, inputs)
    return episode, meta_steps, steps


def play_on(
    env: Environment, params: Any, policies: Policies, episode: Episode, keys: Key[Array, "2"], **options: Any
) -> tuple[Episode, MetaStep, ExecutorStep | None]:
    """Play the next plan interval, of a new episode if this one is over; ``keys`` are for the reset and for the play.

    A scan over this is a life of one query after another.
    """
    reset_key, play_key = keys
    fresh, over = begin(env, params, policies, reset_key), env.is_over(episode.state)
    episode = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, episode)
    return play_interval(env, params, policies, episode, play_key, **options)
