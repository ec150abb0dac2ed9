"""Messages: what robots say, one word each, and what they hear from the nearest in range."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxmas.environments.noise import hashed, uniform
from jaxmas.environments.warehouse.bits import spread, strips
from jaxmas.environments.warehouse.params import FAR, MARGIN, WORD, WarehouseParams

RADIO = MARGIN
"""Cells to which messages carry, as the crow flies."""
HEARD = 8
"""Messages that a robot takes in: those from the nearest."""
WIDTH, ZERO, UNIT = np.array([*2 * [(4, RADIO, RADIO)], *2 * [(6, int(FAR), int(FAR))], *4 * [(1, 0, 1)]], np.int32).T
"""Of a message, by its bits on the air, their zero and their unit: from where it came, where its sender goes, two
numbers each; that it carries goods, stands still, has the right of way; that it came."""
SHIFT = np.cumsum(WIDTH, dtype=np.int32) - WIDTH
MESSAGE = len(WIDTH)
"""Numbers of a message; they are the last of the features."""


@functools.cache
def disc() -> np.ndarray:
    """Return the places within radio range, but for the middle, nearest first ``[places, 2]``."""
    span = np.arange(-RADIO, RADIO + 1)
    places = np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1).reshape(-1, 2)
    far = (places**2).sum(axis=1)
    return places[np.argsort(far, kind="stable")][1 : int((far <= RADIO**2).sum())]


def in_reach(robots: UInt32[Array, "num_agents side"]) -> list[UInt32[Array, "num_agents"]]:
    """Return which places of the ``disc`` have a robot, one bit a place, nearest first."""
    found = []
    for start in range(0, len(disc()), WORD):
        bits = [
            ((robots[:, row] >> jnp.uint32(column)) & 1) << jnp.uint32(at)
            for at, (row, column) in enumerate(disc()[start : start + WORD] + RADIO)
        ]
        found.append(functools.reduce(jnp.bitwise_or, bits))
    return found


def first_set(words: list[UInt32[Array, "num_agents"]], count: int) -> Int[Array, "num_agents count"]:
    """Return the numbers of the lowest bits that are set, and that of the bit behind the last for those that lack."""

    def lowest(words, _):
        at, rest, sought = jnp.full(words[0].shape, WORD * len(words), jnp.int32), [], True
        for number, word in enumerate(words):
            here = sought & (word > 0)
            behind = jnp.bitwise_count((word & -word) - 1).astype(jnp.int32)
            at = jnp.where(here, WORD * number + behind, at)
            rest.append(jnp.where(here, word & (word - 1), word))
            sought = sought & (word == 0)
        return rest, at

    return jax.lax.scan(lowest, words, None, length=count)[1].T


def nearest(
    cell: Int[Array, "num_agents"], robots: UInt32[Array, "padded_rows words"], there: Int[Array, "cells"], params
) -> tuple[Int[Array, "num_agents heard"], Int[Array, "num_agents heard"]]:
    """Return the nearest robots in radio range, -1 where there are fewer, and where in the ``disc`` they are."""
    place = params.place[cell]
    at = first_set(in_reach(strips(robots, place, RADIO)), HEARD)
    known = at < len(disc())
    at = jnp.where(known, at, 0)
    row, column = jnp.moveaxis(place[:, None, :] + jnp.asarray(disc(), jnp.int32)[at], -1, 0)
    return jnp.where(known, there[params.number[row, column]], -1), at


def packed(fields: Sequence[Any], first: int = 0) -> Any:
    """Return fields of a message ``[*s]`` side by side in one word ``[*s]``: those from the ``first`` on."""
    words = [(field + ZERO[at]) << SHIFT[at] for at, field in enumerate(fields, first)]
    return functools.reduce(operator.or_, words)


def unpacked(words: Int[Array, "num_agents heard"]) -> Float[Array, "num_agents messages"]:
    """Return the numbers of every message; zeros where a word is 0."""
    shift, mask, zero, unit = (np.tile(each, words.shape[1]) for each in (SHIFT, (1 << WIDTH) - 1, ZERO, UNIT))
    word = spread(words, MESSAGE)
    return jnp.where(word > 0, ((word >> shift & mask) - zero).astype(jnp.float32) / unit, 0)


def said(away: Int[Array, "num_agents 2"], carries: Bool[Array, "num_agents"], state) -> Int[Array, "num_agents"]:
    """Return the word of what each robot says, whose goal is so far away."""
    towards = jnp.clip(away, -int(FAR), int(FAR))
    return packed([*towards.T, carries, state.stopped > 0, state.role == 1, 1], first=2)


def messages(
    says: Int[Array, "num_agents"], robots: UInt32[Array, "padded_rows words"], state, params: WarehouseParams
) -> Float[Array, "num_agents messages"]:
    """Return where those are that robots hear, what they say, and that it came; zeros for a message that was lost."""
    senders, at = nearest(state.cell, robots, state.there, params)
    lost = uniform(hashed(state.noise, state.step, senders, jnp.arange(len(says))[:, None])) < params.message_loss
    away = jnp.asarray(packed(list(disc().T)), jnp.int32)[at]
    return unpacked(jnp.where((senders >= 0) & ~lost, away | says[senders], 0))
