"""What a change of the world costs, and who learns anew: skill tables, noise or the model pool change in mid-training.

``python -m jaxmas.experiments.shift [SHIFT …]`` trains designer and executors together on ``workflow-mixed-v0``,
changes the world's numbers, and goes on while coordination alone, the executors alone, or both learn; beside them the
best strategy chosen before the change and after it, and systems trained in the new world only. It writes
``experiments/results/shift.json``, ``.md`` and a figure per shift, anew whenever a run is done. What every run did is
kept beside them, in ``shift/``, and is not run again.
"""
