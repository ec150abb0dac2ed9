"""Q2: how much do frozen executors cost a designer, and does training both sides together win it back?

``python -m jaxmas.experiments.frozen_ceiling [PART …] [--small]`` trains every system of a part with every seed, plays
it on the same test queries, and writes ``experiments/results/frozen_ceiling_PART.json``, ``.md`` and figures. Runs are
ordinary run directories under ``--runs``: a study that was cut goes on where it stopped. What a finished system did on
every query is kept beside the tables, in ``frozen_ceiling_PART/SYSTEM.json.gz``: it is not run again, on no machine,
until that file is deleted.

All systems of a part begin with the same executors and are given the same number of plays, the designers' warm start
included. The environment steps of these are in the table; not in it are those of the warm start and of the validation
that chooses the best strategy (2,048 queries for each).

``systems`` says what is compared and what was expected; ``run`` trains, plays and keeps; ``tables`` tells.
"""
