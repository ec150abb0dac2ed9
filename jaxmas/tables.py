"""What commands print for people: rich tables on standard output."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

PLAIN_WIDTH = 132
"""Columns of a table that goes to no terminal."""
KEYS = ("reward", "success", "cost", "latency", "complexity", "messages", "acting_agents")


def show_result(command: str, result: Mapping[str, Any]) -> None:
    """Print a command's result."""
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    SHOW[command](console, result)


def _table(console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], style: int = -1) -> None:
    """Print a table: names to the left, numbers to the right, one row set off."""
    if title:
        console.print(title, markup=False)
    table = Table(header_style="bold", box=None, pad_edge=False)
    for place, name in enumerate(head):
        table.add_column(escape(name), justify="left" if place == 0 else "right", no_wrap=place == 0)
    for place, row in enumerate(rows):
        table.add_row(*(escape(cell) for cell in row), style="bold" if place == style else None)
    console.print(table)


def _number(value: Any) -> str:
    """Return a number, or a mean with the half width of its interval."""
    if isinstance(value, Mapping):
        mean, interval = f"{value['mean']:.3f}", value["ci95"]
        return f"{mean} ± {(interval[1] - interval[0]) / 2:.3f}" if interval else mean
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _interval(value: Mapping[str, Any] | None) -> str:
    return "–" if value is None else f"{value['mean']:+.3f} [{value['ci95'][0]:+.3f}, {value['ci95'][1]:+.3f}]"


def _list(console: Console, result: Mapping[str, Any]) -> None:
    for kind, entries in result.items():
        console.print(f"[bold]{kind}[/bold]")
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        for entry in entries:
            table.add_row(entry["name"], escape(entry["summary"]))
        console.print(table)
        console.print()


def _train(console: Console, result: Mapping[str, Any]) -> None:
    last, out = result["last"], result["out"]
    names = [name for name in ("update", "reward", "success", "cost", "entropy") if name in last]
    console.print(f"trained for {result['seconds']:.0f} s; the run is in {escape(out)}")
    _table(console, "", names, [[_number(last[name]) for name in names]])
    console.print(f"next: jaxmas compare {result['run']['scenario']} --policy {escape(out)}")


def _sweep(console: Console, result: Mapping[str, Any]) -> None:
    rows, shown = result["rows"], 20
    metrics = [name for name in ("reward", "success", "cost", "score") if any(name in row for row in rows)]
    head = (*rows[0]["settings"], "seeds", *metrics)
    cells = [
        (*map(str, row["settings"].values()), f"{row['finished']} of {row['trials']}",
         *(_number(row.get(name)) for name in metrics))
        for row in rows[:shown]
    ]  # fmt: skip
    title = f"{result['algorithm']} on {result['scenario']}, {result['episodes']} test queries"
    _table(console, title, head, cells)
    counts = f"trials: {result['trials']}, {result['failed']} of them failed; programs: {result['programs']}"
    console.print(f"{counts}; {len(rows)} settings: {result['out']}/table.md", markup=False, soft_wrap=True)


def _evaluate(console: Console, result: Mapping[str, Any]) -> None:
    rows = [(name, f"{row['mean']:.4f}", f"[{row['ci95'][0]:.4f}, {row['ci95'][1]:.4f}]")
            for name, row in result.items() if isinstance(row, Mapping) and "ci95" in row]  # fmt: skip
    rows.append(("score", _number(result["score"]), ""))
    title = f"{result['name']} on {result['scenario']}, {result['episodes']} test queries, {result['executor']}"
    _table(console, title, ("metric", "mean", "95 % interval"), rows)


def _compare(console: Console, result: Mapping[str, Any]) -> None:
    best = result["best_strategy"]
    head = ("method", "reward", "success", "cost", "latency", "messages", "acting", "score", f"over {best}")
    keys = ("reward", "success", "cost", "latency", "messages", "acting_agents")
    rows = []
    for name, row in result["methods"].items():
        means = [_number(row[key] if key == "reward" else row[key]["mean"]) if key in row else "" for key in keys]
        rows.append((name, *means, _number(row["score"]), _interval(row["over_best_strategy"])))
    title = f"{result['scenario']}, {result['episodes']} test queries, {result['executor']}"
    _table(console, title, head, rows, list(result["methods"]).index(best))
    console.print(f"table and figures: {escape(result['out'])}")


def _headroom(console: Console, result: Mapping[str, Any]) -> None:
    levels = {name: result[name] for name in ("random", "single", "fixed", "strategy", "rule")}
    levels |= {f"per query, {end}": result["per_query"][end] for end in ("low", "high")}
    plans = {name: row.get("plan", "") for name, row in levels.items()}
    rows = [(name, _number(row), plans[name] if isinstance(plans[name], str) else "") for name, row in levels.items()]
    title = f"{result['scenario']}, {result['num_agents']} agents, {result['executor']}"
    console.print(title, markup=False)
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name, justify in (("", "left"), ("reward", "right"), ("plan", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    console.print()
    margins = [(name.replace("_", " "), _number(value)) for name, value in result.get("in_gaps", {}).items()]
    _table(console, "", ("in gaps from random to strategy", ""), margins)
    console.print()
    clamps = [(name, _number(value)) for name, value in result["clamp"].items()]
    _table(console, "", ("clamped field", "loss in gaps"), clamps)


def _show(console: Console, result: Mapping[str, Any]) -> None:
    if result["design"]:
        rows = [(row["what"], row["value"], f"{row['probability']:.3f}") for row in result["design"]]
        _table(console, f"{result['policy']}, query {result['query']}", ("decision", "value", "probability"), rows)
    for file in result["files"]:
        console.print(file, markup=False, soft_wrap=True)


def _bench(console: Console, result: Mapping[str, Any]) -> None:
    sizes = f"{result['num_agents']} agents, {result['num_envs']} environments"
    title = f"{result['scenario']}, {sizes}, {result.get('strategy') or result['algorithm']}"
    rows = [
        ("compile", f"{result['compile_seconds']:.1f} CPU s, {result['compile_wall_seconds']:.1f} s"),
        *((name.replace("_", " "), _thousands(result[name])) for name in result if name.endswith("_second")),
        *((name.replace("_", " "), f"{result[name]:.1%}") for name in result if name.endswith("_share")),
    ]
    _table(console, title, ("measure", "value"), rows)


def _thousands(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _demo(console: Console, result: Mapping[str, Any]) -> None:
    learned, best = result["learned"], result["best_strategy"]
    rule = next(name for name, row in result["methods"].items() if row["kind"] == "rule")
    known = result["methods"][learned]
    keys = tuple(key for key in ("reward", "success", "cost", "latency", "messages") if key in known)
    rows = []
    for name in sorted({learned, best, rule}, key=list(result["methods"]).index):
        row = result["methods"][name]
        rows.append((name, *(_number(row[key]) for key in keys)))
    title = f"{result['scenario']}, {result['test_queries']} test queries"
    _table(console, title, ("method", *keys), rows)
    console.print(f"{learned} over {best}: {_interval(result['paired']['over_best_strategy'])}", markup=False)
    console.print(f"{learned} over {rule}: {_interval(result['paired']['over_rule'])}", markup=False)
    console.print(f"{result['wall_seconds']['total']:.0f} s in all; report: {result['files']['report']}", markup=False)


def _leaderboard(console: Console, result: Mapping[str, Any]) -> None:
    rows = [(view, str(methods)) for view, methods in result["views"].items()]
    _table(console, f"{result['results']} result files", ("setting", "methods"), rows)
    console.print(f"page: {result['out']}", markup=False, soft_wrap=True)


def _export(console: Console, result: Mapping[str, Any]) -> None:
    setting, runs = result["setting"], result["runs"]
    where = f"{setting['scenario']}, {setting['num_agents']} agents, {setting['executor']}"
    console.print(f"{result['entry']['name']}: {len(runs)} run{'s' if len(runs) > 1 else ''} on {where}", markup=False)
    console.print(f"archive: {result['out']}, {result['bytes']:,} bytes", markup=False, soft_wrap=True)


def _submitted(console: Console, result: Mapping[str, Any]) -> None:
    entry, secret = result["entry"], result["verification"]
    rows = [(name, _number(value)) for name, value in result["metrics"].items()]
    rows += [("score", _number(result["score"]))] if result["score"] else []
    rows += [("reward, secret queries", _number(secret["reward"]))] if secret else []
    _table(console, f"{entry['name']}, {entry['status']}", ("metric", "mean"), rows)
    console.print(f"row: {result['out']}", markup=False, soft_wrap=True)


SHOW: dict[str, Callable[[Console, Mapping[str, Any]], None]] = {
    "list": _list,
    "train": _train,
    "sweep": _sweep,
    "evaluate": _evaluate,
    "compare": _compare,
    "headroom": _headroom,
    "show": _show,
    "bench": _bench,
    "demo": _demo,
    "leaderboard": _leaderboard,
    "export": _export,
    "submit": _submitted,
    "verify": _submitted,
}
