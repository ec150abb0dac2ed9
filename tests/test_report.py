"""The report is one file that needs nothing else, and the figures stay readable on light and dark ground."""

import re

import numpy as np
import pytest

from jaxmas import plots
from jaxmas.report import report
from jaxmas.statistics import Estimate

KINDS = {"meta-skill": "learned", "depth-3 rule": "rule", "mesh": "best", "chain": "other", "random": "random"}


def estimate(mean: float, width: float = 0.02) -> Estimate:
    return Estimate(mean, (mean - width, mean + width))


@pytest.fixture(scope="module")
def methods() -> dict[str, plots.Method]:
    means = {"meta-skill": 0.6, "depth-3 rule": 0.55, "mesh": 0.5, "chain": 0.4, "random": -0.3}
    return {
        name: plots.Method(name, kind, estimate(means[name]), estimate(means[name] + 0.1), estimate(1 - means[name]))
        for name, kind in KINDS.items()
    }


@pytest.fixture(scope="module")
def figures(methods: dict[str, plots.Method]) -> dict[str, str]:
    log = [{"update": 20 * (i + 1), "reward": 0.1 * i} for i in range(5)]
    drawn = {
        "learning": plots.learning_curve(log, {"mesh": methods["mesh"]}, methods["meta-skill"]),
        "rewards": plots.rewards(list(methods.values())),
        "pareto": plots.success_against_cost(list(methods.values())),
    }
    return {name: plots.to_svg(figure, name) for name, figure in drawn.items()}


def results(difference: float = 0.05) -> dict:
    def json(mean: float) -> dict:
        return estimate(mean).to_json()

    methods = {
        name: {"kind": kind, "score": None, **{key: json(0.5) for key in ("reward", "success", "cost", "latency")}}
        for name, kind in KINDS.items()
    }
    family = {"reward": 0.5, "active_agents": 3.0, "messages": 2.0, "cost": 0.5}
    pair = {"learned": family, "best_strategy": family, "over_best_strategy": json(0.1)}
    return {
        "command": "jaxmas demo",
        "scenario": "workflow-<b>-v0",
        "learned": "meta-skill",
        "best_strategy": "mesh",
        "methods": methods,
        "paired": {"over_best_strategy": json(difference), "over_rule": json(difference)},
        "families": {"chain": {"queries": 3, **pair}},
        "rule": ["if depth <= 2:", "    mesh"],
        "config": {"updates": 400},
        "wall_seconds": {"train": 90.0, "total": 120.0},
        "versions": {"jax": "1", "optax": None},
        "commit": None,
        **dict.fromkeys(("executor", "params", "algorithm", "python", "device"), "x"),
        **dict.fromkeys(("num_agents", "coordination_interval", "test_queries", "seed"), 1),
    }


@pytest.fixture(scope="module")
def page(figures: dict[str, str]) -> str:
    return report(results(), figures, [("query one", b"\x89PNG"), ("query two", b"\x89PNG")])


def test_the_page_asks_for_nothing_from_outside(page: str) -> None:
    assert not re.search(r"https?:|//\w|@import|<script|<link", page)
    references = re.findall(r"""(?:src|href)=["']?([^"'> ]*)""", page) + re.findall(r"url\(([^)]*)\)", page)
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)


def test_the_page_holds_its_figures_and_pictures(page: str) -> None:
    assert page.count("<svg") == 3
    assert page.count('src="data:image/png;base64,') == 2
    for words in ("meta-skill", "mesh", "query two", "if depth &lt;= 2", "workflow-&lt;b&gt;-v0"):
        assert words in page
    assert "workflow-<b>" not in page
    assert 'name="viewport"' in page


def test_identifiers_of_figures_are_unique_and_found(page: str) -> None:
    names = re.findall(r'\bid="([^"]*)"', page)
    assert len(names) == len(set(names))
    wanted = re.findall(r'href="#([^"]*)"', page) + re.findall(r"url\(#([^)]*)\)", page)
    assert set(wanted) <= set(names)


def test_figures_take_their_colours_from_the_page(figures: dict[str, str], page: str) -> None:
    for svg in figures.values():
        assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)
        assert set(re.findall(r"var\(--(\w+)\)", svg)) <= set(plots.LIGHT)
    assert plots.LIGHT.keys() == plots.DARK.keys()
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize("palette", [plots.LIGHT, plots.DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_ground(palette: dict[str, str]) -> None:
    def luminance(colour: str) -> float:
        part = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(palette[a]), luminance(palette[b])))
        return (high + 0.05) / (low + 0.05)

    assert contrast("ink", "ground") > 12
    assert contrast("muted", "ground") > 4.5
    assert min(contrast(name, "ground") for name in ("learned", "best", "rule", "other")) > 3


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [(0.05, "beats every hand-crafted"), (0.0, "cannot be told from the best"), (-0.05, "falls short of the best")],
)
def test_the_verdict_follows_the_intervals(difference: float, verdict: str, figures: dict[str, str]) -> None:
    assert verdict in report(results(difference), figures, [])


def test_figures_are_equal_when_drawn_again(methods: dict[str, plots.Method]) -> None:
    first, second = (plots.to_svg(plots.rewards(list(methods.values())), "rewards") for _ in range(2))
    assert first == second


def test_a_png_appears_whole(methods: dict[str, plots.Method], tmp_path) -> None:
    plots.save_png(plots.success_against_cost(list(methods.values())), tmp_path / "new" / "pareto.png")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["pareto.png"]
    assert (tmp_path / "new" / "pareto.png").read_bytes().startswith(b"\x89PNG")
