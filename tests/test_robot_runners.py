"""The studies of problems and floors write their tables, and say nothing of where files are."""

import json
from pathlib import Path

import pytest
from test_warehouse_problem import written

from jaxmas.errors import JaxmasError
from jaxmas.experiments import floors
from jaxmas.experiments.robot_runners import Settings, main


def test_a_problem_is_played(tmp_path: Path) -> None:
    pairs = {"strategies": ("nearest-first",), "executors": ("greedy",), "seeds": 2, "steps": 32}
    result = main(Settings((written(tmp_path, agents="1\n0\n", teamSize=1),), out=tmp_path, **pairs))
    assert [row["strategy"] for row in result["rows"]] == ["nearest-first"]
    assert result["rows"][0]["orders"]["mean"] > 2 and result["rows"][0]["num_agents"] == 1
    page = (tmp_path / "robot_runners.md").read_text()
    assert "## a, 1 robots" in page and "| `nearest-first` | `greedy` | a window" in page
    assert str(tmp_path) not in page + json.dumps(result)
    with pytest.raises(JaxmasError, match="horizon"):
        main(Settings((tmp_path / "a.json",), out=tmp_path, **{**pairs, "steps": 33}))


def test_floors_are_played(tmp_path: Path) -> None:
    pairs = {"strategies": ("nearest-first",), "executors": ("greedy",), "queries": 2}
    result = floors.main(floors.Settings(("warehouse-small-v0",), out=tmp_path, **pairs))
    assert [row["scenario"] for row in result["rows"]] == ["warehouse-small-v0"]
    assert "## warehouse-small-v0, 32 robots" in (tmp_path / "floors.md").read_text()
    (row,) = result["rows"]
    assert row["throughput"]["mean"] * 256 == pytest.approx(32 * row["reward"]["mean"], rel=1e-3)
