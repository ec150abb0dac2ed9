"""Draw a query: its graph of subtasks with their votes, the team that works on it, and what happened when.

``read`` takes from a state what a frame shows; everything below it only draws. Panels are measured in inches, so that
a circle is a circle. Right and wrong differ in shape (filled, hollow) as well as in colour; colours are Okabe and
Ito's, which colour-blind readers can tell apart.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmas.environments.workflow.query import SHAPES
from jaxmas.environments.workflow.votes import VOCABULARY
from jaxmas.environments.workflow.workflow import ADVERSARIAL, HONEST
from jaxmas.render import Before, Story

PASSED = -1
RIGHT, WRONG = "#009E73", "#D55E00"
SKILLS = ("#0072B2", "#E69F00", "#56B4E9", "#CC79A7", "#7A6A4F", "#F0E442")
INK, GREY, FAINT, PAPER, GENERAL = "#222222", "#767676", "#D5D5D5", "#F7F7F5", "#9A9A9A"
MAX_DRAWN, MAX_GRID = 16, 24
"""Members drawn with their messages; of a larger team, members drawn at all."""
MAX_LAYERS, MAX_ROWS = 8, 6
"""Graphs up to this size are drawn as cards (subtasks) or in layers (team)."""
PITCH = 0.178
"""Inches from one vote to the next."""
MAX_LINES = 10
"""Subtasks with a line of their own in the time line."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """What one frame shows; arrays over the query's own subtasks, or over all slots."""

    step: int
    deadline: int
    over: bool
    reported: int
    """The reported answer; -1 is none."""
    cost: float
    attempts: int
    messages: int
    shape: str
    rho: float
    handoff_noise: float
    num_skills: int
    skill: np.ndarray
    difficulty: np.ndarray
    answer: np.ndarray
    parents: np.ndarray
    height: np.ndarray
    quorum: np.ndarray
    votes: np.ndarray
    """Votes on each subtask for each token, ``[tasks, 8]``, over all slots."""
    active: np.ndarray
    role: np.ndarray
    tier: np.ndarray
    character: np.ndarray
    assigned: np.ndarray
    """The subtask that the plan gives to each slot; -1 is free choice."""
    working: np.ndarray
    """The subtask that each slot is about to answer; -1 is none."""
    last_task: np.ndarray
    last_token: np.ndarray
    """Each slot's last answer and the subtask that it was for; -1 before the first or after a pass."""
    reporter: int
    edges: np.ndarray
    """Messages as pairs of sender and reader, ``[messages, 2]``."""
    live: np.ndarray
    """Which of them carry votes that the reader's present work rests on."""
    events: np.ndarray
    """Answers of the step that led here, ``[answers, 3]``: slot, subtask, token."""

    @property
    def right(self) -> bool:
        """Return whether the report is the true answer."""
        return self.over and self.reported == int(self.answer[0])


def read(env: Any, params: Any, state: Any, before: Before | None) -> Scene:
    """Return what a frame shows of a state on the host."""
    query, plan, team, work = state.query, state.plan, state.team, state.work
    size = int(np.sum(query.mask))
    per_agent = histograms(state.board.votes)[:, :size]
    working = np.where(work.acting, work.task, -1)
    edges = _edges(team.reads)
    return Scene(
        step=int(state.step),
        deadline=int(query.deadline),
        over=bool(state.over),
        reported=int(state.reported),
        cost=float(state.totals.cost),
        attempts=int(state.totals.attempts.sum()),
        messages=int(state.totals.messages),
        shape=SHAPES[int(query.shape)],
        rho=float(query.rho),
        handoff_noise=float(query.handoff_noise),
        num_skills=env.num_skills,
        **{name: getattr(query, name)[:size] for name in ("skill", "difficulty", "answer", "parents", "height")},
        quorum=plan.quorum[:size],
        votes=per_agent.sum(axis=0),
        **{name: getattr(plan, name) for name in ("active", "role", "tier")},
        character=state.character,
        assigned=plan.task,
        working=working,
        reporter=int(team.reporter),
        edges=edges,
        live=_live(edges, working, query.parents, per_agent.sum(axis=2)),
        **_happened(state, before),
    )


def histograms(words: np.ndarray) -> np.ndarray:
    """Unpack histogram words ``[*s]`` to counts ``[*s, 8]``."""
    return ((words[..., None] >> (4 * np.arange(VOCABULARY, dtype=np.uint32))) & 15).astype(np.int32)


def _edges(reads: np.ndarray) -> np.ndarray:
    reader, place = np.nonzero(reads >= 0)
    return np.stack([reads[reader, place], reader], axis=1)


def _live(edges: np.ndarray, working: np.ndarray, parents: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the messages whose sender has votes on the reader's subtask or on a parent of it."""
    sender, task = edges[:, 0], working[edges[:, 1]]
    topics = np.concatenate([task[:, None], parents[task]], axis=1)
    says = (count[sender[:, None], np.maximum(topics, 0)] > 0) & (topics >= 0)
    return says.any(axis=1) & (task >= 0)


def _happened(state: Any, before: Before | None) -> dict[str, np.ndarray]:
    """Return the answers of the last step, and every slot's last one."""
    slots = len(state.character)
    if before is None:
        nothing = np.full(slots, -1)
        return {"last_task": nothing, "last_token": nothing, "events": np.zeros((0, 3), np.int64)}
    scene = before.scene
    if before.actions is None:
        return {name: getattr(scene, name) for name in ("last_task", "last_token", "events")}
    agent, task, token = answers(before.state, state, before.actions)
    last_task, last_token = scene.last_task.copy(), scene.last_token.copy()
    last_task[agent], last_token[agent] = task, token
    return {"last_task": last_task, "last_token": last_token, "events": np.stack([agent, task, token], axis=1)}


def answers(earlier: Any, later: Any, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return who answered what in a step, -1 for a pass: what the board gained, as faulty slots ignore their action."""
    agent = np.flatnonzero(earlier.work.acting)
    task = earlier.work.task[agent]
    old, new = earlier.board.votes[agent, task], later.board.votes[agent, task]
    gained = histograms(new) - histograms(np.where(earlier.work.revising[agent], np.uint32(0), old))
    passed = (new == old) & (actions[agent] >= VOCABULARY) & (earlier.character[agent] == HONEST)
    return agent, task, np.where(passed, PASSED, np.argmax(gained, axis=1))


# Layout


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where nodes lie, the way points of the edges, and how much room a node has."""

    place: dict[int, tuple[float, float]]
    way: dict[tuple[int, int], list[tuple[float, float]]]
    column: float
    row: float


def layered(level: dict[int, int], edges: Sequence[tuple[int, int]], width: float, height: float) -> Layout:
    """Lay out a graph in columns, level 0 at the right; edges that skip columns get a lane of their own.

    Nodes within a column are sorted by the mean place of their neighbours (Sugiyama's method).
    """
    columns: list[list[Any]] = [[] for _ in range(max(level.values()) + 1)]
    for node, at in level.items():
        columns[at].append(node)
    chains = {}
    for start, end in edges:
        lanes = [(start, end, at) for at in range(level[start] - 1, level[end], -1)]
        for lane in lanes:
            columns[lane[2]].append(lane)
        chains[start, end] = [start, *lanes, end]
    _untangle(columns, list(chains.values()))
    column = width / len(columns)
    weights = [[0.35 if isinstance(item, tuple) else 1.0 for item in items] for items in columns]
    row = min(height / max(sum(weight) for weight in weights), 1.65)
    place = {}
    for at, (items, weight) in enumerate(zip(columns, weights, strict=True)):
        middles = np.cumsum(weight) - np.array(weight) / 2 - sum(weight) / 2
        for item, middle in zip(items, middles, strict=True):
            place[item] = (width - (at + 0.5) * column, height / 2 - float(middle) * row)
    way = {edge: [place[item] for item in chain] for edge, chain in chains.items()}
    return Layout({node: place[node] for node in level}, way, column, row)


def _untangle(columns: list[list[Any]], chains: list[list[Any]]) -> None:
    """Sort every column by the mean rank of its items' neighbours, sweeping back and forth."""
    near: dict[Any, set[Any]] = {item: set() for items in columns for item in items}
    for chain in chains:
        for one, other in itertools.pairwise(chain):
            near[one].add(other)
            near[other].add(one)
    rank = {item: index - (len(items) - 1) / 2 for items in columns for index, item in enumerate(items)}
    forth = list(range(1, len(columns)))
    for at, beside in [*[(a, a - 1) for a in forth], *[(a - 1, a) for a in reversed(forth)]] * 3:
        beyond = set(columns[beside])
        mean = {item: np.mean([rank[other] for other in near[item] & beyond] or [rank[item]]) for item in columns[at]}
        columns[at].sort(key=mean.__getitem__)
        rank.update({item: index - (len(columns[at]) - 1) / 2 for index, item in enumerate(columns[at])})


def team_layout(scene: Scene, members: list[int], width: float, height: float) -> Layout:
    """Lay out a team: in layers towards the reporter where messages allow it, else as a star or a ring."""
    edges = [(int(a), int(b)) for a, b in scene.edges]
    level = _levels(scene, members, edges)
    if level is not None:
        rows = max(np.bincount(list(level.values())))
        if max(level.values()) < MAX_LAYERS and rows <= MAX_ROWS:
            forward = [edge for edge in edges if level[edge[0]] > level[edge[1]]]
            layout = layered(level, forward, width - 0.4, height)
            # Bends and names need room at the sides. Lanes are for cards, which edges must not cross.
            place = {member: (x + 0.15, y) for member, (x, y) in layout.place.items()}
            return dataclasses.replace(layout, place=place, way={edge: [] for edge in forward})
    star = len(members) > 2 and len(edges) > 0 and all(scene.reporter in edge for edge in edges)
    ring = [member for member in members if not (star and member == scene.reporter)]
    # Nobody stands right below a star's middle, where its name is.
    turn = 2 * np.pi * (np.arange(len(ring)) + 0.5 * star) / len(ring) + np.pi / 2
    x, y = width / 2 + 0.4 * width * np.cos(turn), height / 2 - 0.41 * height * np.sin(turn)
    place = {member: (float(a), float(b)) for member, a, b in zip(ring, x, y, strict=True)}
    if star:
        place[scene.reporter] = (width / 2, height / 2)
    gap = 2.6 * width / max(len(ring), 3)
    return Layout(place, {}, gap, gap)


def _levels(scene: Scene, members: list[int], edges: list[tuple[int, int]]) -> dict[int, int] | None:
    """Return each member's layer: its subtask's where all are assigned, else its longest way to the reporter.

    None where messages go round in circles, or where the longest ways put a star or loose members in a column.
    """
    if all(0 <= scene.assigned[member] < len(scene.height) for member in members):
        # Those at one subtask stay side by side.
        together = sorted(members, key=lambda member: scene.assigned[member])
        return {member: int(scene.height[scene.assigned[member]]) for member in together}
    level = dict.fromkeys(members, 0)
    for _ in members:
        for sender, reader in edges:
            level[sender] = max(level[sender], level[reader] + 1)
    acyclic = max(level.values()) < len(members)
    loose = [member for member in members if level[member] == 0]
    return level if acyclic and len(loose) == 1 and (max(level.values()) > 1 or len(members) <= 3) else None


# Drawing


def draw(figure: Any, story: Story, index: int) -> None:
    """Draw the story up to one of its scenes."""
    scene = story.scenes[index]
    _draw_header(_panel(figure, 0.3, 6.72, 11.4, 0.78), story, scene)
    graph = _panel(figure, 0.3, 2.62, 7.0, 4.02, f"query · {scene.shape} · {_plural(len(scene.skill), 'subtask')}")
    _draw_query(graph, scene, story.scenes[-1])
    _draw_times(_panel(figure, 0.3, 0.62, 7.0, 1.9, "answers by step"), story.scenes[: index + 1])
    _draw_team(_panel(figure, 7.45, 0.62, 4.25, 6.02, _team_title(scene)), scene)
    _draw_legend(_panel(figure, 0.3, 0.06, 11.4, 0.5), scene)


def _panel(figure: Any, x: float, y: float, width: float, height: float, title: str = "") -> Any:
    """Add axes in inches; a titled panel has a ground and keeps its top for the title."""
    full_width, full_height = figure.get_size_inches()
    axes = figure.add_axes((x / full_width, y / full_height, width / full_width, height / full_height))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    if title:
        _box(axes, 0, 0, width, height, fill=PAPER, zorder=0)
        axes.text(0.12, height - 0.17, title, fontsize=9, color=GREY, va="center")
    return axes


def _extent(axes: Any, title: float = 0.0) -> tuple[float, float]:
    """Return the width and height of a panel, less what its title takes."""
    return float(axes.get_xlim()[1]), float(axes.get_ylim()[1]) - title


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _box(axes: Any, x: float, y: float, width: float, height: float, **style: Any) -> None:
    """Draw a rounded rectangle from its lower left corner."""
    from matplotlib.patches import FancyBboxPatch

    look = {"facecolor": style.get("fill", "white"), "edgecolor": style.get("edge", "none")}
    look |= {"linewidth": style.get("line", 1.0), "zorder": style.get("zorder", 2)}
    round_off = min(0.05, width / 3, height / 3)
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=f"round,pad=0,rounding_size={round_off}", **look))


def _disc(axes: Any, x: float, y: float, radius: float, **style: Any) -> None:
    from matplotlib.patches import Circle

    look: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "linewidth": 1.0, "zorder": 4}
    axes.add_patch(Circle((x, y), radius, **look | style))


def _label(axes: Any, x: float, y: float, text: str, size: float = 8, **style: Any) -> None:
    axes.text(
        x, y, text, **{"fontsize": size, "color": INK, "ha": "center", "va": "center_baseline", "zorder": 6} | style
    )


def _arrow(
    axes: Any,
    points: Sequence[tuple[float, float]],
    *,
    bend: float = 0.0,
    shrink: tuple[float, ...] = (0.0, 0.0),
    **style: Any,
) -> None:
    """Draw an arrow along points, curved by ``bend`` where there are two; ``shrink`` is kept free at its ends."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    look: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 8, "color": FAINT, "linewidth": 1.1, "zorder": 1}
    look |= style
    if len(points) == 2:
        look |= {"connectionstyle": f"arc3,rad={bend}", "shrinkA": 72 * shrink[0], "shrinkB": 72 * shrink[1]}
        axes.add_patch(FancyArrowPatch(*points, **look))
        return
    codes = [Path.MOVETO, *[Path.CURVE4] * (len(points) - 1)]
    axes.add_patch(FancyArrowPatch(path=Path(list(points), codes), **look))


def _chip(axes: Any, x: float, y: float, token: int, right: bool, radius: float = 0.078) -> None:
    """Draw one answer: filled where it is right, hollow where it is wrong."""
    colour = RIGHT if right else WRONG
    _disc(axes, x, y, radius, facecolor=colour if right else "white", edgecolor=colour, linewidth=1.2, zorder=5)
    _label(axes, x, y, str(token), 94 * radius, color="white" if right else colour, weight="bold")


def _skill_colour(skill: int) -> str:
    return SKILLS[skill % len(SKILLS)]


def _letter(skill: int) -> str:
    return chr(ord("A") + skill % 26)


def _on(colour: str) -> str:
    """Return the colour of letters on a ground."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 150 else INK


def _draw_header(axes: Any, story: Story, scene: Scene) -> None:
    """Say what is played by whom, how far it is, what it cost, and what came out."""
    axes.text(0.02, 0.62, story.scenario, fontsize=14, weight="bold", color=INK, va="center")
    axes.text(0.02, 0.32, story.policy, fontsize=10.5, color=INK, va="center")
    facts = f"ρ {scene.rho:.2f}   hand-off noise {scene.handoff_noise:.2f}"
    axes.text(0.02, 0.08, facts, fontsize=8, color=GREY, va="center")
    left, width = 4.3, 3.0
    _box(axes, left, 0.13, width, 0.11, fill="#E4E4E4")
    if scene.step:
        _box(axes, left, 0.13, width * min(scene.step / scene.deadline, 1), 0.11, fill=INK)
    text = f"step {scene.step} of at most {scene.deadline}"
    axes.text(left, 0.43, text, fontsize=10, color=INK, va="center")
    for at, (name, value) in enumerate(
        (("cost", scene.cost), ("attempts", scene.attempts), ("messages", scene.messages))
    ):
        axes.text(7.62 + 0.72 * at, 0.46, _short(value), fontsize=12, color=INK, va="center")
        axes.text(7.62 + 0.72 * at, 0.19, name, fontsize=8, color=GREY, va="center")
    text, colour = _verdict(scene)
    _box(axes, 9.78, 0.06, 1.6, 0.58, fill=colour if scene.right else "white", edge=colour, line=1.8)
    _label(axes, 10.58, 0.35, text, 10, color="white" if scene.right else colour, weight="bold", linespacing=1.35)


def _short(value: float) -> str:
    """Return a number in at most five characters."""
    if value >= 1000:
        return f"{value / 1000:.1f}k"
    return str(value) if isinstance(value, int) else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _verdict(scene: Scene) -> tuple[str, str]:
    """Return what became of the query, and its colour."""
    truth = int(scene.answer[0])
    if not scene.over:
        return f"at work\ntrue answer {truth}", GREY
    if scene.right:
        return f"reported {scene.reported}\n✓ right", RIGHT
    said = f"reported {scene.reported}" if scene.reported >= 0 else "no answer"
    return f"{said}\n✗ wrong, truth {truth}", WRONG


def _draw_query(axes: Any, scene: Scene, final: Scene) -> None:
    """Draw the subtasks as cards in columns, sink at the right; large graphs as dots."""
    width, height = _extent(axes, 0.3)
    edges = [(int(p), child) for child, row in enumerate(scene.parents) for p in row if p >= 0]
    if scene.height.max() >= MAX_LAYERS or np.bincount(scene.height).max() > MAX_ROWS:
        return _draw_dots(axes, scene, edges, width, height)
    layout = layered({task: int(at) for task, at in enumerate(scene.height)}, edges, width, height)
    unit, card = _card_size(final, layout)
    for (parent, _), way in layout.way.items():
        done = scene.votes[parent].sum() >= scene.quorum[parent]
        _arrow(axes, _winding(way, card[0]), color=GREY if done else "#C4C4C4")
    for task, (x, y) in layout.place.items():
        _draw_card(axes, scene, task, (x - card[0] / 2, y - card[1] / 2, *card), unit)


def _card_size(final: Scene, layout: Layout) -> tuple[float, tuple[float, float]]:
    """Return the unit of length of a card and its size, high enough for the votes that it will have in the end."""
    unit = float(np.clip(min(layout.column / 1.3, layout.row / 0.95), 0.85, 1.4))
    width = min(layout.column - 0.2 * unit, 1.5 * unit)
    places = np.maximum(final.votes.sum(axis=1), final.quorum).max()
    lines = -(-places // max(int((width / unit - 0.1) / PITCH), 1))
    return unit, (width, min(layout.row - 0.14, (0.56 + PITCH * lines) * unit))


def _winding(way: list[tuple[float, float]], width: float) -> list[tuple[float, float]]:
    """Return the control points of a curve from a card's right side through its lanes to another's left."""
    ends = [(x - width / 2, x + width / 2, y) for x, y in way]
    points = [(ends[0][1], ends[0][2])]
    for at, ((_, out, y), (into, after, other)) in enumerate(itertools.pairwise(ends)):
        middle = (out + into) / 2
        points += [(middle, y), (middle, other), (into, other)]
        if at < len(ends) - 2:
            points += [(into, other), (after, other), (after, other)]
    return points


def _draw_card(axes: Any, scene: Scene, task: int, box: tuple[float, float, float, float], unit: float) -> None:
    """Draw a subtask: skill, number, true answer, difficulty, votes against quorum, who is at it."""
    x, y, width, height = box
    workers = np.flatnonzero(scene.working == task)
    _box(axes, *box, edge=INK if len(workers) else "#BBBBBB", line=2.0 if len(workers) else 1.0)
    top, skill, font = y + height - 0.15 * unit, int(scene.skill[task]), 8 * unit
    colour = _skill_colour(skill)
    _box(axes, x + 0.06 * unit, top - 0.09 * unit, 0.18 * unit, 0.18 * unit, fill=colour, zorder=3)
    _label(axes, x + 0.15 * unit, top, _letter(skill), font, color=_on(colour), weight="bold")
    _label(axes, x + 0.29 * unit, top, f"T{task}", font, ha="left", weight="bold" if task == 0 else "normal")
    truth = f"={int(scene.answer[task])}"
    _label(axes, x + width - 0.07 * unit, top, truth, font, ha="right", color=RIGHT, weight="bold")
    left, low, bar = x + 0.06 * unit, top - 0.19 * unit, width - 0.12 * unit
    _box(axes, left, low, bar, 0.05 * unit, fill="#E6E6E6", zorder=3)
    _box(
        axes, left, low, max(bar * min(float(scene.difficulty[task]), 1.0), 0.02), 0.05 * unit, fill="#555555", zorder=3
    )
    foot = 0.18 if height > 0.7 * unit else 0.03
    if len(workers) and foot > 0.1:
        _label(axes, x + width / 2, y + 0.1 * unit, _names(workers, width / unit), 7 * unit, style="italic")
    area = x + 0.05 * unit, y + foot * unit, width - 0.1 * unit, height - (0.37 + foot) * unit
    _draw_votes(axes, scene, task, area, unit)


def _names(workers: np.ndarray, width: float) -> str:
    """Return as many workers' names as fit a width."""
    fit = max(int(width / 0.24), 1)
    rest = len(workers) - fit
    named = " ".join(f"a{worker}" for worker in workers[: fit if rest <= 0 else max(fit - 1, 1)])
    return named if rest <= 0 else f"{named} +{len(workers) - max(fit - 1, 1)}"


def _draw_votes(axes: Any, scene: Scene, task: int, area: tuple[float, float, float, float], unit: float) -> None:
    """Draw the votes as chips, right ones first, and an empty place for each that the quorum still lacks."""
    x, y, width, height = area
    truth, pitch = int(scene.answer[task]), PITCH * unit
    counts = scene.votes[task]
    tokens = sorted(np.flatnonzero(counts), key=lambda token: (token != truth, -counts[token]))
    per_line, lines = max(int(width / pitch + 1e-6), 1), max(int(height / pitch + 0.1), 1)
    chips = [int(token) for token in tokens for _ in range(counts[token])]
    places = max(len(chips), int(scene.quorum[task]))
    if places > per_line * lines:
        return _draw_tally(axes, [(int(t), int(counts[t]), bool(t == truth)) for t in tokens], area, unit)
    for at in range(places):
        spot = x + (at % per_line + 0.5) * pitch, y + height - (at // per_line + 0.5) * pitch
        if at < len(chips):
            _chip(axes, *spot, chips[at], chips[at] == truth, 0.078 * unit)
        else:
            _disc(axes, *spot, 0.07 * unit, edgecolor="#AAAAAA", linestyle=(0, (1.5, 1.5)), linewidth=0.9)


def _draw_tally(
    axes: Any, tally: list[tuple[int, int, bool]], area: tuple[float, float, float, float], unit: float
) -> None:
    """Draw one chip per different answer with its number of votes; what has no room is left to an ellipsis."""
    x, y, width, height = area
    pair, pitch = 0.4 * unit, PITCH * unit
    per_line, lines = max(int(width / pair), 1), max(int(height / pitch + 0.1), 1)
    for at, (token, count, right) in enumerate(tally[: per_line * lines]):
        left, middle = x + (at % per_line) * pair, y + height - (at // per_line + 0.5) * pitch
        _chip(axes, left + pitch / 2, middle, token, right, 0.078 * unit)
        more = "…" if at == per_line * lines - 1 < len(tally) - 1 else ""
        _label(axes, left + pitch, middle, f"×{count}{more}", 7 * unit, ha="left")


def _draw_dots(axes: Any, scene: Scene, edges: list[tuple[int, int]], width: float, height: float) -> None:
    """Draw a large graph as dots, filled right and hollow wrong, with its messages where it is not too deep."""
    place, pitch, by_depth = _dot_places(scene.height, width - 0.3, height - 0.45)
    place = place + np.array([0.15, 0.4])
    if by_depth:
        for parent, child in edges:
            axes.plot(*place[[parent, child]].T, color="#CFCFCF", linewidth=0.7, zorder=1)
    radius = min(0.38 * pitch, 0.16)
    top = scene.votes.max(axis=1)
    right = (scene.votes[np.arange(len(top)), scene.answer] == top) & (top > 0)
    busy = np.isin(np.arange(len(top)), scene.working)
    face = np.select([right, top > 0], [RIGHT, "white"], "#E2E2E2")
    edge = np.select([busy, right, top > 0], [INK, RIGHT, WRONG], "#B5B5B5")
    rim = np.where(busy, 1.8, 1.0)
    axes.scatter(*place.T, s=(2 * 72 * radius) ** 2, c=face, edgecolors=edge, linewidths=rim, zorder=3)
    if radius > 0.12:
        for task, spot in enumerate(place):
            _label(axes, spot[0], spot[1], f"T{task}", 7, color="white" if right[task] else INK)
    text = f"{int(right.sum())} right · {int(((top > 0) & ~right).sum())} wrong · {int((top == 0).sum())} open"
    text += f" · {_plural(int(busy.sum()), 'subtask')} at work (dark rim)"
    _label(axes, width / 2, 0.17, text + ("" if by_depth else " · in order of depth, the last reports"), 8, color=GREY)


def _dot_places(level: np.ndarray, width: float, height: float) -> tuple[np.ndarray, float, bool]:
    """Return where dots lie, the least distance between them, and whether they stand by depth, sink at the right.

    A wide layer takes several columns; a graph too deep for columns is laid out line by line instead.
    """
    counts = np.bincount(level)
    at = np.empty(len(level), int)
    if len(counts) <= 24:
        most = int(np.sqrt(len(level) * height / width)) + 4
        columns = -(-counts // most)
        lines = -(-counts // columns)
        at[np.argsort(level, kind="stable")] = np.concatenate([np.arange(count) for count in counts])
        column = (np.cumsum(columns) - columns)[level] + at // lines[level]
        rows = np.minimum(lines[level], counts[level] - at // lines[level] * lines[level])
        x, y = 1 - (column + 0.5) / columns.sum(), 1 - (at % lines[level] + 0.5) / rows
        return np.stack([width * x, height * y], axis=1), min(width / columns.sum(), height / lines.max()), True
    per_line = int(np.ceil(np.sqrt(len(level) * width / height)))
    rows = -(-len(level) // per_line)
    at[np.argsort(-level, kind="stable")] = np.arange(len(level))
    x, y = (at % per_line + 0.5) / per_line, 1 - (at // per_line + 0.5) / rows
    return np.stack([width * x, height * y], axis=1), min(width / per_line, height / rows), False


def _draw_times(axes: Any, scenes: Sequence[Scene]) -> None:
    """Draw every answer so far: a line per subtask, a column per step; a large query as right and wrong per step."""
    scene, (width, height) = scenes[-1], _extent(axes)
    left, right, low, high = 0.55, width - 0.25, 0.3, height - 0.33
    column = min((right - left) / scene.deadline, 1.3)
    every = max(1, -(-scene.deadline // 16))
    for step in range(1, scene.deadline + 1):
        x = left + (step - 0.5) * column
        if (step - 1) % every == 0:
            _label(axes, x, 0.13, str(step), 7, color=GREY)
        if column > 0.1 and step % 2 == 0:
            _box(axes, x - column / 2, low, column, high - low, fill="#EFEFEC", zorder=1)
    if len(scene.skill) > MAX_LINES:
        _draw_bars(axes, scenes, (left, low, column, high - low))
    else:
        _draw_lines(axes, scenes, (left, low, column, high - low))
    if scene.over:
        x = left + scene.step * column
        colour = RIGHT if scene.right else WRONG
        axes.plot([x, x], [low, high + 0.04], color=colour, linewidth=2, zorder=3)
        near = x > width - 1.2
        _label(axes, x, high + 0.12, "report", 8, color=colour, weight="bold", ha="right" if near else "center")


def _draw_lines(axes: Any, scenes: Sequence[Scene], area: tuple[float, float, float, float]) -> None:
    """Draw a mark per answer: filled right, hollow wrong, a dash for a critic's pass."""
    left, low, column, height = area
    scene = scenes[-1]
    line = height / len(scene.skill)
    for task, skill in enumerate(scene.skill):
        y = low + (task + 0.5) * line
        colour = _skill_colour(int(skill))
        _box(axes, 0.12, y - min(0.075, 0.4 * line), 0.09, min(0.15, 0.8 * line), fill=colour)
        _label(axes, 0.26, y, f"T{task}", min(7.5, 60 * line), ha="left")
    for past in scenes:
        for task in np.unique(past.events[:, 1]):
            tokens = past.events[past.events[:, 1] == task, 2]
            truth = scene.answer[task]
            tokens = tokens[np.lexsort((tokens == PASSED, tokens != truth))]
            pitch = min(0.15, 0.9 * column / len(tokens), line)
            radius, start = min(0.38 * pitch, 0.4 * line, 0.055), left + (past.step - 0.5) * column
            for at, token in enumerate(tokens):
                spot = start + (at - (len(tokens) - 1) / 2) * pitch, low + (task + 0.5) * line
                _draw_mark(axes, spot, radius, bool(token == truth), bool(token == PASSED))


def _draw_mark(axes: Any, spot: tuple[float, float], radius: float, right: bool, passed: bool) -> None:
    if passed:
        axes.plot([spot[0] - radius, spot[0] + radius], [spot[1]] * 2, color=GREY, linewidth=1.6, zorder=4)
        return
    colour = RIGHT if right else WRONG
    _disc(axes, *spot, radius, facecolor=colour if right else "white", edgecolor=colour, linewidth=1.2)


def _draw_bars(axes: Any, scenes: Sequence[Scene], area: tuple[float, float, float, float]) -> None:
    """Draw the number of right and wrong answers of each step."""
    left, low, column, height = area
    answer = scenes[-1].answer
    counts = {}
    for past in scenes:
        told = past.events[past.events[:, 2] != PASSED]
        right = int(np.sum(told[:, 2] == answer[told[:, 1]]))
        counts[past.step] = right, len(told) - right
    most = max([1, *[sum(pair) for pair in counts.values()]])
    for step, (right, wrong) in counts.items():
        x, unit = left + (step - 0.9) * column, 0.92 * height / most
        # Bars too thin to be hollow are pale.
        parts = (0, right, RIGHT, RIGHT), (right, wrong, *(("white", WRONG) if column > 0.15 else ("#F3CDB0", "none")))
        for start, count, face, edge in parts:
            if count:
                _box(axes, x, low + start * unit, 0.8 * column, count * unit, fill=face, edge=edge, line=1.2)
    _label(axes, left - 0.08, low + 0.92 * height, str(most), 7, ha="right", color=GREY)
    _label(axes, left - 0.08, low + 0.03, "0", 7, ha="right", color=GREY)


def _team_title(scene: Scene) -> str:
    slots, links = _plural(len(scene.active), "slot"), _plural(len(scene.edges), "link")
    return f"team · {int(scene.active.sum())} of {slots} · {links}"


def _draw_team(axes: Any, scene: Scene) -> None:
    """Draw the members, who reads whom, what each is at and what it said last; a large team in a grid."""
    members = [int(slot) for slot in np.flatnonzero(scene.active)]
    width, height = _extent(axes, 0.3)
    if len(members) > MAX_DRAWN:
        return _draw_crowd(axes, scene, members, width, height)
    layout = team_layout(scene, members, width, height)
    size = float(np.clip(min(layout.column / 0.68, layout.row / 0.85), 0.6, 1.35 if len(members) > 4 else 1.7))
    _draw_messages(axes, scene, layout, size)
    for member, (x, y) in layout.place.items():
        # On a ring, names stand outside, where no message passes.
        _draw_member(axes, scene, member, (x, y), size, above=not layout.way and y > 0.51 * height)


def _draw_messages(axes: Any, scene: Scene, layout: Layout, size: float) -> None:
    """Draw who reads whom, from sender to reader; one line with two heads where both read each other."""
    edges = {(int(a), int(b)): bool(live) for (a, b), live in zip(scene.edges, scene.live, strict=True)}
    for (sender, reader), live in edges.items():
        mutual = edges.get((reader, sender)) == live
        if mutual and sender > reader:
            continue
        look: dict[str, Any] = {"color": INK, "linewidth": 1.2, "zorder": 2} if live else {"color": "#BDBDBD"}
        look |= {"linewidth": 0.8, "mutation_scale": 6} if len(edges) > 24 else {}
        look |= {"alpha": 0.4} if len(edges) > 60 else {}
        look |= {"arrowstyle": "<|-|>"} if mutual else {}
        ends = [layout.place[sender], layout.place[reader]]
        straight = (sender, reader) in layout.way or not layout.way
        bend = 0.0 if straight else min(0.55, 0.9 * layout.column / math.dist(*ends))
        shrink = tuple(_outer_radius(scene, member, size) + 0.02 for member in (sender, reader))
        _arrow(axes, ends, bend=bend, shrink=shrink, **look)


def _radius(scene: Scene, member: int, size: float) -> float:
    return size * (0.13 + 0.03 * min(int(scene.tier[member]), 3))


def _outer_radius(scene: Scene, member: int, size: float) -> float:
    """Return how far a member's sign reaches, the reporter's halo and a critic's corners included."""
    reach = _radius(scene, member, size) * (1.2 if scene.role[member] > scene.num_skills else 1.0)
    return reach + 0.075 * size * (member == scene.reporter)


def _draw_member(
    axes: Any, scene: Scene, member: int, spot: tuple[float, float], size: float, *, above: bool = False
) -> None:
    """Draw a member: role by shape and colour, tier by size and rings, its task and last answer beside it."""
    busy, radius, reach = (
        bool(scene.working[member] >= 0),
        _radius(scene, member, size),
        _outer_radius(scene, member, size),
    )
    if member == scene.reporter:
        _disc(axes, *spot, reach, facecolor="#F6DC8A", edgecolor="#C79A00", linewidth=1.2, zorder=3)
    _draw_role(axes, scene, int(scene.role[member]), spot, radius, busy)
    for ring in range(min(int(scene.tier[member]), 3)):
        inner = radius * (0.84 - 0.15 * ring)
        _disc(axes, *spot, inner, facecolor="none", edgecolor="white", linewidth=0.9, alpha=0.85, zorder=5)
    text = f"a{member}"
    if scene.character[member] != HONEST:
        text += " ☠" if scene.character[member] == ADVERSARIAL else " ⚡"
    if busy:
        text += f"→T{scene.working[member]}"
    y = spot[1] + (reach + 0.12) * (1 if above else -1)
    token, task = int(scene.last_token[member]), int(scene.last_task[member])
    shift = 0.09 if token >= 0 else 0.0
    _label(axes, spot[0] - shift, y, text, 7.5, weight="bold" if busy else "normal", bbox=_halo())
    if token >= 0:
        beside = spot[0] - shift + 0.033 * len(text) + 0.13
        _chip(axes, beside, y, token, token == int(scene.answer[task]), 0.068)


def _halo() -> dict[str, Any]:
    """Return the ground that keeps arrows out of a text."""
    return {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}


def _draw_role(axes: Any, scene: Scene, role: int, spot: tuple[float, float], radius: float, busy: bool) -> None:
    """Draw a role: a disc for specialists and generalists, a diamond for a critic, a square for an aggregator."""
    from matplotlib.patches import RegularPolygon

    skills = scene.num_skills
    colour = _skill_colour(role) if role < skills else GENERAL if role == skills else "#3A3A3A"
    sign = _letter(role) if role < skills else {0: "g", 1: "?", 2: "Σ"}[role - skills]
    look: dict[str, Any] = {"facecolor": colour, "edgecolor": INK if busy else "white", "zorder": 4}
    look["linewidth"] = 2.0 if busy else 1.0
    if role <= skills:
        _disc(axes, *spot, radius, **look)
    else:
        turn = 0.0 if role == skills + 1 else np.pi / 4
        axes.add_patch(RegularPolygon(spot, 4, radius=1.2 * radius, orientation=turn, **look))
    _label(axes, *spot, sign, max(52 * radius, 6), color=_on(colour), weight="bold")


def _draw_crowd(axes: Any, scene: Scene, members: list[int], width: float, height: float) -> None:
    """Draw the first members of a large team in a grid, and count the rest."""
    shown = members[:MAX_GRID]
    if scene.reporter not in shown:
        shown = [scene.reporter, *shown[:-1]]
    columns, foot = 6, 1.45
    row = (height - foot) / (MAX_GRID // columns)
    for at, member in enumerate(shown):
        spot = (at % columns + 0.5) * width / columns, height - (at // columns + 0.45) * row
        _draw_member(axes, scene, member, spot, 0.95)
    rest = len(members) - len(shown)
    if rest:
        _label(axes, width / 2, foot - 0.1, f"+{rest} more", 10, weight="bold")
    for at, line in enumerate(_crowd_lines(scene, members)):
        _label(axes, 0.25, foot - 0.4 - 0.22 * at, line, 8, ha="left")


def _crowd_lines(scene: Scene, members: list[int]) -> list[str]:
    """Return a large team in numbers."""
    role, tier = scene.role[members], scene.tier[members]
    names = ["generalist", "critic", "aggregator"]
    roles = [f"{np.sum(role == at)} {_letter(at)}" for at in range(scene.num_skills) if np.any(role == at)]
    others = [int(np.sum(role == scene.num_skills + at)) for at in range(len(names))]
    roles += [_plural(count, name) for count, name in zip(others, names, strict=True) if count]
    tiers = [f"{np.sum(tier == at)} of tier {at}" for at in np.unique(tier)]
    said = np.array(members)[scene.last_token[members] >= 0]
    right = int(np.sum(scene.last_token[said] == scene.answer[scene.last_task[said]]))
    return [
        "roles: " + ", ".join(roles),
        "tiers: " + ", ".join(tiers),
        f"messages: {len(scene.edges) / len(members):.1f} senders per member",
        f"at work now: {int(np.sum(scene.working >= 0))} · last answers: {right} right, {len(said) - right} wrong",
    ]


def _draw_legend(axes: Any, scene: Scene) -> None:
    """Explain the signs."""
    x, low, high = 0.05, 0.1, 0.33
    _chip(axes, x + 0.08, high, 5, True)
    _label(axes, x + 0.22, high, "right answer", 7.5, ha="left", color=GREY)
    _chip(axes, x + 0.08, low, 3, False)
    _label(axes, x + 0.22, low, "wrong answer", 7.5, ha="left", color=GREY)
    _disc(axes, 1.4, high, 0.07, edgecolor="#AAAAAA", linestyle=(0, (1.5, 1.5)), linewidth=0.9)
    _label(axes, 1.54, high, "vote still lacking for the quorum", 7.5, ha="left", color=GREY)
    _label(axes, 1.4, low, "=4", 8, color=RIGHT, weight="bold")
    _label(axes, 1.54, low, "true answer, above the bar of difficulty", 7.5, ha="left", color=GREY)
    _box(axes, 4.12, high - 0.075, 0.15, 0.15, edge=INK, line=1.8)
    _label(axes, 4.36, high, "at work now", 7.5, ha="left", color=GREY)
    _disc(axes, 4.195, low, 0.09, facecolor="#F6DC8A", edgecolor="#C79A00", linewidth=1.2)
    _label(axes, 4.36, low, "reporter", 7.5, ha="left", color=GREY)
    _arrow(axes, [(5.2, high), (5.5, high)], color=INK)
    _label(axes, 5.58, high, "message with votes that the reader needs now", 7.5, ha="left", color=GREY)
    _arrow(axes, [(5.2, low), (5.5, low)], color="#BDBDBD")
    _label(axes, 5.58, low, "other message, from sender to reader", 7.5, ha="left", color=GREY)
    for at, (role, name) in enumerate(((0, "specialist"), (scene.num_skills, "generalist"))):
        _draw_role(axes, scene, role, (8.4, (high, low)[at]), 0.085, False)
        _label(axes, 8.55, (high, low)[at], name, 7.5, ha="left", color=GREY)
    for at, (role, name) in enumerate(((scene.num_skills + 1, "critic"), (scene.num_skills + 2, "aggregator"))):
        _draw_role(axes, scene, role, (9.4, (high, low)[at]), 0.085, False)
        _label(axes, 9.55, (high, low)[at], name, 7.5, ha="left", color=GREY)
    _label(axes, 10.35, high, "stronger tier: larger,", 7.5, ha="left", color=GREY)
    _label(axes, 10.35, low, "one ring per tier", 7.5, ha="left", color=GREY)
