"""Problem files of the League of Robot Runners: read as they are, and refused with one line where they are wrong."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.environments.warehouse.grid import scattered
from jaxmas.environments.warehouse.motion import FORWARD, LEFT, RIGHT, WAIT
from jaxmas.environments.warehouse.problem import Delays, read_problem
from jaxmas.environments.warehouse.scenarios import MAP_GOALS
from jaxmas.errors import JaxmasError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "lorr"
MAP = "type octile\nheight 2\nwidth 3\nmap\n..@\n...\n"
SAID = {"mapFile": "a.map", "agentFile": "a.agents", "taskFile": "a.tasks", "teamSize": 2, "numTasksReveal": 1.5}
DELAYS = {"pDelay": 0.1, "minDelay": 2, "maxDelay": 5, "durationModel": "uniform"}


def written(
    folder: Path, agents: str = "# v\n2\n0\n4\n", tasks: str = "2\n1,3\n5,4,0\n", map_: str = MAP, **said: Any
) -> Path:
    (folder / "a.map").write_text(map_)
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
        (
            {"map_": "type octile\nheight 2\nwidth 3\nmap\n.@.\n.@.\n", "agents": "2\n0\n3\n", "tasks": "1\n5\n"},
            "no way",
        ),
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


def cells(state: Any, params: Any) -> list[list[int]]:
    """Return the stops of the open orders as cells."""
    return np.where(state.orders.stops >= 0, params.goal_cell[state.orders.stops], -1).tolist()


def test_a_problem_is_a_scenario(tmp_path: Path) -> None:
    """Its robots start where it says, turn, and serve its tasks in order and over again; three for two are open."""
    env, params = jaxmas.make("warehouse-problem-v0", problem=written(tmp_path))
    assert (env.num_agents, env.plan_space.num_tasks, env.num_actions) == (2, 3, 4)
    state, _ = env.reset(jax.random.key(0), params)
    assert state.cell.tolist() == [0, 3] and state.heading.tolist() == [1, 1]
    assert cells(state, params) == [[1, 2, -1], [4, 3, 0], [1, 2, -1]]
    state = dataclasses.replace(state, task=jnp.array([0, -1]))
    for action in (FORWARD, RIGHT, RIGHT, FORWARD, LEFT, FORWARD):
        state, timestep = env.step(jax.random.key(0), state, jnp.array([action, WAIT]), params)
    assert timestep.metrics["orders"] == 1
    assert cells(state, params) == [[4, 3, 0], [4, 3, 0], [1, 2, -1]]
    one, _ = jaxmas.make("warehouse-problem-v0", problem=written(tmp_path), num_agents=1)
    assert (one.num_agents, one.plan_space.num_tasks) == (1, 1)
    with pytest.raises(JaxmasError, match=r"num_agents is 3; .* has 2 robots"):
        jaxmas.make("warehouse-problem-v0", problem=tmp_path / "a.json", num_agents=3)


def test_the_part_of_a_map_that_is_connected_is_a_scenario(tmp_path: Path) -> None:
    """Its largest part; half of these cells have room for a robot."""
    file = tmp_path / "b.map"
    file.write_text("type octile\nheight 2\nwidth 4\nmap\n..@.\n..@.\n")
    env, params = jaxmas.make("warehouse-map-v0", map=file, num_agents=2)
    assert params.place.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert env.plan_space.num_tasks == 3 and params.distance.max() == 2
    with pytest.raises(JaxmasError, match="num_agents is 3; warehouse-map-v0 has room for 2"):
        jaxmas.make("warehouse-map-v0", map=file, num_agents=3)


def test_a_large_map_is_a_scenario() -> None:
    """As many goals as are known, spread over the map, whatever its size."""
    pickups = scattered(64, 64).pickups
    params = jaxmas.make("warehouse-map-v0")[1]
    assert len(params.pickups) <= MAP_GOALS and len(params.stations) <= MAP_GOALS < len(pickups)
