"""Check shapes and types at run time in every test, and keep what XLA compiled between runs."""

import os

import jax
from jaxtyping import install_import_hook

# Before the first import of jaxmas: modules that are loaded already stay unchecked. The tower lets an int pass for a
# float, as both static type checkers do.
install_import_hook("jaxmas", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# JAX reads the folder from JAX_COMPILATION_CACHE_DIR; by itself it keeps only what took over a second.
if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
