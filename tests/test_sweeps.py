"""Check sweeps: their specification, which trials share a program, what they leave, failures, and any end."""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refused

import jaxmas
from jaxmas import sweeps, training
from jaxmas.algorithms.meta_skill import MetaSkillConfig
from jaxmas.checkpoints import Checkpoints
from jaxmas.cli import main
from jaxmas.registry import ALGORITHMS
from jaxmas.runs import load_policy, read_record, starting_policies
from jaxmas.sweeps.batches import first_states, run_states, traceable, with_values
from jaxmas.sweeps.engines import ENGINES
from jaxmas.sweeps.plan import Plan, make_plan, read_plan
from jaxmas.sweeps.programs import run_program
from jaxmas.sweeps.spec import read

SCENARIO = "probe-context-v0"
SMALL: dict[str, Any] = {"updates": 5, "queries": 8, "plans": 4, "width": 8}
SPEC = f"""
scenario = "{SCENARIO}"
algorithm = "meta-skill"
seeds = 2
episodes = 32
[fixed]
updates = 5
queries = 8
plans = 4
width = 8
[sweep]
learning_rate = [1e-2, 3e-2]
"""
CHUNK = 2


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch) -> None:
    """Save every other update, so that a short program has several places to go on from."""
    monkeypatch.setattr(training, "CHUNK", CHUNK)


def spec_file(folder: Path, text: str = SPEC) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text)
    return path


def swept(folder: Path, text: str = SPEC, *, resume: bool = False, **options: Any) -> tuple[Path, dict[str, Any]]:
    """Run a sweep in a folder; return where it is and its result."""
    spec, out = read(spec_file(folder, text)), folder / "sweep"
    plan = sweeps.open_sweep(spec, out, resume)
    return out, sweeps.run(plan, out, **options)


def planned(folder: Path, text: str) -> Plan:
    return make_plan(read(spec_file(folder, text)))


def results_of(out: Path) -> list[dict[str, Any]]:
    """Return the results without what depends on the clock."""
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A sweep without interruption."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHUNK", CHUNK)
        return swept(tmp_path_factory.mktemp("whole"))[0]


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    spec_file(tmp_path)
    return Path(shutil.copytree(whole, tmp_path / "sweep"))


# --- the specification


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds = 2", "", "seeds is missing"),
        ("seeds = 2", "seeds = 0", "seeds is 0"),
        ("seeds = 2", "seeds = [1, 1]", "seeds gives 1 twice"),
        ("seeds = 2", "seeds = [-1]", r"seeds\[0\] is -1"),
        ("seeds = 2", "sedes = 2", "sedes.*did you mean 'seeds'"),
        ("[sweep]", "[sweeps]", "sweeps.*did you mean 'sweep'"),
        ("[sweep]", "[[sweep]]", "sweep is .*a table"),
        ("episodes = 32", "episodes = 1", "episodes is 1"),
        ("episodes = 32", "files = 3", "files is 3.*a table"),
        (SCENARIO, "probe-contxt-v0", "did you mean 'probe-context-v0'"),
        ("meta-skill", "meta-skil", "did you mean 'meta-skill'"),
        ("width = 8", "widht = 8", "no setting 'widht'; did you mean 'width'"),
        ("width = 8", "width = 8.5", "fixed.width is 8.5; it has to be a whole number"),
        ("width = 8", "shared_noise = 1", "shared_noise is 1; it has to be true or false"),
        ("width = 8", 'space = "slot"', "space is 'slot'; it has to be 'template' or"),
        ("width = 8", "learning_rate = 1.0", "learning_rate stands in .fixed. and in .sweep."),
        ("[1e-2, 3e-2]", "1e-2", "sweep.learning_rate is 0.01; list its values"),
        ("[1e-2, 3e-2]", "[]", "sweep.learning_rate is empty"),
        ("[1e-2, 3e-2]", "[1, 1.0]", "sweep.learning_rate gives 1.0 twice"),
        ("[1e-2, 3e-2]", '["low"]', r"sweep.learning_rate\[0\] is 'low'; it has to be a finite number"),
        ("[1e-2, 3e-2]", "[nan]", r"sweep.learning_rate\[0\] is nan"),
        ("[1e-2, 3e-2]", "[-1e-2, -3e-2]", "the settings of every trial are refused: .*learning_rate is -0.01"),
        ("width = 8", "updates = 5", "is no TOML"),
        ("[sweep]", '[files]\npool = "none.csv"\n[sweep]', "files.pool is 'none.csv'; there is no such file"),
        ("episodes = 32", 'executor = "axt"', "unknown executor 'axt'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, capsys, old, new, words) -> None:
    assert old in SPEC
    path = spec_file(tmp_path, SPEC.replace(old, new))
    assert main(["sweep", str(path), "--out", str(tmp_path / "sweep")]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and re.search(words, said), said
    assert not (tmp_path / "sweep").exists()


def test_a_specification_that_is_not_there(tmp_path) -> None:
    refused(lambda: read(tmp_path / "none.toml"), "none.toml cannot be read")


def test_whole_numbers_are_floats_where_the_setting_is_one(tmp_path) -> None:
    spec = read(spec_file(tmp_path, SPEC.replace("[1e-2, 3e-2]", "[1, 2]")))
    assert [type(value) for value in spec.swept["learning_rate"]] == [float, float]


def test_a_specification_survives_json(tmp_path) -> None:
    spec = read(spec_file(tmp_path, SPEC + "epochs = [1, 4]\n"))
    again = type(spec).from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec and list(again.swept) == ["learning_rate", "epochs"]


# --- which trials share a program


def test_numbers_share_a_program_and_everything_else_separates(tmp_path) -> None:
    text = SPEC.replace("[sweep]", "[sweep]\nclip = [0.1, 0.3]\nepochs = [1, 4]\nsees = ['all', 'nothing']")
    plan = planned(tmp_path, text)
    assert len(plan.trials) == 32 and not plan.refused
    assert sorted(len(program.trials) for program in plan.programs.values()) == [8, 8, 8, 8]
    assert all(set(program.traced) == {"clip", "learning_rate"} for program in plan.programs.values())
    named = [name for program in plan.programs.values() for name in program.trials]
    assert sorted(named) == sorted(plan.trials)


@dataclasses.dataclass(frozen=True)
class Branching(MetaSkillConfig):
    """Decides by a number in Python, and hashes another."""

    threshold: float = 0.5
    share: float = 0.5

    def update(self, env, params, start, state):
        if self.threshold > 0.4:
            state = dataclasses.replace(state, key=jax.random.fold_in(state.key, 1))
        assert hash(self.share)
        return super().update(env, params, start, state)


@dataclasses.dataclass(frozen=True)
class Diverging(MetaSkillConfig):
    """Loses its weights at the third update where the deviation is large."""

    def update(self, env, params, start, state):
        state, logs = super().update(env, params, start, state)
        lost = (state.update >= 3) & (self.deviation > 0.5)
        weights = jax.tree.map(lambda leaf: jnp.where(lost, jnp.nan, leaf), state.params)
        return dataclasses.replace(state, params=weights), logs


@pytest.fixture
def algorithms(monkeypatch) -> None:
    """Register algorithms for one test."""
    monkeypatch.setattr(ALGORITHMS, "_entries", dict(ALGORITHMS._entries))
    ALGORITHMS.add("branching", Branching, "")
    ALGORITHMS.add("diverging", Diverging, "")


def test_numbers_that_python_needs_are_found(algorithms, tmp_path) -> None:
    text = SPEC.replace("meta-skill", "branching")
    plan = planned(tmp_path, text + "threshold = [0.3, 0.5]\nshare = [0.1, 0.2]\n")
    assert [program.traced for program in plan.programs.values()] == [("learning_rate",)] * 4


def test_programs_are_kept_small_on_request(tmp_path) -> None:
    plan = planned(tmp_path, SPEC.replace("episodes = 32", "per_program = 3"))
    assert [len(program.trials) for program in plan.programs.values()] == [3, 1]


@pytest.mark.parametrize("together", [False, True])
def test_runs_of_a_program_are_what_they_are_alone(together) -> None:
    """Up to rounding: a number that is a constant of the program is multiplied in another order."""
    env, params = jaxmas.make(SCENARIO)
    rates = jnp.array([1e-2, 3e-2])
    configs = [MetaSkillConfig(**SMALL, learning_rate=float(rate)) for rate in rates]
    start = starting_policies(configs[0], "act", env, params)
    keys = jnp.stack([jax.random.key(seed) for seed in (3, 4)])
    common = configs[0], env, params, start
    values = {"learning_rate": rates}
    states = first_states(*common, keys, values, together)
    states, logs = run_states(*common, states, values, 2, 4, together)
    for place, (config, key) in enumerate(zip(configs, keys, strict=True)):
        alone = training.first_state(config, env, params, key, start)
        alone, log = training.run_up_to(config, env, params, start, alone, 2, 4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[place], b, atol=2e-5), states.params, alone.params)  # noqa: B023
        np.testing.assert_allclose(logs["reward"][place], log["reward"], atol=1e-6)


def test_settings_with_tracers_are_not_checked_and_others_stay() -> None:
    config = with_values(MetaSkillConfig(), {"learning_rate": -1.0})
    assert config.learning_rate == -1.0 and config.entropy == MetaSkillConfig().entropy
    assert isinstance(config, MetaSkillConfig)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "scenario", "executor"),
    [
        ("meta-skill", SCENARIO, "act"),
        ("ippo", "signal-cue-v0", "untrained"),
        ("metaagent-x", "signal-context-v0", "untrained"),
    ],
)
def test_learning_rates_and_their_like_can_be_traced(algorithm, scenario, executor) -> None:
    env, params = jaxmas.make(scenario)
    config = ALGORITHMS[algorithm]()
    start = starting_policies(config, executor, env, params)
    names = [field.name for field in dataclasses.fields(config) if isinstance(field.default, float)]
    found = set(traceable(config, env, params, start, names, CHUNK))
    assert {name for name in names if "rate" in name or "entropy" in name or name == "clip"} <= found


# --- what a sweep leaves


def test_every_trial_is_a_run_like_any_other(whole: Path, capsys) -> None:
    env, params = jaxmas.make(SCENARIO)
    runs = sorted((whole / "trials").iterdir())
    assert len(runs) == 4 and not any((whole / "programs").iterdir())
    for run, (rate, seed) in zip(runs, ((0.01, 0), (0.01, 1), (0.03, 0), (0.03, 1)), strict=True):
        record = read_record(run)
        assert (record.config["learning_rate"], record.seed, record.executor) == (rate, seed, "act")
        assert record.config["updates"] == 5
        rows = training.read_log(run / "log.jsonl")
        assert [row["update"] for row in rows] == [2, 4, 5]
        assert Checkpoints(run).all_steps() == [5]
        assert load_policy(str(run), env, params).meta_params is not None
    assert main(["evaluate", SCENARIO, "--policy", str(runs[0]), "--episodes", "32", "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    kept = json.loads((runs[0] / "result.json").read_text())["outcome"]
    assert kept["reward"] == evaluated["reward"]


def test_a_trial_goes_on_as_an_ordinary_run(copy: Path) -> None:
    run = sorted((copy / "trials").iterdir())[0]
    config = MetaSkillConfig(**SMALL, learning_rate=0.01)
    before = (run / "log.jsonl").read_bytes()
    training.train(SCENARIO, "meta-skill", config, out=run, resume=True)
    assert (run / "log.jsonl").read_bytes() == before


def test_results_and_table(whole: Path) -> None:
    rows = results_of(whole)
    assert [row["seed"] for row in rows] == [0, 1, 0, 1]
    assert [row["settings"]["learning_rate"] for row in rows] == [0.01, 0.01, 0.03, 0.03]
    assert all(row["error"] is None and row["curve"]["updates"] == 5 for row in rows)
    lines = [line for line in (whole / "table.md").read_text().splitlines() if line.startswith("|")]
    assert lines[0] == "| learning_rate | seeds | reward | success | cost | error |"
    means = [float(line.split("|")[3].split("±")[0]) for line in lines[2:]]
    assert len(means) == 2 and means == sorted(means, reverse=True)
    own = np.mean([row["outcome"]["reward"]["mean"] for row in rows[:2]])
    assert round(float(own), 4) in means


def test_a_lost_table_is_made_again_and_finished_trials_are_left_alone(copy: Path, whole: Path, tmp_path) -> None:
    for name in ("results.jsonl", "table.md"):
        (copy / name).unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (copy / "trials").rglob("*")}
    swept(tmp_path, resume=True)
    assert {path: path.stat().st_mtime_ns for path in (copy / "trials").rglob("*")} == stamps
    for name in ("results.jsonl", "table.md"):
        assert (copy / name).read_bytes() == (whole / name).read_bytes()


def test_the_command_says_what_came_of_it(copy: Path, tmp_path, capsys) -> None:
    arguments = ["sweep", str(tmp_path / "sweep.toml"), "--out", str(copy), "--resume"]
    assert main([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["trials"], said["failed"], said["programs"]) == (4, 0, 1)
    assert {row["settings"]["learning_rate"] for row in said["rows"]} == {0.01, 0.03}
    assert main(arguments) == 0
    assert "2 of 2" in capsys.readouterr().out


def test_executors_are_swept_as_well(tmp_path) -> None:
    text = """
scenario = "signal-cue-v0"
algorithm = "ippo"
executor = "untrained"
seeds = [7]
episodes = 32
[fixed]
updates = 2
queries = 16
width = 8
[sweep]
learning_rate = [1e-3, 1e-2]
"""
    out, result = swept(tmp_path, text)
    assert (result["trials"], result["failed"]) == (2, 0)
    assert all(row["outcome"]["score"] is None for row in results_of(out))


# --- failures


def test_refused_settings_are_recorded_and_the_others_go_on(tmp_path) -> None:
    out, result = swept(tmp_path, SPEC.replace("seeds = 2", "seeds = 1").replace("3e-2", "-3e-2"))
    assert (result["trials"], result["failed"]) == (2, 1)
    good, bad = results_of(out)
    assert good["error"] is None and "learning_rate is -0.03" in bad["error"] and bad["outcome"] is None


def test_weights_that_become_nan_end_one_trial_only(algorithms, tmp_path) -> None:
    text = SPEC.replace("meta-skill", "diverging").replace("learning_rate = [1e-2, 3e-2]", "deviation = [0.1, 0.9]")
    out, result = swept(tmp_path, text)
    assert (result["trials"], result["failed"], result["programs"]) == (4, 2, 1)
    rows = results_of(out)
    assert [bool(row["error"]) for row in rows] == [False, False, True, True]
    assert "not finite" in rows[2]["error"] and rows[2]["curve"]["updates"] == 2
    table = (out / "table.md").read_text().splitlines()
    assert "2 of 2" in table[-2] and "0 of 2" in table[-1] and "not finite" in table[-1]


def test_a_sweep_is_left_alone_without_resume(copy: Path, tmp_path) -> None:
    spec = read(tmp_path / "sweep.toml")
    refused(lambda: sweeps.open_sweep(spec, copy), "already holds a sweep.*--resume")
    other = dataclasses.replace(spec, episodes=64)
    refused(lambda: sweeps.open_sweep(other, copy, resume=True), "begun with episodes 32, not 64")
    same = dataclasses.replace(spec, slurm={"timeout_min": 5})
    assert sweeps.open_sweep(same, copy, resume=True) == read_plan(copy)


def test_a_foreign_directory_is_left_alone(tmp_path) -> None:
    spec = read(spec_file(tmp_path))
    refused(lambda: sweeps.open_sweep(spec, tmp_path), "is no sweep")


# --- any end


class Interrupted(BaseException):
    """Ends a sweep from within, as an interrupt does."""


def test_an_interrupted_sweep_goes_on_to_the_same_results(tmp_path, whole: Path) -> None:
    calls = []

    def advance(updates: float) -> None:
        calls.append(updates)
        if len(calls) == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        swept(tmp_path, advance=advance)
    out = tmp_path / "sweep"
    assert results_of(out) == [] and Checkpoints(out / "programs" / "000").all_steps() == [2, 4]
    swept(tmp_path, resume=True)
    assert results_of(out) == results_of(whole)
    assert (out / "table.md").read_bytes() == (whole / "table.md").read_bytes()


SCRIPT = """
import sys
from pathlib import Path
from jaxmas import sweeps, training

training.CHUNK = {chunk}
spec, out = sweeps.read(Path(sys.argv[1])), Path(sys.argv[2])
plan = sweeps.open_sweep(spec, out, resume=True)
sweeps.run(plan, out, advance=lambda updates: print(updates, flush=True))
"""


@pytest.mark.slow
def test_kill_9_then_resume_gives_the_same_table(tmp_path, whole: Path) -> None:
    """Kill at a moment drawn anew after every line of progress, until the sweep gets to its end."""
    script, out = tmp_path / "killed.py", tmp_path / "sweep"
    script.write_text(SCRIPT.format(chunk=CHUNK))
    environment = os.environ | {"PYTHONPATH": str(Path(jaxmas.__file__).parent.parent), "JAX_PLATFORMS": "cpu"}
    clock = random.Random(time.time_ns())
    killed = 0
    for lines in (1, 2, 4):
        command = [sys.executable, str(script), str(spec_file(tmp_path)), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            for _ in range(lines):
                child.stdout.readline()
            time.sleep(clock.uniform(0, 0.5))
            child.kill()
        assert child.returncode in (-signal.SIGKILL, 0)
        killed += child.returncode != 0
    assert killed
    swept(tmp_path, resume=True)
    assert results_of(out) == results_of(whole)
    assert (out / "table.md").read_bytes() == (whole / "table.md").read_bytes()


# --- engines


def test_a_program_that_ends_early_is_reported_after_the_others(tmp_path, monkeypatch, whole: Path) -> None:
    def broken(folder: Path, advance: Any) -> None:
        if folder.name == "001":
            raise MemoryError("no memory")
        run_program(folder, advance)

    text = SPEC.replace("episodes = 32", "episodes = 32\nper_program = 2")
    with monkeypatch.context() as patch:
        patch.setattr(sweeps.engines, "run_program", broken)
        refused(lambda: swept(tmp_path, text), "1 programs ended early, 001 by MemoryError: no memory.*--resume")
    assert len(results_of(tmp_path / "sweep")) == 2
    swept(tmp_path, text, resume=True)
    assert len(results_of(tmp_path / "sweep")) == 4


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_engine_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, engine, package) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    spec = read(spec_file(tmp_path))
    open_one = lambda: sweeps.open_sweep(spec, tmp_path / "sweep", engine=engine)  # noqa: E731
    refused(open_one, rf"needs {package}: pip install 'jaxmas\[{engine}\]'")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", list(ENGINES))
def test_engines_give_the_same_results(tmp_path, monkeypatch, engine) -> None:
    """In other processes, which have chunks of their own size."""
    monkeypatch.undo()
    if engine != "local":
        pytest.importorskip({"ray": "ray", "slurm": "submitit"}[engine])
    text = SPEC.replace("episodes = 32", "episodes = 32\nper_program = 2") + '[slurm]\ncluster = "local"\n'
    (tmp_path / "here").mkdir()
    here, _ = swept(tmp_path / "here", text)
    out, _ = swept(tmp_path, text, engine=engine, workers=2)
    assert results_of(out) == results_of(here)
    assert (out / "table.md").read_bytes() == (here / "table.md").read_bytes()
