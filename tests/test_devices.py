"""Check that several devices and processes learn what one does, and that they share the work.

How many devices a CPU has is settled as JAX starts, so a process of its own stands for a machine with eight of them.
"""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxmas
from jaxmas import training
from jaxmas.catalog import ALGORITHMS, SCENARIOS
from jaxmas.checkpoints import Checkpoints
from jaxmas.cli import main
from jaxmas.devices import mesh_of, over, put, split
from jaxmas.errors import JaxmasError
from jaxmas.groups import GroupSizes
from jaxmas.runs import algorithm_config, read_record, starting_policies

DESIGNER, EXECUTORS, BOTH = "probe-context-v0", "signal-cue-v0", "signal-context-v0"
SMALL: dict[str, Any] = {"updates": 6, "queries": 32, "width": 8}
CHUNK = 2
# Sums are taken in another order.
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


def start_eight() -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    training.CHUNK = CHUNK


@pytest.fixture(scope="module")
def eight() -> Iterator[ProcessPoolExecutor]:
    """A process that has eight devices and logs and saves every other update."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=start_eight) as pool:
        yield pool


def train(out: Path, algorithm: str, scenario: str, settings: dict[str, Any], devices: int, resume: bool = False):
    config = ALGORITHMS[algorithm](**settings)
    training.train(scenario, algorithm, config, out=out, devices=devices, resume=resume)


def outcome(out: Path) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Return the log without the clock's part, and the last weights."""
    record = read_record(out)
    env, params = jaxmas.make(record.scenario)
    config = algorithm_config(record)
    restored = Checkpoints(out).restore_latest(
        jax.eval_shape(lambda: config.initial_state(env, params, jax.random.key(0)))
    )
    assert restored is not None
    log = [row | {"seconds": 0} for row in training.read_log(out / "log.jsonl")]
    return log, [np.asarray(leaf) for leaf in jax.tree.leaves(restored[1].params)]


def assert_same(one: Path, other: Path) -> None:
    (rows, weights), (other_rows, other_weights) = outcome(one), outcome(other)
    assert [list(row) for row in rows] == [list(row) for row in other_rows]
    for row, other_row in zip(rows, other_rows, strict=True):
        numbers = [np.array(list(each.values()), float) for each in (row, other_row)]
        np.testing.assert_allclose(numbers[0], numbers[1], **CLOSE)
    for leaf, other_leaf in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(leaf, other_leaf, **CLOSE)


@pytest.mark.parametrize(
    ("algorithm", "scenario", "settings"),
    [
        pytest.param("meta-skill", DESIGNER, SMALL | {"plans": 4}, id="group"),
        pytest.param("meta-skill", DESIGNER, SMALL | {"plans": 2, "learner": "ppo"}, id="ppo", marks=pytest.mark.slow),
        pytest.param(
            "meta-skill", DESIGNER, SMALL | {"plans": 4, "learner": "evolution"}, id="evolution", marks=pytest.mark.slow
        ),
        pytest.param("ippo", EXECUTORS, SMALL | {"capacity": 4}, id="ippo"),
        # Rows that eight devices cannot have in equal shares.
        pytest.param(
            "ippo",
            EXECUTORS,
            SMALL | {"network": "gru", "capacity": 5, "sequence": 3},
            id="gru",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "metaagent-x", BOTH, SMALL | {"mode": "coupled", "designs": 2}, id="metaagent-x", marks=pytest.mark.slow
        ),
    ],
)
def test_eight_devices_learn_as_one_does(
    eight: ProcessPoolExecutor, tmp_path: Path, algorithm: str, scenario: str, settings: dict[str, Any]
) -> None:
    for devices in (1, 8):
        eight.submit(train, tmp_path / str(devices), algorithm, scenario, settings, devices).result()
    assert len(outcome(tmp_path / "1")[0]) == SMALL["updates"] // CHUNK
    assert_same(tmp_path / "1", tmp_path / "8")
    assert read_record(tmp_path / "1") == read_record(tmp_path / "8")


@pytest.mark.parametrize(("before", "after"), [(1, 8), (8, 1)])
def test_a_run_goes_on_with_other_devices(eight, tmp_path: Path, before: int, after: int) -> None:
    settings = SMALL | {"plans": 4}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    eight.submit(train, whole, "meta-skill", DESIGNER, settings, before).result()
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "6")
    eight.submit(train, cut, "meta-skill", DESIGNER, settings, after, resume=True).result()
    assert_same(whole, cut)


def operations(algorithm: str, scenario: str, settings: dict[str, Any], devices: int) -> float:
    """Return the arithmetic that one device does in an update, as its compiled program says."""
    env, params = jaxmas.make(scenario)
    config = ALGORITHMS[algorithm](**settings)
    start = starting_policies(config, SCENARIOS[scenario].executor, env, params)
    state = training.first_state(config, env, params, jax.random.key(0), start)
    mesh = mesh_of(devices)
    with over(mesh):
        lowered = training.run_up_to.lower(config, env, *put((params, start, state), mesh), 1, most=CHUNK)
        costs: Any = lowered.compile().cost_analysis()
        return costs["flops"]


@pytest.mark.parametrize(
    ("algorithm", "scenario", "settings"),
    [
        pytest.param("meta-skill", DESIGNER, {"queries": 64, "plans": 4, "width": 8}, id="group"),
        pytest.param("ippo", EXECUTORS, {"queries": 64, "capacity": 4, "width": 8}, id="ippo"),
    ],
)
def test_the_work_is_shared_out(eight, algorithm: str, scenario: str, settings: dict[str, Any]) -> None:
    """Not an eighth: every device takes the optimiser's step, which is much of so small an update."""
    alone, shared = (eight.submit(operations, algorithm, scenario, settings, devices).result() for devices in (1, 8))
    assert shared < alone / 3


def test_one_device_constrains_nothing() -> None:
    tree = {"leaf": np.zeros(3)}
    assert mesh_of(1) is None
    assert split(tree) is tree


def start_processes(*words: str) -> list[tuple[int, str, str]]:
    """Run a command as two processes that train together; return exit code, standard output and error of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "jaxmas", *words, "--coordinator", address, "--processes", "2", "--process"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(i)], **pipes) for i in range(2)]
    try:
        said = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def test_two_processes_learn_as_one_does(tmp_path: Path) -> None:
    words = ["train", "meta-skill", DESIGNER, "--json", "--algo.updates", "3", "--algo.queries", "16"]
    words += ["--algo.plans", "4", "--algo.width", "8", "--out"]
    assert main([*words, str(tmp_path / "one")]) == 0
    (code, said, _), (other_code, nothing, _) = start_processes(*words, str(tmp_path / "two"))
    assert (code, other_code, nothing) == (0, 0, "")
    assert json.loads(said)["last"]["update"] == 3
    assert_same(tmp_path / "one", tmp_path / "two")
    assert read_record(tmp_path / "one") == read_record(tmp_path / "two")


@pytest.mark.slow
def test_what_the_first_process_refuses_ends_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no run")
    both = start_processes("train", "meta-skill", DESIGNER, "--out", str(tmp_path))
    assert [code for code, _, _ in both] == [2, 2]
    assert "is no run directory" in both[0][2]
    assert "the first process could not start" in both[1][2]


def test_shares_are_equal() -> None:
    GroupSizes(96).check_devices(8)
    with pytest.raises(JaxmasError, match=r"5 devices cannot share out 96 queries, of which 24 .* take 4, or .* of 20"):
        GroupSizes(96).check_devices(5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--devices", "0"), "devices is 0; it has to be at least 1"),
        (("--devices", "64"), "devices is 64; it has to be 1 to"),
        (("--processes", "2"), "--coordinator HOST:PORT and --processes N go together"),
        (("--coordinator", "localhost:1"), "--coordinator HOST:PORT and --processes N go together"),
        (("--coordinator", "localhost:1", "--processes", "2", "--process", "2"), "it has to be 0 to 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(words, said: str, tmp_path: Path, capsys) -> None:
    jax.devices()  # started by now, so that no CPU is given 64
    out = tmp_path / "run"
    assert main(["train", "meta-skill", DESIGNER, "--out", str(out), *words]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
