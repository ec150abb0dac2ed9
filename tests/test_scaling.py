"""The study of scaling: laws are recovered and told apart, radios reach as far as they should, what is kept stays."""

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.algorithms.workflow_strategies import TUNABLE
from jaxmas.anchors import params_hash
from jaxmas.catalog import TEMPLATES
from jaxmas.checkpoints import atomic_write, atomic_write_json
from jaxmas.environments.warehouse.messages import HEARD, MESSAGE, RADIO
from jaxmas.errors import JaxmasError
from jaxmas.experiments import compare, study
from jaxmas.experiments.scaling import axes, measures, tables
from jaxmas.experiments.scaling.__main__ import main
from jaxmas.experiments.scaling.fits import compared
from jaxmas.experiments.scaling.systems import CROWD, CROWDS, WAREHOUSES, Settings, of_part
from jaxmas.statistics import bootstrap_means, hierarchical_bootstrap

SIZES = tuple(CROWD)


def outcomes(curve: Any, noise: float, runs: int = 3, queries: int = 256) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [curve(size) + noise * draw.normal(size=(runs, queries)) for size in SIZES]


def logistic(agents: int) -> float:
    return 0.1 + 0.8 / (1 + np.exp((np.log2(agents) - 6) / 0.8))


def power(agents: int) -> float:
    return 0.2 + 3.0 * agents**-0.5


@pytest.mark.parametrize(
    ("curve", "better", "numbers"),
    [
        # It falls: the level is where it begins.
        (logistic, "logistic", {"midpoint m, log2 agents": 6, "width w, doublings": 0.8, "height h": -0.8}),
        (power, "power law", {"exponent b": -0.5, "level c": 0.2, "height h": 3.0}),
    ],
)
def test_laws_are_recovered(curve: Any, better: str, numbers: dict[str, float]) -> None:
    found = compared(SIZES, outcomes(curve, 0.05))
    assert found["better"] == better and found["told_apart"] and found["share"] >= 0.95
    for name, wanted in numbers.items():
        number = found["laws"][better]["numbers"][name]
        assert number["mean"] == pytest.approx(wanted, rel=0.1), name
        # The grid is no finer than a twelfth of a width.
        assert number["ci95"][0] - 0.05 <= wanted <= number["ci95"][1] + 0.05, name
    assert found["laws"][better]["fitted"] == pytest.approx([curve(size) for size in SIZES], abs=0.02)
    assert found["laws"][better]["left_out"]["mean"] < min(
        law["left_out"]["mean"] for name, law in found["laws"].items() if name != better
    )


def test_laws_of_noise_are_not_told_apart() -> None:
    found = compared(SIZES, outcomes(lambda agents: 0.5, 1.0, queries=32))
    assert not found["told_apart"]


def test_resampled_means_have_the_interval_of_the_protocol() -> None:
    values = np.random.default_rng(1).normal(size=(3, 64))
    low, high = hierarchical_bootstrap(values).ci95
    assert np.percentile(bootstrap_means(values), (2.5, 97.5)) == pytest.approx((low, high))
    # One seed draws the same queries for tables of any number of runs: a paired difference has no noise of its own.
    assert bootstrap_means(values[:1] + 1) - bootstrap_means(values[0]) == pytest.approx(np.ones(2000))


def test_parts_are_what_they_say() -> None:
    assert len(CROWDS) == len(WAREHOUSES) == len(SIZES)
    for part in (*CROWDS.values(), WAREHOUSES["warehouse-8"], WAREHOUSES["warehouse-128"]):
        env, params = jaxmas.make(part.scenario, num_agents=part.num_agents)
        assert params_hash(params) == part.params and env.num_agents == part.num_agents


@dataclasses.dataclass(frozen=True)
class Echo:
    """Returns what it sees in place of actions."""

    def init(self, num_agents: int) -> None:
        return None

    def apply(self, params: Any, carry: Any, observation: Any, mask: Any, key: Any) -> tuple[Any, Any]:
        return params, observation.features


def test_a_short_radio_hears_who_is_near() -> None:
    world = compare.Setting("warehouse-small-v0", 32, executor="pibt").build()
    silent = axes.changed(world, "message_loss", 1.0)
    clear = axes.changed(world, "message_loss", 0.0)

    @jax.jit
    def seen(params, reach):
        state, _ = world.env.reset(jax.random.key(0), params)
        _, observation = world.env.coordinate(jax.random.key(1), state, world.env.plan_space.empty(), params)
        return observation.features, axes.ShortRadio(Echo()).apply((reach, 7), None, observation, None, None)

    everything, (given, whole) = seen(clear.params, jnp.float32(RADIO))
    assert given == 7 and np.array_equal(everything, whole)
    nothing = seen(silent.params, jnp.float32(RADIO))[0]
    assert np.array_equal(seen(clear.params, jnp.float32(0))[1][1], nothing)
    assert not np.array_equal(everything, nothing)
    some = np.asarray(seen(clear.params, jnp.float32(2))[1][1])[:, -HEARD * MESSAGE :].reshape(32, HEARD, MESSAGE)
    far = np.linalg.norm(some[:, :, :2] * RADIO, axis=2)
    assert 0 < far.max() <= 2.01 and np.all(some[far == 0] == 0)


def kept(settings: Settings) -> None:
    """Keep what a study of the crowd would have measured."""
    draw = np.random.default_rng(2)
    for name in CROWDS:
        own, part = of_part(name, settings), study.part_of(name, settings)

        def row(reward: float, own=own) -> dict[str, list[float]]:
            drawn = {key: draw.normal(reward, 0.1, own.test).tolist() for key in ("reward", "cost", "messages")}
            return {"success": drawn["reward"], **drawn}

        known = {key: value for key, value in study.sizes(part, own).items() if key != "plays"}
        made = {"commit": "c", "device": "d"}
        speed = {"agent_steps_per_cpu_second": 1e6, "compile_seconds": 3.0, "compile_wall_seconds": 4.0, "num_envs": 2}
        height = power(part.num_agents or 0)
        rows = {"random": row(0.0), "mesh": row(height)}
        row_of_mesh = TUNABLE["mesh"][0]
        measured = {
            "best": "mesh",
            "row": row_of_mesh,
            "tuned": own.test // 8,
            "rows": rows,
            "provenance": made,
        }
        atomic_write_json(measures.file_of(name, "references", own), {**known, **measured})
        if part.num_agents != 8:
            atomic_write_json(measures.file_of(name, "speed", own), {**speed, "provenance": made})
        log = [{"update": 20 * at, "plays": 2560 * at, "seconds": 9.0 / at} for at in (1, 2)]
        runs = [{"provenance": made, "log": log, "trained": row(2 * height)} for _ in range(part.seeds)]
        record = {**study.sizes(part, own), "system": study.described(part.systems["meta-skill"]), "runs": runs}
        atomic_write(study.record_of(name, "meta-skill", own), gzip.compress(json.dumps(record).encode()))


def test_tables_come_from_what_is_kept(tmp_path: Path) -> None:
    settings = Settings(test=64, out=tmp_path)
    kept(settings)
    tables.write(settings)
    result = json.loads((tmp_path / "scaling.json").read_text())
    assert result["command"] == "python -m jaxmas.experiments.scaling --test 64"
    found = result["families"]["crowd"]
    scores = {method: row["score"]["mean"] for method, row in found["rows"]["64"]["methods"].items()}
    assert scores["random"] == 0 and scores["best strategy"] == 1
    assert scores["meta-skill"] == pytest.approx(2, abs=0.3)
    assert found["rows"]["64"]["training"]["meta-skill"]["compile_wall_seconds"] == 4.5
    assert found["fits"]["best strategy"]["better"] == "power law"
    text = (tmp_path / "scaling.md").read_text()
    assert "| 16 | workflow-crowd-v0 | 1.00 | 3.0 | 4.0 |" in text and "| 8 | workflow-crowd-v0 | – | – | – |" in text
    assert "| 1024 | best strategy: `mesh` | – |" in text and "| 8 | meta-skill | 3 |" in text
    assert "n^b" in text and str(tmp_path) not in text
    assert (tmp_path / "scaling_crowd.png").stat().st_size < 300_000


def test_sweeps_change_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for playing earns less the more messages are lost, and the less far radios reach."""
    settings, seen = Settings(test=64, out=tmp_path, runs=tmp_path / "runs"), []

    def play(world: Any, policy: Any, keys: Any) -> dict[str, np.ndarray]:
        reach = world.executor_params[0] if isinstance(world.executor, axes.ShortRadio) else RADIO
        seen.append((world.env.family, float(world.params.message_loss), float(reach)))
        earned = np.arange(len(keys)) - 10 * float(world.params.message_loss) + float(reach)
        return {"reward": earned, "success": earned}

    monkeypatch.setattr(compare, "play", play)
    monkeypatch.setattr(tables, "SWEPT_AT", 8)
    kept(settings)
    own, part = of_part("warehouse-8", settings), study.part_of("warehouse-8", settings)
    known = {key: value for key, value in study.sizes(part, own).items() if key != "plays"}
    nearest = {"best": "nearest-first", "row": TEMPLATES["warehouse"].rows[0]}
    atomic_write_json(measures.file_of("warehouse-8", "references", own), {**known, **nearest, "tuned": own.test // 8})
    for name, sweep in 2 * (("crowd-8", axes.crowd), ("warehouse-8", axes.radio)):
        sweep(name, study.part_of(name, settings), of_part(name, settings))
    # Nobody has trained a designer, and a strategy that plans once sees no progress; the second time all is kept.
    assert (
        len(seen) == sum(map(len, (axes.CROWD[name] for name in ("message_loss", "plan_loss", "designer_noise")))) + 9
    )
    found = tables.sweeps_of(settings)
    row = found["crowd-8"]["message_loss"]["best strategy"]["0.2"]
    assert row["reward lost"]["mean"] == pytest.approx(10 * (0.2 - 0.005), rel=1e-3)
    robots = found["warehouse-8"]["radio range"]["best strategy, frozen-ippo"]
    assert (
        robots["2"]["success lost"]["mean"] == pytest.approx(RADIO - 2)
        and robots[f"{RADIO}"]["success lost"]["mean"] == 0
    )


def test_strategies_are_tuned_to_each_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same rows for all sizes, not by what was frozen for another scenario of the same shape."""
    asked = []

    def tune(world: Any, settings: Any) -> Any:
        asked.append((world.env.num_agents, settings.validation))
        return {name: rows[-1] for name, rows in TUNABLE.items()}, "mesh"

    monkeypatch.setattr(measures, "tune", tune)
    world = measures.world_of("crowd-16", CROWDS["crowd-16"])
    found: dict[str, Any] = dict(measures.strategies(world, Settings()))
    assert asked == [(16, 64)]
    assert {name: policy.meta.row for name, policy in found.items()} == {name: r[-1] for name, r in TUNABLE.items()}
    robots = measures.strategies(measures.world_of("warehouse-8", WAREHOUSES["warehouse-8"]), Settings())
    assert {"nearest-first", "congestion-aware"} <= set(robots) and "hungarian" not in robots


def test_what_is_kept_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(test=64, out=tmp_path, runs=tmp_path / "runs")
    kept(settings)
    calls = []

    def measured(name: str, part: study.Part) -> Any:
        calls.append(name)
        raise InterruptedError

    monkeypatch.setattr(measures, "world_of", measured)
    part = CROWDS["crowd-8"]
    assert measures.references("crowd-8", part, of_part("crowd-8", settings))["best"] == "mesh"
    # Nothing has been trained with few agents yet.
    assert measures.moved("crowd-8", part, of_part("crowd-8", settings)) == {} and not calls
    with pytest.raises(InterruptedError):
        measures.references("crowd-8", part, dataclasses.replace(settings, test=32))
    # What was cut is begun again, and what was kept of another size is still there.
    assert json.loads(measures.file_of("crowd-8", "references", settings).read_text())["test"] == 64
    assert calls == ["crowd-8"]


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(JaxmasError, match="unknown part 'crowd-9'"):
        main(Settings(parts=("crowd-9",)))
