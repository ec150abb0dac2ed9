"""A benchmark for multi-agent coordination under two timescales, in JAX."""
