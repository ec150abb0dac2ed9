"""``workflow``: a team of agents solves a query, a graph of subtasks."""
