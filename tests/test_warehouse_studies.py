"""The studies of problems and floors write their tables, and say nothing of where files are."""

import json
from pathlib import Path

import pytest
from test_warehouse_problem import written

from jaxmas.errors import JaxmasError
from jaxmas.experiments.warehouse import floors
from jaxmas.experiments.warehouse.robot_runners import Settings, main


def test_a_problem_is_played(tmp_path: Path) -> None:
    pairs = {"strategies": ("nearest-first",), "executors": ("greedy",), "seeds": 2, "steps": 32}
    rows = main(Settings((written(tmp_path, agents="1\n0\n", teamSize=1),), out=tmp_path, **pairs))
    assert [row["strategy"] for row in rows] == ["nearest-first"]
    assert rows[0]["orders"]["mean"] > 2 and rows[0]["num_agents"] == 1
    page = (tmp_path / "warehouse_robot_runners.md").read_text()
    assert "## a, 1 robots" in page and "| `nearest-first` | `greedy` | a window" in page
    assert str(tmp_path) not in page + json.dumps(rows)
    with pytest.raises(JaxmasError, match="horizon"):
        main(Settings((tmp_path / "a.json",), out=tmp_path, **{**pairs, "steps": 33}))


def test_floors_are_played_and_others_stay(tmp_path: Path) -> None:
    pairs = {"executors": ("greedy",), "queries": 2, "out": tmp_path}
    floors.main(floors.Settings(("warehouse-small-v0",), strategies=("nearest-first", "first-come"), **pairs))
    before = json.loads((tmp_path / "warehouse_floors.json").read_text())["rows"]
    again = floors.Settings(("warehouse-small-v0",), strategies=("first-come",), **{**pairs, "queries": 3})
    row = floors.main(again)[-1]
    after = json.loads((tmp_path / "warehouse_floors.json").read_text())["rows"]
    assert after == [before[0], row] and row["plays"] == 3 and row["strategy"] == "first-come"
    assert row["throughput"]["mean"] * 256 == pytest.approx(row["orders"]["mean"], rel=1e-3)
    assert "## warehouse-small-v0, 32 robots" in (tmp_path / "warehouse_floors.md").read_text()
