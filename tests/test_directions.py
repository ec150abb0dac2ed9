"""Check that what studies of agent teams report comes out by itself (statistical; paired queries, fixed keys).

The world is that of ``workflow-mixed-v0`` with numbers of its own, so that tuning the scenario changes nothing here.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmas
from jaxmas.algorithms import workflow_plans as grammar
from jaxmas.environments.workflow.query import SHAPES
from jaxmas.environments.workflow.scripted import ScriptedExecutor
from jaxmas.environments.workflow.workflow import Workflow
from jaxmas.policies import TemplatePolicy
from jaxmas.rollout import Policies, begin, play_query

ENV = Workflow(num_agents=8, max_subtasks=8)
QUERIES = 2048
SIGMAS = 5.0
MEMBERS = 7


def world(shape: str, **changes: Any):
    """Return six to eight subtasks of one shape; all roles and tiers are alike, so that only who reads whom matters."""
    _, params = jaxmas.make("workflow-mixed-v0", num_agents=ENV.num_agents)
    mix: dict[str, Any] = {
        "shape_weights": np.eye(len(SHAPES))[SHAPES.index(shape)],
        "size": (0.75, 1.0),
        "width": 0,
        "difficulty": 0.1,
        "difficulty_spread": 0,
        "rho": 0,
        "distractor": 0,
        "handoff_noise": 0.1,
        "slack": 4,
    }
    own: dict[str, Any] = {
        "tier_noise": 1,
        "tier_cost": 1,
        "mismatch": 1,
        "ability": 1,
        "faulty": 0,
        "adversarial": 0,
        "context_load": 0.05,
        "max_noise": 0.9,
        "read_cost": 0.2,
        "message_loss": 0,
        "plan_cost": 0,
        "change_cost": 0,
        "plan_loss": 0,
        "designer_noise": 0,
    }
    for name, value in changes.items():
        (mix if name in mix else own)[name] = value

    def set_to(tree: Any, values: dict[str, Any]) -> Any:
        arrays = {
            name: jnp.broadcast_to(jnp.asarray(value, jnp.float32), jnp.shape(getattr(tree, name)))
            for name, value in values.items()
        }
        return dataclasses.replace(tree, **arrays)

    return set_to(dataclasses.replace(params, mix=set_to(params.mix, mix)), own)


@jax.jit
def _play(keys, params, row):
    """Play every query under one row of the grammar; the row and the world's numbers are arguments: one compile."""

    def one(key):
        executor = {"tables": params.tables, "error": jnp.float32(0.02)}
        policies = Policies(TemplatePolicy(ENV), row, ScriptedExecutor(), executor)
        begin_key, play_key = jax.random.split(key)
        return play_query(ENV, params, policies, begin(ENV, params, policies, begin_key), play_key)[1].metrics

    return jax.tree.map(lambda values: values[:, -1], jax.vmap(one)(keys))


def play(params, row: grammar.Template) -> dict[str, np.ndarray]:
    """Return the final metrics of the same queries, whatever the row."""
    return jax.tree.map(np.asarray, _play(jax.random.split(jax.random.key(0), QUERIES), params, row))


def surely(difference: np.ndarray, margin: float = 0.0) -> bool:
    """Return whether a paired difference is above a margin by several standard errors."""
    return bool(difference.mean() - margin > SIGMAS * difference.std() / np.sqrt(len(difference)))


SINGLE = grammar.template()
SPLIT = grammar.template("graph", 1, "generalist", "middle", "assigned")


# --- splitting the work


@pytest.mark.parametrize("slack", [0, 4])
def test_sequential_queries_lose_from_splitting(slack: int) -> None:
    """Every hand-over of a chain can garble an answer; there is nothing to do side by side."""
    params = world("chain", slack=slack)
    single, split = play(params, SINGLE), play(params, SPLIT)
    assert surely(single["success"] - split["success"], 0.03)
    assert surely(split["cost"] - single["cost"])
    assert (split["latency"] >= single["latency"]).all()


@pytest.mark.parametrize("shape", ["wide", "tree"])
def test_decomposable_queries_gain_under_tight_deadlines(shape: str) -> None:
    params = world(shape, slack=0)
    single, split = play(params, SINGLE), play(params, SPLIT)
    assert surely(split["success"] - single["success"], 0.1)


@pytest.mark.parametrize("shape", ["wide", "tree"])
def test_it_is_the_deadline_that_makes_splitting_pay(shape: str) -> None:
    """With time enough the one agent with a memory does better on the same queries, at less cost."""
    params = world(shape, slack=8)
    single, split = play(params, SINGLE), play(params, SPLIT)
    assert surely(single["success"] - split["success"], 0.03)
    assert surely(split["cost"] - single["cost"])
    assert surely(single["latency"] - split["latency"])


def test_without_hand_off_noise_splitting_loses_nothing() -> None:
    """The control: the loss above comes from passing results on."""
    params = world("chain", handoff_noise=0, context_load=0)
    single, split = play(params, SINGLE), play(params, SPLIT)
    difference = single["success"] - split["success"]
    assert abs(difference.mean()) < 4 * max(difference.std(), 0.05) / np.sqrt(QUERIES)


# --- how densely a team reads


def test_a_mesh_costs_more_than_a_sparse_random_graph_at_like_success() -> None:
    params = world("random", difficulty=0.001, handoff_noise=0.001)
    mesh, sparse = (play(params, grammar.template(name, 8)) for name in ("mesh", "random"))
    assert min(mesh["success"].mean(), sparse["success"].mean()) > 0.8
    assert abs(mesh["success"].mean() - sparse["success"].mean()) < 0.08
    assert mesh["cost"].mean() > 1.25 * sparse["cost"].mean()
    assert surely(mesh["cost"] - sparse["cost"])
    assert mesh["messages"].mean() > 1.5 * sparse["messages"].mean()


# --- one faulty agent


def losses(shape: str, row: grammar.Template) -> tuple[float, np.ndarray]:
    """Return the success of a sound team, and the loss per query when one member is faulty, averaged over who it is."""
    params = world(shape, difficulty=0.05, handoff_noise=0.02)
    sound = play(params, row)["success"]
    spoilt = [play(dataclasses.replace(params, faulty=params.faulty.at[k].set(1)), row) for k in range(MEMBERS)]
    return float(sound.mean()), sound - np.mean([one["success"] for one in spoilt], axis=0)


@pytest.mark.parametrize("shape", ["single", "chain", "wide", "tree"])
def test_hierarchy_with_votes_suffers_less_from_a_faulty_agent_than_a_chain(shape: str) -> None:
    """The same seven members; what is lost is taken relative to what the sound team achieves, as in the studies."""
    chain, chain_loss = losses(shape, grammar.template("chain", MEMBERS))
    tree, tree_loss = losses(shape, grammar.template("tree", MEMBERS, quorum=3))
    assert chain_loss.mean() > 0.05  # a faulty member is felt
    assert surely(chain_loss / chain - tree_loss / tree)
    assert tree > chain
