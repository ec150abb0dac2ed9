"""``workflow``: a team of agents solves a query, a graph of subtasks.

To read in this order: ``params`` and ``query`` (the world and its queries), ``noise`` and ``votes`` (what chance and
answers are made of), ``work`` (one step of the agents), ``observe`` (what agents and designer see), ``workflow`` (the
environment), ``scripted`` and ``executors`` (who answers), ``scenarios`` and ``pool`` (the frozen numbers), ``render``.
"""
