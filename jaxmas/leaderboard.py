"""The leaderboard: one HTML file made of result files, which needs nothing but itself.

The page holds its data as JSON and draws all of it by a script of its own; the same files give the same bytes. Text in
result files is nobody's word but their author's: it is checked when it is read, kept from ending the script element
here, and set as text, never as markup, by the page.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import jaxmas
from jaxmas import plots, result_files
from jaxmas.checkpoints import atomic_write_text
from jaxmas.errors import refuse
from jaxmas.result_files import Result
from jaxmas.statistics import Estimate, probability_of_improvement

LEADING = ("reward", "throughput")
"""What methods are ranked by: the first of these that any row of a setting has."""
OVERALL = "overall"
UNRANKED = ("reference",)
"""Kinds that are shown without a rank: they look at many outcomes, which no policy can."""


def default_source() -> Path:
    """Return where the project keeps its own result files."""
    import jaxmas.experiments

    return Path(jaxmas.experiments.__file__).resolve().parent / "results" / "leaderboard"


def build(sources: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the page of all result files in files and folders; nothing is written where one of them is refused."""
    files = find(sources or [default_source()])
    results = load(files)
    data = board(results)
    atomic_write_text(out, page(data))
    views = {view["id"]: len(view["rows"]) for view in data["views"]}
    return {"out": str(out), "results": len(results), "views": views}


def find(sources: Iterable[Path]) -> list[Path]:
    """Return the files that were named, and the JSON files within the folders that were."""
    found: list[Path] = []
    for source in sources:
        refuse(not source.exists(), f"{source} does not exist; name result files, or folders of them")
        inside = sorted(source.rglob("*.json")) if source.is_dir() else [source]
        refuse(not inside, f"{source} holds no result file; see docs/leaderboard.md for how to make one")
        found += inside
    return list(dict.fromkeys(path.resolve() for path in found))


def load(files: Iterable[Path]) -> list[Result]:
    """Return sound results, each method once per setting."""
    known: dict[tuple[str, ...], tuple[Path, Result]] = {}
    for file in files:
        result = result_files.read(file)
        key = result_files.key_of(result)
        other = known.setdefault(key, (file, result))[0]
        refuse(other != file, f"{file}: {other} holds the same method in the same setting; keep one of them")
    return [known[key][1] for key in sorted(known)]


def board(results: Sequence[Result]) -> dict[str, Any]:
    """Return all that the page shows: a view per setting, and one over all scenarios that have scores."""
    settings: dict[str, list[Result]] = {}
    for result in results:
        settings.setdefault(json.dumps(result["setting"], sort_keys=True), []).append(result)
    # The setting with the most scores is what a scenario is known by; it comes first.
    views = list(map(setting_view, settings.values()))
    views.sort(key=lambda view: (view["scenario"], -view["scores"], -len(view["rows"]), view["id"]))
    dates = [result["provenance"]["date"] for result in results if result["provenance"]["date"]]
    scored = [view for view in views if view["scores"]]
    return {
        "version": jaxmas.__version__,
        "results": len(results),
        "newest": max(dates, default=None),
        "views": [*([overall_view(scored)] if scored else []), *views],
    }


# --- one setting


def setting_view(results: Sequence[Result]) -> dict[str, Any]:
    """Return the rows of one setting, ranked, and how likely each is to beat each."""
    setting = results[0]["setting"]
    metric = next((name for name in LEADING if any(name in result["metrics"] for result in results)), None)
    rows = [row_of(result, metric) for result in results]
    rows.sort(key=lambda row: -row["metrics"][metric][0] if metric in row["metrics"] else math.inf)
    parts = [setting["scenario"], setting["num_agents"], setting["coordination_interval"], setting["executor"]]
    parts += [f"{name}={digest[:8]}" for name, digest in sorted(setting["files"].items())]
    return {
        "id": "/".join(map(str, parts)),
        "scenario": setting["scenario"],
        "setting": setting,
        "metric": metric,
        "scores": sum(row["score"] is not None for row in rows),
        "anchors": anchors_of(rows),
        "rows": ranked(rows),
        "wins": [[chance(row["values"], other["values"]) for other in rows[at + 1 :]] for at, row in enumerate(rows)],
    }


def row_of(result: Result, metric: str | None) -> dict[str, Any]:
    """Return a row: estimates as ``[mean, low, high]``, and what every run came to in the metric that ranks."""
    values = [run["metrics"][metric] for run in result["runs"] if metric in run["metrics"]]
    return {
        **result["entry"],
        **{name: result[name] for name in ("provenance", "protocol")},
        "score": triple(result["score"]),
        "metrics": {name: triple(estimate) for name, estimate in result["metrics"].items()},
        "seeds": [run["seed"] for run in result["runs"]],
        "values": values,
        "runs": len(result["runs"]),
    }


def triple(estimate: Mapping[str, Any] | None) -> list[float] | None:
    """Return mean, low and high of an estimate."""
    return None if estimate is None else [estimate["mean"], *estimate["ci95"]]


def anchors_of(rows: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """Return the rewards at which the score is 0 and 1, from the rows that have both; None where they do not tell."""
    known = sorted((row["score"][0], row["metrics"]["reward"][0]) for row in rows if row["score"])
    if not known or known[0][0] == known[-1][0]:
        return None
    (low, least), (high, most) = known[0], known[-1]
    slope = (most - least) / (high - low)
    return [round(least - low * slope, 4), round(least + (1 - low) * slope, 4)]


def ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows that are in order, numbered but for references and for those that were not played everywhere."""
    place = 0
    for row in rows:
        counts = row["kind"] not in UNRANKED and row.get("everywhere", True)
        place += counts
        row["rank"] = place if counts else None
    return rows


def chance(mine: Sequence[float], theirs: Sequence[float]) -> list[float] | None:
    """Return the chance that a run of the one beats a run of the other, ``[mean, low, high]``; None for single runs."""
    if not mine or not theirs or len(mine) == len(theirs) == 1:
        return None
    return triple(rounded(probability_of_improvement(mine, theirs)).to_json())


def rounded(estimate: Estimate, digits: int = 4) -> Estimate:
    """Return an estimate with few digits: the page shows three."""
    low, high = estimate.ci95
    return Estimate(round(estimate.mean, digits), (round(low, digits), round(high, digits)))


# --- all scenarios


def overall_view(views: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return every method's mean score over the scenarios that it was played in."""
    played: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for view in views:
        for at, row in enumerate(view["rows"]):
            if row["score"] is not None:
                own = played.setdefault((row["name"], row["by"]), {}).setdefault(view["scenario"], [])
                own.append({"view": view, "at": at, "row": row})
    scenarios = sorted({view["scenario"] for view in views})
    rows = [overall_row(by_scenario, scenarios) for by_scenario in played.values()]
    rows.sort(key=lambda row: (not row["everywhere"], -row["score"][0], row["name"], row["by"]))
    methods = [played[row["name"], row["by"]] for row in rows]
    wins = [[overall_chance(mine, other) for other in methods[at + 1 :]] for at, mine in enumerate(methods)]
    return {
        "id": OVERALL,
        "scenario": OVERALL,
        "scenarios": scenarios,
        "metric": None,
        "scores": len(rows),
        "rows": ranked(rows),
        "wins": wins,
    }


def overall_row(by_scenario: Mapping[str, list[dict[str, Any]]], scenarios: Sequence[str]) -> dict[str, Any]:
    """Return a method's means over scenarios; of a metric only where all of them have it."""
    played = [[place["row"] for place in places] for places in by_scenario.values()]
    rows = [row for own in played for row in own]
    scores = {name: mean_of([row["score"] for row in own]) for name, own in zip(by_scenario, played, strict=True)}
    metrics = {
        metric: mean_of([mean_of([row["metrics"][metric] for row in own]) for own in played])
        for metric in rows[0]["metrics"]
        if metric != "reward" and all(metric in row["metrics"] for row in rows)
    }
    return {
        **{name: rows[0][name] for name in ("name", "kind", "by", "link", "about")},
        "status": "verified" if all(row["status"] == "verified" for row in rows) else "self-reported",
        "score": mean_of(list(scores.values())),
        "metrics": metrics,
        "scores": scores,
        "everywhere": len(by_scenario) == len(scenarios),
        "runs": sum(row["runs"] for row in rows),
    }


def mean_of(estimates: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of independent estimates, ``[mean, low, high]``: mean ± √(Σ distance²) / n, to either side."""
    count = len(estimates)
    mean = math.fsum(one[0] for one in estimates) / count
    below, above = (math.hypot(*(one[side] - one[0] for one in estimates)) / count for side in (1, 2))
    return [round(value, 6) for value in (mean, mean - below, mean + above)]


def overall_chance(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[float] | None:
    """Return the mean of two methods' chances over the settings in which both were played, within 0 and 1."""
    found = []
    for scenario in sorted(mine.keys() & theirs.keys()):
        for one in mine[scenario]:
            found += [known(one, other) for other in theirs[scenario] if one["view"] is other["view"]]
    chances = [one for one in found if one is not None]
    if not chances or len(chances) < len(found):
        return None
    return [min(max(value, 0.0), 1.0) for value in mean_of(chances)]


def known(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[float] | None:
    """Return the chance that a view holds for two of its rows; below the diagonal it is one less that of the other."""
    first, second = sorted((mine["at"], theirs["at"]))
    found = mine["view"]["wins"][first][second - first - 1]
    if found is None or mine["at"] == first:
        return found
    mean, low, high = found
    return [1 - mean, 1 - high, 1 - low]


# --- the page


def page(data: Mapping[str, Any]) -> str:
    """Return the page of a board."""
    folder = resources.files("jaxmas") / "data"
    script, style = ((folder / f"leaderboard.{kind}").read_text() for kind in ("js", "css"))
    style = Template(style).substitute(light=colours(plots.LIGHT), dark=colours(plots.DARK))
    return Template((folder / "leaderboard.html").read_text()).substitute(
        style=style,
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=embedded(data),
    )


def colours(palette: Mapping[str, str]) -> str:
    """Return the palette of the project's figures as CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


def embedded(data: Mapping[str, Any]) -> str:
    """Return JSON that cannot end the element it stands in, whatever its texts say."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
