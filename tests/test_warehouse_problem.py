"""Problem files of the League of Robot Runners: read as they are, and refused with one line where they are wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmas.environments.warehouse.problem import Delays, read_problem
from jaxmas.errors import JaxmasError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "lorr"
MAP = "type octile\nheight 2\nwidth 3\nmap\n..@\n...\n"
SAID = {"mapFile": "a.map", "agentFile": "a.agents", "taskFile": "a.tasks", "teamSize": 2, "numTasksReveal": 1.5}
DELAYS = {"pDelay": 0.1, "minDelay": 2, "maxDelay": 5, "durationModel": "uniform"}


def written(folder: Path, agents: str = "# v\n2\n0\n4\n", tasks: str = "2\n1,3\n5,4,0\n", **said: Any) -> Path:
    (folder / "a.map").write_text(MAP)
    (folder / "a.agents").write_text(agents)
    (folder / "a.tasks").write_text(tasks)
    (folder / "a.json").write_text(json.dumps({**SAID, **said}))
    return folder / "a.json"


def test_a_problem_is_read(tmp_path: Path) -> None:
    """Cell 2 is blocked: written cells 3, 4 and 5 are the free cells 2, 3 and 4."""
    problem = read_problem(written(tmp_path, delayConfig=DELAYS))
    assert problem.starts.tolist() == [0, 3]
    assert problem.stops.tolist() == [[1, 2, -1], [4, 3, 0]]
    assert problem.revealed == 1.5 and problem.delays == Delays(0.1, 2, 5)
    gaussian = {**DELAYS, "durationModel": "gaussian", "gaussMeanRatio": 0.5, "gaussStdRatio": 0.2}
    assert read_problem(written(tmp_path, delayConfig=gaussian)).delays == Delays(0.1, 2, 5, (0.5, 0.2))
    assert read_problem(written(tmp_path)).delays == Delays()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teamSize": 3}, "teamSize is 3; a.agents has 2 starts"),
        ({"teamSize": 0}, "teamSize is 0"),
        ({"teamSize": "2"}, "teamSize is none"),
        ({"mapFile": None}, "mapFile is none"),
        ({"mapFile": "b.map"}, "b.map cannot be read"),
        ({"numTasksReveal": 0}, "numTasksReveal is 0"),
        ({"agents": "2\n0\n0\n"}, "two robots start on one cell"),
        ({"agents": "3\n0\n1\n"}, "has 2 lines after its count of 3"),
        ({"agents": "2\n0\nx\n"}, "cannot be read as a count"),
        ({"agents": ""}, "cannot be read as a count"),
        ({"tasks": "1\n0,2\n"}, "cell 2 is not a free cell of a"),
        ({"tasks": "1\n0,6\n"}, "cell 6 is not a free cell of a"),
        ({"delayConfig": {**DELAYS, "pDelay": 2}}, "pDelay of 0 to 1"),
        ({"delayConfig": {**DELAYS, "minDelay": 9}}, "minDelay <= maxDelay"),
        ({"delayConfig": {"pDelay": 0.1}}, "delayConfig is not understood"),
        ({"delayConfig": [1]}, "delayConfig is not understood"),
    ],
)
def test_a_wrong_problem_is_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(JaxmasError, match=words) as caught:
        read_problem(written(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "[1]", "{"])
def test_what_is_no_problem_is_one_line(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "p.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(JaxmasError, match=r"cannot be read as a problem|no problem file") as caught:
        read_problem(file)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the League of Robot Runners' example problems")
@pytest.mark.parametrize(("name", "robots", "tasks"), [("random", 400, 3200), ("maze", 40, 160)])
def test_published_problems_are_read(name: str, robots: int, tasks: int) -> None:
    problem = read_problem(SHARED / f"{name}.domain" / f"{name}-example_{robots}.json")
    assert len(problem.starts) == robots and len(problem.stops) == tasks and problem.revealed == 1.5
    assert len(np.unique(problem.starts)) == robots
    assert (problem.stops[:, 0] >= 0).all() and problem.stops.max() < problem.grid.num_cells
    assert problem.delays.chance > 0 and problem.delays.longest > problem.delays.shortest
    assert (problem.delays.gaussian is None) == (name == "random")
