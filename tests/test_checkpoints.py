"""Checkpoints, parameter files and atomic files."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmas import checkpoints
from jaxmas.checkpoints import (
    MANIFEST,
    Checkpoints,
    atomic_write_json,
    atomic_write_text,
    load_params,
    save_params,
)
from jaxmas.errors import JaxmasError, did_you_mean


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    params: dict
    opt_state: optax.OptState
    key: jax.Array
    worker_keys: jax.Array
    update: jax.Array
    extras: dict


class Carry(NamedTuple):
    done: jax.Array
    empty: jax.Array


def make_state(seed: int, num_agents: int = 3) -> TrainState:
    """Build a training state with something of every kind that a run may hold."""
    key = jax.random.key(seed)
    params = {
        "Dense_0": {"kernel": jax.random.normal(key, (num_agents, 5)), "bias": jnp.full((5,), -0.0)},
        "a/b": {"odd name": jnp.asarray([jnp.nan, -jnp.inf, 1e-42], jnp.float32)},
        "half": jnp.arange(4, dtype=jnp.bfloat16),
    }
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    grads = jax.tree.map(lambda x: jnp.ones_like(x) * (seed + 1), params)
    _, opt_state = optimiser.update(grads, optimiser.init(params), params)
    extras = {
        "carry": Carry(jnp.array([True, False, True]), jnp.zeros((num_agents, 0), jnp.int32)),
        "bits": np.array([0x7FC00001, 0xFFC01234, 0x80000000], np.uint32).view(np.float32),
        "counters": jnp.array([0, 2**32 - 1, seed], jnp.uint32),
        "numpy scalar": np.float64(0.1),
        "python": (seed, 0.1, True),
        "weak": jnp.asarray(1.5),
        "rbg key": jax.random.key(seed, impl="rbg"),
        "no keys": jax.random.split(key, 1)[:0],
        "nothing": None,
    }
    return TrainState(params, opt_state, key, jax.random.split(key, 4), jnp.asarray(seed), extras)


def assert_same(restored, saved) -> None:
    """Compare two states bit by bit, and by type."""
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    pairs = zip(jax.tree_util.tree_leaves_with_path(saved), jax.tree.leaves(restored), strict=True)
    for (path, want), got in pairs:
        name = jax.tree_util.keystr(path)
        assert type(got) is type(want), name
        if not hasattr(want, "dtype"):
            assert got == want, name
            continue
        assert got.dtype == want.dtype and got.shape == want.shape, name
        if want.ndim == 0:
            assert getattr(got, "weak_type", None) == getattr(want, "weak_type", None), name
        assert getattr(got, "committed", None) == getattr(want, "committed", None), name
        if jnp.issubdtype(want.dtype, jax.dtypes.prng_key):
            assert jnp.array_equal(jax.random.key_data(got), jax.random.key_data(want)), name
        else:
            assert np.asarray(got).tobytes() == np.asarray(want).tobytes(), name


def small(value: float) -> dict:
    return {"w": jnp.full((50,), value), "key": jax.random.key(int(value))}


def restore(run_dir: Path, template, report=lambda _: None):
    """Restore where something must be there."""
    found = Checkpoints(run_dir, report=report).restore_latest(template)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory) -> Path:
    """Save steps 1, 2 and 3 once; tests damage copies."""
    run_dir = tmp_path_factory.mktemp("run")
    for step in (1, 2, 3):
        Checkpoints(run_dir).save(step, small(step))
    return run_dir


@pytest.fixture
def run_dir(saved_run, tmp_path) -> Path:
    return Path(shutil.copytree(saved_run, tmp_path / "run"))


def largest_file(run_dir: Path, step: int) -> Path:
    files = [p for p in (run_dir / "checkpoints" / str(step)).rglob("*") if p.is_file() and p.name != MANIFEST]
    return max(files, key=lambda p: p.stat().st_size)


def flip_bit(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# --- round trips


def test_a_training_state_comes_back_to_the_bit(tmp_path):
    saved = make_state(7)
    Checkpoints(tmp_path).save(12, saved)
    step, restored = restore(tmp_path, make_state(0))
    assert step == 12
    assert_same(restored, saved)
    # Restoring leaves the files as they are.
    assert_same(restore(tmp_path, make_state(0))[1], saved)


def test_a_shape_only_template_is_enough(tmp_path):
    saved = small(4)
    Checkpoints(tmp_path).save(0, saved)
    step, restored = restore(tmp_path, jax.eval_shape(lambda: small(0)))
    assert step == 0
    assert_same(restored, saved)


def test_an_array_returns_to_its_device(tmp_path):
    saved = {"placed": jax.device_put(jnp.arange(3), jax.devices()[0]), "free": jnp.arange(3)}
    Checkpoints(tmp_path).save(0, saved)
    assert_same(restore(tmp_path, saved)[1], saved)


def test_a_state_without_arrays_can_be_saved(tmp_path):
    Checkpoints(tmp_path).save(5, {"stateless": ()})
    assert Checkpoints(tmp_path).restore_latest({"stateless": ()}) == (5, {"stateless": ()})


def test_a_string_is_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match=r"\['name'\] is a str"):
        Checkpoints(tmp_path).save(0, {"name": "x"})


def test_nothing_saved_gives_none_and_makes_no_folder(tmp_path):
    assert Checkpoints(tmp_path).restore_latest(small(0)) is None
    assert Checkpoints(tmp_path).all_steps() == []
    assert list(tmp_path.iterdir()) == []


def test_only_the_last_checkpoints_stay(tmp_path):
    for step in (0, 9, 10, 11):
        Checkpoints(tmp_path, max_to_keep=2).save(step, small(step))
    assert Checkpoints(tmp_path).all_steps() == [10, 11]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["10", "11"]
    with pytest.raises(JaxmasError, match="max_to_keep is 0"):
        Checkpoints(tmp_path, max_to_keep=0)


def test_the_same_step_can_be_saved_again(run_dir):
    Checkpoints(run_dir).save(3, small(30))
    step, restored = restore(run_dir, small(0))
    assert step == 3
    assert_same(restored, small(30))


def test_an_earlier_step_than_a_sound_one_is_refused(run_dir):
    with pytest.raises(JaxmasError, match=r"holds step 3, later than step 2"):
        Checkpoints(run_dir).save(2, small(2))
    assert Checkpoints(run_dir).all_steps() == [1, 2, 3]


# --- damage


def remove_manifest(run_dir: Path, step: int) -> str:
    (run_dir / "checkpoints" / str(step) / MANIFEST).unlink()
    return MANIFEST


def flip_data(run_dir: Path, step: int) -> str:
    path = largest_file(run_dir, step)
    flip_bit(path, path.stat().st_size // 2)
    return f"{path.name} does not match its SHA-256"


def truncate_data(run_dir: Path, step: int) -> str:
    path = largest_file(run_dir, step)
    size = path.stat().st_size
    os.truncate(path, size - 1)
    return f"{path.name} has {size - 1} bytes instead of {size}"


def remove_data(run_dir: Path, step: int) -> str:
    path = largest_file(run_dir, step)
    path.unlink()
    return f"{path.name} is missing"


def add_file(run_dir: Path, step: int) -> str:
    (run_dir / "checkpoints" / str(step) / "default" / "stray").write_text("x")
    return "default/stray is not in the manifest"


def flip_manifest(run_dir: Path, step: int) -> str:
    path = run_dir / "checkpoints" / str(step) / MANIFEST
    path.write_text(path.read_text().replace("[\n        50\n      ]", "[\n        51\n      ]"))
    return f"{MANIFEST} does not match its own SHA-256"


def truncate_manifest(run_dir: Path, step: int) -> str:
    os.truncate(run_dir / "checkpoints" / str(step) / MANIFEST, 40)
    return f"{MANIFEST} cannot be read"


def rename_step(run_dir: Path, step: int) -> str:
    folder = run_dir / "checkpoints"
    shutil.rmtree(folder / str(step))
    shutil.copytree(folder / "1", folder / str(step))
    return f"{MANIFEST} is that of step 1"


DAMAGES = [
    remove_manifest,
    flip_data,
    truncate_data,
    remove_data,
    add_file,
    flip_manifest,
    truncate_manifest,
    rename_step,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_reported_and_passed_over(run_dir, damage):
    fault = damage(run_dir, 3)
    reports: list[str] = []
    step, restored = restore(run_dir, small(0), reports.append)
    assert step == 2
    assert_same(restored, small(2))
    assert len(reports) == 1 and fault in reports[0] and "checkpoints/3" in reports[0] and "\n" not in reports[0]


def test_damage_is_warned_about_by_default_and_soundness_is_not(run_dir):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert restore(run_dir, small(0), checkpoints._warn)[0] == 3
    flip_data(run_dir, 3)
    with pytest.warns(RuntimeWarning, match="does not match its SHA-256"):
        found = Checkpoints(run_dir).restore_latest(small(0))
    assert found is not None and found[0] == 2


def test_every_file_of_a_step_is_guarded(run_dir):
    folder = run_dir / "checkpoints" / "3"
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        whole = path.read_bytes()
        path.write_bytes(whole + b" ")
        faulty = path.name != MANIFEST
        assert (restore(run_dir, small(0))[0] == 2) == faulty, path
        path.write_bytes(whole)


def test_all_damaged_is_one_line_that_says_how_to_mend_it(run_dir):
    for step, damage in ((1, remove_manifest), (2, truncate_data), (3, flip_data)):
        damage(run_dir, step)
    with pytest.raises(JaxmasError, match=r"no checkpoint .* is usable .*step 3.*step 2.*step 1.*delete it") as raised:
        Checkpoints(run_dir, report=lambda _: None).restore_latest(small(0))
    assert "\n" not in str(raised.value)


def test_a_run_goes_on_after_damage(run_dir):
    flip_data(run_dir, 3)
    quiet = Checkpoints(run_dir)
    assert restore(run_dir, small(0))[0] == 2
    # Step 3 never comes in this run: the damaged one must neither stay nor stop the save.
    (run_dir / "checkpoints" / "3").rename(run_dir / "checkpoints" / "30")
    quiet.save(4, small(4))
    assert quiet.all_steps() == [1, 2, 4]
    step, restored = restore(run_dir, small(0))
    assert step == 4
    assert_same(restored, small(4))


# --- saves cut short


def test_a_save_cut_before_its_manifest_loses_nothing(tmp_path, monkeypatch):
    once = Checkpoints(tmp_path, max_to_keep=1)
    once.save(1, small(1))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "_write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        once.save(2, small(2))
    assert once.all_steps() == [1]
    reports: list[str] = []
    step, restored = restore(tmp_path, small(0), reports.append)
    assert len(reports) == 1 and "cut short" in reports[0]
    assert step == 1
    assert_same(restored, small(1))
    once.save(2, small(2))
    assert restore(tmp_path, small(0))[0] == 2
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["2"]


def test_a_half_written_folder_is_never_a_step_and_goes_with_the_next_save(run_dir):
    folder = run_dir / "checkpoints"
    shutil.copytree(folder / "3", folder / "9.orbax-checkpoint-tmp")
    assert Checkpoints(run_dir).all_steps() == [1, 2, 3]
    assert restore(run_dir, small(0), pytest.fail)[0] == 3
    Checkpoints(run_dir).save(4, small(4))
    assert sorted(p.name for p in folder.iterdir()) == ["2", "3", "4"]


KILLED = """
import sys
import jax, jax.numpy as jnp
from jaxmas.checkpoints import Checkpoints

def state(step):
    return {f"w{i}": jnp.full((200, 200), step * 100.0 + i) for i in range(12)} | {"key": jax.random.key(step)}

if __name__ == "__main__":
    checkpoints = Checkpoints(sys.argv[1], max_to_keep=1, report=lambda _: None)
    found = checkpoints.restore_latest(state(0))
    step = found[0] if found else 0
    while True:
        step += 1
        checkpoints.save(step, state(step))
        print(step, flush=True)
"""


def test_kill_9_at_any_time_leaves_a_whole_checkpoint(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    namespace: dict = {"__name__": "killed"}
    exec(KILLED, namespace)
    root = str(Path(checkpoints.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    clock = random.Random(0)
    last_step = 0
    for _ in range(4):
        command = [sys.executable, str(script), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            try:
                # The first line comes when all is warm: from there on most of the time is spent inside a save.
                printed = [child.stdout.readline()]
                time.sleep(clock.uniform(0.0, 0.15))
            finally:
                child.kill()
            printed += child.stdout.read().splitlines()
        assert child.returncode == -signal.SIGKILL
        reported = int(printed[-1])
        step, restored = restore(tmp_path, namespace["state"](0))
        assert step >= reported > last_step
        assert_same(restored, namespace["state"](step))
        last_step = step
    Checkpoints(tmp_path, max_to_keep=1).save(last_step + 1, small(1))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [str(last_step + 1)]


# --- templates


@pytest.mark.parametrize(
    ("saved", "template", "message"),
    [
        (make_state(1, num_agents=4), make_state(1, num_agents=8), r"float32\[4, 5\] in it and float32\[8, 5\] here"),
        ({"w": jnp.zeros(3)}, {"w": jnp.zeros(3, jnp.int32)}, r"\['w'\] is float32\[3\] in it and int32\[3\] here"),
        ({"w": jnp.zeros(3)}, {"w": jnp.zeros(3), "b": jnp.zeros(1)}, r"\['b'\] is absent in it and float32\[1\] here"),
        ({"w": jnp.zeros(3), "b": jnp.zeros(1)}, {"w": jnp.zeros(3)}, r"\['b'\] is float32\[1\] in it and absent here"),
        ({"k": jax.random.key(0)}, {"k": jax.random.key(0, impl="rbg")}, r"key<fry>\[\] in it and key<rbg>\[\] here"),
        ({"w": jnp.zeros(3)}, {"v": jnp.zeros(3)}, r"\(1 more of 2 leaves differ\)"),
    ],
    ids=["agents", "dtype", "missing", "extra", "key-kind", "renamed"],
)
def test_a_template_of_another_run_is_refused_in_one_line(tmp_path, saved, template, message):
    Checkpoints(tmp_path).save(1, saved)
    with pytest.raises(JaxmasError, match=message) as raised:
        Checkpoints(tmp_path).restore_latest(template)
    assert "\n" not in str(raised.value) and "checkpoints/1" in str(raised.value)


def test_a_format_of_the_future_is_named(run_dir, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 0)
    with pytest.raises(JaxmasError, match="has checkpoint format 1, this version of jaxmas reads 0"):
        Checkpoints(run_dir).restore_latest(small(0))


def test_orbax_is_silent_and_imported_late(tmp_path):
    code = (
        "import sys, numpy as np; from jaxmas.checkpoints import Checkpoints; assert 'orbax' not in sys.modules;"
        "c = Checkpoints(sys.argv[1]); c.save(1, {'w': np.ones(3)}); c.restore_latest({'w': np.ones(3)});"
        "assert 'orbax' in sys.modules; import absl.logging as a; a.warning('heard'); a.info('unheard')"
    )
    root = str(Path(checkpoints.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Its own level comes back afterwards.
    assert done.stdout == "" and done.stderr == "WARNING:absl:heard\n"


# --- parameter files

PARAMS = {
    "params": {
        "Dense_0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T, "bias": jnp.full((3,), -0.0)},
        "scale": np.float32(0.1),
    },
    "table": np.array([[1, 2]], np.int32),
    "mask": np.array([True, False]),
    "none": np.zeros((0, 2), np.uint32),
}
METADATA = {"version": 1, "scenario": "workflow-mixed-v0", "accuracy": 0.95, "sizes": [16, 64]}


def test_params_round_trip(tmp_path):
    digest = save_params(tmp_path / "e.npz", PARAMS, METADATA)
    params, metadata = load_params(tmp_path / "e.npz", digest)
    assert metadata == METADATA
    assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
    for want, got in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(params), strict=True):
        assert isinstance(got, np.ndarray) and got.dtype == want.dtype and got.shape == want.shape
        assert got.tobytes() == np.asarray(want).tobytes()


def test_numpy_reads_the_file_without_pickle(tmp_path):
    save_params(tmp_path / "e.npz", PARAMS, METADATA)
    with np.load(tmp_path / "e.npz", allow_pickle=False) as archive:
        assert np.array_equal(archive["params/table"], PARAMS["table"])


def test_equal_params_give_equal_bytes(tmp_path, monkeypatch):
    first = save_params(tmp_path / "a.npz", PARAMS, METADATA)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    turned = {name: PARAMS[name] for name in reversed(PARAMS)}
    assert save_params(tmp_path / "b.npz", turned, dict(reversed(METADATA.items()))) == first
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}
    assert save_params(tmp_path / "b.npz", {**PARAMS, "mask": np.array([True, True])}, METADATA) != first


def test_the_bytes_of_a_parameter_file_are_pinned(tmp_path):
    # A change here makes every shipped file's recorded checksum wrong for whoever rebuilds it.
    digest = save_params(tmp_path / "e.npz", {"w": np.arange(3, dtype=np.float32)}, {"version": 1})
    assert digest == "94545fb4b387c869648827485bd2172f32fd6968d53851a165caf1f66b0de2c7"


def test_another_checksum_is_refused(tmp_path):
    digest = save_params(tmp_path / "e.npz", PARAMS, METADATA)
    flip_bit(tmp_path / "e.npz", 300)
    with pytest.raises(JaxmasError, match=f"instead of {digest}"):
        load_params(tmp_path / "e.npz", digest)


def test_damage_shows_even_without_a_checksum(tmp_path):
    path = tmp_path / "e.npz"
    saved = {"a": {"w": np.arange(3, dtype=np.float32)}}
    save_params(path, saved, METADATA)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        with pytest.raises(JaxmasError, match="no readable parameter file") as raised:
            load_params(path)
        assert "\n" not in str(raised.value)
        path.write_bytes(whole)
        flip_bit(path, at)
        # A flip in a date or an attribute of the archive changes nothing that is read.
        try:
            params, metadata = load_params(path)
        except JaxmasError:
            continue
        assert metadata == METADATA and jax.tree.structure(params) == jax.tree.structure(saved), at
        assert params["a"]["w"].tobytes() == saved["a"]["w"].tobytes(), at


def test_a_parameter_file_that_is_not_there(tmp_path):
    with pytest.raises(JaxmasError, match=r"cannot read the parameter file .*No such file"):
        load_params(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "params",
    [{"a/b": np.ones(1)}, {1: np.ones(1)}, {"a": {}}, {"a": np.array([None])}, {"a": jnp.ones(2, jnp.bfloat16)}],
    ids=["slash", "number", "empty", "object", "bfloat16"],
)
def test_what_a_parameter_file_cannot_hold_is_refused(tmp_path, params):
    with pytest.raises(TypeError, match="params"):
        save_params(tmp_path / "e.npz", params, {})
    assert list(tmp_path.iterdir()) == []


# --- atomic files and errors


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "new" / "r.txt"
    atomic_write_text(path, "old")

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "fsync", fail)
        atomic_write_text(path, "new, and longer")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["r.txt"]


def test_a_file_gets_the_rights_of_any_other(tmp_path):
    atomic_write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_json_is_sorted_and_plain(tmp_path):
    atomic_write_json(tmp_path / "r.json", {"b": np.float32(0.5), "a": jnp.arange(2), "c": (float("nan"), None, True)})
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text) == {"a": [0, 1], "b": 0.5, "c": [None, None, True]}
    assert text.index('"a"') < text.index('"b"') and text.endswith("}\n")


def test_did_you_mean():
    assert did_you_mean("strr", ["star", "mesh"]) == "did you mean 'star'?"
    assert did_you_mean("zzz", ["star", "mesh"]) == "known: mesh, star"
    assert did_you_mean("zzz", []) == "none is known"
