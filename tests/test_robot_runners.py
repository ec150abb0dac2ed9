"""The study of League of Robot Runners problems writes its table, and says nothing of where files are."""

import json
from pathlib import Path

import pytest
from test_warehouse_problem import written

from jaxmas.errors import JaxmasError
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
