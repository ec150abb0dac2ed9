"""Counter-based noise: every random event of a query is a hash of what it belongs to.

The same attempt, or message, meets the same noise whatever the rest of the plan does, on every backend.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

GOLDEN = 0x9E3779B9
_LOSS_BITS = 14
_CHANGE_BITS = 18


def mix(word: UInt32[Array, "*s"]) -> UInt32[Array, "*s"]:
    """Scramble a word; a bijection of 32 bits (constants of Wellons' lowbias32, 2018)."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)


def hashed(seed: UInt32[Array, "..."], *counters: Array | int) -> UInt32[Array, "..."]:
    """Hash a seed with any number of integer counters; shapes broadcast."""
    word = seed
    for counter in counters:
        word = mix(word + jnp.uint32(GOLDEN) * jnp.asarray(counter).astype(jnp.uint32) + jnp.uint32(1))
    return word


def uniform(word: UInt32[Array, "*s"]) -> Float[Array, "*s"]:
    """Map a word to [0, 1)."""
    return (word >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def below(word: UInt32[Array, "*s"], bound: int) -> UInt32[Array, "*s"]:
    """Map a word to 0 … bound-1 by its high 16 bits (bias under bound / 65536)."""
    return ((word >> 16) * jnp.uint32(bound)) >> 16


def message_fate(
    word: UInt32[Array, "*s"], loss: Float[Array, ""], change: Float[Array, ""], vocabulary: int
) -> tuple[Bool[Array, "*s"], UInt32[Array, "*s"]]:
    """Split one word into two events: is the message lost, and by how much are its tokens shifted (0: intact)."""
    low, high = word & jnp.uint32(2**_LOSS_BITS - 1), word >> _LOSS_BITS
    lost = low.astype(jnp.float32) < loss * 2**_LOSS_BITS
    changed = high.astype(jnp.float32) < change * 2**_CHANGE_BITS
    return lost, jnp.where(changed, 1 + high % jnp.uint32(vocabulary - 1), 0).astype(jnp.uint32)
