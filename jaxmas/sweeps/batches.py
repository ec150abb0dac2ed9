"""Runs of one algorithm inside one compiled program: each has a key, and numbers of its own among the settings."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxmas.rollout import Policies
from jaxmas.training import Algorithm, repeat
from jaxmas.types import Environment

Settings = TypeVar("Settings")
Values = Mapping[str, Float[Array, "runs"]]
"""By setting, one number per run."""


def with_values(config: Settings, values: Mapping[str, Any]) -> Settings:
    """Return settings with some of them replaced, unchecked: the values may be tracers, which no check could read."""
    copy = object.__new__(type(config))
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        object.__setattr__(copy, field.name, values.get(field.name, getattr(config, field.name)))
    return copy


def side_by_side() -> bool:
    """Return whether runs are played side by side (``vmap``) or in turns, which takes less time on a CPU."""
    return jax.default_backend() != "cpu"


@functools.partial(jax.jit, static_argnames=("config", "env", "together"))
def first_states(
    config: Algorithm,
    env: Environment,
    params: Any,
    start: Policies,
    keys: Key[Array, "runs"],
    values: Values,
    together: bool,
) -> Any:
    """Return every run's state before the first update, stacked."""

    def first(key: Any, values: Mapping[str, Any]) -> Any:
        return with_values(config, values).initial_state(env, params, key, start)

    return _map(first, together, keys, values)


@functools.partial(jax.jit, static_argnames=("config", "env", "most", "together"))
def run_states(
    config: Algorithm,
    env: Environment,
    params: Any,
    start: Policies,
    states: Any,
    values: Values,
    updates: Int[Array, ""] | int,
    most: int,
    together: bool,
) -> tuple[Any, dict[str, Array]]:
    """Run ``updates`` of at ``most`` so many in every run; return states and logs ``[runs, most]``, zeros beyond."""

    def run(state: Any, values: Mapping[str, Any]) -> tuple[Any, dict[str, Array]]:
        return repeat(with_values(config, values), env, params, start, state, updates, most)

    return _map(run, together, states, values)


def _map(function: Callable[..., Any], together: bool, *stacked: Any) -> Any:
    """Map over the leading axis of all arguments, side by side or in turns."""
    return jax.vmap(function)(*stacked) if together else jax.lax.map(lambda one: function(*one), stacked)


def traceable(
    config: Algorithm, env: Environment, params: Any, start: Policies, names: Sequence[str], most: int
) -> tuple[str, ...]:
    """Return the settings, of those named, that runs of one program may differ in.

    These are the numbers on which neither shapes nor Python's control flow depend: with tracers in their place the
    program can still be traced. Errors of the settings themselves are raised as they are.
    """

    def trace(traced: Sequence[str]) -> None:
        keys = jax.random.split(jax.random.key(0), 2)
        values = {name: jnp.full(2, getattr(config, name), jnp.float32) for name in traced}
        together = side_by_side()
        states = jax.eval_shape(lambda: first_states(config, env, params, start, keys, values, together))
        jax.eval_shape(lambda states: run_states(config, env, params, start, states, values, 1, most, together), states)

    def fits(traced: Sequence[str]) -> bool:
        # All of JAX's errors of concretisation are type errors, as is the hash of a tracer; as a static argument of a
        # compiled function a tracer is a value error.
        try:
            trace(traced)
        except (TypeError, ValueError):
            return False
        return True

    if names and fits(names):
        return tuple(names)
    trace(())
    found: tuple[str, ...] = ()
    for name in names if len(names) > 1 else ():
        found += (name,) if fits((*found, name)) else ()
    return found
