"""The shipped networks are as good as they are said to be: on subtasks, beside votes, and among other robots."""

import json
from importlib import resources

import jax
import jax.numpy as jnp
import pytest

import jaxmas
from jaxmas import evaluation
from jaxmas.algorithms.imitation import accuracy, sample_features
from jaxmas.environments.workflow.executors import FROZEN_LEVELS, load_frozen
from jaxmas.environments.workflow.query import MAX_PARENTS
from jaxmas.environments.workflow.scripted import exact_answer
from jaxmas.environments.workflow.votes import VOCABULARY
from jaxmas.executors import read_frozen
from jaxmas.experiments import compare

ENV, PARAMS = jaxmas.make("workflow-mixed-v0")
SINGLE = sample_features(jax.random.key(11), 16_384, PARAMS.tables, (1.0,), matched=True)
PEERS = slice((1 + MAX_PARENTS) * VOCABULARY + MAX_PARENTS, (2 + MAX_PARENTS) * VOCABULARY + MAX_PARENTS)


def measured(level: int, features) -> float:
    executor, weights = load_frozen(level, ENV, PARAMS)
    return float(accuracy(executor, weights, PARAMS.tables, features))


@pytest.mark.parametrize("level", FROZEN_LEVELS)
def test_accuracy_on_single_matched_clean_subtasks(level: int) -> None:
    assert measured(level, SINGLE) == pytest.approx(level / 100, abs=0.01)


@pytest.mark.parametrize("level", [90, 98])
def test_a_right_vote_in_sight_does_little_harm(level: int) -> None:
    """A network that takes agreement for the critic's cue to pass loses 7 to 11 points here, and voting with it."""
    right = jax.nn.one_hot(exact_answer(SINGLE, PARAMS.tables)[0], VOCABULARY)
    wrong = jnp.roll(right, 3, axis=-1)
    alone = measured(level, SINGLE)
    assert measured(level, SINGLE.at[:, PEERS].set(right)) > alone - 0.05
    assert abs(measured(level, SINGLE.at[:, PEERS].set(wrong)) - alone) < 0.02


def test_every_network_that_is_listed_is_there() -> None:
    for name in json.loads((resources.files("jaxmas") / "data" / "executors.json").read_text()):
        assert read_frozen(name)[1]["hidden"] == [64, 64]


@pytest.mark.parametrize(("scenario", "bar"), [("warehouse-small-v0", 0.65), ("warehouse-problem-v0", 0.3)])
def test_learned_robots_find_their_way(scenario: str, bar: float) -> None:
    """Greedy ones, which see the same, deliver 0.40 orders per step on the small floor, and 0.18 where they turn."""
    world = compare.Setting(scenario, executor="frozen-ippo").build()
    policy = compare.policy_of("strategy:nearest-first", world)
    assert compare.play(world, policy, evaluation.query_keys("test", 4))["throughput"].mean() > bar
