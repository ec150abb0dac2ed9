"""The benchmark beside other packages: what needs none of them."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxmas.errors import JaxmasError
from jaxmas.experiments.benchmarks import peers, peers_worker
from jaxmas.experiments.benchmarks.peers import ENTRIES, Settings, main, markdown, measured, ratios, reason


def record(system: str, agents: int, speed: float, **more: Any) -> dict[str, Any]:
    known = {"num_envs": 16, "sees": 100, "slowest": speed, "fastest": speed, "compile_seconds": 2.0}
    known |= {"live_share": 1.0, "acting_share": 1.0, "agent_steps_per_cpu_second": speed}
    return {"system": system, "agents": agents, **known, **more}


RECORDS = [
    record("warehouse", 64, 600.0),
    record("smax", 64, 200.0),
    record("pogema", 64, 300.0, compile_seconds=0.0),
    record("smax", 4, 100.0),
    {"system": "robot-warehouse", "agents": 64, "why": "no result within 240 CPU-seconds"},
]


def test_ratios_are_over_peers_of_the_same_number_of_agents() -> None:
    found = ratios(RECORDS)
    assert found == {
        "warehouse": {"64": {"over": {"smax": 3.0, "pogema": 2.0}, "best_peer": "pogema", "over_best": 2.0}}
    }
    assert ratios(RECORDS[:1])["warehouse"]["64"] == {"over": {}, "best_peer": None, "over_best": None}


def test_tables_say_why_a_measurement_is_missing() -> None:
    provenance = {"commit": "abc"}
    result = {"records": RECORDS, "ratios": ratios(RECORDS), "provenance": provenance, "machine": "a", "date": "b"}
    text = markdown({**result, "workers": 1})
    assert "| Jumanji RobotWarehouse | 64 | – | – | no result within 240 CPU-seconds | – | – | – | – |" in text
    assert "| jaxmas warehouse-medium-v0 | 64 | – | – | – | 3.0 | 2.0 | **2.0** |" in text
    widths = [row.count("|") for row in text.splitlines() if row.startswith("|")]
    assert len(set(widths[: len(RECORDS) + 2])) == 1 and len(set(widths[len(RECORDS) + 2 :])) == 1


def test_a_peer_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    settings = Settings(systems=("pogema",), agents=(4,), venvs=tmp_path / "none", out=tmp_path)
    (row,) = main(settings)["records"]
    assert "not installed" in row["why"] and "make bench-peers" in row["why"] and "\n" not in row["why"]
    assert json.loads((tmp_path / "peers.json").read_text())["records"] == [row]
    assert row["why"] in (tmp_path / "peers.md").read_text()


def test_a_peer_that_fails_is_one_line(tmp_path: Path) -> None:
    python = tmp_path / "jax" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    row = measured("smax", 4, (16,), Settings(venvs=tmp_path))
    assert row["why"].startswith("ModuleNotFoundError: No module named")
    assert reason(-24, "", Settings(limit=7)) == "no result within 7 CPU-seconds"
    assert reason(1, "Traceback\nValueError: too many\nFurther notes\n", Settings()) == "ValueError: too many"


def test_settings_are_checked() -> None:
    with pytest.raises(JaxmasError, match="unknown system 'smaxx'; did you mean 'smax'"):
        Settings(systems=("smaxx",))
    with pytest.raises(JaxmasError, match="have to be even"):
        Settings(agents=(3,))
    with pytest.raises(JaxmasError, match="workers is 0"):
        Settings(workers=0)
    assert set(peers_worker.SYSTEMS) | {"pogema"} == set(ENTRIES)


def test_own_measure_at_a_tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers_worker.SYSTEMS, "workflow", functools.partial(peers_worker._jaxmas, "signal-cue-v0"))
    task = {"system": "workflow", "agents": 4, "seconds": 0.01, "packages": ["jax"]}
    row = peers_worker._measure_jax(task, 2)
    assert row["slowest"] <= row["agent_steps_per_cpu_second"] <= row["fastest"]
    assert row["compile_seconds"] > 0 and row["sees"] > 0
    assert 0 < row["live_share"] <= 1 and 0 < row["acting_share"] <= 1


def test_timing_leaves_out_the_first_call_and_repeats_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(peers_worker, "cpu_seconds", lambda: float(next(clock)))
    calls: list[int] = []

    def call() -> float:
        calls.append(len(calls))
        return 10.0 * len(calls)

    speeds = peers_worker.timed(call, 1.0)
    assert (speeds["repeats"], speeds["slowest"], speeds["fastest"]) == (3, 20.0, 40.0)
    assert speeds["agent_steps_per_cpu_second"] == 30.0
    assert len(calls) == 4


def test_mistakes_and_help_are_short() -> None:
    command = [sys.executable, "-m", peers.__name__, "--systems", "nobody"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert ended.stderr.strip().splitlines()[-1].startswith("error: peers: unknown system 'nobody'")
