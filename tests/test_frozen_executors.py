"""The shipped networks are as accurate as their names say, and hold their ground beside votes."""

import jax
import jax.numpy as jnp
import pytest

import jaxmas
from jaxmas.algorithms.imitation import accuracy, sample_features
from jaxmas.environments.workflow.executors import FROZEN_LEVELS, load_frozen
from jaxmas.environments.workflow.query import MAX_PARENTS
from jaxmas.environments.workflow.scripted import exact_answer
from jaxmas.environments.workflow.votes import VOCABULARY

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
