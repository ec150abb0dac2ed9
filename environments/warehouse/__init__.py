"""``warehouse``: robots on a grid serve orders without end."""
