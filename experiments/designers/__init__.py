"""Every published way to design a team, side by side on the same queries.

``python -m jaxmas.experiments.designers [PART …] [--small]`` trains every system of a part with every seed, over the
same frozen executors and with the same number of plays, plays it on the same test queries, and writes
``experiments/results/designers_PART.json``, ``.md`` and figures; ``jaxmas.experiments.study`` says how it runs and
what is kept. Beside the systems stand every strategy, the best fixed plan, the best three, the depth-3 rule and the
best plan per query, bracketed.

``systems`` says what is compared and what was expected, ``measures`` what of it is told, ``tables`` how.
"""
