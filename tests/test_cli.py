"""Every command runs, keeps standard output pure under ``--json``, explains itself, and refuses what cannot be."""

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jaxmas
from jaxmas import cli
from jaxmas.benchmark import team_strategy
from jaxmas.catalog import EXECUTORS, SCENARIOS, STRATEGIES
from jaxmas.cli import COMMANDS, Bench, main
from jaxmas.experiments.compare import Setting
from jaxmas.progress import progress
from jaxmas.registry import Scenario
from jaxmas.runs import RunRecord, write_record

PROBE, WORKFLOW = "probe-context-v0", "workflow-mixed-v0"
SMALL = ("--algo.updates", "2", "--algo.queries", "4", "--algo.plans", "4", "--algo.width", "8")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main(["train", "meta-skill", PROBE, "--out", str(out), *SMALL]) == 0
    return out


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    """Run a command with --json and return its one object; standard output holds nothing else."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("}\n")
    assert out.count("\n") == 1
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that has to fail with one line on standard error and exit code 2."""
    capsys.readouterr()
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("command", [*COMMANDS, ""])
def test_help_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*([command] if command else []), "--help"]) == 0
    said = capsys.readouterr()
    assert f"examples:\n  jaxmas {command}" in said.out
    assert said.err == ""


def test_help_of_an_algorithm_shows_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "meta-skill", "--help"]) == 0
    assert "--algo.updates" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("jaxmas 0.")


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "list")
    assert {"scenarios", "strategies", "algorithms", "executors"} <= set(found)
    assert all(entry["name"] and entry["summary"] for entries in found.values() for entry in entries)
    assert main(["list"]) == 0
    assert WORKFLOW in capsys.readouterr().out


def test_train_writes_a_run_and_goes_on_with_it(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (run_dir / "config.json").exists()
    words = ("train", "meta-skill", PROBE, "--out", str(run_dir), *SMALL)
    assert "--resume" in refusal(capsys, *words)
    found = answer(capsys, *words, "--resume")
    assert found["last"]["update"] == 2
    assert found["run"]["config"]["queries"] == 4


def test_evaluate(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for policy in ("strategy:random", str(run_dir)):
        found = answer(capsys, "evaluate", PROBE, "--policy", policy, "--episodes", "8")
        assert found["reward"]["ci95"][0] <= found["reward"]["mean"] <= found["reward"]["ci95"][1]
        assert {"success", "cost", "score"} <= set(found)
    assert main(["evaluate", PROBE, "--policy", "strategy:random", "--episodes", "8"]) == 0
    assert "95 % interval" in capsys.readouterr().out


def test_evaluation_follows_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("evaluate", PROBE, "--policy", "strategy:random", "--episodes", "8")
    rewards = [answer(capsys, *words, "--seed", seed)["reward"] for seed in ("0", "0", "1")]
    assert rewards[0] == rewards[1] != rewards[2]


MAP = "type octile\nheight 4\nwidth 5\nmap\n.....\n.@.@.\n.....\n.@@..\n"


@pytest.mark.parametrize("name", SCENARIOS.names())
def test_bench_needs_no_options(name: str) -> None:
    """Whoever plans and works by default is of the scenario's family."""
    env, _ = jaxmas.make(name)
    assert team_strategy(name, env) in STRATEGIES.names(env.family)
    assert Setting(name, None, None, Bench(scenario=name).executor).executor_name in EXECUTORS.names(env.family)


def test_scenarios_made_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.map").write_text(MAP)
    (tmp_path / "a.agents").write_text("2\n0\n4\n")
    (tmp_path / "a.tasks").write_text("2\n10,14\n4,0\n")
    said = {"mapFile": "a.map", "agentFile": "a.agents", "taskFile": "a.tasks", "teamSize": 2}
    (tmp_path / "a.json").write_text(json.dumps(said))
    play = ("--policy", "strategy:nearest-first", "--executor", "greedy", "--episodes", "2")
    for option, name in (("map", "a.map"), ("problem", "a.json")):
        words = ("evaluate", f"warehouse-{option}-v0", f"--{option}", str(tmp_path / name), "--num-agents", "2", *play)
        found = answer(capsys, *words)
        assert found["orders"]["mean"] > 0 and found["num_agents"] == 2
        assert found["files"] == {option: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}
    takers = {row["name"]: row["files"] for row in answer(capsys, "list")["scenarios"] if row["files"]}
    assert takers["warehouse-map-v0"] == ["map"] and takers["workflow-pool-v0"] == ["pool"] and len(takers) == 3


def test_a_run_remembers_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with the same file only, by checksum; here it pays what its file says."""

    def paid(num_agents: int = 2, *, map: Path | None = None, **options: Any) -> Any:
        env, params = jaxmas.make(PROBE, num_agents=num_agents, **options)
        return env, params if map is None else dataclasses.replace(
            params, payoff=float(map.read_text()) * params.payoff
        )

    monkeypatch.setattr(SCENARIOS, "_entries", dict(SCENARIOS._entries))
    SCENARIOS.add("probe-file-v0", Scenario("probe-file-v0", paid, 2, "act", files=("map",)), "pays", "probe")
    one, two = tmp_path / "1.map", tmp_path / "2.map"
    one.write_text("1")
    two.write_text("2")
    words = ("train", "meta-skill", "probe-file-v0", "--out", str(tmp_path / "run"), *SMALL)
    found = answer(capsys, *words, "--map", str(one))
    assert found["run"]["files"] == {"map": hashlib.sha256(b"1").hexdigest()}
    assert "begun with files" in refusal(capsys, *words, "--resume", "--map", str(two))
    assert "begun with files" in refusal(capsys, *words, "--resume")
    assert answer(capsys, *words, "--resume", "--map", str(one))["last"]["update"] == 2


def test_compare(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compare", PROBE, "--policy", str(run_dir), "--episodes", "8", "--out", str(tmp_path / "new"))
    found = answer(capsys, *words)
    assert len(found["methods"]) == 2
    rewards = [row["reward"]["mean"] for row in found["methods"].values()]
    assert rewards == sorted(rewards, reverse=True)
    assert found["methods"][found["best_strategy"]]["over_best_strategy"] is None
    files = sorted(file.name for file in (tmp_path / "new").iterdir())
    assert files == ["compare.csv", "compare.json", "pareto.png", "rewards.png"]
    with (tmp_path / "new" / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == list(found["methods"])
    assert float(rows[0]["reward"]) == pytest.approx(rewards[0])
    assert main(list(words)) == 0
    assert found["best_strategy"] in capsys.readouterr().out


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("show", WORKFLOW, "--num-agents", "4", "--executor", "scripted", "--policy", "strategy:chain")
    found = answer(capsys, *words, "--query", "1", "--out", str(tmp_path))
    assert [Path(file).suffix for file in found["files"]] == [".png", ".gif"]
    assert all(Path(file).stat().st_size > 1000 for file in found["files"])


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("bench", PROBE, "--executor", "act", "--strategy", "random", "--num-envs", "4", "--repeats", "2")
    found = answer(capsys, *words)
    assert found["compile_seconds"] > 0
    assert found["agent_steps_per_second"] == pytest.approx(found["env_steps_per_second"] * found["num_agents"])
    assert 0 <= found["acting_share"] <= found["live_share"] <= 1
    assert main(list(words)) == 0
    assert "compile" in capsys.readouterr().out


def test_bench_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--algo.queries", "8", "--algo.width", "8", "--algo.capacity", "4")
    words = ("bench", "signal-cue-v0", "--executor", "untrained", "--train", "ippo", "--repeats", "1", *settings)
    found = answer(capsys, *words)
    assert found["num_envs"] == 8
    assert found["compile_seconds"] > 0
    assert 0 < found["live_agent_steps_per_cpu_second"] <= found["agent_steps_per_cpu_second"]
    assert found["rollout_share"] > 0 and found["learning_share"] >= 0 and found["gather_share"] >= 0
    assert main(list(words)) == 0
    assert "ippo" in capsys.readouterr().out


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    words = ("demo", "--scenario", PROBE, "--updates", "2", "--episodes", "32", "--validation", "64", "--out", str(out))
    found = answer(capsys, *words)
    written = json.loads((out / "results.json").read_text())
    assert written["paired"] == found["paired"]
    assert set(written["paired"]) >= {"over_best_strategy", "over_rule"}
    assert {"commit", "versions", "device", "config", "wall_seconds", "families"} <= set(written)
    assert (out / "report.html").read_text().count("<svg") == 3
    assert main(list(words)) == 0
    assert "report.html" in capsys.readouterr().out


def test_headroom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxmas import headroom

    level = {"mean": 0.5, "ci95": [0.4, 0.6]}
    measured = dict.fromkeys(("random", "single", "fixed", "strategy", "rule"), level)
    measured |= {"per_query": {"low": level, "high": level}, "clamp": {"role": 0.1}, "in_gaps": {}}
    asked = []
    monkeypatch.setattr(headroom, "measure", lambda world, settings, advance: asked.append(settings) or measured)
    words = ("headroom", PROBE, "--episodes", "8", "--validation", "16", "--seed", "3")
    found = answer(capsys, *words)
    assert found["per_query"]["low"]["mean"] == 0.5
    assert (asked[0].test, asked[0].validation, asked[0].seed) == (8, 16, 3)
    assert main(list(words)) == 0
    assert "per query, low" in capsys.readouterr().out


def test_headroom_defaults_are_those_of_the_measurement() -> None:
    """The command line has its own copy, so that help needs no import of JAX."""
    from jaxmas import headroom

    command, settings = cli.Headroom(scenario="workflow-mixed-v0"), headroom.HeadroomSettings()
    assert command.episodes == settings.test
    for name in ("validation", "oracle_queries", "clamp_queries"):
        assert getattr(command, name) == getattr(settings, name), name


BAD = {
    "no command": ((), "expected one of"),
    "unknown command": (("evalute",), "did you mean 'evaluate'"),
    "unknown scenario": (("evaluate", "workflow-mixd-v0", "--policy", "strategy:mesh"), "did you mean"),
    "unknown strategy": (("evaluate", WORKFLOW, "--policy", "strategy:mexh"), "did you mean 'mesh'"),
    "strategy of another family": (("evaluate", PROBE, "--policy", "strategy:mesh"), "unknown strategy"),
    "unknown executor": (("evaluate", PROBE, "--policy", "strategy:random", "--executor", "acts"), "mean 'act'"),
    "missing run": (("evaluate", PROBE, "--policy", "nowhere/at-all"), "neither"),
    "no agents": (("evaluate", WORKFLOW, "--policy", "strategy:mesh", "--num-agents", "0"), "at least 1"),
    "bad interval": (("evaluate", WORKFLOW, "--policy", "strategy:mesh", "--coordination-interval", "5"), "divide"),
    "no episodes": (("evaluate", PROBE, "--policy", "strategy:random", "--episodes", "0"), "episodes is 0"),
    "no number": (("evaluate", PROBE, "--policy", "strategy:random", "--episodes", "many"), "'many'"),
    "no policy": (("evaluate", PROBE), "missing from jaxmas evaluate: --policy strategy:NAME|DIR; see"),
    "unknown option": (("list", "--jsn"), "--jsn"),
    "no pool to take": (("evaluate", WORKFLOW, "--policy", "strategy:mesh", "--pool", "x.csv"), "takes no pool"),
    "missing pool": (("evaluate", "workflow-pool-v0", "--policy", "strategy:mesh", "--pool", "x.csv"), "x.csv"),
    "no map to take": (("bench", WORKFLOW, "--map", "x.map"), "takes no map; warehouse-map-v0 does"),
    "missing map": (("compare", "warehouse-map-v0", "--map", "x.map"), "x.map cannot be read as a map"),
    "missing problem": (("headroom", "warehouse-problem-v0", "--problem", "x.json"), "x.json cannot be read as a pr"),
    "other file": (("headroom", "warehouse-problem-v0", "--map", "x.map"), "warehouse-problem-v0 takes no map"),
    "negative query": (("show", WORKFLOW, "--policy", "strategy:mesh", "--query", "-1"), "query is -1"),
    "no renderer": (("show", PROBE, "--policy", "strategy:random"), "renderer"),
    "no environments": (("bench", WORKFLOW, "--num-envs", "0"), "num_envs is 0"),
    "no repeats": (("bench", WORKFLOW, "--repeats", "0"), "repeats is 0"),
    "bench nobody": (("bench", WORKFLOW, "--train", "meta-skil"), "meta-skill"),
    "bench settings": (("bench", WORKFLOW, "--train=ippo", "--algo.network", "lstm"), "--algo.network"),
    "bench both": (("bench", WORKFLOW, "--train", "ippo", "--num-envs", "4"), "--num-envs"),
    "no updates": (("demo", "--updates", "0"), "updates is 0"),
    "negative seed": (("demo", "--seed", "-1"), "seed is -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, hint = BAD[name]
    assert hint in refusal(capsys, *words)
    assert list(tmp_path.iterdir()) == []


TRAIN_BAD = {
    "unknown algorithm": (("meta-skil", PROBE), "did you mean 'meta-skill'"),
    "unknown scenario": (("meta-skill", "probe-contxt-v0"), "did you mean"),
    "unknown executor": (("meta-skill", PROBE, "--executor", "acts"), "did you mean 'act'"),
    "no agents": (("meta-skill", PROBE, "--num-agents", "0"), "at least 1"),
    "bad setting": (("meta-skill", PROBE, "--algo.updates", "0"), "updates is 0"),
    "unknown setting": (("meta-skill", PROBE, "--algo.update", "3"), "--algo.update"),
    "no number": (("meta-skill", PROBE, "--algo.updates", "some"), "'some'"),
    "negative seed": (("meta-skill", PROBE, "--seed", "-1"), "seed is -1"),
    "bad interval": (("meta-skill", WORKFLOW, "--coordination-interval", "5"), "has to divide the horizon"),
    "no pool": (("meta-skill", WORKFLOW, "--pool", "models.csv"), "takes no pool"),
    "missing pool": (("meta-skill", "workflow-pool-v0", "--pool", "models.csv"), "models.csv"),
}


@pytest.mark.parametrize("name", TRAIN_BAD)
def test_bad_training_leaves_nothing(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words, hint = TRAIN_BAD[name]
    assert hint in refusal(capsys, "train", *words, "--out", str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("train", "meta-skill", PROBE),
        ("compare", PROBE),
        ("show", WORKFLOW, "--policy", "strategy:mesh"),
        ("demo",),
        ("leaderboard", "build"),
    ],
    ids=lambda words: words[0],
)
def test_an_output_that_cannot_be_is_refused_first(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refusal(capsys, *words, "--out", str(tmp_path / "file" / "new"))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_is_no_run_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "config.json" in refusal(capsys, "evaluate", PROBE, "--policy", str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    assert "cannot be read" in refusal(capsys, "evaluate", PROBE, "--policy", str(tmp_path))


def test_an_interrupt_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(command: object) -> dict:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "list", (cli.List, interrupted))
    assert main(["list"]) == 130
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "interrupted\n")


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(command: object) -> dict:
        raise OSError(28, "No space left on device", "here")

    monkeypatch.setitem(COMMANDS, "list", (cli.List, full))
    assert "No space left" in refusal(capsys, "list")


def test_what_is_not_finite_becomes_null() -> None:
    import numpy as np

    found = cli._plain({"a": float("nan"), "b": [np.float32(2), np.arange(2)], "c": Path("x"), "d": (True, None)})
    assert found == {"a": None, "b": [2.0, [0, 1]], "c": "x", "d": [True, None]}


def test_progress_stays_silent_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_progress_shows_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for total in (2, None):
        with progress("counting", total) as advance:
            advance(1)
    assert "counting" in terminal.getvalue()


def _start(*words: str) -> subprocess.Popen:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "jaxmas", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def test_a_real_interrupt_ends_with_130(tmp_path: Path) -> None:
    words = ("train", "meta-skill", PROBE, "--out", str(tmp_path / "run"), "--algo.updates", "1000000")
    # A shell starts its background jobs, and all that they start, deaf to interrupts; who has a handler starts none so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = _start(*words)
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 120
    try:
        while not (tmp_path / "run" / "log.jsonl").exists() and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == ""
    assert err.strip().splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_error() -> None:
    process = _start("list")
    with contextlib.closing(process.stdout):  # type: ignore[type-var]
        pass
    assert "Traceback" not in SimpleNamespace(err=process.stderr.read()).err  # type: ignore[union-attr]
    process.wait(timeout=60)


def test_a_run_is_played_with_its_own_plans_per_query(tmp_path: Path) -> None:
    """In its own scenario, unless somebody says otherwise."""
    record = RunRecord("workflow-mixed-v0", 16, 3, "scripted", "meta-skill", {}, 0, "", {})
    write_record(tmp_path, record)

    def interval(scenario: str, policy: str = str(tmp_path), given: int | None = None) -> int | None:
        command = cli.Evaluate(scenario=scenario, policy=policy, coordination_interval=given)
        return cli._setting(command).coordination_interval

    assert interval("workflow-mixed-v0") == 3 and interval("workflow-mixed-v0", given=4) == 4
    assert interval("workflow-roster-v0") is None and interval("workflow-mixed-v0", "strategy:mesh") is None
    compare = cli.Compare(scenario="workflow-mixed-v0", policy=(str(tmp_path),))
    assert cli._setting(compare).coordination_interval is None
