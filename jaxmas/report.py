"""The report of the main job: one HTML file that needs nothing but itself.

It holds its figures (SVG that follows the reader's light or dark theme, pictures as base64 PNG) and asks for nothing
from outside.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from jaxmas import plots

FIGURES = {
    "learning": (
        "Learning curve",
        "Mean reward of the plans sampled in training, on training queries. The dot is the finished policy on the "
        "test queries with its 95 % interval; the dashed lines are the best hand-crafted strategy and the depth-3 rule "
        "there.",
    ),
    "pareto": (
        "Success against cost",
        "Towards the upper left is better. The line joins the methods that no other beats in both; intervals are 95 %.",
    ),
    "rewards": (
        "Every method on the same queries",
        "Mean reward on the test queries with 95 % bootstrap intervals. All methods met the same queries under the "
        "same noise, so differences are surer than the intervals suggest: the paired ones stand above.",
    ),
}


def report(results: Mapping[str, Any], figures: Mapping[str, str], pictures: Sequence[tuple[str, bytes]]) -> str:
    """Return the page: ``results`` as in ``results.json``, SVG figures by name, captioned PNG pictures."""
    return Template(PAGE).substitute(
        title=html.escape(f"jaxmas demo: {results['learned']} on {results['scenario']}"),
        style=STYLE.replace("/*LIGHT*/", _colours(plots.LIGHT)).replace("/*DARK*/", _colours(plots.DARK)),
        verdict=_verdict(results),
        intro=_intro(results),
        cards=_cards(results),
        figures="".join(_figure(name, figures[name]) for name in FIGURES),
        families=_families(results),
        pictures="".join(_picture(caption, data) for caption, data in pictures),
        rule=_rule(results),
        designs=_designs(results),
        tradeoffs=_tradeoffs(results),
        methods=_methods(results),
        record=_record(results),
    )


def _colours(palette: Mapping[str, str]) -> str:
    return "".join(f"--{name}: {colour};" for name, colour in palette.items())


def _verdict(results: Mapping[str, Any]) -> str:
    """Say in one sentence how the learned policy stands against both references, as the intervals allow."""
    words = {1: "beats", 0: "cannot be told from", -1: "falls short of"}
    signs = [_sign(results["paired"][key]) for key in ("over_best_strategy", "over_rule")]
    names = ["every hand-crafted strategy" if signs[0] > 0 else "the best hand-crafted strategy", "the depth-3 rule"]
    parts = [f"{words[sign]} {name}" for sign, name in zip(signs, names, strict=True)]
    joined = f"{parts[0]} and {parts[1]}" if signs[0] != signs[1] else f"{parts[0]} and {names[1]}"
    return html.escape(f"The learned meta-policy {joined}.")


def _sign(difference: Mapping[str, Any]) -> int:
    low, high = difference["ci95"]
    return 1 if low > 0 else -1 if high < 0 else 0


def _intro(results: Mapping[str, Any]) -> str:
    queries, updates = f"{results['test_queries']:,}", results["config"]["updates"]
    return html.escape(
        f"It decides for each query who is on the team, which role and capability each member has, who reads whom and "
        f"how many answers a subtask gets. It was trained for {updates} updates while the executors "
        f"({results['executor']}) stayed frozen, and is compared here on {queries} test queries that no method has met "
        f"before. Training took {results['wall_seconds']['train']:.0f} s, everything "
        f"{results['wall_seconds']['total']:.0f} s."
    )


def _cards(results: Mapping[str, Any]) -> str:
    learned = results["methods"][results["learned"]]
    best = results["methods"][results["best_strategy"]]
    score = learned["score"]
    over_best, over_rule = (_signed(results["paired"][key]) for key in ("over_best_strategy", "over_rule"))
    cards = [
        ("over the best strategy", over_best, f"against {results['best_strategy']}"),
        ("over the depth-3 rule", over_rule, "an if-else on visible numbers"),
        ("success", _with_interval(learned["success"]), f"best strategy {best['success']['mean']:.3f}"),
        ("cost", _with_interval(learned["cost"]), f"best strategy {best['cost']['mean']:.3f}"),
    ]
    if score is not None:
        cards.append(("coordination score", (f"{score:.2f}", ""), "0 is random, 1 the best strategy"))
    return "".join(
        f'<div class="card"><div class="label">{html.escape(label)}</div><div class="value">{value}</div>'
        f'<div class="interval">{interval}</div><div class="note">{html.escape(note)}</div></div>'
        for label, (value, interval), note in cards
    )


def _signed(estimate: Mapping[str, Any]) -> tuple[str, str]:
    low, high = estimate["ci95"]
    return f"{estimate['mean']:+.3f}".replace("-", "−"), f"[{low:+.3f}, {high:+.3f}]".replace("-", "−")


def _with_interval(estimate: Mapping[str, Any]) -> tuple[str, str]:
    low, high = estimate["ci95"]
    return f"{estimate['mean']:.3f}", f"[{low:.3f}, {high:.3f}]"


def _figure(name: str, svg: str) -> str:
    title, caption = FIGURES[name]
    return (
        f"<figure><h3>{html.escape(title)}</h3>{_own_ids(svg, name)}"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _own_ids(svg: str, name: str) -> str:
    """Make the identifiers of a figure its own: several figures share one page."""
    for mark in ('id="', 'href="#', "url(#"):
        svg = svg.replace(mark, f"{mark}{name}-")
    return svg


def _families(results: Mapping[str, Any]) -> str:
    """Return the table of query families, or nothing where the environment names none."""
    if not results["families"]:
        return ""
    head = ("family", "queries", "learned", results["best_strategy"], "difference", "team", "messages", "cost")
    rows = [
        (
            family,
            str(row["queries"]),
            f"{row['learned']['reward']:.3f}",
            f"{row['best_strategy']['reward']:.3f}",
            " ".join(_signed(row["over_best_strategy"])),
            f"{row['learned']['active_agents']:.1f}",
            f"{row['learned']['messages']:.1f}",
            f"{row['learned']['cost']:.2f}",
        )
        for family, row in results["families"].items()
    ]
    note = "Team, messages and cost are the learned policy's. Families are labels for analysis: no policy sees them."
    return f"<h2>By kind of query</h2>{_table(head, rows)}<p class='note'>{note}</p>"


def _methods(results: Mapping[str, Any]) -> str:
    head = ("method", "reward", "success", "cost", "latency", "complexity", "messages", "acting agents", "score")
    keys = ("latency", "complexity", "messages", "acting_agents")
    ranked = sorted(results["methods"].items(), key=lambda item: -item[1]["reward"]["mean"])
    rows = [
        (
            name,
            " ".join(_with_interval(row["reward"])).replace("-", "−"),
            f"{row['success']['mean']:.3f}",
            f"{row['cost']['mean']:.3f}",
            *(f"{row[key]['mean']:.2f}" if key in row else "" for key in keys),
            "" if row["score"] is None else f"{row['score']:.2f}".replace("-", "−"),
        )
        for name, row in ranked
    ]
    return _table(head, rows)


def _designs(results: Mapping[str, Any]) -> str:
    """Return the table of plan structures of the learned policy beside the best strategy's."""
    names = (results["learned"], results["best_strategy"])
    if any(name not in results.get("designs", {}) for name in names):
        return ""
    head = ("share of designs", *names)
    parts = []
    for part, label in (("structure", ""), ("members", "members: ")):
        pairs = [results["designs"][name][part] for name in names]
        parts += [(label + key, *(f"{pair[key]:.0%}" for pair in pairs)) for key in pairs[0]]
    words = (
        "Alone is one member; apart, members who read nobody; a hub reads the others; in a forest nobody is read "
        "twice; sparse and dense have less and more than half of the possible reads."
    )
    return f"<h2>What it designs</h2>{_table(head, parts)}<p class='note'>{words}</p>"


def _tradeoffs(results: Mapping[str, Any]) -> str:
    """Return the rankings at three cost weights."""
    found = results.get("tradeoffs")
    if not found:
        return ""
    at = found["reward_at_cost_weight"]
    head = ("method", *(f"reward at {factor} × cost" for factor in at))
    rows = [
        (name, *(f"{means[name]:.3f} (place {found['ranking_at_cost_weight'][factor].index(name) + 1})"
                 for factor, means in at.items()))
        for name in found["ranking_at_cost_weight"]["1"]
    ]  # fmt: skip
    area = found["hypervolume"]
    words = (
        f"Nothing is trained anew: the same plays, with cost weighing half, once and twice as much. The methods "
        f"together dominate {area['all']:.3f} of success × cost, {area['without_learned']:.3f} without the learned one."
    )
    return f"<h2>If cost weighed less, or more</h2>{_table(head, rows)}<p class='note'>{words}</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _picture(caption: str, data: bytes) -> str:
    source = base64.b64encode(data).decode()
    text = html.escape(caption)
    return (
        f'<figure><div class="wide picture"><img alt="{text}" src="data:image/png;base64,{source}"></div>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _rule(results: Mapping[str, Any]) -> str:
    lines = results.get("rule") or []
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>" if lines else ""


def _record(results: Mapping[str, Any]) -> str:
    """Return what decides the outcome, and where it was made."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version)
    config = ", ".join(f"{name} {value}" for name, value in results["config"].items())
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in results["wall_seconds"].items())
    pairs = {
        "Command": results["command"],
        "Scenario": f"{results['scenario']}, {results['num_agents']} agents, a plan every "
        f"{results['coordination_interval']} steps, executor {results['executor']}, parameters {results['params']}",
        "Algorithm": f"{results['algorithm']}: {config}",
        "Seed": str(results["seed"]),
        "Commit": str(results["commit"] or "unknown"),
        "Versions": f"Python {results['python']}, {versions}",
        "Device": results["device"],
        "Wall seconds": seconds,
    }
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in pairs.items())
    return f"<dl>{rows}</dl>"


STYLE = """
:root { color-scheme: light dark; /*LIGHT*/ }
@media (prefers-color-scheme: dark) { :root { /*DARK*/ } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 1.5rem 1.1rem 4rem; }
h1 { font-size: clamp(1.45rem, 4.5vw, 2.1rem); line-height: 1.2; margin: .2rem 0 .8rem; text-wrap: balance; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1.02rem; margin: 0 0 .5rem; }
p { max-width: 46rem; }
.over { color: var(--muted); font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr)); gap: .7rem; margin: 1.4rem 0; }
.card { border: 1px solid var(--grid); border-radius: 10px; padding: .75rem .9rem; }
.label { color: var(--muted); font-size: .84rem; }
.value { font-size: 1.6rem; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums; }
.interval { font-size: .84rem; font-variant-numeric: tabular-nums; }
.note, figcaption { color: var(--muted); font-size: .86rem; }
.figures { columns: 2 420px; column-gap: 1.8rem; }
figure { margin: 0 0 1.8rem; min-width: 0; break-inside: avoid; }
figure > svg { display: block; width: 100%; max-width: 560px; height: auto; }
figcaption { margin-top: .5rem; max-width: 46rem; }
.wide { overflow-x: auto; }
.picture { border: 1px solid var(--grid); border-radius: 10px; background: #fff; }
.picture img { display: block; width: 100%; min-width: 700px; height: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { text-align: right; padding: .34rem .6rem; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { color: var(--muted); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
pre { overflow-x: auto; border: 1px solid var(--grid); border-radius: 10px; padding: .8rem 1rem; font-size: .82rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.1rem; font-size: .88rem; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
details > summary { cursor: pointer; color: var(--muted); }
@media (max-width: 560px) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<p class="over">$title</p>
<h1>$verdict</h1>
<p>$intro</p>
<div class="cards">$cards</div>
<div class="figures">$figures</div>
$families
<h2>Three queries and the teams designed for them</h2>
<p>The first test query of each of three kinds, whatever came of it.</p>
$pictures
$designs
<h2>All methods</h2>
$methods
$tradeoffs
<h2>How this was measured</h2>
<p>Strategies were tuned, and the rule was fitted, on validation queries; the comparison is on test queries. The best
strategy is the one that earns most on these very queries, which favours the strategies. Intervals are 95 % bootstrap
intervals over queries, for one training seed. This is a simulation: it ranks ways to coordinate under its own
assumptions and does not predict the success or the savings of teams of real language models.</p>
<details><summary>The depth-3 rule</summary>$rule</details>
<h2>Record</h2>
$record
</main>
</body>
</html>
"""
