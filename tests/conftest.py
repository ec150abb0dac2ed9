"""Check shapes and types at run time in every test, keep what XLA compiled between runs, and forget it in between."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

# Before the first import of jaxmas: modules that are loaded already stay unchecked. The tower lets an int pass for a
# float, as both static type checkers do.
install_import_hook("jaxmas", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# JAX reads the folder from JAX_COMPILATION_CACHE_DIR; by itself it keeps only what took over a second.
if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

MAPS = Path("/proc/self/maps")
MOST_MAPS = 20_000


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs() -> Iterator[None]:
    """Drop compiled programs between files when there are many.

    Each takes some memory maps, of which Linux gives a process 65,530 by default; XLA ends in a segmentation fault when
    there are no more.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()
