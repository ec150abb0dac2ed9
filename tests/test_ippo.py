"""Check IPPO and MAPPO: what can be learned is, what cannot is not, who values what, and runs that go on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.algorithms.imitation import accuracy, sample_features
from jaxmas.algorithms.ippo import IPPOConfig, MAPPOConfig, critic_of
from jaxmas.algorithms.ippo import _batch as batch_of
from jaxmas.checkpoints import Checkpoints
from jaxmas.cli import main
from jaxmas.decisions import collector, merge
from jaxmas.errors import JaxmasError
from jaxmas.executors import MLPExecutor, feature_size
from jaxmas.groups import play_groups
from jaxmas.policies import TemplatePolicy
from jaxmas.registry import ALGORITHMS
from jaxmas.runs import load_executor, load_policy, starting_policies
from jaxmas.training import first_state, read_log, run_updates, train

UPDATES = 60
SMALL: dict[str, Any] = {"updates": UPDATES, "queries": 64, "width": 16, "learning_rate": 1e-2}
KINDS = {"ippo": IPPOConfig, "mappo": MAPPOConfig}


def small(algorithm: str = "ippo", **settings: Any) -> IPPOConfig:
    return KINDS[algorithm](**(SMALL | settings))


def words(tree: Any) -> list[bytes]:
    return [np.array(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def learned(scenario: str, config: IPPOConfig, updates: int = UPDATES, *, role: int | None = None):
    """Return the state before and after, and the logs; with a ``role`` everyone has that one."""
    env, params = jaxmas.make(scenario)
    start = starting_policies(config, "untrained", env, params)
    if role is not None:
        start = dataclasses.replace(start, meta=TemplatePolicy(env, (role,)), meta_params=None)
    before = first_state(config, env, params, jax.random.key(0), start)
    after, logs = run_updates(config, env, params, start, before, updates)
    return before, after, {name: np.asarray(values) for name, values in logs.items()}


# --- what can be learned


@pytest.mark.parametrize(
    ("scenario", "config"),
    [
        ("signal-cue-v0", small("mappo")),
        ("signal-team-v0", small("mappo")),
        ("signal-memory-v0", small(network="gru")),
    ],
    ids=["cue", "team", "memory"],
)
def test_the_optimum_is_learned(scenario: str, config: IPPOConfig) -> None:
    _, after, logs = learned(scenario, config)
    assert logs["reward"].shape == (UPDATES,) and int(after.update) == UPDATES
    assert logs["reward"][0] < 0.7
    assert logs["reward"][-5:].mean() > 0.95
    assert (logs["kept"] == 1).all()
    assert all(np.isfinite(values).all() for values in logs.values())


@pytest.mark.parametrize("scenario", ["signal-memory-v0", "signal-context-v0"])
def test_what_is_not_seen_is_not_learned(scenario: str) -> None:
    """Who does not remember the cue, or is not told the context, is right half of the time."""
    _, _, logs = learned(scenario, small(network="mlp"))
    answers = 20 * SMALL["queries"]
    assert abs(logs["reward"][-20:].mean() - 0.5) < 4 * 0.5 / np.sqrt(answers)


def test_a_role_that_no_one_has_learns_nothing() -> None:
    config = small(per_role=True, queries=8, layers=1)
    before, after, logs = learned("signal-cue-v0", config, 2, role=1)
    change = [new - old for old, new in zip(*map(jax.tree.leaves, (before.params, after.params)), strict=True)]
    assert all(np.isfinite(leaf).all() for leaf in change)
    networks = [
        [words(leaf[role]) for leaf in jax.tree.leaves(state.params["executor"])]
        for role in (0, 1)
        for state in (before, after)
    ]
    assert networks[0] == networks[1] and networks[2] != networks[3]
    assert np.isnan(logs["role_0_reward"]).all() and (logs["role_1_reward"] > 0).all()
    assert (logs["role_1_reward"] == logs["reward"]).all()  # the team gets the mean over agents, and all act


# --- who values what


def played(config: IPPOConfig, scenario: str, **options: int):
    """Return the critic, its stirred parameters, the team observations and the decisions of a few queries."""
    env, params = jaxmas.make(scenario, **options)
    critic, executor = critic_of(config, env), config.network_of(env)
    start = starting_policies(config, "untrained", env, params)
    features = feature_size(env, params)
    collect = collector(config, executor)

    @jax.jit
    def play(key):
        keys = jax.random.split(key, 4)
        policies = dataclasses.replace(
            start, executor=executor, executor_params=executor.initial_params(keys[0], features)
        )
        steps, parts = play_groups(env, params, policies, keys[1], keys[2], config.sizes, collect=collect)
        teams = jax.tree.map(lambda leaf: leaf[:, 0, 0], steps.team)
        _, team = env.reset(keys[3], params)
        return critic.initial_params(keys[3], features, team), teams, merge(parts)

    return critic, *play(jax.random.key(0))


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_central_critic_values_each_decision_by_its_own_team(algorithm: str) -> None:
    """Change what the designer saw of one episode at one boundary: MAPPO values its decisions anew, IPPO none."""
    config = small(algorithm, queries=4, capacity=6)
    critic, weights, teams, decisions = played(config, "signal-memory-v0", coordination_interval=1)
    weights = jax.tree.map(lambda leaf: leaf + 0.1, weights)
    leaves, tree = jax.tree.flatten(teams)
    moved = [leaf.at[1, 2].set(leaf[1, 2] + 1) if leaf.dtype == jnp.float32 else leaf for leaf in leaves]
    values = jax.jit(critic.values)
    rows = decisions.rows
    before, after = (np.asarray(values(weights, rows, seen)) for seen in (teams, tree.unflatten(moved)))
    concerned = np.asarray((rows.episode == 1) & (rows.step == 2))
    assert concerned.any() and not concerned.all()
    expected = concerned if algorithm == "mappo" else np.zeros_like(concerned)
    assert ((before != after) == expected).all()


def test_own_and_team_reward_are_mixed() -> None:
    """A fresh critic says 0, and the one step of ``signal-cue`` is all: advantages are the mixed rewards."""
    config = small(queries=8)
    critic, weights, teams, decisions = played(config, "signal-cue-v0")
    rows = decisions.rows
    team = np.asarray(decisions.rewards.team).ravel()[rows.episode]
    own = np.asarray(decisions.rewards.agent).reshape(8, -1)[rows.episode, rows.agent]
    assert rows.acting[: 8 * 4].all() and set(own.ravel()) == {0, 1} and len(set(team.ravel())) > 2
    for weight in (0.0, 0.25, 1.0):
        mixed = batch_of(dataclasses.replace(config, agent_weight=weight), critic, weights, teams, decisions)
        for name in ("advantage", "target"):
            assert np.allclose(mixed[name], (1 - weight) * team + weight * own, atol=1e-6)


# --- settings and runs


@pytest.mark.parametrize("algorithm", KINDS)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"updates": 0}, "updates is 0"),
        ({"capacity": -3}, "capacity is -3"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"entropy": -0.1}, r"entropy is -0\.1"),
        ({"agent_weight": 1.5}, r"agent_weight is 1\.5"),
        ({"discount": float("nan")}, "discount is nan"),
        ({"clip": -0.1}, "clip is -0.1; it has to be at least 0"),
        ({"queries": 1, "capacity": 3}, "3 rows do not fill 4 minibatches"),
    ],
)
def test_bad_settings_are_one_line(algorithm: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(JaxmasError, match=said) as caught:
        KINDS[algorithm](**settings)
    assert "\n" not in str(caught.value)


def test_both_are_registered() -> None:
    assert {name: ALGORITHMS[name] for name in KINDS} == KINDS


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("signal-cue-v0", "ippo", small(), out=tmp_path_factory.mktemp("ippo") / "run")


def test_a_run_learns_the_optimum_and_says_so(run_dir: Path) -> None:
    rows = read_log(run_dir / "log.jsonl")
    assert [row["update"] for row in rows] == [20, 40, 60]
    assert rows[0]["reward"] < rows[-1]["reward"] and rows[-1]["reward"] > 0.95
    assert rows[-1]["plays"] == UPDATES * SMALL["queries"]


def test_a_run_goes_on_where_it_was_cut(run_dir: Path, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(row):
        raise Cut

    with pytest.raises(Cut):
        train("signal-cue-v0", "ippo", small(), out=tmp_path / "cut", report=cut)
    train("signal-cue-v0", "ippo", small(), out=tmp_path / "cut", resume=True)
    env, params = jaxmas.make("signal-cue-v0")
    shapes = jax.eval_shape(lambda: small().initial_state(env, params, jax.random.key(0)))
    whole, resumed = (Checkpoints(out).restore_latest(shapes) for out in (run_dir, tmp_path / "cut"))
    assert whole is not None and resumed is not None and whole[0] == resumed[0] == UPDATES
    assert words(whole[1].params) == words(resumed[1].params)
    assert words(whole[1].optimiser) == words(resumed[1].optimiser)


def test_a_run_brings_its_executor_and_who_planned(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env, params = jaxmas.make("signal-cue-v0")
    loaded = load_policy(str(run_dir), env, params)
    assert loaded.meta == load_policy("strategy:random", env, params).meta
    assert loaded.executor is not None and loaded.executor[0] == small().network_of(env)
    assert words(loaded.executor[1]) == words(load_executor(str(run_dir), env, params)[1])
    for options in (("--policy", str(run_dir)), ("--policy", "strategy:random", "--executor", str(run_dir))):
        assert main(["evaluate", "signal-cue-v0", *options, "--episodes", "64", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["reward"]["mean"] > 0.95
    assert main(["evaluate", "signal-cue-v0", "--policy", "strategy:random", "--episodes", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"]["mean"] < 0.5


def test_mappo_speaks_of_itself() -> None:
    with pytest.raises(JaxmasError, match="mappo: width is 0"):
        MAPPOConfig(width=0)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", KINDS)
def test_frozen_executors_learn_on(algorithm: str) -> None:
    """The network of 60 % learns single subtasks from its own reward under a strategy that never adapts."""
    env, params = jaxmas.make("workflow-mixed-v0")
    config = KINDS[algorithm](
        updates=200, queries=256, learning_rate=3e-3, plans_by="strategy:layered", agent_weight=1.0, capacity=16
    )
    start = starting_policies(config, "frozen-60", env, params)
    state = first_state(config, env, params, jax.random.key(0), start)
    single = sample_features(jax.random.key(11), 16_384, params.tables, (1.0,), matched=True)

    def right(state: Any) -> float:
        executor, weights = config.executor(env, state)
        assert isinstance(executor, MLPExecutor)
        return float(accuracy(executor, weights, params.tables, single))

    assert right(state) == pytest.approx(0.60, abs=0.01)
    assert right(run_updates(config, env, params, start, state, config.updates)[0]) > 0.90


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", KINDS)
def test_robots_learn_to_give_way(algorithm: str) -> None:
    """From scratch, seeing a window, they soon deliver more than greedy ones, which see the same: 0.4 per step."""
    env, params = jaxmas.make("warehouse-small-v0")
    config = KINDS[algorithm](
        updates=80, queries=8, capacity=1024, plans_by="strategy:nearest-first", agent_weight=1.0, discount=0.97
    )
    start = starting_policies(config, "untrained", env, params)
    _, logs = run_updates(
        config, env, params, start, first_state(config, env, params, jax.random.key(0), start), config.updates
    )
    assert logs["throughput"][:5].mean() < 0.15 and logs["throughput"][-5:].mean() > 0.5
