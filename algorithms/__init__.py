"""Strategies and algorithms: one file per published system, hand-crafted baselines beside them."""


def register() -> None:
    """Enter every strategy, template family and algorithm into the registry."""
    from jaxmas import design_spaces, learners, script_space  # noqa: F401
    from jaxmas.algorithms import ippo, maker, meta_skill, metaagent_x, workflow_strategies  # noqa: F401
