"""Labels of designs, and rankings at other cost weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas import evaluation, structures
from jaxmas.algorithms.workflow_strategies import TUNABLE
from jaxmas.experiments import compare
from jaxmas.experiments.compare import Comparison, Setting
from jaxmas.plans import Plan
from jaxmas.policies import TemplatePolicy

ENV, PARAMS = jaxmas.make("workflow-mixed-v0", num_agents=6)


def plan(members: int, reads: dict[int, list[int]]) -> Plan:
    table = np.full((6, ENV.plan_space.inbox), -1)
    for reader, senders in reads.items():
        table[reader, : len(senders)] = senders
    empty = ENV.plan_space.empty()
    drawn = dataclasses.replace(empty, active=jnp.arange(6) < members, reads=jnp.asarray(table, jnp.int32))
    return ENV.plan_space.project(drawn)[0]


@pytest.mark.parametrize(
    ("members", "reads", "name"),
    [
        (1, {}, "alone"),
        (1, {0: [1]}, "alone"),  # reads of the inactive are dropped
        (4, {}, "apart"),
        (4, {0: [1, 2, 3]}, "hub"),
        (4, {0: [1], 1: [2], 2: [3]}, "forest"),
        (6, {0: [1, 2], 1: [3, 4], 2: [5]}, "forest"),
        (6, {0: [1, 2], 1: [3, 4], 2: [3]}, "sparse"),
        (3, {0: [1, 2], 1: [0, 2], 2: [0, 1]}, "dense"),
    ],
)
def test_structures_have_names(members: int, reads: dict[int, list[int]], name: str) -> None:
    assert structures.STRUCTURES[int(structures.structure(plan(members, reads)))] == name


def test_histograms_are_shares() -> None:
    keys = evaluation.query_keys("test", 64)
    row = next(row for row in TUNABLE["chain"] if row[1] == 4)
    chain = structures.histogram(ENV, PARAMS, TemplatePolicy(ENV, row), None, keys)
    drawn = structures.histogram(ENV, PARAMS, jaxmas.make_strategy("random", ENV), None, keys)
    for found in (chain, drawn):
        assert sum(found["structure"].values()) == pytest.approx(1)
        assert sum(found["members"].values()) == pytest.approx(1)
    assert chain["structure"]["forest"] == 1 and list(chain["members"]) == ["1", "2", "3–4", "5–8", "9+"]
    assert drawn["structure"]["dense"] + drawn["structure"]["sparse"] > 0.5


def test_tradeoffs_price_the_same_plays_anew() -> None:
    setting = Setting("workflow-mixed-v0", num_agents=6, executor="scripted")
    world, keys = setting.build(), evaluation.query_keys("test", 32)
    policies = {name: compare.policy_of(f"strategy:{name}", world) for name in ("single-weak", "mesh")}
    played = {name: compare.play(world, policy, keys) for name, policy in policies.items()}
    result: Comparison = compare.comparison(setting, world, played, {"single-weak": "strategy", "mesh": "learned"})
    found = compare.tradeoffs(world, result)
    dear = dataclasses.replace(world.params, reward=jax.tree.map(lambda leaf: leaf, world.params.reward))
    dear = dataclasses.replace(dear, reward=dataclasses.replace(dear.reward, cost=2 * dear.reward.cost))
    for name, policy in policies.items():
        as_played = compare.play(dataclasses.replace(world, params=dear), policy, keys)["reward"].mean()
        assert found["reward_at_cost_weight"]["2"][name] == pytest.approx(as_played, abs=1e-5)
        assert found["reward_at_cost_weight"]["1"][name] == pytest.approx(played[name]["reward"].mean(), abs=1e-6)
    assert found["hypervolume"]["all"] >= found["hypervolume"]["without_learned"] >= 0
