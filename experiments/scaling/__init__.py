"""How teams of 8 to 1,024 agents scale, where the work grows with the team.

``workflow-crowd-v0`` has a subtask for every two agents, all of which the answer rests on; the warehouse has the
smallest floor on which robots fill at most a sixth of the cells, and the large floor from 256 robots on. Played are
random plans, the strategy that earns most on validation queries, meta-skill trained at each size with equal plays,
meta-skill trained at 16 agents only, and designer and executors that learn together. ``systems`` says what is compared
and what was expected, ``fits`` which law a curve follows, ``sweeps`` what happens at 128 agents when messages are lost,
radios reach less far, or the designer sees less and later. What is kept is not run again: a study that was cut goes on.
"""
