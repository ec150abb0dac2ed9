"""Speed beside other packages' environments: ``python -m jaxmas.experiments.benchmarks.peers`` (``make bench-peers``).

Plays jaxmas, Jumanji, JaxMARL and POGEMA with random legal actions, at the same numbers of agents and the same batch
sizes, in one run and by one timing function (``peers_worker.py``), each in a process of its own. Peers run in virtual
environments of their own, which ``make bench-peers`` sets up. Writes ``experiments/results/peers.json``, ``.md`` and
``.png``.
"""

import dataclasses
import datetime
import json
import os
import platform
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tyro

from jaxmas.checkpoints import atomic_write_json, atomic_write_text
from jaxmas.errors import JaxmasError, check_numbers, did_you_mean, refuse
from jaxmas.plots import save_png, speeds
from jaxmas.runs import provenance

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).resolve().with_name("peers_worker.py")


@dataclasses.dataclass(frozen=True)
class Entry:
    """An environment, and where it is installed."""

    title: str
    group: str
    """A virtual environment of the peers; empty is this one."""
    packages: tuple[str, ...]


ENTRIES = {
    "warehouse": Entry("jaxmas warehouse-medium-v0", "", ("jax",)),
    "workflow": Entry("jaxmas workflow-crowd-v0", "", ("jax",)),
    "robot-warehouse": Entry("Jumanji RobotWarehouse", "jax", ("jumanji", "jax")),
    "level-based-foraging": Entry("Jumanji LevelBasedForaging", "jax", ("jumanji", "jax")),
    "simple-spread": Entry("JaxMARL MPE simple_spread", "jax", ("jaxmarl", "jax")),
    "smax": Entry("JaxMARL SMAX", "jax", ("jaxmarl", "jax")),
    "pogema": Entry("POGEMA lifelong (NumPy)", "numpy", ("pogema", "numpy")),
}
OURS = tuple(name for name, entry in ENTRIES.items() if not entry.group)
CHOOSE_AT = 64
"""Agents at which the batch size is chosen."""
TOTALS = (1024, 4096)
"""Agents of all environments of a batch together: the batch sizes that are tried."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure, for how long, and where to write."""

    agents: tuple[int, ...] = (4, 16, 64, 256)
    systems: tuple[str, ...] = tuple(ENTRIES)
    seconds: float = 1.0
    """CPU-seconds that a measurement repeats its call for."""
    limit: int = 240
    """CPU-seconds after which a process is ended."""
    workers: int = 1
    """Processes at a time, each on a core of its own."""
    small: bool = False
    """Measure 4 and 16 agents, a tenth as long."""
    venvs: Path = Path(".venv-peers")
    """Where the peers' virtual environments are."""
    out: Path = ROOT / "experiments" / "results"

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        check_numbers("peers", self, ("seconds", "limit", "workers"), 0.01)
        refuse(not self.agents, "peers: --agents names no number of agents")
        wrong = [number for number in self.agents if number < 2 or number % 2]
        refuse(bool(wrong), f"peers: --agents {wrong[:1]}; numbers of agents have to be even: SMAX has two sides")
        for name in self.systems:
            refuse(name not in ENTRIES, f"peers: unknown system {name!r}; {did_you_mean(name, ENTRIES)}")


def main(settings: Settings) -> dict[str, Any]:
    """Measure everything and write the tables, anew after every process."""
    if settings.small:
        settings = dataclasses.replace(settings, agents=(4, 16), seconds=settings.seconds / 10)
    first = CHOOSE_AT if CHOOSE_AT in settings.agents else max(settings.agents)
    rest = sorted(set(settings.agents) - {first}, reverse=True)
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in range(settings.workers):
        cores.put(core)
    records: list[dict[str, Any]] = []

    def one(name: str, agents: int, totals: tuple[int, ...]) -> None:
        core = cores.get()
        try:
            records.append(measured(name, agents, totals, settings, core))
        finally:
            cores.put(core)
        print(line(records[-1]), flush=True)
        write(sorted(records, key=lambda row: (list(ENTRIES).index(row["system"]), row["agents"])), settings)

    with ThreadPoolExecutor(settings.workers) as pool:
        list(pool.map(lambda name: one(name, first, TOTALS), settings.systems))
        chosen = {row["system"]: row.get("num_envs", TOTALS[0] // first) * first for row in records}
        tasks = [(name, number, (chosen[name],)) for number in rest for name in settings.systems]
        list(pool.map(lambda task: one(*task), tasks))
    return json.loads((settings.out / "peers.json").read_text())


def measured(name: str, agents: int, totals: tuple[int, ...], settings: Settings, core: int = 0) -> dict[str, Any]:
    """Measure one system in a process of its own; return its best batch size, or why there is none."""
    entry = ENTRIES[name]
    record: dict[str, Any] = {"system": name, "agents": agents}
    python = Path(sys.executable) if not entry.group else settings.venvs / entry.group / "bin" / "python"
    if not python.exists():
        return record | {"why": f"not installed: there is no {settings.venvs / entry.group}; make bench-peers makes it"}
    batches = sorted({max(1, total // agents) for total in totals})
    task = {"system": name, "agents": agents, "batches": batches, "seconds": settings.seconds}
    task |= {"limit": settings.limit, "core": core, "packages": entry.packages}
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_", "PYTHON"))}
    environment |= {"JAX_PLATFORMS": "cpu"} | ({} if entry.group else {"PYTHONPATH": str(ROOT)})
    command = [str(python), str(WORKER), json.dumps(task)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    tried = [json.loads(row) for row in ended.stdout.splitlines() if row.startswith("{")]
    if not tried:
        return record | {"why": reason(ended.returncode, ended.stderr, settings)}
    best = max(tried, key=lambda row: row["agent_steps_per_cpu_second"])
    return record | best | {"tried": {row["num_envs"]: row["agent_steps_per_cpu_second"] for row in tried}}


def reason(code: int, stderr: str, settings: Settings) -> str:
    """Return in one line why a process gave no measurement."""
    if code in (-24, -9):
        return f"no result within {settings.limit} CPU-seconds" if code == -24 else "ended by the system: out of memory"
    lines = [row.strip() for row in stderr.splitlines() if row.strip()]
    errors = [row for row in lines if "Error" in row.split(":")[0]] or lines or [f"exit code {code}"]
    return errors[-1][:160]


def ratios(records: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for each of our environments and number of agents its speed over that of every peer, and of the best."""
    speed = {(row["system"], row["agents"]): row.get("agent_steps_per_cpu_second") for row in records}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (name, agents), own in speed.items():
        if name not in OURS or not own:
            continue
        peers = {peer: known for (peer, number), known in speed.items() if number == agents and known}
        over = {peer: own / known for peer, known in peers.items() if peer not in OURS}
        best = min(over, key=lambda peer: over[peer], default=None)
        found.setdefault(name, {})[str(agents)] = {"over": over, "best_peer": best, "over_best": over.get(best or "")}
    return found


def write(records: list[dict[str, Any]], settings: Settings) -> None:
    """Write what has been measured so far: numbers, tables, figure."""
    result = {
        "records": records,
        "ratios": ratios(records),
        "missing": len(settings.agents) * len(settings.systems) - len(records),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "seconds": settings.seconds,
        "workers": settings.workers,
        "provenance": provenance(),
    }
    atomic_write_json(settings.out / "peers.json", result)
    atomic_write_text(settings.out / "peers.md", markdown(result))
    series = {}
    for name, entry in ENTRIES.items():
        known = [row for row in records if row["system"] == name and "num_envs" in row]
        if known:
            series[entry.title] = (
                [row["agents"] for row in known],
                [row["agent_steps_per_cpu_second"] for row in known],
            )
    if series:
        own = [ENTRIES[name].title for name in OURS]
        save_png(speeds(series, own, "agents", "agent-steps per CPU-second"), settings.out / "peers.png")


def machine() -> str:
    """Return the processor's name and the number of cores."""
    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(row.split(":")[1].strip() for row in rows if row.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


NOTES = """\
An agent-step is one agent through one environment step. Actions are random legal ones, drawn inside the program, and
everything that is seen is multiplied by ones, as the first layer of a policy would read it, so that no part of it goes
uncomputed. One jitted scan of 96 steps per call for JAX; POGEMA plays one environment. Time is the CPU time of all
threads (`getrusage`), every process on one core; calls are repeated after a first one, resets of episodes that end in
them included, and compiling counts apart. The number of environments is the faster of those with 1,024 and 4,096 agents
in all at 64 agents, kept for other numbers of agents.

Of jaxmas the whole roll-out counts: random plans, the designer's view, resets, metrics. Steps of a query that is over
are computed and *not* counted: *live* is the share that is. *Acting* is the share of counted agent-steps with something
to do. Floors have about 1,000 cells. RobotWarehouse ends when robots collide, which random ones do often, so that its
resets weigh on it. `simple_spread` and SMAX tell every agent of all others: what they see grows with the team. SMAX
computes eight steps of its world for each one of the environment. The games differ, and so does what is seen: a ratio
says which is cheaper to play, not which is better.
"""


def markdown(result: dict[str, Any]) -> str:
    """Return the tables for people."""
    records = result["records"]
    where = f"{result['machine']}; {result['date']}; commit {result['provenance']['commit']}"
    together = f", {result['workers']} processes at a time" if result["workers"] > 1 else ""
    missing = result.get("missing", 0)
    versions = {f"{key} {value}" for row in records for key, value in row.get("versions", {}).items()}
    return "\n".join(
        [
            "# Speed beside other packages' environments",
            "",
            f"`make bench-peers`, {where}{together}. {', '.join(sorted(versions))}.",
            "",
            NOTES,
            *([f"The run was ended early: {missing} measurements are missing.", ""] if missing else []),
            *HEADER,
            *map(line, records),
            "",
            "## jaxmas over its peers",
            "",
            *ratio_lines(result["ratios"]),
            "",
        ]
    )


HEADER = (
    "| environment | agents | environments | agent sees | agent-steps per CPU-second | slowest to fastest call | "
    "compile, CPU-s | live | acting |",
    "|---|---|---|---|---|---|---|---|---|",
)


def line(row: dict[str, Any]) -> str:
    """Return one row of the table."""
    title = ENTRIES[row["system"]].title
    if "why" in row:
        return f"| {title} | {row['agents']} | – | – | {row['why'].replace('|', '/')} | – | – | – | – |"
    cells = (
        title,
        row["agents"],
        row["num_envs"],
        row["sees"],
        f"{row['agent_steps_per_cpu_second']:,.0f}",
        f"{row['slowest']:,.0f} to {row['fastest']:,.0f}",
        f"{row['compile_seconds']:.1f}" if row["compile_seconds"] else "–",
        f"{row['live_share']:.0%}",
        f"{row['acting_share']:.0%}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def ratio_lines(table: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return the table of ratios."""
    peers = [name for name in ENTRIES if name not in OURS]
    titles = " | ".join(ENTRIES[name].title for name in peers)
    lines = [f"| environment | agents | {titles} | fastest peer |", "|---|---|" + "---|" * (len(peers) + 1)]
    for name, rows in table.items():
        for agents, row in sorted(rows.items(), key=lambda item: int(item[0])):
            cells = [f"{row['over'][peer]:.1f}" if peer in row["over"] else "–" for peer in peers]
            best = "–" if row["best_peer"] is None else f"**{row['over_best']:.1f}**"
            lines.append(f"| {ENTRIES[name].title} | {agents} | {' | '.join(cells)} | {best} |")
    return lines


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings, description=__doc__))
    except JaxmasError as error:
        sys.exit(f"error: {error}")
