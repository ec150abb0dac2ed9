"""Draw a warehouse: floor, robots with their goals, where it is crowded, and what has been delivered so far.

``read`` takes from a state what a frame shows; everything below it only draws. Colours are Okabe and Ito's; who carries
goods is filled, who seeks is hollow; a short line shows where a robot that turns faces.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxmas.environments.warehouse.grid import MOVES
from jaxmas.render import Before, Story

INK, GREY, SHELF, GROUND = "#222222", "#767676", "#C9CDD2", "#FBFBFA"
SEEKS, CARRIES, IDLE, STATION, CROWD = "#0072B2", "#D55E00", "#9A9A9A", "#009E73", "#E69F00"
MOST_LINES = 160
"""Robots whose way to their goal is drawn; in a larger team these lines hide everything."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """What one frame shows: places as rows and columns, one row per robot."""

    step: int
    horizon: int
    free: np.ndarray
    stations: np.ndarray
    robots: np.ndarray
    facing: np.ndarray
    """Change of row and column to where each robot that turns faces; no rows where none turns."""
    goals: np.ndarray
    """Where each robot is going; its own place without an order."""
    sent: np.ndarray
    carries: np.ndarray
    stopped: np.ndarray
    open: np.ndarray
    """The next stop of every order that nobody has taken up."""
    crowd: np.ndarray
    """How many moves were refused to robots at every place so far."""
    delivered: int
    blocked: int
    moves: int
    service: float


def read(env: Any, params: Any, state: Any, before: Before | None) -> Scene:
    """Return what a frame shows of a state on the host."""
    place, number = np.asarray(params.place), np.asarray(params.number)
    cell, task, orders = (np.asarray(value) for value in (state.cell, state.task, state.orders.owner))
    stops, reached = np.asarray(state.orders.stops), np.asarray(state.orders.reached)
    following = np.asarray(params.goal_cell)[stops[np.arange(len(stops)), reached]]
    sent = task >= 0
    crowd = np.zeros(number.shape) if before is None else before.scene.crowd
    if before is not None and before.actions is not None:
        crowd = crowd.copy()
        waits = np.asarray(state.waits) > np.asarray(before.state.waits)
        np.add.at(crowd, tuple(place[cell[waits]].T), 1)
    totals = state.totals
    return Scene(
        step=int(state.step),
        horizon=env.horizon,
        free=number >= 0,
        stations=place[np.asarray(params.goal_cell)[np.asarray(params.stations)]],
        robots=place[cell],
        facing=np.zeros((0, 2)) if state.heading is None else np.array(MOVES)[1 + np.asarray(state.heading)],
        goals=np.where(sent[:, None], place[following[np.maximum(task, 0)]], place[cell]),
        sent=sent,
        carries=sent & (orders[np.maximum(task, 0)] == np.arange(len(cell))),
        stopped=np.asarray(state.stopped) > 0,
        open=place[following[orders < 0]],
        crowd=crowd,
        delivered=int(totals.delivered),
        blocked=int(totals.blocked),
        moves=int(totals.moves),
        service=float(totals.waited) / max(int(totals.delivered), 1),
    )


def draw(figure: Any, story: Story, index: int) -> None:
    """Draw the story up to one of its scenes: the floor above, deliveries over time below."""
    scene = story.scenes[index]
    head = f"{story.scenario} · {story.policy} · step {scene.step} of {scene.horizon}"
    figure.text(0.03, 0.955, head, fontsize=13, fontweight="bold", color=INK, va="center")
    _legend(figure)
    _floor(figure.add_axes((0.03, 0.2, 0.94, 0.68)), scene)
    _told(figure, figure.add_axes((0.06, 0.06, 0.46, 0.11)), story, index)


def _floor(axes: Any, scene: Scene) -> None:
    """Draw shelves, crowded places, stations, orders and robots."""
    rows, columns = scene.free.shape
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    colours = _colours(axes.figure, scene)
    axes.imshow(colours, interpolation="nearest", zorder=0)
    height = axes.get_window_extent().height / axes.figure.dpi * 72
    width = axes.get_window_extent().width / axes.figure.dpi * 72
    unit = min(height / rows, width / columns)
    row, column = scene.stations.T
    axes.scatter(column, row, s=(0.9 * unit) ** 2, marker="s", facecolor="none", edgecolor=STATION, linewidth=1.6)
    row, column = scene.open.T
    axes.scatter(column, row, s=(0.34 * unit) ** 2, marker="D", color=INK, alpha=0.55, linewidth=0, zorder=2)
    if len(scene.robots) <= MOST_LINES:
        for here, there, carries in zip(scene.robots, scene.goals, scene.carries, strict=True):
            way = [here[1], there[1]], [here[0], there[0]]
            axes.plot(*way, color=CARRIES if carries else SEEKS, linewidth=0.7, alpha=0.35, zorder=2)
    kinds = ((~scene.sent, IDLE, True), (scene.sent & ~scene.carries, SEEKS, False), (scene.carries, CARRIES, True))
    for which, colour, filled in kinds:
        row, column = scene.robots[which].T
        face = colour if filled else "white"
        axes.scatter(column, row, s=(0.66 * unit) ** 2, color=face, edgecolor=colour, linewidth=1.5, zorder=3)
    if len(scene.facing):
        (row, column), (down, right) = scene.robots.T, 0.45 * scene.facing.T
        axes.plot([column, column + right], [row, row + down], color=INK, linewidth=1.2, zorder=3)
    row, column = scene.robots[scene.stopped].T
    axes.scatter(column, row, s=(0.4 * unit) ** 2, marker="x", color=INK, linewidth=1.4, zorder=4)


def _colours(figure: Any, scene: Scene) -> np.ndarray:
    """Return the colour of every place: shelves grey, free ground the more orange the more it was crowded."""
    from matplotlib.colors import to_rgb

    shelf, ground, crowd = (np.array(to_rgb(name)) for name in (SHELF, GROUND, CROWD))
    most = max(scene.crowd.max(), 4)
    share = np.sqrt(scene.crowd / most)[:, :, None]
    floor = ground * (1 - 0.8 * share) + crowd * 0.8 * share
    return np.where(scene.free[:, :, None], floor, shelf)


def _legend(figure: Any) -> None:
    """Say what the signs mean, in one line."""
    signs = (
        ("○", SEEKS, "seeks an order"), ("●", CARRIES, "carries goods"), ("●", IDLE, "has none"),
        ("×", INK, "stands still"), ("◆", GREY, "open order"), ("□", STATION, "station"), ("■", CROWD, "crowded"),
    )  # fmt: skip
    for place, (sign, colour, meaning) in enumerate(signs):
        left = 0.03 + 0.135 * place
        figure.text(left, 0.912, sign, fontsize=12, color=colour, va="center", family="DejaVu Sans")
        figure.text(left + 0.017, 0.912, meaning, fontsize=10, color=GREY, va="center")


def _told(figure: Any, axes: Any, story: Story, index: int) -> None:
    """Draw deliveries over time, and write the totals beside them."""
    scene, so_far = story.scenes[index], story.scenes[: index + 1]
    axes.plot([each.step for each in so_far], [each.delivered for each in so_far], color=CARRIES, linewidth=1.8)
    axes.set_xlim(0, scene.horizon)
    axes.set_ylim(0, max(story.scenes[-1].delivered, 1))
    axes.set_ylabel("delivered", fontsize=9, color=GREY)
    axes.tick_params(labelsize=8, colors=GREY)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    robots = len(scene.robots)
    refused = scene.blocked / max(scene.blocked + scene.moves, 1)
    facts = (
        f"{scene.delivered} orders delivered by {robots} robots",
        f"{scene.service:.0f} steps from release to delivery",
        f"{refused:.0%} of the wanted moves refused",
    )
    for line, fact in enumerate(facts):
        figure.text(0.57, 0.145 - 0.036 * line, fact, fontsize=11, color=INK, va="center")
