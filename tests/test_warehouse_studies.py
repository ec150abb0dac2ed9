"""The studies of problems, floors and learning write their tables, and say nothing of where files are."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_warehouse_problem import written

from jaxmas.design_policies import LearnedPolicy
from jaxmas.errors import JaxmasError
from jaxmas.experiments import compare
from jaxmas.experiments.study import System
from jaxmas.experiments.warehouse import floors, learning
from jaxmas.experiments.warehouse.robot_runners import Settings, main
from jaxmas.runs import LoadedPolicy
from jaxmas.spaces.pairs import PairsSpace


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


def test_two_processes_keep_their_rows(tmp_path: Path) -> None:
    """While one plays, the other writes: both rows are there in the end."""
    number = {"mean": 0.5, "ci95": [0.4, 0.6]}
    world = {"world": "floor", "num_agents": 2, "steps": 8, "plays": 2, "commit": "c", "device": "d", "sees": "all"}
    measured = dict.fromkeys(("throughput", "success", "blocked", "service"), number)
    mine, theirs, last = ({**world, **measured, "strategy": name, "executor": "pibt"} for name in ("a", "b", "c"))

    def rows():
        yield mine
        floors.TABLE.keep([theirs], tmp_path)
        yield last

    assert floors.TABLE.keep(rows(), tmp_path) == [mine, theirs, last]
    assert json.loads((tmp_path / "warehouse_floors.json").read_text())["rows"] == [mine, theirs, last]


@pytest.mark.parametrize("kind", ["strategy", "designer"])
def test_a_policy_is_played_on_other_floors(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """As many orders as there are, with PIBT's tables of the floor that it is on."""
    monkeypatch.setattr(learning, "ELSEWHERE", {"a": ("warehouse-small-v0", 4)})
    monkeypatch.setattr(learning, "QUERIES", 2)
    world = compare.Setting("warehouse-map-v0", 8, executor="pibt").build()
    policy = compare.policy_of("strategy:nearest-first", world)
    if kind == "designer":
        meta = LearnedPolicy(PairsSpace(world.env, 4), greedy=True)
        team = world.env.reset(jax.random.key(0), world.params)[1]
        policy = LoadedPolicy("pairs", meta, meta.initial_params(jax.random.key(0), team))
    found = learning.elsewhere(policy, world)["elsewhere"]
    assert len(found["a"]) == 2 and min(found["a"]) > 0


def played(orders: list[float]) -> dict[str, Any]:
    return {name: orders for name in (*learning.OUTCOMES, "success")}


def test_what_is_learned_is_measured_beside_executors_that_see_as_much() -> None:
    scripted = {
        "near, greedy": {**played([1.0, 1.0]), "executor": "greedy"},
        "far, greedy": {
            **played([0.5, 1.0]),
            "executor": "greedy",
            "elsewhere": {name: [1, 2] for name in learning.ELSEWHERE},
        },
        "near, pibt": {**played([3.0, 3.0]), "executor": "pibt"},
    }
    log = [{"update": 2, "plays": 4, "throughput": 1.0, "seconds": 2.0}]
    runs = [
        {
            "trained": played([value, value]),
            "log": log,
            "notes": {"elsewhere": {name: [value, value] for name in learning.ELSEWHERE}},
            "provenance": {"commit": "abc", "device": "cpu"},
        }
        for value in (2.0, 2.5)
    ]
    row = learning.row_of(System("ippo", {}, "untrained"), {"runs": runs}, scripted)
    assert row["beside"] == "near, greedy" and row["over"]["mean"] == 1.25 and row["per_seed"] == [2.0, 2.5]
    assert learning.row_of(System("meta-skill", {}, "pibt"), {"runs": runs}, scripted)["over"]["mean"] == -0.75
    methods = {"ippo": row} | {name: learning.scripted_row(one) for name, one in scripted.items()}
    sizes = {"part": "executors", "command": "c", "scenario": "s", "params": "p", "plays": 4, "test": 2}
    page = learning.markdown({**sizes, "methods": methods})
    assert page.index("| near, pibt |") < page.index("| ippo | 2 | 2.250") < page.index("| near, greedy |")
    assert "over near, greedy" in page and "| far, greedy | 1.500" in page and "abc on cpu" in page


def test_the_parts_are_of_the_floors_as_they_are() -> None:
    for part in learning.PARTS.values():
        world = compare.Setting(part.scenario).build()
        assert learning.study.params_hash(world.params) == part.params
        for system in part.systems.values():
            assert learning.study.config_of(system, world, part.plays).updates > 1


def test_success_that_is_a_share_is_kept_as_one() -> None:
    kept = learning.study.rounded({"success": np.array([0.25, 1.0])}, ())
    assert kept == {"success": [0.25, 1.0]}
    assert str(learning.study.rounded({"success": np.array([0.0, 1.0])}, ())) == "{'success': [0, 1]}"
