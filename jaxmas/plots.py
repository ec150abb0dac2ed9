"""The figures of comparisons and reports, in one style.

Colours have names. A saved figure uses the light ones; within a web page each becomes a CSS variable, so that one
drawing is readable on light and dark ground. Figures are drawn as wide as a phone's screen, so that text stays large
enough where they are shown small.
"""

import dataclasses
import io
import itertools
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxmas.statistics import Estimate, pareto_front

LIGHT = {
    "ink": "#1f2329",
    "muted": "#5c6670",
    "grid": "#e3e7eb",
    "ground": "#fffffe",
    "learned": "#0072b2",
    "best": "#d55e00",
    "rule": "#00876a",
    "other": "#87909a",
}
DARK = {
    "ink": "#e7ecf1",
    "muted": "#a2acb6",
    "grid": "#343b43",
    "ground": "#171b20",
    "learned": "#5cb8f0",
    "best": "#f58f4f",
    "rule": "#3fc9a0",
    "other": "#8b949e",
}
CYCLE = ("#0072b2", "#d55e00", "#00876a", "#cc79a7", "#e69f00", "#56b4e9", "#5c6670")
"""Colours of many lines side by side (Okabe and Ito 2008, darkened where they carry text)."""
WIDTH = 5.6
"""Inches; at 72 points each about 540 CSS pixels."""
WIDE = 8.0
"""Of figures with many lines, which are for a desk."""


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of a comparison."""

    name: str
    kind: str
    """``learned``, ``best``, ``rule``, ``other`` (the colours), or ``random``."""
    reward: Estimate
    success: Estimate
    cost: Estimate

    @property
    def colour(self) -> str:
        """Return its colour on light ground."""
        return LIGHT.get(self.kind, LIGHT["other"])


@contextmanager
def _canvas(height: float, width: float = WIDTH) -> Iterator[tuple[Any, Any]]:
    """Give a figure and its axes in the common style, without touching matplotlib's global state."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_style()):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        yield figure, axes


def _style() -> Any:
    style: dict[str, Any] = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10.5,
        "axes.labelsize": 10.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "grid.linewidth": 0.8,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "svg.fonttype": "none",
        "svg.hashsalt": "jaxmas",
        "savefig.dpi": 200,
    }
    named = {
        "ink": ("text.color",),
        "grid": ("axes.edgecolor", "grid.color"),
        "ground": ("figure.facecolor", "axes.facecolor"),
    }
    named["muted"] = ("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    return style | {key: LIGHT[name] for name, keys in named.items() for key in keys}


def learning_curve(rows: Sequence[Mapping[str, float]], lines: Mapping[str, Method], test: Method) -> Any:
    """Draw the training reward over updates, the reward on test queries at its end, and references as lines."""
    updates = np.array([row["update"] for row in rows], float)
    reward = np.array([row["reward"] for row in rows], float)
    with _canvas(3.7) as (figure, axes):
        axes.plot(updates, reward, color=LIGHT["learned"], linewidth=2.2, zorder=3)
        end = updates[-1] if len(updates) else 0.0
        (low, high), mean = test.reward.ci95, test.reward.mean
        axes.errorbar(
            [end], [mean], [[mean - low], [high - mean]], fmt="o", color=LIGHT["learned"], markersize=7, zorder=4
        )
        heights = {f"{test.name}, test": (mean, LIGHT["learned"])}
        for label, method in lines.items():
            axes.axhline(method.reward.mean, color=method.colour, linewidth=1.6, linestyle=(0, (5, 2.5)), zorder=2)
            heights[label] = (method.reward.mean, method.colour)
        axes.set_xlim(0, end * 1.02 if end else 1)
        axes.set_xlabel("training updates")
        axes.set_ylabel("reward")
        axes.grid(axis="x", visible=False)
        _label_right(axes, heights)
    return figure


def curves(series: Mapping[str, tuple[np.ndarray, np.ndarray]], xlabel: str, ylabel: str) -> Any:
    """Draw lines ``(x, y)``, each with its name and last value at its end; NaN is a gap."""
    with _canvas(0.9 + 0.3 * max(len(series), 9), WIDE) as (figure, axes):
        heights = {}
        for index, (name, (x, y)) in enumerate(series.items()):
            colour, dashes = CYCLE[index % len(CYCLE)], ("-", (0, (4, 2)))[index // len(CYCLE) % 2]
            axes.plot(x, y, color=colour, linewidth=1.8, linestyle=dashes)
            known = y[~np.isnan(y)]
            if known.size:
                heights[name] = (float(known[-1]), colour)
        axes.set_xlim(left=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(axis="x", visible=False)
        _label_right(axes, heights)
    return figure


def speeds(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], own: Sequence[str], xlabel: str, ylabel: str
) -> Any:
    """Draw lines ``(x, y)`` on logarithmic axes, those of ``own`` in bold."""
    with _canvas(4.1, WIDE) as (figure, axes):
        for index, (name, (x, y)) in enumerate(series.items()):
            width = 3.0 if name in own else 1.4
            axes.plot(x, y, "o-", color=CYCLE[index % len(CYCLE)], linewidth=width, markersize=2 * width, label=name)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(places := sorted({place for x, _ in series.values() for place in x}), map(str, places))
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        figure.legend(loc="outside right center", frameon=False)
    return figure


def over_agents(
    series: Mapping[str, tuple[Sequence[float], Sequence[Estimate]]],
    fitted: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
) -> Any:
    """Draw means with their 95 % intervals over numbers of agents, and curves ``(x, y)`` that some of them follow."""
    with _canvas(4.1, WIDE) as (figure, axes):
        for index, (name, (x, estimates)) in enumerate(series.items()):
            # Side by side: intervals of one size would hide each other.
            place = np.array(x, float) * 2 ** (0.06 * (index - (len(series) - 1) / 2))
            mean, low, high = np.array([(one.mean, *one.ci95) for one in estimates]).T
            errors, colour = [mean - low, high - mean], CYCLE[index % len(CYCLE)]
            axes.errorbar(place, mean, errors, fmt="o", color=colour, markersize=4.5, elinewidth=1.4, label=name)
            if name in fitted:
                axes.plot(*fitted[name], color=colour, linewidth=1.6)
        axes.set_xscale("log", base=2)
        axes.set_xticks(places := sorted({place for x, _ in series.values() for place in x}), map(str, places))
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        figure.legend(loc="outside right center", frameon=False)
    return figure


def shares(x: np.ndarray, parts: Mapping[str, np.ndarray], xlabel: str, ylabel: str) -> Any:
    """Draw parts of a whole over ``x``, one on top of the other."""
    with _canvas(3.7) as (figure, axes):
        axes.stackplot(x, *parts.values(), labels=list(parts), colors=CYCLE)
        axes.set_xlim(x[0], x[-1])
        axes.set_ylim(0, 1)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right center", frameon=False)
    return figure


def _label_right(axes: Any, heights: Mapping[str, tuple[float, str]]) -> None:
    """Write labels at their heights beside the right end, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = 0.075 * (high - low)
    spots: list[float] = []
    for label, (height, colour) in sorted(heights.items(), key=lambda item: item[1][0]):
        spot = max(height, spots[-1] + gap) if spots else height
        spots.append(spot)
        text = f"{label}  {height:.3f}"
        axes.annotate(
            text, (1.0, spot), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
            va="center", color=colour, fontweight="bold", fontsize=9.5, annotation_clip=False,
        )  # fmt: skip
    axes.set_ylim(low, max(high, spots[-1] + gap / 2))


def rewards(methods: Sequence[Method]) -> Any:
    """Draw every method's mean reward with its 95 % interval, the best on top; random play may lie off the scale."""
    shown = sorted(methods, key=lambda method: method.reward.mean)
    inside = [method for method in shown if method.kind != "random"] or shown
    low = min(method.reward.ci95[0] for method in inside)
    high = max(method.reward.ci95[1] for method in inside)
    margin = 0.06 * (high - low) or 0.1
    with _canvas(0.9 + 0.27 * len(shown)) as (figure, axes):
        axes.set_xlim(low - margin, high + margin)
        for place, method in enumerate(shown):
            _draw_interval(axes, place, method, low - margin)
        axes.set_yticks(range(len(shown)), [method.name for method in shown])
        for tick, method in zip(axes.get_yticklabels(), shown, strict=True):
            strong = method.kind in ("learned", "best", "rule")
            tick.set_color(method.colour if strong else LIGHT["muted"])
            tick.set_fontweight("bold" if strong else "normal")
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set_xlabel("reward per query, mean and 95 % interval")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
    return figure


def _draw_interval(axes: Any, place: int, method: Method, edge: float) -> None:
    (low, high), mean = method.reward.ci95, method.reward.mean
    if mean < edge:
        axes.text(edge, place, f" ◂ {mean:.2f}".replace("-", "\u2212"), va="center", color=LIGHT["muted"], fontsize=9.5)
        return
    axes.plot([low, high], [place, place], color=method.colour, linewidth=2.4, solid_capstyle="round", zorder=3)
    axes.plot([mean], [place], "o", color=method.colour, markersize=6.5, zorder=4)


def success_against_cost(methods: Sequence[Method]) -> Any:
    """Draw success against cost, and the front of those that no other beats in both."""
    shown = [method for method in methods if method.kind != "random"]
    cost = np.array([method.cost.mean for method in shown])
    success = np.array([method.success.mean for method in shown])
    front = pareto_front(cost, success).tolist()
    with _canvas(4.1) as (figure, axes):
        axes.step(cost[front], success[front], where="post", color=LIGHT["muted"], linewidth=1.2, zorder=2)
        for method, x, y in zip(shown, cost, success, strict=True):
            size, line, order = (8, 2.0, 4) if method.kind in ("learned", "best", "rule") else (5.5, 1.0, 3)
            axes.errorbar(
                [x], [y], yerr=[[y - method.success.ci95[0]], [method.success.ci95[1] - y]], fmt="o",
                color=method.colour, markersize=size, elinewidth=line, zorder=order,
            )  # fmt: skip
        axes.set_xlabel("cost per query")
        axes.set_ylabel("success")
        axes.margins(x=0.12, y=0.12)
        first = {"learned": 0, "best": 1, "rule": 2}
        named = sorted(range(len(shown)), key=lambda i: first.get(shown[i].kind, 3 if i in front else 4))
        _label_points(figure, axes, shown, np.stack([cost, success], axis=1), named, front)
    return figure


SIDES = (
    *((9, 0, "left", "center"), (-9, 0, "right", "center"), (0, 10, "center", "bottom"), (0, -10, "center", "top")),
    *((7, 7, "left", "bottom"), (7, -7, "left", "top"), (-7, 7, "right", "bottom"), (-7, -7, "right", "top")),
    *((0, 20, "center", "bottom"), (0, -20, "center", "top"), (9, 12, "left", "bottom"), (9, -12, "left", "top")),
    *((-9, 12, "right", "bottom"), (-9, -12, "right", "top"), (0, 34, "center", "bottom"), (0, -34, "center", "top")),
)
"""Where a label may stand beside its point: offset in points, alignment."""


def _label_points(
    figure: Any, axes: Any, methods: Sequence[Method], points: np.ndarray, named: Sequence[int], front: Sequence[int]
) -> None:
    """Label points where nothing else lies; a point without such a place stays without a label."""
    figure.canvas.draw()
    taken = _obstacles(axes, methods, points, front)
    frame = axes.get_window_extent()
    for i in named:
        strong = methods[i].kind != "other"
        for x, y, across, along in SIDES:
            text = axes.annotate(
                methods[i].name, points[i], xytext=(x, y), textcoords="offset points", ha=across, va=along,
                color=methods[i].colour if strong else LIGHT["muted"], fontsize=9.5 if strong else 8,
                fontweight="bold" if strong else "normal", zorder=5,
            )  # fmt: skip
            box = text.get_window_extent()
            fits = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if fits and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _obstacles(axes: Any, methods: Sequence[Method], points: np.ndarray, front: Sequence[int]) -> list[Any]:
    """Return the boxes of marks, intervals and the front's line, on the canvas."""
    from matplotlib.transforms import Bbox

    ranges = [method.success.ci95 for method in methods]
    intervals = [[(x, low), (x, high)] for (x, _), (low, high) in zip(points, ranges, strict=True)]
    steps = [[points[a], (points[b][0], points[a][1])] for a, b in itertools.pairwise(front)]
    steps += [[(points[b][0], points[a][1]), points[b]] for a, b in itertools.pairwise(front)]
    marks = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in axes.transData.transform(points)]
    return marks + [Bbox(axes.transData.transform(ends)).padded(1.5) for ends in intervals + steps]


def to_svg(figure: Any, label: str) -> str:
    """Return a figure as an SVG element for a web page that defines the colours as CSS variables."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(_style()):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # The metadata name the vocabularies by their addresses, which a page without outside links does without.
    start, end = svg.find("<metadata>"), svg.find("</metadata>")
    svg = svg[:start] + svg[end + len("</metadata>") :] if start >= 0 else svg
    for name, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{name})")
    # Within HTML an SVG element needs no namespaces.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def save_png(figure: Any, path: Path) -> None:
    """Write a figure so that readers see the old file or the new one, never a part."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context(_style()):
        figure.savefig(buffer, format="png", dpi=200)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
