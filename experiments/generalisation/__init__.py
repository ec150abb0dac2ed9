"""Does a designer carry over: to kinds of queries that it never met, to twice the agents, to another pool of models?

``python -m jaxmas.experiments.generalisation [PART …]`` trains designers on ``workflow-narrow-v0`` and on
``workflow-mixed-v0``, the same plays each, and plays both in all of the worlds that ``systems`` names, with the frozen
executors there; beside them the best strategy, the best three plans and the best plan per query of each world. It
writes ``experiments/results/generalisation_PART.json`` and ``.md``; ``jaxmas.experiments.study`` says how it runs.
"""
