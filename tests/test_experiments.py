"""Check what the published tables say about how they were made, and how the ceiling's study counts."""

import dataclasses
import gzip
import json
import shlex
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tyro

import jaxmas
from jaxmas.algorithms.masrouter import MasRouterConfig
from jaxmas.anchors import params_hash
from jaxmas.checkpoints import atomic_write, atomic_write_json
from jaxmas.errors import JaxmasError
from jaxmas.experiments import compare, meta_skill_study, study_tables
from jaxmas.experiments import study as run
from jaxmas.experiments.designers import systems as designers
from jaxmas.experiments.designers import tables as designer_tables
from jaxmas.experiments.designers import trees
from jaxmas.experiments.frozen_ceiling import tables
from jaxmas.experiments.frozen_ceiling.__main__ import main
from jaxmas.experiments.frozen_ceiling.systems import PARTS, Settings, SwappedRoles
from jaxmas.experiments.study import Part, System
from jaxmas.headroom import World
from jaxmas.policies import TemplatePolicy
from jaxmas.registry import TEMPLATES
from jaxmas.runs import LoadedPolicy
from jaxmas.spaces.graph import team_row


@pytest.mark.parametrize(
    "settings",
    [
        meta_skill_study.Settings(),
        meta_skill_study.Settings(seeds=2, test=64, variants=("template, group", "template, PPO")),
    ],
)
def test_the_command_of_a_study_gives_its_settings(settings: meta_skill_study.Settings) -> None:
    words = shlex.split(meta_skill_study.command(settings))
    assert words[:3] == ["python", "-m", "jaxmas.experiments.meta_skill_study"]
    assert tyro.cli(meta_skill_study.Settings, args=words[3:]) == settings


@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings(parts=("crowd",)), Settings(parts=("systems",), seeds=3, plays=9000, test=64)],
)
def test_the_command_of_a_part_gives_its_settings(settings: Settings) -> None:
    for name in settings.parts:
        words = shlex.split(study_tables.command(settings, name))
        assert words[:3] == ["python", "-m", "jaxmas.experiments.frozen_ceiling"]
        assert tyro.cli(Settings, args=words[3:]) == dataclasses.replace(settings, parts=(name,))
    small = shlex.split(study_tables.command(Settings(small=True), "systems"))
    assert tyro.cli(Settings, args=small[3:]).small


def test_systems_are_given_the_same_plays() -> None:
    env, params = jaxmas.make("workflow-mixed-v0")
    world = World(env, params, *jaxmas.load_executor("frozen-90", env, params))
    for name, part in PARTS.items():
        for system, made in part.systems.items():
            anyone = {"plans_by": "strategy:chain"} if "plans_by" in made.settings else {}
            named = dataclasses.replace(made, settings={**made.settings, **anyone})
            config = run.config_of(named, world, part.plays)
            sizes, played = config.sizes, 0
            if made.algorithm == "metaagent-x" and not config.plans_by:
                played += config.warm_queries * len(TEMPLATES["workflow"].rows)
            each = sizes.queries * sizes.designs * sizes.executions
            wanted = part.plays * made.times_the_plays
            assert wanted - each < played + config.updates * each <= wanted, (name, system)


def test_a_world_that_has_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = dataclasses.replace(PARTS["systems"], params="0")
    monkeypatch.setitem(PARTS, "systems", changed)
    with pytest.raises(JaxmasError, match="has changed since the study was written"):
        run.run_system("systems", "meta-skill", Settings())
    monkeypatch.undo()
    with pytest.raises(JaxmasError, match="keeps meta-skill with other sizes or settings; choose another --out"):
        run.run_system("systems", "meta-skill", Settings(plays=5000))
    with pytest.raises(JaxmasError, match="unknown part 'sytems'"):
        main(Settings(parts=("sytems",)))
    with pytest.raises(JaxmasError, match="crowd has no system coupeld; its systems are meta-skill"):
        main(Settings(parts=("crowd",), only=("coupeld",)))
    made = System("metaagent-x", {})
    env, params = jaxmas.make("workflow-mixed-v0")
    world = World(env, params, *jaxmas.load_executor("frozen-90", env, params))
    with pytest.raises(JaxmasError, match="3000 plays are too few"):
        run.config_of(made, world, 3000)


def test_swapped_roles() -> None:
    env, params = jaxmas.make("workflow-specialist-v0")
    meta = TemplatePolicy(env)
    strategy: Any = jaxmas.make_strategy("roles-by-skill", env, params)
    row = TEMPLATES["workflow"].row(strategy.row)
    team = env.reset(jax.random.key(0), params)[1]
    plan = meta.apply(row, meta.init(), team, jax.random.key(1))[0]
    swapped = SwappedRoles(meta, 4).apply(row, meta.init(), team, jax.random.key(1))[0]
    before, after = np.array(plan.role), np.array(swapped.role)
    assert (before < 4).any()
    assert (after == np.where(before < 4, (before + 1) % 4, before)).all()
    assert (np.array(swapped.task) == np.array(plan.task)).all()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Part, Settings]:
    """Return a part of two systems that are done, two seeds each on four queries."""
    part = Part(
        "probe-bandit-v0",
        params_hash(jaxmas.make("probe-bandit-v0")[1]),
        {"a": System("meta-skill", {}, "act"), "b, c": System("meta-skill", {}, "act")},
        10_000,
        seeds=2,
        reference="a",
    )
    part = dataclasses.replace(part, variants=PARTS["specialist"].variants)
    monkeypatch.setitem(PARTS, "toy", part)
    settings = Settings(parts=("toy",), test=4, runs=tmp_path / "runs", out=tmp_path / "out")
    log = [
        {"update": 20, "plays": 40, "steps": 3.0, "success": 0.0, "seconds": 1.0, "role_0_reward": 0.5},
        {"update": 30, "plays": 60, "steps": 6.0, "success": None, "seconds": 2.0, "role_0_reward": 0.7},
    ]
    success = {"a": [[1, 1, 1, 1], [1, 1, 1, 1]], "b, c": [[1, 1, 1, 1], [1, 0, 0, 1]]}
    for system, seeds in success.items():
        played = [{"success": row, "reward": row, "cost": [0.5] * 4} for row in seeds]
        made_by = {"commit": f"commit-{system[0]}", "device": "cpu"}
        runs = [
            {"provenance": made_by, "trained": row, "swapped": {**row, "success": [0] * 4}, "log": log}
            for row in played
        ]
        described = run.described(part.systems[system])
        record = {**run.sizes(part, settings), "system": described, "runs": runs}
        file = run.record_of("toy", system, settings)
        atomic_write(file, gzip.compress(json.dumps(record).encode()))
    baselines = {**run.sizes(part, settings), "rows": {}}
    atomic_write_json(file.parent / "baselines.json", baselines)
    return part, settings


def test_what_a_table_counts(toy: tuple[Part, Settings]) -> None:
    result = tables.collate("toy", *toy)
    a, b = result["methods"]["a"], result["methods"]["b, c"]
    assert a["success"]["mean"] == 1 and b["success"]["mean"] == 0.75
    assert b["per_seed"] == [1.0, 0.5]
    assert b["lift"]["points"]["mean"] == -0.25 and b["lift"]["relative"][0] == -0.25
    assert "lift" not in a
    assert a["environment_steps"] == 20 * 3 + 10 * 6 and a["seconds"] == 3
    assert b["lost_by_swapping"]["mean"] == -0.75
    assert a["curves"]["success"] == [0.0, None]
    assert b["reward_lift"]["mean"] == -0.25
    text = tables.markdown(result)
    assert "| b, c | 2 | 0.750" in text and "-25.0 [" in text
    assert "commit-a on cpu, commit-b on cpu" in text


def test_a_finished_system_is_not_run_again(toy: tuple[Part, Settings]) -> None:
    part, settings = toy
    assert "0.750" in run.run_system("toy", "b, c", settings)
    one = run.kept("toy", dataclasses.replace(part, seeds=1), "a", settings)
    assert one is not None and len(one["runs"]) == 1
    assert run.kept("toy", dataclasses.replace(part, plays=50), "a", settings) is None
    assert run.kept("toy", dataclasses.replace(part, params="other"), "a", settings) is None
    assert run.kept("toy", part, "a", dataclasses.replace(settings, test=5)) is None
    other = dataclasses.replace(part, systems={"a": System("meta-skill", {"queries": 5}, "act")})
    assert run.kept("toy", other, "a", settings) is None


def test_a_setting_that_came_later_stood_at_its_default(toy: tuple[Part, Settings]) -> None:
    part, settings = toy
    file = run.record_of("toy", "a", settings)
    record = json.loads(gzip.decompress(file.read_bytes()))
    del record["system"]["settings"]["trace"]
    atomic_write(file, gzip.compress(json.dumps(record).encode()))
    assert run.kept("toy", part, "a", settings) is not None
    other = dataclasses.replace(part, systems={"a": System("meta-skill", {"trace": 0.5}, "act")})
    assert run.kept("toy", other, "a", settings) is None


def test_more_seeds_add_to_a_finished_system(toy: tuple[Part, Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    part, settings = toy
    known = run.kept("toy", part, "b, c", settings)
    assert known is not None
    trained = []

    def run_seed(folder: Path, *_: Any) -> dict[str, Any]:
        trained.append(folder.name)
        return known["runs"][0]

    monkeypatch.setattr(run, "run_seed", run_seed)
    run.run_system("toy", "b, c", dataclasses.replace(settings, seeds=3))
    assert trained == ["seed-102"]
    more = run.kept("toy", dataclasses.replace(part, seeds=3), "b, c", settings)
    assert more is not None and more["runs"] == [*known["runs"], known["runs"][0]]


def test_nothing_finished_makes_an_empty_table(toy: tuple[Part, Settings]) -> None:
    part, settings = toy
    for system in part.systems:
        run.record_of("toy", system, settings).unlink()
    tables.write("toy", part, settings)
    assert "| system |" in (settings.out / "frozen_ceiling_toy.md").read_text()


@pytest.mark.slow
def test_a_small_study_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    settings = Settings(
        parts=("systems",), only=("meta-skill", "coupled-template"), seeds=1, plays=24_000, test=32, workers=1,
        runs=tmp_path / "runs", out=tmp_path / "out",
    )  # fmt: skip
    main(settings)
    table = tmp_path / "out" / "frozen_ceiling_systems.md"
    first = table.read_text()
    assert "| coupled-template | 1 |" in first
    test = next((tmp_path / "runs").glob("*/coupled-template/*/test.json"))
    played = test.read_text()
    test.unlink()
    run.record_of("systems", "coupled-template", settings).unlink()
    main(settings)
    assert test.read_text() == played
    assert table.read_text() == first


@pytest.mark.slow
def test_trained_specialists_lose_by_swapping_their_roles(tmp_path: Path) -> None:
    """One small network per role becomes a specialist; a shared one is as good at any skill."""
    settings = Settings(seeds=1, runs=tmp_path / "runs", out=tmp_path / "out")
    lost = {}
    for system in ("shared", "per-role"):
        run.run_system("specialist", system, settings)
        record = run.kept("specialist", run.part_of("specialist", settings), system, settings)
        assert record is not None
        lost[system] = run.values_of(record, "success").mean() - run.values_of(record, "success", "swapped").mean()
    assert lost["per-role"] > 0.05
    assert lost["shared"] < 0.03


def test_the_systems_of_the_designers_are_given_the_same_plays() -> None:
    for name, part in designers.PARTS.items():
        setting = compare.Setting(part.scenario, part.num_agents)
        world = setting.build()
        assert params_hash(world.params) == part.params
        for system, made in part.systems.items():
            config = run.config_of(made, world, part.plays)
            each = config.sizes.queries * config.sizes.designs
            assert part.plays - each < config.updates * each <= part.plays, (name, system)
        assert set(designers.SMALL.get(name, ())) <= set(part.systems)


def row_settings(part: Part, system: str) -> dict[str, Any]:
    return run.described(part.systems[system])["settings"]


def test_the_table_of_designers(toy: tuple[Part, Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """References are played; what is kept of systems is read; cost weights change what is left of the reward."""
    part, _ = toy
    params = jaxmas.make("workflow-mixed-v0", num_agents=4)[1]
    world: dict[str, Any] = {"scenario": "workflow-mixed-v0", "params": params_hash(params), "num_agents": 4}
    part = dataclasses.replace(part, **world, variants={})
    monkeypatch.setitem(designers.PARTS, "toy", part)
    settings = designers.Settings(parts=("toy",), test=4, out=toy[1].out)
    measured = run.estimate(np.array([[0.5, 0.25]]))
    row = {"reward": measured, "plan": "one", "row": [0, 1, 0, 0, 0, 1, 1]}
    known = {
        "best fixed plan": row,
        "best strategy": row,
        "best plan per query": {"low": measured, "high": measured},
    }
    kept = {**run.sizes(part, settings), "references": known}
    atomic_write_json(settings.out / "designers_toy" / "references.json", kept)
    everyone = {"success": [0, 0, 1, 1], "cost": [1.0] * 4}
    atomic_write_json(settings.out / "designers_toy" / "everyone.json", {**run.sizes(part, settings), **everyone})
    played = {name: [0.5] * 4 for name in ("reward", "cost", "latency", "active_agents")}
    made_by = {"commit": "c", "device": "cpu"}
    runs = [
        {"provenance": made_by, "trained": {**played, "success": [1, 0, 1, 1]}, "log": [
            {"update": 20, "plays": 40, "steps": 3.0, "success": 0.5, "reward": 0.3, "seconds": 1.0},
            {"update": 40, "plays": 80, "steps": 3.0, "success": 0.5, "reward": 0.4, "seconds": 1.0},
        ]}
    ]  # fmt: skip
    runs[0]["notes"] = {"designs": [[["mode", "io", 0.25]]], "links": {"to bad": 0.5, "to honest": 2.0}}
    for system, made in part.systems.items():
        record = {**run.sizes(part, settings), "system": run.described(made), "runs": 2 * runs}
        atomic_write(run.record_of("toy", system, settings), gzip.compress(json.dumps(record).encode()))
    designer_tables.write("toy", part, settings)
    result = json.loads((settings.out / "designers_toy.json").read_text())
    row = result["methods"]["a"]
    assert row["success"]["mean"] == 0.75 and row["cost"]["mean"] == 0.5
    assert row["links"]["to bad"]["mean"] == 0.5
    assert row["against_everyone"]["success"]["mean"] == 0.25 and row["against_everyone"]["cost_share"] == 0.5
    assert "mode: io (0.25)." in (settings.out / "designers_toy_designs.md").read_text()
    weight = float(params.reward.cost)
    assert row["reward_at_cost_weight"]["2.0"]["mean"] == pytest.approx(0.5 - weight * 0.5)
    each = row_settings(part, "a")["queries"]
    assert row["queries_to_pass"] == [40 * each] * 2, "0.3 is below the bar of 0.375, 0.4 above it"
    assert set(row["by_family"]) == set(result["families"])
    assert all(family["mean"] == 0.5 for family in row["by_family"].values())
    assert {"chain", "cheap-first, every 3 steps", "best strategy"} <= set(result["strategies"])
    text = (settings.out / "designers_toy.md").read_text()
    assert "| strategy `chain` |" in text and "best plan per query, lower bound" in text
    assert f"| a | {40 * each:,} | 2 of 2 |" in text
    for figure in ("curves", "front"):
        assert (settings.out / f"designers_toy_{figure}.png").stat().st_size > 1000


def test_notes_tell_what_is_designed_and_who_is_read() -> None:
    env, params = jaxmas.make("workflow-roster-v0")
    world = World(env, params, *jaxmas.load_executor("scripted", env, params))
    everyone = TemplatePolicy(env, team_row("mesh", 16, env))
    noted = designers.notes(LoadedPolicy("mesh", everyone, None), world)
    assert set(noted) == {"links", "tree"} and noted["tree"] is None
    assert noted["links"]["to bad"] == noted["links"]["to honest"] == 8  # an inbox each
    env, params = jaxmas.make("workflow-mixed-v0", num_agents=4)
    world = World(env, params, *jaxmas.load_executor("scripted", env, params))
    config = MasRouterConfig(width=8)
    state = config.initial_state(env, params, jax.random.key(0))
    noted = designers.notes(LoadedPolicy("masrouter", *config.designer(env, state, greedy=True)), world)
    assert len(noted["designs"]) == 3 and noted["designs"][0][0][0] == "mode" and "links" not in noted
    # An untrained cascade says the same of every query: a tree can do that, too.
    assert noted["tree"]["alike"] == 1 and noted["tree"]["tree"] == pytest.approx(noted["tree"]["designer"], abs=1e-5)


def test_the_commonest_designs() -> None:
    choices = {"mode": np.array([3, 1, 3, 2, 3, 1]), "role": np.array([[0], [1], [0], [0], [1], [1]])}
    which, kept = trees.commonest(choices)
    assert which.tolist()[0] == which.tolist()[2] and which.tolist()[1] == which.tolist()[5]
    assert len(kept) == 4 and sorted(choices["mode"][kept]) == [1, 2, 3, 3]
    assert {which[1], which[0]} == {0, 1}  # the two that are made twice come first
