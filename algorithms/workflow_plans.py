"""A grammar of workflow plans: every hand-crafted strategy and every template is a row of small integers.

A row says how many members a team has, who reads whom, how roles, tiers and tasks are given out, and how many votes a
subtask gets. ``build`` turns a row and a team observation into a plan; what depends on the query (skills, graph,
difficulty) it takes from what the designer sees.
"""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxmas.plans import Plan
from jaxmas.pytrees import pytree
from jaxmas.types import Environment, TeamObservation

TOPOLOGIES = ("copies", "star", "chain", "tree", "layered", "mesh", "random", "graph")
"""Who reads whom; information flows to slot 0, which reports. ``copies`` are read by it and read nobody, in a
``star`` they read it too, and ``graph`` follows the subtasks' own edges."""
ROLES = ("generalist", "skilled", "critic", "spread")
"""All generalists; specialists for the skills of the query; the same with a critic as the last member; specialists of
all skills in turn, whatever the query."""
TIERS = ("weak", "middle", "strong", "mixed", "hard", "escalate")
"""One tier for all; tiers in turn (over the members at a subtask, where tasks are assigned); a stronger tier for the
harder of the assigned subtasks; all weak but the last member, who is strong."""
TASKS = ("free", "assigned")
"""Members choose; or each has one subtask, in turn, ``size`` members per subtask."""
PARTS = {
    "topology": TOPOLOGIES,
    "size": (),
    "roles": ROLES,
    "tier": TIERS,
    "tasks": TASKS,
    "quorum": (),
    "sink_quorum": (),
}
"""The columns of a row and the names of their values; those without names are plain numbers."""
MODES: dict[str, tuple[int, ...]] = {
    "io": (0, 1, 1, 1, 0, 1, 1),
    "repeat": (0, 1, 1, 1, 0, 5, 5),
    "chain": (2, 2, 1, 1, 0, 1, 1),
    "full": (5, 2, 1, 1, 0, 1, 3),
    "debate": (5, 2, 1, 1, 0, 3, 3),
    "reflection": (5, 2, 2, 1, 0, 1, 1),
    "divide": (7, 2, 1, 1, 1, 1, 3),
    "divide and vote": (7, 2, 1, 1, 1, 5, 5),
}
"""The cascade's modes of working together: one answers; one answers several times; each reads the next; all read all;
the same until several agree; with a critic; members per subtask, who read along the graph, without and with votes. With
a size of 1 there is one member, else their number is decided."""
TEAM = (5, 6, 1, 0, 0, 1, 1)
"""Whose links the graph space decides on: a mesh of six weak specialists, but for its size the tuned ``mesh``."""
HARD = 0.35
"""Seen difficulty above which ``hard`` takes the strong tier; below half of it, the weak one."""


@pytree
class Template:
    """One row of the grammar, or a table of rows."""

    topology: Int[Array, "*rows"]
    size: Int[Array, "*rows"]
    """Members; with assigned tasks, members per subtask."""
    roles: Int[Array, "*rows"]
    tier: Int[Array, "*rows"]
    tasks: Int[Array, "*rows"]
    quorum: Int[Array, "*rows"]
    sink_quorum: Int[Array, "*rows"]


def template(
    topology: str = "copies",
    size: int = 1,
    roles: str = "generalist",
    tier: str = "middle",
    tasks: str = "free",
    quorum: int = 1,
    sink_quorum: int | None = None,
) -> Template:
    """Return a row from names."""
    numbers = (
        TOPOLOGIES.index(topology),
        size,
        ROLES.index(roles),
        TIERS.index(tier),
        TASKS.index(tasks),
        quorum,
        sink_quorum or quorum,
    )
    return as_row(numbers)


def describe(row: Template) -> str:
    """Return a row in words, for reports."""
    size, quorum, sink = int(row.size), int(row.quorum), int(row.sink_quorum)
    roles, tier = ROLES[int(row.roles)], TIERS[int(row.tier)]
    votes = f"{quorum} vote{'s' * (quorum > 1)}" + (f", {sink} on the last" if sink != quorum else "")
    if TASKS[int(row.tasks)] == "assigned":
        return f"{size} {tier} {roles} per subtask, {votes}"
    if size == 1:
        return f"one {tier} {roles}, {votes}"
    return f"{TOPOLOGIES[int(row.topology)]} of {size}, {tier} {roles}, {votes}"


@functools.cache
def template_rows() -> tuple[tuple[int, ...], ...]:
    """Return the rows of the template design space."""
    tiers, mixed, hard, escalate = (0, 1, 2), 3, 4, 5
    copies, chain, mesh, graph = (TOPOLOGIES.index(name) for name in ("copies", "chain", "mesh", "graph"))
    sparse = tuple(TOPOLOGIES.index(name) for name in ("star", "tree", "layered", "random"))
    few, many = ((1, 1), (3, 3)), ((1, 1), (1, 3), (3, 3), (5, 5), (7, 7))
    singles = itertools.product([copies], [1], (0, 1), tiers, [0], many)
    teams = itertools.product((copies, mesh), (3, 6), (0, 1), (*tiers, mixed), [0], ((1, 1), (1, 3)))
    chains = itertools.product([chain], [4], [1], tiers, [0], few)
    graphs = itertools.product(sparse, [8], [1], (0, 1), [0], ((1, 3),))
    critics = itertools.product([mesh], (2, 3), [2], (*tiers, mixed, escalate), [0], few)
    lines = itertools.product([graph], [1], [1], (*tiers, hard), [1], many)
    panels = itertools.product([graph], (2, 3), [1], (*tiers, mixed, hard), [1], ((3, 3), (5, 5), (7, 7)))
    plain = itertools.product([graph], (1, 3), [0], tiers, [1], few)
    rows = itertools.chain(singles, teams, chains, graphs, critics, lines, panels, plain)
    return tuple((a, b, c, d, e, *f) for a, b, c, d, e, f in rows)


def as_table(rows: tuple[tuple[int, ...], ...]) -> Template:
    """Return rows of numbers as a tree of columns."""
    return Template(*jnp.array(rows, jnp.int32).T)


def as_row(row: tuple[int, ...]) -> Template:
    """Return one row of numbers as a tree of scalars."""
    return Template(*(jnp.int32(number) for number in row))


def build(env: Environment, row: Template, team: TeamObservation) -> Plan:
    """Turn a row into a plan for this query."""
    n = env.num_agents
    slot = jnp.arange(n)
    subtasks = jnp.maximum(jnp.sum(team.task_mask), 1)
    assigned = row.tasks == 1
    members = jnp.clip(jnp.where(assigned, _copies(env, row, team) * subtasks, row.size), 1, n)
    active = slot < members
    post = slot % subtasks
    role = _roles(row, team, post, members)
    reads = jnp.stack([_topology(name, n, members, env.plan_space.inbox) for name in TOPOLOGIES[:-1]])
    reads = reads[jnp.minimum(row.topology, len(TOPOLOGIES) - 2)]
    along = _graph_reads(team, post, subtasks, members, env.plan_space.inbox)
    quorum = jnp.where(jnp.arange(env.plan_space.num_tasks) == 0, row.sink_quorum, row.quorum)
    plan = Plan(
        active=active,
        role=role,
        tier=_tiers(env.plan_space.num_tiers, row, team, post, subtasks, members),
        task=jnp.where(assigned, post, -1),
        reads=jnp.where(row.topology == len(TOPOLOGIES) - 1, along, reads),
        quorum=quorum,
    )
    return env.plan_space.project(plan)[0]


def _copies(env: Environment, row: Template, team: TeamObservation) -> Int[Array, ""]:
    """Return the members per subtask: no more than the one at a join, who may report too, has room to read."""
    parents = jnp.max(jnp.sum(team.task_parents >= 0, axis=1))
    return jnp.clip((env.plan_space.inbox + 1) // (parents + 1), 1, row.size)


def _roles(
    row: Template, team: TeamObservation, post: Int[Array, "num_agents"], members: Int[Array, ""]
) -> Int[Array, "num_agents"]:
    """Give out roles: generalists, or the skills of the subtasks in turn, perhaps with a critic at the end.

    A member who works alone takes the commonest skill.
    """
    skills = num_skills(team)
    skilled = jnp.argmax(team.task_tokens[:, :skills], axis=-1)[post]
    skilled = jnp.where(members > 1, skilled, jnp.argmax(jnp.sum(team.task_tokens[:, :skills], axis=0)))
    last = (jnp.arange(len(post)) == members - 1) & (members > 1)
    role = jnp.select([row.roles == 0, row.roles == 3], [skills, jnp.arange(len(post)) % skills], skilled)
    return jnp.where((row.roles == 2) & last, skills + 1, role).astype(jnp.int32)


def num_skills(team: TeamObservation) -> int:
    """Return the number of skills: the task tokens' first columns, before the six others."""
    return team.task_tokens.shape[-1] - 6


def _tiers(
    num_tiers: int,
    row: Template,
    team: TeamObservation,
    post: Int[Array, "num_agents"],
    subtasks: Int[Array, ""],
    members: Int[Array, ""],
) -> Int[Array, "num_agents"]:
    """Give out tiers; three grades are spread over however many tiers there are."""
    grades = jnp.array([0, (num_tiers - 1) // 2, num_tiers - 1])
    difficulty = team.task_tokens[:, num_skills(team)][post]
    hard = grades[(difficulty > HARD / 2).astype(jnp.int32) + (difficulty > HARD)]
    same = jnp.full(post.shape, grades[jnp.clip(row.tier, 0, 2)])
    slot = jnp.arange(len(post))
    escalate = jnp.where(slot == members - 1, num_tiers - 1, 0)
    turn = jnp.where(row.tasks == 1, slot // subtasks, slot)
    kinds = [row.tier == 3, row.tier == 4, row.tier == 5]
    return jnp.select(kinds, [turn % num_tiers, hard, escalate], same).astype(jnp.int32)


def _topology(name: str, n: int, members: Int[Array, ""], inbox: int) -> Int[Array, "num_agents inbox"]:
    """Return whom each member reads in a named topology; projection drops what is not on the team."""
    slot, place = jnp.arange(n)[:, None], jnp.arange(inbox)[None, :]
    width = jnp.maximum(jnp.ceil(jnp.sqrt(members)).astype(jnp.int32), 1)
    if name in ("copies", "star"):
        back = jnp.where((place == 0) & (name == "star"), 0, -1)
        reads = jnp.where(slot == 0, 1 + place, back)
    elif name == "chain":
        reads = jnp.where(place == 0, slot + 1, -1)
    elif name == "tree":
        reads = jnp.where(place < 2, 2 * slot + 1 + place, -1)
    elif name == "layered":
        layer = (slot + width - 1) // width
        reads = jnp.where(place < width, layer * width + 1 + place, -1)
    elif name == "mesh":
        reads = (slot + 1 + place) % members
    else:
        offsets = jnp.array(np.random.default_rng(0).integers(1, max(n, 2), (n, 3)))
        reads = jnp.pad((slot + offsets) % members, ((0, 0), (0, max(inbox - 3, 0))), constant_values=-1)[:, :inbox]
    return jnp.where(reads < members, reads, -1)


def _graph_reads(
    team: TeamObservation,
    post: Int[Array, "num_agents"],
    subtasks: Int[Array, ""],
    members: Int[Array, ""],
    inbox: int,
) -> Int[Array, "num_agents inbox"]:
    """Let the members at a subtask read those at its parents, and the reporter its fellows at the sink too."""
    slot = jnp.arange(len(post))
    copies = (members + subtasks - 1) // subtasks
    parents = team.task_parents[post]
    turn = jnp.arange(3)
    upstream = parents[:, None, :] + subtasks * turn[:, None]
    upstream = jnp.where((parents[:, None, :] >= 0) & (turn[:, None] < copies), upstream, -1)
    fellows = post[:, None] + subtasks * jnp.arange(1, 3)
    fellows = jnp.where((slot == 0)[:, None], fellows, -1)
    wanted = jnp.concatenate([fellows, upstream.reshape(len(post), -1)], axis=1)
    wanted = jnp.where(wanted < members, wanted, -1)
    first = jnp.argsort(wanted < 0, axis=1, stable=True)
    return jnp.take_along_axis(wanted, first, axis=1)[:, :inbox]
