"""A submission is played from its archive alone and gives the same to the bit; what is hostile or broken is refused."""

import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.extend.mlir import serialize_portable_artifact
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import mlir

import jaxmas
from jaxmas import archive, cli, evaluation, portable, result_files, schema, submissions
from jaxmas.algorithms.ippo import IPPOConfig
from jaxmas.algorithms.meta_skill import MetaSkillConfig
from jaxmas.catalog import ALGORITHMS
from jaxmas.errors import JaxmasError
from jaxmas.policies import TemplatePolicy
from jaxmas.runs import LoadedPolicy, load_policy
from jaxmas.submissions import Author, Limits
from jaxmas.training import first_state, starting_policies, train

SCENARIO = "probe-context-v0"
ENV, PARAMS = jaxmas.make(SCENARIO)
CONFIG = MetaSkillConfig(updates=4, queries=8, plans=4, width=8)
TOKEN = "0123456789abcdef"
ME = Author("mine", "me", "https://example.org/paper", "a line")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    return [str(train(SCENARIO, "meta-skill", CONFIG, out=folder / f"seed-{seed}", seed=seed)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def policy(runs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("policy") / "policy.zip"
    submissions.export(runs, ME, out)
    return out


# --- what leaves, and comes back


@functools.cache
def played_once(spec: str) -> dict[str, np.ndarray]:
    """Return what a run does where it was made."""
    mine = load_policy(spec, ENV, PARAMS)
    keys = evaluation.query_keys("test", 64)
    workers = jaxmas.load_executor("act", ENV, PARAMS)
    return evaluation.evaluate(ENV, PARAMS, mine.meta, mine.meta_params, *workers, keys)


def test_another_process_with_the_archive_alone_plays_the_same(runs: list[str], policy: Path, tmp_path: Path) -> None:
    alone = shutil.copy(policy, tmp_path / "theirs.zip")
    found = submissions.played(Path(alone), [0], 64, Limits(120))
    for spec, outcome in zip(runs, found, strict=True):
        here = played_once(spec)
        assert set(outcome) == set(here)
        assert all(np.array_equal(outcome[name], here[name]) for name in here)


def test_the_same_policy_gives_the_same_bytes(runs: list[str], policy: Path, tmp_path: Path) -> None:
    submissions.export(runs, ME, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == policy.read_bytes()
    assert not any(Path(jaxmas.__file__).parent.name.encode() + b"/" in data for data in members_of(policy).values())


def test_a_row_is_reported_and_then_verified(policy: Path, tmp_path: Path) -> None:
    row = submissions.submit(policy, tmp_path / "row.json", 64, Limits(120))
    assert row["entry"]["status"] == "self-reported"
    assert row["artifact"] == archive.read(policy)[2]
    assert [run["seed"] for run in row["runs"]] == [0, 1]
    (tmp_path / "secret.txt").write_text(f"{TOKEN} {TOKEN}0\n")
    files = policy, tmp_path / "row.json", tmp_path / "secret.txt", tmp_path / "verified.json"
    found = submissions.verify(*files, 64, limits=Limits(120))
    assert result_files.read(files[3]) == found
    assert found["entry"]["status"] == "verified" and found["protocol"] == row["protocol"] | {
        "seed": None,
        "queries": 128,
    }
    assert found["verification"]["reward"] == row["metrics"]["reward"] and found["verification"]["queries"] == 64
    assert found["metrics"] != row["metrics"]


CLAIMS: dict[str, tuple[Callable[[dict], Any], str]] = {
    "better than it is": (
        lambda row: (
            [run["metrics"].update(reward=0.99) for run in row["runs"]],
            row["metrics"].update(reward={"mean": 0.99, "ci95": [0.98, 1.0]}),
        ),
        "does not come out again: reward of run 0 is",
    ),
    "of another archive": (lambda row: row.update(artifact="0" * 64), "artifact is"),
    "at more than it is played for": (
        lambda row: (
            [run["metrics"].update(beauty=1.0) for run in row["runs"]],
            row["metrics"].update(beauty={"mean": 1.0, "ci95": [1.0, 1.0]}),
        ),
        "differ in having beauty",
    ),
    "under another name": (lambda row: row["entry"].update(by="you"), "entry is"),
    "of other seeds": (lambda row: row["runs"][0].update(seed=5), "the list of seeds is"),
    "on queries of another seed": (lambda row: row["protocol"].update(seed=3), "protocol is"),
}


@pytest.fixture
def instead_of_playing(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Let playing an archive of two runs give these rewards, on public and on secret queries."""

    def patch(public: float, secret: float) -> None:
        def played(path: Path, seeds: list[int], queries: int, limits: Limits) -> list[dict[str, np.ndarray]]:
            mean = public if seeds == [0] else secret
            rows = np.random.default_rng(0).normal(mean, 0.1, (2, queries * len(seeds)))
            return [{"reward": row - row.mean() + mean} for row in rows]

        monkeypatch.setattr(submissions, "played", played)

    return patch


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_differs_is_said(claim: str, policy: Path, tmp_path: Path, instead_of_playing: Any) -> None:
    change, said = CLAIMS[claim]
    instead_of_playing(0.5, 0.5)
    row = submissions.submit(policy, tmp_path / "row.json", 64)
    change(row)
    result_files.write(tmp_path / "row.json", row)
    (tmp_path / "secret.txt").write_text(TOKEN)
    files = policy, tmp_path / "row.json", tmp_path / "secret.txt", tmp_path / "verified.json"
    with pytest.raises(JaxmasError, match=said):
        submissions.verify(*files, 64)
    assert not files[3].exists()


@pytest.mark.parametrize(("secret", "verified"), [(0.5, True), (0.53, True), (0.3, False), (0.7, False)])
def test_secret_queries_tell_who_knows_the_test(
    secret: float, verified: bool, policy: Path, tmp_path: Path, instead_of_playing: Any
) -> None:
    instead_of_playing(0.5, secret)
    submissions.submit(policy, tmp_path / "row.json", 64)
    (tmp_path / "secret.txt").write_text(TOKEN)
    files = policy, tmp_path / "row.json", tmp_path / "secret.txt", tmp_path / "verified.json"
    if verified:
        assert submissions.verify(*files, 64)["entry"]["status"] == "verified"
        return
    with pytest.raises(JaxmasError, match=r"its reward is 0\.500 on the test queries and .* on secret ones"):
        submissions.verify(*files, 64)
    assert not files[3].exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no seed"),
        (f"{TOKEN} x", "word 2 of .* is no secret seed; seeds are words of at least 16 hexadecimal digits"),
        ("7", "word 1 of .* is no secret seed"),
        (TOKEN[:15], "word 1 of .* is no secret seed"),
        ("4294967296" * 500 + "g", "word 1 of .* is no secret seed"),
        (f"-{TOKEN}", "word 1 of .* is no secret seed"),
        ("٣" * 16, "word 1 of .* is no secret seed"),
        (f"{TOKEN} {TOKEN}0 {TOKEN}", "a seed twice"),
    ],
)
def test_seeds_have_to_be_some(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text(text)
    with pytest.raises(JaxmasError, match=said):
        submissions.read_seeds(tmp_path / "secret.txt")


def test_a_secret_seed_has_64_bits() -> None:
    root = submissions.root_of(TOKEN)
    words = hashlib.sha256(TOKEN.encode()).digest()[:8]
    assert jax.random.key_data(root).tolist() == [int.from_bytes(words[:4]), int.from_bytes(words[4:])]
    secret, public = (jax.random.key_data(evaluation.query_keys("test", 4, seed)) for seed in (root, 7))
    assert not np.any(np.all(secret[:, None] == public[None], axis=-1))
    assert np.array_equal(public, jax.random.key_data(evaluation.query_keys("test", 4, jax.random.key(7))))
    assert submissions.root_of(7) == 7


def test_nobody_reads_the_seeds_off_the_command(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(words: list[str], **options: Any) -> None:
        assert not any(TOKEN in word for word in words)
        assert TOKEN.encode() in options["input"]
        raise subprocess.TimeoutExpired(words, 1.0)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(JaxmasError, match="not through"):
        submissions.played(policy, [TOKEN], 8, Limits())


def test_few_test_queries_are_no_row_to_verify(policy: Path, tmp_path: Path, instead_of_playing: Any) -> None:
    instead_of_playing(0.5, 0.5)
    submissions.submit(policy, tmp_path / "row.json", 8)
    (tmp_path / "secret.txt").write_text(TOKEN)
    files = policy, tmp_path / "row.json", tmp_path / "secret.txt", tmp_path / "verified.json"
    with pytest.raises(JaxmasError, match=r"stands on 8 test queries, fewer than the 2,048 .* with --episodes 8$"):
        submissions.verify(*files)
    assert submissions.verify(*files, 8)["verification"]["queries"] == 8
    submissions.submit(policy, tmp_path / "row.json", 64)
    found = submissions.verify(*files, 8)
    assert found["verification"]["queries"] == 64 and found["protocol"]["queries"] == 8


def test_runs_of_two_methods_are_not_one(runs: list[str], tmp_path: Path) -> None:
    other = train(SCENARIO, "meta-skill", dataclasses.replace(CONFIG, width=4), out=tmp_path / "other")
    with pytest.raises(JaxmasError, match="differ in config"):
        submissions.export([runs[0], str(other)], ME, tmp_path / "policy.zip")
    with pytest.raises(JaxmasError, match="no run directory"):
        submissions.export([str(tmp_path)], ME, tmp_path / "policy.zip")
    assert not (tmp_path / "policy.zip").exists()


def test_the_command_holds_what_is_no_default(policy: Path) -> None:
    command = archive.read(policy)[0]["entry"]["training"]["command"]
    assert command.startswith(f"jaxmas train meta-skill {SCENARIO} --executor act ")
    assert "--algo.width 8" in command and "--algo.learner" not in command


def test_trained_executors_travel_with_their_designer(tmp_path: Path) -> None:
    scenario = "signal-memory-v0"
    config = IPPOConfig(updates=2, queries=4, capacity=64, width=8, network="gru", plans_by="strategy:random")
    run = train(scenario, "ippo", config, out=tmp_path / "run", executor="untrained")
    manifest = submissions.export([str(run)], ME, tmp_path / "policy.zip")
    assert manifest["entry"]["training"]["trains_executors"]
    env, params = jaxmas.make(scenario)
    mine = load_policy(str(run), env, params)
    assert mine.executor is not None
    keys = evaluation.query_keys("test", 16)
    here = evaluation.evaluate(env, params, mine.meta, mine.meta_params, *mine.executor, keys)
    (there,) = submissions.played(tmp_path / "policy.zip", [0], 16, Limits(120))
    assert all(np.array_equal(there[name], here[name]) for name in here)


QUICK = ("meta-skill", "masrouter", "bandit", "aflow")
"""One of each kind: a network on templates, one decision after another, no network, one design for all queries."""
SYSTEMS = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in ALGORITHMS.names()
    if name not in ("ippo", "mappo")
]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_can_leave(name: str) -> None:
    """Its designer lowers for every platform and is read again, for a world of its kind."""
    interval = 3 if name == "puppeteer" else None
    env, params = jaxmas.make("workflow-mixed-v0", num_agents=8, coordination_interval=interval)
    config = ALGORITHMS[name]()
    start = starting_policies(config, "frozen-90", env, params)
    shapes = jax.eval_shape(lambda: first_state(config, env, params, jax.random.key(0), start))
    weights = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), config_state(shapes))
    designer = config.designer(env, weights, True)
    assert designer is not None
    programs = portable.designer_programs(env, params, *designer)
    again = portable.load_designer(env, params, *programs.values())
    portable.load_weights("0/designer", again, portable.weights_of(designer[1]))


def config_state(shapes: Any) -> Any:
    """Return shapes without typed keys, which have no zero."""
    return jax.tree.map(
        lambda leaf: (
            jax.eval_shape(jax.random.key_data, leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        ),
        shapes,
    )


# --- archives that are refused before anything of them is read


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def zipped(members: dict[str, bytes] | list[tuple[Any, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in members.items() if isinstance(members, dict) else members:
            made.writestr(name, data)
    return buffer.getvalue()


def with_member(name: Any, data: bytes = b"x") -> Callable[[Path], bytes]:
    return lambda path: zipped([*members_of(path).items(), (name, data)])


def without(name: str) -> Callable[[Path], bytes]:
    return lambda path: zipped({one: data for one, data in members_of(path).items() if one != name})


def with_manifest(change: Callable[[dict], Any]) -> Callable[[Path], bytes]:
    def changed(path: Path) -> bytes:
        members = members_of(path)
        manifest = json.loads(members["manifest.json"])
        change(manifest)
        return zipped({**members, "manifest.json": json.dumps(manifest).encode()})

    return changed


def with_text(text: bytes) -> Callable[[Path], bytes]:
    return lambda path: zipped({**members_of(path), "manifest.json": text})


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    return info


def encrypted(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def tampered(path: Path) -> bytes:
    members = members_of(path)
    changed = bytearray(members["0/designer"])
    changed[5] ^= 1
    return zipped({**members, "0/designer": bytes(changed)})


def longer_names(found: dict) -> None:
    found["files"]["2/designer"] = found["files"]["0/designer"]


def far_away(place: int) -> Callable[[Path], bytes]:
    """Return an archive whose one entry says that it stands at a place of 64 bits."""

    def made(path: Path) -> bytes:
        data = zipped({"manifest.json": b"{}"})
        entry, end = data.index(archive.ENTRY), data.index(b"PK\x05\x06")
        extra = struct.pack("<HHQ", 1, 8, place)
        listed = bytearray(data[entry:end] + extra)
        listed[30:32], listed[42:46] = struct.pack("<H", len(extra)), b"\xff" * 4
        return data[:entry] + bytes(listed) + end_of_zip(1, len(listed), entry)

    return made


def end_of_zip(entries: int, size: int, place: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries, entries, size, place, 0)


def crowded(path: Path) -> bytes:
    entry = archive.ENTRY + bytes(42)
    return entry * 10**6 + end_of_zip(0xFFFF, len(entry) * 10**6, 0)


ARCHIVES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "nothing": (lambda path: b"", "cannot be read as a zip archive"),
    "no archive": (lambda path: b"#!/bin/sh\nrm -rf /\n", "cannot be read as a zip archive"),
    "cut off": (lambda path: path.read_bytes()[:-200], "cannot be read as a zip archive"),
    "damaged": (
        lambda path: path.read_bytes().replace(b"PK\x03\x04", b"PK\x03\x05", 2),
        "cannot be read as a zip archive",
    ),
    "too large": (lambda path: bytes(archive.LARGEST + 1), "more than 67,108,864 bytes, the most"),
    "a bomb": (
        lambda path: zipped({**members_of(path), "1/designer": bytes(archive.LARGEST)}),
        "comes to more than 67,108,864 bytes",
    ),
    "a thousand files": (
        lambda path: zipped([(f"{at}/designer", b"") for at in range(1000)]),
        "it holds 1,000 files",
    ),
    "a million files": (crowded, "it holds 1,000,000 files"),
    "a place beyond all": (far_away(2**64 - 1), "cannot be read as a zip archive"),
    "a place far beyond": (far_away(2**40), "cannot be read as a zip archive"),
    "a way out": (with_member("../outside"), "it holds '../outside'"),
    "a place of its own": (with_member("/etc/cron.d/mine"), "it holds '/etc/cron.d/mine'"),
    "a way out for Windows": (with_member("..\\outside"), r"it holds '\.\.\\\\outside'"),
    "a name behind a name": (
        lambda path: with_member("0/designer#.py")(path).replace(b"designer#.py", b"designer\x00.py"),
        r"it holds '0/designer\\x00.py'",
    ),
    "code": (with_member("policy.py", b"import os"), "it holds 'policy.py'"),
    "a pickle": (with_member("0/designer.pkl", b"\x80\x04."), "it holds '0/designer.pkl'"),
    "a folder": (with_member("0/"), "it holds '0/'"),
    "a link": (
        lambda path: zipped(
            [
                *((name, data) for name, data in members_of(path).items() if name != "0/designer"),
                (special("0/designer", stat.S_IFLNK), b"/etc/passwd"),
            ]
        ),
        "0/designer is a link or another special file",
    ),
    "a device": (
        lambda path: zipped([(special("manifest.json", stat.S_IFCHR), b"")]),
        "manifest.json is a link or another special file",
    ),
    "encrypted": (encrypted, "is encrypted"),
    "compressed another way": (lambda path: zipped(members_of(path), zipfile.ZIP_LZMA), "compressed by method 14"),
    "no manifest": (without("manifest.json"), "it has no manifest.json"),
    "no JSON": (with_text(b"{"), "cannot be read as JSON"),
    "not finite": (with_text(b'{"format": NaN}'), "holds NaN"),
    "said twice": (with_text(b'{"format": 1, "format": 2}'), "gives 'format' twice"),
    "no end of names": (
        with_text(json.dumps(dict.fromkeys(map(str, range(10**5)))).encode()),
        "manifest.json has more than 262,144 bytes",
    ),
    "a deep well": (with_text(b"[" * 10**5), "cannot be read as JSON"),
    "a deeper well": (with_text(b"[" * 10**6), "manifest.json has more than"),
    "no UTF-8": (with_text(b"\xff\xfe{}"), "cannot be read as JSON"),
    "another format": (with_manifest(lambda found: found.update(format="pickle")), "its format is 'pickle'"),
    "a name more": (with_manifest(lambda found: found.update(run="rm -rf /")), "'run' does not belong here"),
    "a name less": (with_manifest(lambda found: found["entry"].pop("by")), "entry.by is missing"),
    "a script for a name": (
        with_manifest(lambda found: found["entry"].update(name="<script>")),
        "entry.name is '<script>'",
    ),
    "a way to a terminal": (with_manifest(lambda found: found["entry"].update(by="\x1b[2J")), "printable"),
    "a script for a link": (with_manifest(lambda found: found["entry"].update(link="javascript:1")), "entry.link is"),
    "an unknown scenario": (
        with_manifest(lambda found: found["setting"].update(scenario="../../secret")),
        "unknown scenario",
    ),
    "other numbers": (
        with_manifest(lambda found: found["setting"].update(params="0" * 16)),
        "the installed probe-context-v0 has",
    ),
    "an unknown executor": (
        with_manifest(lambda found: found["setting"].update(executor="runs/mine")),
        "setting.executor is 'runs/mine'",
    ),
    "a file of its own": (
        with_manifest(lambda found: found["setting"].update(files={"pool": "0" * 64})),
        "setting.files has to be empty",
    ),
    "a run that is not there": (with_manifest(lambda found: found["runs"].append({"seed": 9})), "training.runs is 2"),
    "one seed twice": (with_manifest(lambda found: found["runs"][0].update(seed=1)), "the same seed"),
    "a program that is not there": (without("designer-apply"), "lacks designer-apply"),
    "weights that are not there": (without("1/designer"), "lacks 1/designer"),
    "weights of no run": (with_manifest(longer_names), "files has 2/designer"),
    "an executor of nobody": (with_member("executor-apply"), "it holds executor-apply"),
    "tampered with": (tampered, "0/designer is not what the manifest lists"),
    "a sum that is none": (
        with_manifest(lambda found: found["files"]["0/designer"].update(sha256="0")),
        "files.0/designer.sha256 is '0'",
    ),
    "another size": (
        with_manifest(lambda found: found["files"]["0/designer"].update(bytes=1)),
        "0/designer is not what the manifest lists",
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives_are_refused(name: str, policy: Path, tmp_path: Path) -> None:
    make, said = ARCHIVES[name]
    hostile = tmp_path / "hostile.zip"
    hostile.write_bytes(make(policy))
    with pytest.raises(JaxmasError, match=said):
        archive.read(hostile)
    assert os.listdir(tmp_path) == ["hostile.zip"]


def test_many_names_take_no_time() -> None:
    began = time.monotonic()
    assert len(schema.parsed(json.dumps(dict.fromkeys(map(str, range(10**5)))).encode())) == 10**5
    assert time.monotonic() - began < 10


def test_errors_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["submit", "\x1b[2J\u202e" + "x/" * 1000]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ?[2J?x/x/") and said.strip().isprintable() and len(said) < 1100


# --- programs that are refused


TEAM = jax.tree.leaves(portable.team_of(ENV, PARAMS))
PLAN = jax.tree.leaves(jax.eval_shape(ENV.plan_space.empty))
(BATCH,) = export.symbolic_shape("b")


def lowered(
    function: Callable[..., Any] | None = None,
    given: list[Any] = [portable.KEY, *TEAM],  # noqa: B006
    batch: Any = BATCH,
    platforms: tuple[str, ...] = portable.PLATFORMS,
    unsafe: tuple[str, ...] = (),
) -> bytes:
    """Return a designer's program: of one that gives zeros for all fields of a plan, if no function is given."""
    inputs = [jax.ShapeDtypeStruct((batch, *one.shape), one.dtype) for one in given]
    checks = [export.DisabledSafetyCheck.custom_call(name) for name in unsafe]
    made = export.export(jax.jit(function or zeros()), platforms=platforms, disabled_checks=checks)
    return bytes(made(*inputs).serialize())


def zeros(**changes: Any) -> Callable[..., Any]:
    """Return a designer of plans of zeros, but for what another value or type is given for, by place."""

    def design(words: Any, *team: Any) -> list[Any]:
        fields = [jnp.zeros((words.shape[0], *one.shape), one.dtype) for one in PLAN]
        for place, change in changes.items():
            fields[int(place[1:])] = change(fields[int(place[1:])], words)
        return fields

    return design


def everyone(tier: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a designer of legal plans, in which everyone takes part, of a tier that follows from the words of keys."""
    return zeros(
        _0=lambda field, _: field | True,
        _2=lambda field, words: field + tier(words)[:, None].astype(field.dtype),
        _4=lambda field, _: field - 1,
        _5=lambda field, _: field + 1,
    )


def endless(field: Any, words: Any) -> Any:
    """Return a field once a number that never changes has changed."""
    never = jax.lax.while_loop(lambda at: at < 1, lambda at: at * (words[0, 0] < jnp.uint32(2**31)), 0)
    return field + never.astype(field.dtype)


def hungry(field: Any, words: Any) -> Any:
    """Return a field once eight billion numbers were put in order."""
    numbers = jax.lax.iota(jnp.float32, 2**33) * words[0, 0].astype(jnp.float32)
    return field + (jnp.sort(numbers)[2**32] < -1.0).astype(field.dtype)


def factored(field: Any, words: Any) -> Any:
    eye = jnp.eye(3) * (2.0 + words[:, :1, None].astype(jnp.float32) * 0)
    return field + jnp.linalg.cholesky(eye)[:, 0, :1].astype(field.dtype) * 0


def two_batches() -> bytes:
    sizes = export.symbolic_shape(f"b, c{', c' * len(TEAM[1:])}")
    inputs = [
        jax.ShapeDtypeStruct((size, *one.shape), one.dtype)
        for size, one in zip(sizes, (portable.KEY, *TEAM), strict=True)
    ]
    return bytes(export.export(jax.jit(zeros()), platforms=portable.PLATFORMS)(*inputs).serialize())


START = bytes(export.export(jax.jit(lambda: []), platforms=portable.PLATFORMS)().serialize())
LESS, MORE = [portable.KEY, *TEAM][:-1], [portable.KEY, *TEAM, jax.ShapeDtypeStruct((7,), jnp.float32)]
WIDE = [portable.KEY, jax.ShapeDtypeStruct((99, 99), jnp.float32), *TEAM[1:]]
OTHER = [jax.ShapeDtypeStruct((2,), jnp.float32), *TEAM]

PROGRAMS: dict[str, tuple[Callable[[], tuple[bytes, bytes]], str]] = {
    "noise": (lambda: (START, os.urandom(2000)), "is no program that this version of JAX reads"),
    "nothing": (lambda: (START, b""), "is no program that this version of JAX reads"),
    "cut off": (lambda: (START, lowered()[:-500]), "no program|takes|gives"),
    "too few arguments": (lambda: (START, lowered(given=LESS)), "designer-apply takes"),
    "weights for any batch": (lambda: (START, lowered(given=MORE)), "weights are of one size"),
    "another shape": (lambda: (START, lowered(given=WIDE)), "array 1 that designer-apply takes is"),
    "another type": (lambda: (START, lowered(given=OTHER)), "array 0 that designer-apply takes is float32"),
    "twice the batch": (lambda: (START, lowered(batch=2 * BATCH)), r"uint32\[2\*b,2\]; .* for any b"),
    "one more than the batch": (lambda: (START, lowered(batch=BATCH + 1)), r"uint32\[b \+ 1,2\]; .* for any b"),
    "two batches": (lambda: (START, two_batches()), r"array 1 that designer-apply takes is float32\[c,.* the same"),
    "one batch size only": (lambda: (START, lowered(batch=256)), "for any b"),
    "no plan": (lambda: (START, lowered(lambda words, *team: [words])), "designer-apply gives 1 arrays"),
    "a plan of fractions": (
        lambda: (START, lowered(zeros(_1=lambda field, _: field + jnp.nan))),
        "array 1 that designer-apply gives is float32",
    ),
    "a plan of another size": (
        lambda: (START, lowered(zeros(_1=lambda field, _: jnp.concatenate([field, field], 1)))),
        "array 1 that designer-apply gives is",
    ),
    "a tree instead of arrays": (
        lambda: (START, lowered(lambda *given: tuple(zeros()(*given)))),
        "has to take arrays and give a list of arrays",
    ),
    "another platform": (lambda: (START, lowered(platforms=("tpu",))), "is for tpu, not for cpu"),
    "code from elsewhere": (
        lambda: (START, lowered(zeros(_1=factored), platforms=("cpu",), unsafe=("lapack_spotrf_ffi",))),
        "turned off|calls lapack_spotrf_ffi",
    ),
    "a start with arguments": (
        lambda: (lowered(), lowered()),
        "designer-start takes",
    ),
    "a carry that is not given back": (
        lambda: (
            bytes(export.export(jax.jit(lambda: [jnp.zeros(3)]), platforms=portable.PLATFORMS)().serialize()),
            lowered(),
        ),
        "arrays; in this setting it has to be|array",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_do_not_fit_are_refused(name: str) -> None:
    make, said = PROGRAMS[name]
    with pytest.raises(JaxmasError, match=said):
        portable.load_designer(ENV, PARAMS, *make())


def test_a_program_that_fits_is_taken() -> None:
    """What the refused ones are variations of."""
    portable.load_designer(ENV, PARAMS, START, rewritten(NUMBER))
    found = portable.load_designer(ENV, PARAMS, START, lowered())
    assert portable.load_weights("0/designer", found, b"") == []
    with pytest.raises(JaxmasError, match="0/designer has 4 bytes; its program takes weights of 0"):
        portable.load_weights("0/designer", found, b"1234")


def rewritten(ops: str = "", functions: str = "", **changes: Any) -> bytes:
    """Return the program that fits, with operations and functions written into it, and told other things of it."""
    inputs = [jax.ShapeDtypeStruct((BATCH, *one.shape), one.dtype) for one in (portable.KEY, *TEAM)]
    made = export.export(jax.jit(zeros()), platforms=portable.PLATFORMS)(*inputs)
    head, main, rest = re.split(r"(?m)^(  func\.func public @main.*\n)", made.mlir_module())
    with mlir.make_ir_context():
        module = mlir.ir.Module.parse(head + functions + main + ops + rest)
        data = serialize_portable_artifact(module, stablehlo.get_current_version(), True)
    told = {"mlir_module_serialized": data, **changes}
    return bytes(dataclasses.replace(made, **told).serialize())


NUMBER = "%k = stablehlo.constant dense<1.0> : tensor<4xf32>\n"
OPERATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "code outside": (
        {"ops": "stablehlo.custom_call @evil() {has_side_effect = true} : () -> ()\n"},
        "calls evil, which is code outside",
    ),
    "code outside that looks like a check": (
        {"ops": 'stablehlo.custom_call @"shape_assertion x"() {has_side_effect = true} : () -> ()\n'},
        "calls shape_assertion x, which is code outside",
    ),
    "code outside with a way to a terminal": (
        {"ops": 'stablehlo.custom_call @"\\1B[2J"() {has_side_effect = true} : () -> ()\n'},
        r"calls \?\[2J, which is code outside",
    ),
    "a composite of its own": (
        {
            "ops": f'{NUMBER} %q = stablehlo.composite "evil.thing" %k {{decomposition = @dec}}'
            " : (tensor<4xf32>) -> tensor<4xf32>\n",
            "functions": "func.func private @dec(%a: tensor<4xf32>) -> tensor<4xf32> { return %a : tensor<4xf32> }\n",
        },
        "calls evil.thing",
    ),
    "a function that is not there": (
        {
            "ops": f"{NUMBER} func.call @ext(%k) : (tensor<4xf32>) -> ()\n",
            "functions": "func.func private @ext(tensor<4xf32>) -> ()\n",
        },
        "has a function without a body",
    ),
    "a function that nobody calls": (
        {"functions": "func.func private @ext(tensor<4xf32>) -> ()\n"},
        "has a function without a body",
    ),
    "a module in the module": (
        {"functions": "module @inner { func.func @f() { return } }\n"},
        "holds the operation builtin.module",
    ),
    "dice": (
        {
            "ops": "%lo = stablehlo.constant dense<0.0> : tensor<f32>\n"
            "%n = stablehlo.constant dense<3> : tensor<1xi64>\n"
            "%q = stablehlo.rng %lo, %lo, %n, distribution = UNIFORM"
            " : (tensor<f32>, tensor<f32>, tensor<1xi64>) -> tensor<3xf32>\n"
        },
        "holds the operation stablehlo.rng;",
    ),
    "a way in": (
        {
            "ops": "%t = stablehlo.create_token : !stablehlo.token\n"
            '%q:2 = "stablehlo.infeed"(%t) {infeed_config = ""}'
            " : (!stablehlo.token) -> (tensor<3xf32>, !stablehlo.token)\n"
        },
        "holds the operation stablehlo.create_token, stablehlo.infeed",
    ),
    "a word with others": (
        {
            "ops": f'{NUMBER} %q = "stablehlo.reduce_scatter"(%k) <{{replica_groups = dense<0> : tensor<1x1xi64>,'
            " scatter_dimension = 0 : i64}> ({\n^bb0(%a: tensor<f32>, %b: tensor<f32>):\n"
            "stablehlo.return %a : tensor<f32>\n}) : (tensor<4xf32>) -> tensor<4xf32>\n"
        },
        "holds the operation stablehlo.reduce_scatter",
    ),
    "text": ({"mlir_module_serialized": b"module {}"}, "is not in bytecode"),
    "an old convention": ({"calling_convention_version": 0}, "calling convention 0, not 9 to"),
    "a convention of another time": ({"calling_convention_version": 99}, "calling convention 99, not 9 to"),
    "arguments twice": ({"module_kept_var_idx": (0, 0, 1, 2, 3, 99)}, "keeps other arguments than it takes"),
    "arguments that it does not take": ({"module_kept_var_idx": (0,)}, r"takes tensor<i32>, .*; it says that it takes"),
    "a platform with a way to a terminal": ({"platforms": ("\x1b[2J" * 999, "tpu")}, r"is for \?\[2J.{,80}…, not for"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_but_arithmetic_is_read(name: str) -> None:
    changes, said = OPERATIONS[name]
    with pytest.raises(JaxmasError, match=f"designer-apply .*{said}"):
        portable.load_designer(ENV, PARAMS, START, rewritten(**changes))


def test_a_program_has_to_begin() -> None:
    program = export.deserialize(bytearray(lowered()))
    with mlir.make_ir_context():
        module = mlir.ir.Module.parse(program.mlir_module().replace("@main", "@last"))
        data = serialize_portable_artifact(module, stablehlo.get_current_version(), True)
    told = bytes(dataclasses.replace(program, mlir_module_serialized=data).serialize())
    with pytest.raises(JaxmasError, match="designer-apply has no function main"):
        portable.load_designer(ENV, PARAMS, START, told)


def test_a_program_gives_what_it_says() -> None:
    """Fractions in place of whole numbers, under the names of the right ones."""
    right = export.deserialize(bytearray(lowered())).out_avals
    other = export.deserialize(bytearray(lowered(zeros(_1=lambda field, _: field + jnp.nan))))
    told = bytes(dataclasses.replace(other, out_avals=right).serialize())
    with pytest.raises(JaxmasError, match=r"gives tensor<.*>, tensor<\?x\dxf32>.*; it says that it gives"):
        portable.load_designer(ENV, PARAMS, START, told)


# --- what shows only when it is played


def archived(out: Path, apply: bytes, **files: bytes) -> Path:
    """Write an archive with a designer of one's own."""
    setting = {
        "scenario": SCENARIO,
        "num_agents": ENV.num_agents,
        "coordination_interval": ENV.coordination_interval,
        "executor": "act",
        "files": {},
        "params": submissions.params_hash(PARAMS),
    }
    entry = {**dataclasses.asdict(ME), "kind": "strategy", "training": None}
    made = {"versions": {}, "commit": None, "date": None, "device": None}
    manifest = {"setting": setting, "entry": entry, "provenance": made, "runs": [{"seed": None}]}
    archive.write(out, manifest, {"designer-start": START, "designer-apply": apply, "0/designer": b"", **files})
    return out


def test_legal_plans_of_anyone_can_be_played(tmp_path: Path) -> None:
    """A designer that this package knows nothing of, and one more that it knows: the same plan."""
    path = archived(tmp_path / "policy.zip", lowered(everyone(lambda words: words[:, 1] % 2)))
    (found,) = submissions.played(path, [0], 8, Limits(120))
    assert len(found["reward"]) == 8


def with_twice_the_rows() -> bytes:
    """Return a program with two plans for every query, which says that it gives one."""
    many = zeros(_1=lambda field, _: jnp.concatenate([field, field], 0))
    told = export.deserialize(bytearray(lowered())).out_avals
    return bytes(dataclasses.replace(export.deserialize(bytearray(lowered(many))), out_avals=told).serialize())


PLAYED: dict[str, tuple[Callable[[], bytes], Limits, str]] = {
    "plans that are not legal": (
        lambda: lowered(zeros(_1=lambda field, _: field + 99)),
        Limits(120),
        "entries of its plans are not legal",
    ),
    "plans by their place": (
        lambda: lowered(everyone(lambda words: jnp.arange(words.shape[0]) % 2)),
        Limits(120),
        "run 0: it plays 4 queries otherwise beside other ones; what a program gives for a query has to follow",
    ),
    "plans by their neighbours": (
        lambda: lowered(everyone(lambda words: (words.sum() >> words[:, 1] % 32) % 2)),
        Limits(120),
        r"run 0: it plays \d queries otherwise beside other ones",
    ),
    "more plans than it says": (
        with_twice_the_rows,
        Limits(120),
        r"its programs cannot be run here \(\w+: [^\n]{1,150}\)$",
    ),
    "no end": (lambda: lowered(zeros(_1=endless)), Limits(20), "was not through with 8 queries in 20 seconds"),
    "a great hunger": (lambda: lowered(zeros(_1=hungry)), Limits(60, 2**33), "ended with|memory"),
}


@pytest.mark.parametrize("name", PLAYED)
def test_policies_that_play_foul_are_refused(name: str, tmp_path: Path) -> None:
    make, limits, said = PLAYED[name]
    with pytest.raises(JaxmasError, match=said):
        submissions.played(archived(tmp_path / "policy.zip", make()), [0], 8, limits)
    assert os.listdir(tmp_path) == ["policy.zip"]


def test_executors_without_a_law_are_refused(tmp_path: Path) -> None:
    scenario = "signal-cue-v0"
    env, params = jaxmas.make(scenario)
    logits = jnp.full((env.num_agents, env.num_actions), jnp.nan)

    class Silent:
        """Gives numbers that are none."""

        def init(self, num_agents: int) -> tuple:
            return ()

        def apply(self, params: Any, carry: Any, observation: Any, mask: Any, key: Any) -> Any:
            return carry, portable.Categorical(logits=logits)

    designer = LoadedPolicy("mine", TemplatePolicy(env, (0,) * 3), None, (Silent(), None))
    designer = dataclasses.replace(designer, meta=jaxmas.make_strategy("random", env, params))
    training = {"plays": 1, "runs": 1, "command": None, "trains_executors": True}
    out = tmp_path / "policy.zip"
    submissions.pack(scenario, env, params, "untrained", [designer], [0], training, ME, out)
    with pytest.raises(JaxmasError, match="gives no law to act by"):
        submissions.played(out, [0], 8, Limits(120))


@pytest.mark.slow
def test_the_command_line_goes_all_the_way(runs: list[str], tmp_path: Path) -> None:
    def jaxmas_(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "jaxmas.cli", *words, "--json"],
            cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": package},
        )  # fmt: skip
        return json.loads(done.stdout)

    package = str(Path(jaxmas.__file__).resolve().parents[1])
    (tmp_path / "secret.txt").write_text(TOKEN)
    jaxmas_("export", *runs, "--name", "mine", "--by", "me")
    jaxmas_("submit", "policy.zip", "--episodes", "16")
    words = "policy.zip", "--result", "result.json", "--seed-file", "secret.txt", "--episodes", "16"
    assert jaxmas_("verify", *words)["entry"]["status"] == "verified"
    assert result_files.read(tmp_path / "verified.json")["verification"]["queries"] == 16
