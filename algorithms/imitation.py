"""Imitation: train the small executors that ship with the package on the scripted rule.

Inputs are drawn from everything that an agent can see (skills, roles, tiers, any number of parents), labels are the
rule's. Training stops where the network answers single subtasks of its own skill, seen cleanly, with the wanted
accuracy: it is then unsure more than wrong, and since answers are sampled, most of its mistakes are chance.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxmas.environments.workflow.observe import feature_size
from jaxmas.environments.workflow.query import MAX_PARENTS
from jaxmas.environments.workflow.scripted import PASS, exact_answer
from jaxmas.environments.workflow.votes import VOCABULARY
from jaxmas.executors import MLPExecutor

PARENT_COUNTS = (0.01, 0.05, 0.2, 0.74)
"""How often a training input has 0, 1, 2, 3 parents: the harder the more, so that all are learned at one pace."""

CRITIC_SHARE = 2
"""How many more of eight training inputs are a critic's than any other role's: it has a cue more to learn."""


@dataclasses.dataclass(frozen=True)
class ImitationConfig:
    """Settings of the imitation run."""

    batch: int = 1024
    learning_rate: float = 2e-3
    max_steps: int = 20_000
    check_every: int = 5


def sample_features(
    key: PRNGKeyArray,
    batch: int,
    tables: Int[Array, "skills 8"],
    parent_counts: tuple[float, ...] = PARENT_COUNTS,
    matched: bool = False,
) -> Float[Array, "batch features"]:
    """Draw what agents may see; ``matched`` draws a specialist's first look at a subtask of its skill.

    What a critic's peers voted is right half of the time, so that it learns both to pass and to object. What the
    others' peers voted is right only a little more often than chance: an executor that could copy would never learn
    to work, and one that never saw agreement would take it for the critic's cue.
    """
    keys = jax.random.split(key, 9)
    one_hot = functools.partial(jax.nn.one_hot, dtype=jnp.float32)
    skills = len(tables)
    skill = jax.random.randint(keys[0], (batch,), 0, skills)
    operand = one_hot(jax.random.randint(keys[1], (batch,), 0, VOCABULARY), VOCABULARY)
    count = jax.random.choice(keys[2], len(parent_counts), (batch, 1), p=jnp.array(parent_counts))
    token = jax.random.randint(keys[3], (batch, MAX_PARENTS), 0, VOCABULARY)
    present = jnp.arange(MAX_PARENTS) < count
    parents = one_hot(jnp.where(present, token, -1), VOCABULARY).reshape(batch, -1)
    support = present * jax.random.uniform(keys[4], (batch, MAX_PARENTS), minval=0.3)
    role = jnp.where(matched, skill, jax.random.randint(keys[5], (batch,), 0, skills + 2 + CRITIC_SHARE))
    role = jnp.minimum(role, skills + 1)
    tier = jax.random.uniform(jax.random.fold_in(key, 8), (batch, 1))
    known = (operand, parents, support), (one_hot(skill, skills), one_hot(role, skills + 3), tier)
    blind = jnp.concatenate([*known[0], jnp.zeros((batch, VOCABULARY)), *known[1]], axis=-1)
    hint = jnp.where(role == skills + 1, 0.5, 0.1)
    agreed = jax.random.bernoulli(keys[8], hint)[:, None]
    right = one_hot(exact_answer(blind, tables)[0], VOCABULARY)
    peers = jax.nn.softmax(4 * jax.random.normal(keys[6], (batch, VOCABULARY)) + 8 * agreed * right)
    seen = jax.random.bernoulli(keys[7], 0.6, (batch, 1)) & (not matched)
    features = jnp.concatenate([*known[0], peers * seen, *known[1]], axis=-1)
    assert features.shape[-1] == feature_size(skills)
    return features


def accuracy(
    executor: MLPExecutor, params: Any, tables: Int[Array, "skills 8"], features: Float[Array, "b f"]
) -> Array:
    """Return the chance that a sampled action is the rule's."""
    answer, agrees = exact_answer(features, tables)
    label = jnp.where(agrees, PASS, answer)
    probs = jax.nn.softmax(executor.logits(params, features))
    return jnp.mean(jnp.take_along_axis(probs, label[:, None], axis=-1))


def imitate(
    key: PRNGKeyArray,
    executor: MLPExecutor,
    tables: Int[Array, "skills 8"],
    targets: tuple[float, ...],
    config: ImitationConfig = ImitationConfig(),
) -> dict[float, tuple[Any, float]]:
    """Train once; for each target keep the parameters whose accuracy on single, clean, matched subtasks is nearest."""
    init_key, test_key, train_key = jax.random.split(key, 3)
    params = executor.network.init(init_key, jnp.zeros((1, feature_size(len(tables)))))
    optimiser = optax.adam(config.learning_rate)
    test = sample_features(test_key, 4096, tables, parent_counts=(1.0,), matched=True)

    def loss(params, features):
        answer, agrees = exact_answer(features, tables)
        logits = executor.logits(params, features)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(agrees, PASS, answer)).mean()

    def update(carry, key):
        params, state = carry
        gradient = jax.grad(loss)(params, sample_features(key, config.batch, tables))
        change, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, change), state), None

    @jax.jit
    def chunk(carry, key):
        carry, _ = jax.lax.scan(update, carry, jax.random.split(key, config.check_every))
        return carry, accuracy(executor, carry[0], tables, test)

    carry = params, optimiser.init(params)
    best: dict[float, tuple[Any, float]] = {}
    for step in range(config.max_steps // config.check_every):
        carry, measured = chunk(carry, jax.random.fold_in(train_key, step))
        for target in targets:
            if target not in best or abs(float(measured) - target) < abs(best[target][1] - target):
                best[target] = (carry[0], float(measured))
        if float(measured) > max(targets) + 0.005:
            break
    return best
