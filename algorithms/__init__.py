"""Strategies and algorithms: one file per published system, hand-crafted baselines beside them."""


def register() -> None:
    """Enter every strategy, template family and algorithm into the registry."""
    from jaxmas import learners  # noqa: F401
    from jaxmas.algorithms import (  # noqa: F401
        adas,
        aflow,
        agent_prune,
        bandit,
        cheap_first,
        dylan,
        flow_reasoner,
        g_designer,
        gptswarm,
        ippo,
        maas,
        maker,
        masrouter,
        meta_skill,
        metaagent_x,
        neighbours,
        puppeteer,
        warehouse_assignment,
        workflow_strategies,
    )
    from jaxmas.spaces import cascade, graph, pairs, script, slots, template  # noqa: F401
