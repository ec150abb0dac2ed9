"""Q2: how much do frozen executors cost a designer, and does training both sides together win it back?

``python -m jaxmas.experiments.frozen_ceiling [PART …] [--small]`` writes
``experiments/results/frozen_ceiling_PART.json``, ``.md`` and figures; ``jaxmas.experiments.study`` says how it runs and
what is kept.

All systems of a part begin with the same executors and are given the same number of plays, the designers' warm start
included. The environment steps of these are in the table; not in it are those of the warm start and of the validation
that chooses the best strategy (2,048 queries for each).

``systems`` says what is compared and what was expected; ``tables`` tells what came out.
"""
