"""Check what the published tables say about how they were made, and how the ceiling's study counts."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tyro

import jaxmas
from jaxmas.errors import JaxmasError
from jaxmas.experiments import frozen_ceiling, meta_skill_study
from jaxmas.experiments.frozen_ceiling import PARTS, Part, Settings, SwappedRoles, System
from jaxmas.headroom import World
from jaxmas.policies import TemplatePolicy
from jaxmas.registry import TEMPLATES


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
        words = shlex.split(frozen_ceiling.command(settings, name))
        assert words[:3] == ["python", "-m", "jaxmas.experiments.frozen_ceiling"]
        assert tyro.cli(Settings, args=words[3:]) == dataclasses.replace(settings, parts=(name,))
    small = shlex.split(frozen_ceiling.command(Settings(small=True), "systems"))
    assert tyro.cli(Settings, args=small[3:]).small


def test_systems_are_given_the_same_plays() -> None:
    env, params = jaxmas.make("workflow-mixed-v0")
    world = World(env, params, *jaxmas.load_executor("frozen-90", env, params))
    for name, part in PARTS.items():
        for system, made in part.systems.items():
            anyone = {"plans_by": "strategy:chain"} if "plans_by" in made.settings else {}
            named = dataclasses.replace(made, settings={**made.settings, **anyone})
            config = frozen_ceiling.config_of(named, world, part.plays)
            sizes, played = config.sizes, 0
            if made.algorithm == "metaagent-x" and not config.plans_by:
                played += config.warm_queries * len(TEMPLATES["workflow"].rows)
            each = sizes.queries * sizes.designs * sizes.executions
            wanted = part.plays * made.times_the_plays
            assert wanted - each < played + config.updates * each <= wanted, (name, system)


def test_a_world_that_has_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = dataclasses.replace(PARTS["systems"], params="0")
    monkeypatch.setitem(frozen_ceiling.PARTS, "systems", changed)
    with pytest.raises(JaxmasError, match="has changed since the study was written"):
        frozen_ceiling.run_system("systems", "meta-skill", Settings())
    with pytest.raises(JaxmasError, match="unknown part 'sytems'"):
        frozen_ceiling.main(Settings(parts=("sytems",)))


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


def test_what_a_table_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part("probe-bandit-v0", "hash", {"a": System("x", {}), "b": System("x", {})}, 100, seeds=2, reference="a")
    part = dataclasses.replace(part, swap_roles=True)
    monkeypatch.setitem(frozen_ceiling.PARTS, "toy", part)
    settings = Settings(parts=("toy",), test=4, runs=tmp_path / "runs", out=tmp_path / "out")
    success = {"a": [[1, 0, 0, 1], [0, 0, 0, 0]], "b": [[1, 1, 1, 1], [1, 0, 0, 1]]}
    for system, seeds in success.items():
        for run, row in zip(frozen_ceiling.directories("toy", part, system, settings), seeds, strict=True):
            run.mkdir(parents=True)
            played = {"success": row, "reward": row, "cost": [0.5] * 4}
            (run / "test.json").write_text(json.dumps({"trained": played, "swapped": {**played, "success": [0] * 4}}))
            log = [
                {"update": 20, "plays": 40, "steps": 3.0, "success": 0.0, "seconds": 1.0, "role_0_reward": 0.5},
                {"update": 30, "plays": 60, "steps": 6.0, "success": None, "seconds": 2.0, "role_0_reward": 0.7},
            ]
            (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (tmp_path / "runs" / "toy" / "baselines").mkdir()
    (tmp_path / "runs" / "toy" / "baselines" / "test-4.json").write_text("{}")
    result = frozen_ceiling.collate("toy", part, settings)
    rows = result["methods"]
    assert rows["a"]["success"]["mean"] == 0.25 and rows["b"]["success"]["mean"] == 0.75
    assert rows["b"]["per_seed"] == [1.0, 0.5]
    assert rows["b"]["lift"]["points"]["mean"] == 0.5 and rows["b"]["lift"]["relative"][0] == 2.0
    assert "lift" not in rows["a"]
    assert rows["a"]["environment_steps"] == 20 * 3 + 10 * 6 and rows["a"]["seconds"] == 3
    assert rows["b"]["lost_by_swapping"]["mean"] == -0.75
    assert rows["a"]["curves"]["success"] == [0.0, None]
    text = frozen_ceiling.markdown(result)
    assert rows["b"]["reward_lift"]["mean"] == 0.5
    assert "| b | 2 | 0.750" in text and "+200.0 [" in text


@pytest.mark.slow
def test_a_small_study_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    settings = Settings(
        parts=("systems",), only=("meta-skill", "coupled"), seeds=1, plays=24_000, test=32, workers=1,
        runs=tmp_path / "runs", out=tmp_path / "out",
    )  # fmt: skip
    frozen_ceiling.main(settings)
    table = tmp_path / "out" / "frozen_ceiling_systems.md"
    first = table.read_text()
    assert "| coupled | 1 |" in first
    test = next((tmp_path / "runs").glob("*/coupled/*/test.json"))
    kept = test.read_text()
    test.unlink()
    frozen_ceiling.main(settings)
    assert test.read_text() == kept
    assert table.read_text() == first
