"""Votes in machine words.

A histogram of one agent's votes on one subtask is a ``uint32``: eight tokens, four bits each. How many votes an agent
has on every subtask is kept a second time, as three bit planes over the subtasks (32 to a word), so that counting
what is visible costs a few words per agent however many subtasks there are.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped, UInt32

VOCABULARY = 8
PLANES = 3
MAX_COUNT = 2**PLANES - 1
WORD = 32


def vote(token: Int[Array, "*s"]) -> UInt32[Array, "*s"]:
    """Return the histogram word of one vote."""
    return jnp.uint32(1) << (4 * token).astype(jnp.uint32)


def shift_tokens(word: UInt32[Array, "*s"], offset: UInt32[Array, "*s"]) -> UInt32[Array, "*s"]:
    """Add ``offset`` (mod 8) to every token of a histogram word: what a garbled message says."""
    return (word << (4 * offset)) | (word >> ((32 - 4 * offset) & 31))


def size(words: UInt32[Array, "*s"]) -> UInt32[Array, "*s"]:
    """Return the number of votes in each histogram word."""
    bytewise = (words & jnp.uint32(0x0F0F0F0F)) + ((words >> 4) & jnp.uint32(0x0F0F0F0F))
    return (bytewise * jnp.uint32(0x01010101)) >> 24


def pooled(words: UInt32[Array, "*s sources"], axis: int = -1) -> Int[Array, "*t 8"]:
    """Add up the histograms of up to 17 sources, four tokens to a word on the way."""
    token = jnp.arange(VOCABULARY, dtype=jnp.uint32)
    halves = [jnp.sum((words >> shift) & jnp.uint32(0x0F0F0F0F), axis=axis, dtype=jnp.uint32) for shift in (0, 4)]
    counts = jnp.where(token % 2 == 0, halves[0][..., None], halves[1][..., None]) >> (8 * (token // 2))
    return (counts & 0xFF).astype(jnp.int32)


def pooled_crowd(words: UInt32[Array, "sources *s"]) -> Int[Array, "*s 8"]:
    """Add up the histograms of up to 4,369 sources along the first axis; four tokens to a word at first, then two."""
    few = min(len(words), 16)
    padded = jnp.pad(words, ((0, -len(words) % few), *[(0, 0)] * (words.ndim - 1)))
    groups = padded.reshape(-1, few, *words.shape[1:])
    tokens = [(groups >> shift) & jnp.uint32(0x0F0F0F0F) for shift in (0, 4)]
    halves = [functools.reduce(jnp.add, [half[:, place] for place in range(few)]) for half in tokens]
    pairs = [
        jnp.sum((halves[p % 2] >> (8 * (p // 2))) & jnp.uint32(0x00FF00FF), axis=0, dtype=jnp.uint32) for p in range(4)
    ]
    counts = [(pairs[token % 4] >> (16 * (token // 4))) & 0xFFFF for token in range(VOCABULARY)]
    return jnp.stack(counts, axis=-1).astype(jnp.int32)


def plurality(counts: Int[Array, "*s 8"], tie: UInt32[Array, "*s"]) -> tuple[Int[Array, "*s"], Int[Array, "*s"]]:
    """Return the most frequent token and its count; ``tie`` (three bits) orders tokens of equal count."""
    order = (tie & 7).astype(jnp.int32)
    best = jnp.max((counts << 3) | (jnp.arange(VOCABULARY) ^ order[..., None]), axis=-1)
    return (best & 7) ^ order, best >> 3


def lanes(tasks: int) -> int:
    """Return how many subtasks share a word."""
    return min(tasks, WORD)


def pack(bits: Bool[Array, "*s tasks"]) -> UInt32[Array, "*s words"]:
    """Pack flags over subtasks into words; more than 32 subtasks come in multiples of 32."""
    width = lanes(bits.shape[-1])
    words = bits.reshape(*bits.shape[:-1], -1, width).astype(jnp.uint32)
    return jnp.sum(words << jnp.arange(width, dtype=jnp.uint32), axis=-1, dtype=jnp.uint32)


def spread(words: UInt32[Array, "*s words"], width: int) -> UInt32[Array, "*s words lanes"]:
    """Undo ``pack``: one 0 or 1 per subtask, still in rows of a word.

    The rows stay: flattening them here would keep XLA from vectorising the loops that this feeds.
    """
    return (words[..., None] >> jnp.arange(width, dtype=jnp.uint32)) & 1


def settled(values: Shaped[Array, "*s"]) -> Shaped[Array, "*s"]:
    """Return integers unchanged, but computed once.

    XLA repeats a chain of cheap operations in each of its uses, 32 times over where the bits of words are spread; it
    does not repeat a reduction.
    """
    either = jnp.where(jnp.arange(2).reshape(2, *[1] * values.ndim) == 0, values, jnp.zeros((), values.dtype))
    return jnp.sum(either, axis=0, dtype=values.dtype)


def by_task(words: UInt32[Array, "rows words"]) -> UInt32[Array, "blocks tasks"]:
    """Transpose a matrix of bits: a word of the result holds one subtask for 32 rows."""
    blocks = -(-len(words) // WORD)
    padded = jnp.pad(words, ((0, blocks * WORD - len(words)), (0, 0))).reshape(blocks, WORD, -1)
    place = jnp.arange(WORD, dtype=jnp.uint32)[:, None, None]
    return jnp.sum(spread(padded, WORD) << place, axis=1, dtype=jnp.uint32).reshape(blocks, -1)


def by_agent(columns: UInt32[Array, "blocks tasks"], rows: int) -> UInt32[Array, "rows words"]:
    """Undo ``by_task``."""
    place = jnp.arange(WORD, dtype=jnp.uint32)[:, None]
    bits = (columns[:, None, :] >> place) & 1
    return pack(bits.astype(bool)).reshape(len(columns) * WORD, -1)[:rows]


def pack_counts(counts: Int[Array, "*s tasks"]) -> UInt32[Array, "3 *s words"]:
    """Pack counts of 0 … 7 over subtasks into bit planes, lowest first."""
    plane = jnp.arange(PLANES).reshape(-1, *[1] * counts.ndim)
    return pack(((counts >> plane) & 1).astype(bool))


def add_saturating(a: UInt32[Array, "3 *s words"], b: UInt32[Array, "3 *s words"]) -> UInt32[Array, "3 *s words"]:
    """Add two bit-sliced counts; more than seven stays seven."""
    return jnp.stack(_add_planes(tuple(a), tuple(b)))


def sum_saturating(counts: UInt32[Array, "3 *s words"], axis: int) -> UInt32[Array, "3 *t words"]:
    """Add up bit-sliced counts along an axis of every plane; more than seven stays seven."""
    zeros = (jnp.uint32(0),) * PLANES
    return jnp.stack(jax.lax.reduce(tuple(counts), zeros, _add_planes, (axis,)))


def _add_planes(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    total, carry = [], jnp.zeros_like(a[0])
    for x, y in zip(a, b, strict=True):
        total.append(x ^ y ^ carry)
        carry = (x & y) | (carry & (x ^ y))
    return tuple(word | carry for word in total)


def at_least(a: UInt32[Array, "3 *s words"], b: UInt32[Array, "3 words"]) -> UInt32[Array, "*s words"]:
    """Compare bit-sliced counts: a ≥ b, subtask by subtask."""
    enough = jnp.bitwise_not(jnp.zeros_like(a[0]))
    for x, y in zip(a, b, strict=True):
        differ = x ^ y
        enough = (x & differ) | (enough & ~differ)
    return enough


def any_vote(planes: UInt32[Array, "3 *s words"]) -> UInt32[Array, "*s words"]:
    """Return which subtasks have a vote."""
    return planes[0] | planes[1] | planes[2]
