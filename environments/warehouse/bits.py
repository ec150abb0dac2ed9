"""Maps of one bit a place, many places a word: where walls and robots are, and what of it lies around a place."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, UInt32

from jaxmas.environments.warehouse.params import MARGIN, WORD, WarehouseParams


def occupied(cell: Int[Array, "num_agents"], params: WarehouseParams) -> UInt32[Array, "padded_rows words"]:
    """Return where robots are, one bit a place."""
    row, column = (params.place[cell] + MARGIN).T
    bit = jnp.uint32(1) << (column % WORD).astype(jnp.uint32)
    return jnp.zeros_like(params.walls).at[row, column // WORD].add(bit)


def strips(
    words: UInt32[Array, "padded_rows words"], place: Int[Array, "num_agents 2"], reach: int
) -> UInt32[Array, "num_agents side"]:
    """Return the square of bits that reaches so far from each place, one word a row of it, west in the lowest bit."""
    side = 2 * reach + 1
    first = place + MARGIN - reach
    rows = first[:, :1] + jnp.arange(side)
    word, shift = first[:, 1:] // WORD, (first[:, 1:] % WORD).astype(jnp.uint32)
    low, high = words[rows, word], words[rows, word + 1]
    bits = (low >> shift) | jnp.where(shift > 0, high << (WORD - shift), 0)
    return bits & jnp.uint32(2**side - 1)


def spread(words: Integer[Array, "num_agents words"], count: int) -> Int[Array, "num_agents columns"]:
    """Return every word, of 24 bits at most, so many times side by side.

    By a product, which is exact: processors take five times as long to look up which word a column is of.
    """
    each = np.kron(np.eye(words.shape[1], dtype=np.float32), np.ones((1, count), np.float32))
    return jnp.dot(words.astype(jnp.float32), each, precision=jax.lax.Precision.HIGHEST).astype(jnp.int32)


def bits(words: UInt32[Array, "num_agents words"], count: int) -> Int[Array, "num_agents bits"]:
    """Return the lowest bits of every word, each by itself."""
    return (spread(words, count) >> np.tile(np.arange(count), words.shape[1])) & 1
