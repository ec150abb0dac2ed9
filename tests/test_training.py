"""Check training runs: what they write, that they go on to the bit after any end, and what they refuse."""

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
from jaxmas import training
from jaxmas.algorithms.meta_skill import MetaSkillConfig
from jaxmas.anchors import params_hash
from jaxmas.catalog import SCENARIOS
from jaxmas.checkpoints import Checkpoints
from jaxmas.environments.probes import Probe, ProbeParams
from jaxmas.errors import JaxmasError
from jaxmas.registry import Scenario
from jaxmas.runs import load_policy, read_record

SETTINGS: dict[str, Any] = {"updates": 11, "queries": 8, "plans": 4, "width": 8, "learning_rate": 1e-2}
CONFIG = MetaSkillConfig(**SETTINGS)
SCENARIO = "probe-context-v0"
CHUNK = 2


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch) -> None:
    """Save every other update, so that a short run has many places to go on from."""
    monkeypatch.setattr(training, "CHUNK", CHUNK)


def run(out: Path, config: MetaSkillConfig = CONFIG, scenario: str = SCENARIO, **options: Any) -> Path:
    return training.train(scenario, "meta-skill", config, out=out, **options)


def final_state(out: Path, config: MetaSkillConfig = CONFIG, scenario: str = SCENARIO) -> tuple[int, Any]:
    env, params = jaxmas.make(scenario)
    restored = Checkpoints(out).restore_latest(training.first_state(config, env, params, jax.random.key(0)))
    assert restored is not None
    return restored


def leaves_of(state: Any) -> list[np.ndarray]:
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state)]
    pairs = zip(jax.tree.leaves(state), keys, strict=True)
    return [np.asarray(jax.random.key_data(leaf) if key else leaf) for leaf, key in pairs]


def same(one: Any, other: Any) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(leaves_of(one), leaves_of(other), strict=True))


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def log_of(out: Path) -> list[dict[str, Any]]:
    """Return the log without what depends on the clock."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run without interruption, from which others are cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHUNK", CHUNK)
        return run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


# --- what a run leaves


def test_a_run_directory(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {"config.json", "log.jsonl", "checkpoints"}
    record = json.loads((whole / "config.json").read_text())
    assert record["scenario"] == SCENARIO and record["algorithm"] == "meta-skill" and record["seed"] == 0
    assert record["config"] == json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    assert record["params"] == params_hash(jaxmas.make(SCENARIO)[1])
    assert {"versions", "commit", "device", "python"} <= set(record["provenance"])
    assert record["provenance"]["versions"]["jax"] == jax.__version__
    assert read_record(whole).executor == "act"


def test_the_log(whole: Path) -> None:
    rows = log_of(whole)
    assert [row["update"] for row in rows] == [2, 4, 6, 8, 10, 11]  # no multiple of the chunk
    assert [row["queries"] for row in rows] == [16, 32, 48, 64, 80, 88]
    assert rows[-1]["plans"] == 11 * 8 * 4
    assert all(np.isfinite(row["reward"]) and 0 <= row["reward"] <= 1 for row in rows)
    assert "seconds" in json.loads((whole / "log.jsonl").read_text().splitlines()[0])


def test_the_last_checkpoint_is_the_end(whole: Path) -> None:
    step, state = final_state(whole)
    assert step == int(state.update) == 11


def test_reports_are_the_log_lines(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    out = run(tmp_path / "run", report=seen.append)
    assert len(seen) == 6
    assert seen == [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_same_seed_gives_the_same_run_and_another_does_not(whole: Path, tmp_path: Path) -> None:
    again = run(tmp_path / "again")
    assert same(final_state(again)[1], final_state(whole)[1])
    assert log_of(again) == log_of(whole)
    other = run(tmp_path / "other", seed=1)
    assert not same(final_state(other)[1].params, final_state(whole)[1].params)


# --- going on


def test_a_finished_run_stays_as_it_is(copy: Path) -> None:
    before = listing(copy)
    run(copy, resume=True)
    assert listing(copy) == before


def test_resume_in_an_empty_place_begins(tmp_path: Path, whole: Path) -> None:
    out = run(tmp_path / "new", resume=True)
    assert same(final_state(out)[1], final_state(whole)[1])


class Interrupted(Exception):
    """Ends a run from within a report."""


def stop_after(count: int):
    """Return a report that ends the process' work after some chunks, as an interrupt does."""
    left = [count]

    def report(row: dict[str, Any]) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Interrupted

    return report


def test_an_interrupted_run_goes_on_to_the_bit(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path / "run", report=stop_after(2))
    assert final_state(tmp_path / "run")[0] == 4
    with pytest.raises(Interrupted):
        run(tmp_path / "run", report=stop_after(1), resume=True)
    out = run(tmp_path / "run", resume=True)
    assert same(final_state(out)[1], final_state(whole)[1])
    assert log_of(out) == log_of(whole)


def test_work_behind_the_last_checkpoint_is_done_again(copy: Path, whole: Path) -> None:
    """A kill between checkpoint and log line, or in the middle of a line, leaves the log out of step."""
    steps = sorted(int(path.name) for path in (copy / "checkpoints").iterdir())
    shutil.rmtree(copy / "checkpoints" / str(steps[-1]))
    with (copy / "log.jsonl").open("a") as file:
        file.write('{"update": 12, "rew')
    out = run(copy, resume=True)
    assert same(final_state(out)[1], final_state(whole)[1])
    assert log_of(out) == log_of(whole)


def test_a_log_line_lost_before_the_checkpoint_was_noticed(copy: Path) -> None:
    """The checkpoint comes first: a kill between the two loses one line, never a state."""
    lines = (copy / "log.jsonl").read_text().splitlines(keepends=True)
    (copy / "log.jsonl").write_text("".join(lines[:-1]))
    out = run(copy, resume=True)
    assert [row["update"] for row in log_of(out)] == [2, 4, 6, 8, 10]
    assert final_state(out)[0] == 11


def test_a_run_from_before_an_algorithm_got_a_setting_goes_on(copy: Path) -> None:
    """What it was begun without stood at the default: with that it is the same run, with another value another one."""
    record = json.loads((copy / "config.json").read_text())
    assert record["config"].pop("deviation") == CONFIG.deviation != 1.0
    (copy / "config.json").write_text(json.dumps(record))
    before = listing(copy)
    run(copy, resume=True)
    assert listing(copy) == before
    with pytest.raises(JaxmasError, match="begun with config"):
        run(copy, dataclasses.replace(CONFIG, deviation=1.0), resume=True)


SCRIPT = """
import sys
from pathlib import Path
from jaxmas import training
from jaxmas.algorithms.meta_skill import MetaSkillConfig

training.CHUNK = {chunk}
config = MetaSkillConfig(**{settings})
print("ready", flush=True)
training.train({scenario!r}, "meta-skill", config, out=Path(sys.argv[1]), resume=True,
               report=lambda row: print(row["update"], flush=True))
"""


def test_kill_9_at_any_moment_then_resume_gives_the_same_parameters(tmp_path: Path, whole: Path) -> None:
    """Kill twice, at moments drawn anew after the first line, then let it finish here."""
    script = tmp_path / "killed.py"
    script.write_text(SCRIPT.format(chunk=CHUNK, settings=SETTINGS, scenario=SCENARIO))
    root = str(Path(jaxmas.__file__).parent.parent)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    compiled = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    environment = os.environ | compiled | {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    clock = random.Random(time.time_ns())
    out, killed = tmp_path / "run", 0
    for _ in range(2):
        command = [sys.executable, str(script), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            child.stdout.readline()  # the first chunk is compiled and saved
            time.sleep(clock.uniform(0, 0.4))
            child.kill()
        assert child.returncode in (-signal.SIGKILL, 0)
        killed += child.returncode != 0
    assert killed
    run(out, resume=True)
    assert same(final_state(out)[1], final_state(whole)[1])
    updates = [row["update"] for row in log_of(out)]
    assert updates == sorted(set(updates)) and updates[-1] <= 11


def test_a_corrupted_newest_checkpoint_is_passed_over_with_a_message(copy: Path, whole: Path, capfd, recwarn) -> None:
    newest = max(int(path.name) for path in (copy / "checkpoints").iterdir())
    largest = max((copy / "checkpoints" / str(newest)).rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(bytes(data))
    out = run(copy, resume=True)
    said = capfd.readouterr()
    text = said.out + said.err + " ".join(str(warning.message) for warning in recwarn)
    assert re.search(rf"\b{newest}\b", text), text
    assert same(final_state(out)[1], final_state(whole)[1])
    assert log_of(out) == log_of(whole)


# --- refusals


def test_a_directory_with_a_run_is_left_alone(copy: Path) -> None:
    before = listing(copy)
    refused(lambda: run(copy), "already holds a run.*--resume")
    assert listing(copy) == before


def test_a_foreign_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter one")
    for resume in (False, True):
        refused(lambda resume=resume: run(tmp_path, resume=resume), "no run directory")
    assert listing(tmp_path) == {"thesis.tex": b"chapter one"}


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    assert run(tmp_path) == tmp_path


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(lambda: run(tmp_path / "file"), "file")


def test_a_place_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(lambda: run(tmp_path / "file" / "run"), "cannot be made")
    assert listing(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": dataclasses.replace(CONFIG, learning_rate=0.5)}, "config.*0.01.*0.5"),
        ({"config": dataclasses.replace(CONFIG, updates=14)}, "config"),
        ({"seed": 3}, "seed 0, not 3"),
        ({"num_agents": 5}, "num_agents 2, not 5"),
    ],
)
def test_changed_settings_are_refused_on_resume(copy: Path, changes: dict[str, Any], words: str) -> None:
    before = listing(copy)
    refused(lambda: run(copy, resume=True, **changes), words)
    assert listing(copy) == before


def test_another_scenario_is_refused_on_resume(copy: Path) -> None:
    before = listing(copy)
    refused(lambda: run(copy, scenario="probe-bandit-v0", resume=True), SCENARIO)
    assert listing(copy) == before


def test_another_scenario_is_called_by_its_name(copy: Path) -> None:
    refused(lambda: run(copy, scenario="probe-bandit-v0", resume=True), "probe-bandit-v0")


@pytest.fixture
def worlds(monkeypatch):
    """Register scenarios for one test; return what adds one with given pay-offs."""
    monkeypatch.setattr(SCENARIOS, "_entries", dict(SCENARIOS._entries))

    def add(name: str, payoff: Any, executor: str = "act") -> str:
        SCENARIOS._entries.pop(name, None)
        table = jnp.asarray(payoff, jnp.float32)
        SCENARIOS.add(name, Scenario(name, lambda n: (Probe(n), ProbeParams(table, table)), 2, executor), "", "probe")
        return name

    return add


def test_changed_numbers_of_the_scenario_are_refused_on_resume(worlds, tmp_path: Path) -> None:
    name = worlds("mine-v0", [[1, 0], [0, 1]])
    out = run(tmp_path / "run", scenario=name)
    before = listing(out)
    worlds(name, [[1, 0], [0, 1.01]])
    refused(lambda: run(out, scenario=name, resume=True), "another version of mine-v0.*another --out")
    assert listing(out) == before


@pytest.mark.parametrize(
    ("scenario", "options", "words"),
    [
        ("probe-contxt-v0", {}, "did you mean 'probe-context-v0'"),
        (SCENARIO, {"num_agents": 0}, "num_agents is 0"),
        (SCENARIO, {"executor": "axt"}, "unknown executor 'axt'"),
    ],
)
def test_unknown_names_and_sizes_leave_nothing(tmp_path: Path, scenario: str, options: dict, words: str) -> None:
    refused(lambda: run(tmp_path / "run", scenario=scenario, **options), words)
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_none_are_refused(worlds, tmp_path: Path) -> None:
    name = worlds("hole-v0", [[np.nan, np.nan], [np.nan, np.nan]])
    refused(lambda: run(tmp_path / "run", scenario=name), "(?i)nan|finite")


def test_numbers_that_are_none_leave_nothing(worlds, tmp_path: Path) -> None:
    name = worlds("hole-v0", [[np.nan, 0], [0, np.nan]])
    refused(lambda: run(tmp_path / "run", scenario=name), "(?i)nan|finite")
    assert not (tmp_path / "run").exists()


@dataclasses.dataclass(frozen=True)
class Diverging(MetaSkillConfig):
    """Loses its weights in the first chunk; what it samples from them is still a plan, and so earns a reward."""

    def update(self, env, params, start, state):
        weights = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
        return dataclasses.replace(state, params=weights, update=state.update + 1), {"reward": jnp.float32(0.5)}


def test_nan_weights_sample_plans_that_look_sound() -> None:
    """The reward says nothing: a choice among scores that are no numbers is a legal choice."""
    choice = jax.random.categorical(jax.random.key(0), jnp.full(4, jnp.nan), shape=(100,))
    assert ((choice >= 0) & (choice < 4)).all()


def test_weights_that_become_nan_are_refused(tmp_path: Path) -> None:
    refused(lambda: run(tmp_path / "run", Diverging(**SETTINGS)), "(?i)nan|finite")


# --- policies of a run, or by name


def test_the_policy_of_a_run_is_the_one_that_was_trained(whole: Path) -> None:
    env, params = jaxmas.make(SCENARIO)
    loaded = load_policy(str(whole), env, params)
    assert "meta-skill" in loaded.name and whole.name in loaded.name
    assert same(loaded.meta_params, final_state(whole)[1].params)
    team = env.reset(jax.random.key(0), params)[1]
    plans = [loaded.meta.apply(loaded.meta_params, (), team, jax.random.key(seed))[0].tier for seed in range(6)]
    assert len({tuple(plan.tolist()) for plan in plans}) == 1  # greedy
    drawn = load_policy(str(whole), env, params, greedy=False)
    assert drawn.meta != loaded.meta


def test_a_policy_meets_another_number_of_agents(whole: Path) -> None:
    env, params = jaxmas.make(SCENARIO, num_agents=5)
    loaded = load_policy(str(whole), env, params)
    team = env.reset(jax.random.key(0), params)[1]
    assert loaded.meta.apply(loaded.meta_params, (), team, jax.random.key(0))[0].tier.shape == (5,)


def test_a_policy_of_another_kind_of_environment_is_refused(whole: Path) -> None:
    env, params = jaxmas.make("workflow-mixed-v0", num_agents=2)
    refused(lambda: load_policy(str(whole), env, params), ".")


def test_strategies_by_name(tmp_path: Path) -> None:
    env, params = jaxmas.make("workflow-mixed-v0", num_agents=4)
    loaded = load_policy("strategy:chain", env, params)
    assert loaded.name == "chain" and loaded.meta_params is None
    assert loaded.meta == jaxmas.make_strategy("chain", env)
    refused(lambda: load_policy("strategy:chian", env, params), "did you mean 'chain'")
    refused(lambda: load_policy("chain", env, params), "strategy:NAME.*run directory")
    refused(lambda: load_policy(str(tmp_path), env, params), "no config.json")


def test_a_run_without_a_checkpoint_says_so(copy: Path) -> None:
    shutil.rmtree(copy / "checkpoints")
    env, params = jaxmas.make(SCENARIO)
    refused(lambda: load_policy(str(copy), env, params), "no checkpoint yet")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"scenario": "probe-context-v0"}'])
def test_an_unreadable_record_is_one_line(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    env, params = jaxmas.make(SCENARIO)
    refused(lambda: load_policy(str(copy), env, params), "config.json")
    refused(lambda: run(copy, resume=True), "config.json")


def test_a_setting_that_is_not_known_any_more_is_one_line(copy: Path) -> None:
    record = json.loads((copy / "config.json").read_text())
    record["config"]["momentum"] = 0.9
    (copy / "config.json").write_text(json.dumps(record))
    env, params = jaxmas.make(SCENARIO)
    refused(lambda: load_policy(str(copy), env, params), "momentum")


def test_a_strategy_of_another_family_is_refused() -> None:
    env, params = jaxmas.make(SCENARIO)
    refused(lambda: load_policy("strategy:chain", env, params), "workflow|probe")
