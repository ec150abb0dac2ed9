"""Learners of designs: how a designer improves by what its plans earned, whatever space the plans are expressed in.

Gradient learners need a space's sample, log-probability and entropy; search needs its ``propose`` and ``vary``. All of
them have one interface, ``Learner``, and are registered below; ``jaxmas.designers`` calls them once per update.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxmas.design_policies import LearnedPolicy, Teacher
from jaxmas.devices import split
from jaxmas.errors import refuse
from jaxmas.groups import GroupSizes, returns, score_designs
from jaxmas.learning import (
    against_the_others,
    clipped_surrogate,
    descend,
    falling_adam,
    gae,
    group_normalised,
    leave_one_out,
    linear,
    surrogate_loss,
)  # fmt: skip
from jaxmas.logs import log_plays
from jaxmas.registry import LEARNERS
from jaxmas.rollout import MetaStep
from jaxmas.search import Search, anyone, soft_mixed
from jaxmas.types import MetaPolicy, Scalar, TeamObservation


@runtime_checkable
class Learner(Protocol):
    """What is registered as a learner. ``config`` is a ``DesignerConfig``, ``trial`` what ``update`` gives."""

    def check(self, config: Any) -> None:
        """Refuse settings that do not fit the learner."""
        ...

    def sizes(self, config: Any) -> GroupSizes:
        """Return what is played in an update."""
        ...

    def begin(self, config: Any, policy: LearnedPolicy, key: PRNGKeyArray, team: TeamObservation) -> tuple[Any, Any]:
        """Return parameters and memory before the first update."""
        ...

    def learn(
        self, config: Any, policy: LearnedPolicy, trial: Any, params: Any, memory: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """Return parameters and memory after an update, and what is logged."""
        ...

    def deployed(self, config: Any, policy: LearnedPolicy, params: Any) -> tuple[MetaPolicy, Any]:
        """Return the meta-policy that has been learned, and its parameters."""
        ...


def optimiser(config: Any, steps_per_update: int) -> optax.GradientTransformation:
    """Return Adam with clipped gradients and a learning rate that falls to a tenth over the run."""
    return falling_adam(config.learning_rate, config.updates * steps_per_update, config.max_gradient)


def entropy_weight(config: Any, progress: Float[Array, ""]) -> Float[Array, ""]:
    """Return the weight of the entropy so far into the run."""
    return linear(config.entropy, config.final_entropy, progress)


class OnNetwork:
    """What learners of a network's weights share: they begin with fresh ones and deploy them."""

    def check(self, config: Any) -> None:
        """Accept all settings."""

    def sizes(self, config: Any) -> GroupSizes:
        """Return several plans of every query."""
        return GroupSizes(config.queries, config.plans, shared_noise=config.shared_noise)

    def steps(self, config: Any) -> int:
        """Return the optimiser's steps per update."""
        return config.epochs

    def begin(self, config: Any, policy: LearnedPolicy, key: PRNGKeyArray, team: TeamObservation) -> tuple[Any, Any]:
        """Return fresh weights and the optimiser's state."""
        weights = policy.initial_params(key, team)
        return weights, optimiser(config, self.steps(config)).init(weights)

    def deployed(self, config: Any, policy: LearnedPolicy, params: Any) -> tuple[MetaPolicy, Any]:
        """Return the policy with its weights."""
        return policy, params


@dataclasses.dataclass(frozen=True)
class PolicyGradient(OnNetwork):
    """Follow the policy gradient of what the plans of each query earned, against a baseline."""

    advantage: Callable[[Float[Array, "queries plans"]], Float[Array, "queries plans"]]
    clipped: bool = True
    """Several clipped passes over the batch; else one plain one."""

    def check(self, config: Any) -> None:
        """Refuse groups of one where plans are compared."""
        alone = self.clipped and config.plans < 2
        refuse(alone, f"{config.called}: the {config.learner} learner needs plans of at least 2")

    def steps(self, config: Any) -> int:
        """Return the passes over a batch."""
        return config.epochs if self.clipped else 1

    def learn(
        self, config: Any, policy: LearnedPolicy, trial: Any, params: Any, memory: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """Play every plan of every query, and follow the surrogate of their advantages."""
        steps = trial.play(policy, params)
        weight = entropy_weight(config, trial.progress)
        params, memory, report = self.follow(config, policy, params, memory, steps, weight)
        return params, memory, log_plays(steps, jnp.sum(steps.reward, axis=-1)) | report

    def follow(
        self, config: Any, policy: LearnedPolicy, params: Any, memory: Any, steps: MetaStep, weight: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """Take the steps of an update; the first follows Σ A ∇log π, whatever the clip."""
        advantage = jnp.broadcast_to(self.advantage(returns(steps))[..., None], steps.reward.shape)
        loss = surrogate_loss(
            lambda weights: score_designs(policy, weights, steps), steps.info["log_prob"], advantage, steps.steps > 0,
            clip=config.clip, entropy_weight=weight,
        )  # fmt: skip
        count = self.steps(config)
        return descend(loss, optimiser(config, count), params, memory, count)


def no_baseline(earned: Float[Array, "queries plans"]) -> Float[Array, "queries plans"]:
    """Return what was earned, as it is (Williams 1992)."""
    return earned


def batch_baseline(earned: Float[Array, "queries plans"]) -> Float[Array, "queries plans"]:
    """Return what was earned less the mean of all others of the batch, those of other queries included."""
    return leave_one_out(earned.reshape(-1)).reshape(earned.shape)


class PPO(OnNetwork):
    """Follow the clipped surrogate of generalised advantages, with a value network, over minibatches."""

    def check(self, config: Any) -> None:
        """Refuse minibatches that do not divide the batch."""
        batch = config.queries * config.plans
        refuse(
            batch % config.minibatches != 0,
            f"{config.called}: {batch} plans per update do not divide into {config.minibatches} minibatches",
        )

    def sizes(self, config: Any) -> GroupSizes:
        """Return one plan of every query."""
        return GroupSizes(config.queries * config.plans)

    def steps(self, config: Any) -> int:
        """Return the minibatches of an update."""
        return config.epochs * config.minibatches

    def learn(
        self, config: Any, policy: LearnedPolicy, trial: Any, params: Any, memory: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """Play, estimate advantages over plan boundaries, and take the minibatch steps of several passes."""
        steps = trial.play(policy, params)
        batch, size = self._batch(config, policy, params, steps), steps.reward.size
        step = functools.partial(self._step, config, policy, entropy_weight(config, trial.progress))

        def epoch(carry, key):
            order = jax.random.permutation(key, size).reshape(config.minibatches, -1)
            parts = jax.tree.map(lambda leaf: leaf[order], batch)
            return jax.lax.scan(step, carry, parts)

        carry, spread = jax.lax.scan(epoch, (params, memory), jax.random.split(trial.key, config.epochs))
        return *carry, log_plays(steps, jnp.sum(steps.reward, axis=-1)) | {"entropy": jnp.mean(spread)}

    def _batch(self, config: Any, policy: LearnedPolicy, params: Any, steps: MetaStep) -> dict[str, Any]:
        """Return one row per decision."""
        rows = jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), steps)
        last = jax.tree.map(lambda leaf: leaf[:, -1], rows)
        value = functools.partial(policy.score, params)
        bootstrap = jax.vmap(value)(last.next_team, last.info["choice"])[2]
        values = rows.info["value"]
        following = jnp.concatenate([values[:, 1:], bootstrap[:, None]], axis=1)
        going_on = 1.0 - (rows.terminated | rows.truncated)
        advantages = jax.vmap(functools.partial(gae, trace=config.trace))(
            rows.reward, rows.discount, values, following, going_on
        )
        batch = {
            "team": rows.team,
            "choice": rows.info["choice"],
            "old": rows.info["log_prob"],
            "advantage": advantages,
            "target": advantages + values,
            "live": (rows.steps > 0).astype(jnp.float32),
        }
        return jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), batch)

    def _step(self, config: Any, policy: LearnedPolicy, weight: Any, carry: tuple, part: dict[str, Any]):
        """Take one minibatch step of −surrogate + value error − entropy."""
        (weights, moments), part = carry, split(part)
        live, count = part["live"], jnp.maximum(jnp.sum(part["live"]), 1)
        mean = jnp.sum(part["advantage"] * live) / count
        deviation = jnp.sqrt(jnp.sum(live * (part["advantage"] - mean) ** 2) / count)
        advantage = (part["advantage"] - mean) / (deviation + 1e-6)

        def loss(weights):
            log_prob, entropy, value = jax.vmap(functools.partial(policy.score, weights))(part["team"], part["choice"])
            surrogate = clipped_surrogate(log_prob - part["old"], advantage, config.clip)
            error = 0.5 * (value - part["target"]) ** 2
            total = surrogate + config.value_weight * error - weight * entropy
            return jnp.sum(live * total) / count, jnp.sum(live * entropy) / count

        (_, spread), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
        change, moments = optimiser(config, self.steps(config)).update(gradient, moments)
        return (optax.apply_updates(weights, change), moments), spread


class Evolution(OnNetwork):
    """Evolution strategies: a population of weights around the mean, in mirrored pairs, on the same queries.

    ∇ ≈ (1 / 2nσ) Σ_i (R(θ + σε_i) − R(θ − σε_i)) ε_i with centred ranks for R (Salimans et al. 2017, arXiv 1703.03864).
    """

    def check(self, config: Any) -> None:
        """Refuse populations that are no pairs."""
        odd = config.plans % 2 != 0
        refuse(odd, f"{config.called}: plans is {config.plans}; evolution needs an even number, pairs of weights")

    def steps(self, config: Any) -> int:
        """Return one: the mean moves once per update."""
        return 1

    def learn(
        self, config: Any, policy: LearnedPolicy, trial: Any, params: Any, memory: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """Play the queries with every member's weights, and move the mean towards those that earned more."""
        pairs = config.plans // 2
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(trial.key, len(leaves))
        draws = [jax.random.normal(key, (pairs, *leaf.shape)) for key, leaf in zip(keys, leaves, strict=True)]
        noise = jax.tree.unflatten(tree, draws)
        members = jax.tree.map(
            lambda leaf, noise: leaf + config.deviation * jnp.concatenate([noise, -noise]), params, noise
        )
        steps = jax.vmap(lambda member: trial.play(policy, member, GroupSizes(config.queries)))(members)
        earned = jnp.mean(returns(steps), axis=(1, 2))
        # Centred ranks, from -1/2 to 1/2; equals share theirs.
        rank = jnp.sum(jnp.sign(earned[:, None] - earned[None, :]), axis=1) / (2 * (config.plans - 1))
        worth = (rank[:pairs] - rank[pairs:]) / (config.plans * config.deviation)
        gradient = jax.tree.map(lambda noise: -jnp.tensordot(worth, noise, 1), noise)
        change, memory = optimiser(config, 1).update(gradient, memory)
        logs = log_plays(steps, jnp.sum(steps.reward, axis=-1)) | {"best_member": jnp.max(earned)}
        return optax.apply_updates(params, change), memory, logs


class Distillation(OnNetwork):
    """Imitate a teacher that searches: of the designs tried on a query, likelier those that earned more.

    About half of them are proposed at random, the others by the pupil itself, so that the teacher grows with it. Within
    a query they are imitated in proportion to w_i ∝ exp(r_i / temperature) (reward-weighted regression, Peters and
    Schaal 2007).
    """

    def check(self, config: Any) -> None:
        """Refuse a teacher without a choice."""
        refuse(config.plans < 2, f"{config.called}: distil compares designs; it needs plans of at least 2")

    def learn(
        self, config: Any, policy: LearnedPolicy, trial: Any, params: Any, memory: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """Try designs, and raise the probability of the good ones."""
        steps = trial.play(Teacher(policy), (params, 0.5))
        weight, teacher = imitated(steps, config.temperature)

        def loss(weights):
            log_prob, entropy = score_designs(policy, weights, steps)
            return imitation(weight, log_prob), {"entropy": jnp.mean(entropy)}

        params, memory, report = descend(loss, optimiser(config, config.epochs), params, memory, config.epochs)
        return params, memory, log_plays(steps, returns(steps)) | report | {"teacher": teacher}


def imitated(steps: MetaStep, temperature: Scalar) -> tuple[Float[Array, "queries plans boundaries"], Float[Array, ""]]:
    """Return in what proportion the decisions of a query's plans are imitated, and what that earns."""
    earned = returns(steps)
    share = jax.nn.softmax(earned / temperature, axis=1)
    return share[..., None] * (steps.steps > 0), jnp.mean(jnp.sum(share * earned, axis=1))


def imitation(weight: Float[Array, "queries *s"], log_prob: Float[Array, "queries *s"]) -> Float[Array, ""]:
    """Return −Σ w log π, the mean over queries."""
    return -jnp.sum(weight * log_prob) / len(weight)


for _name, _learner, _summary in (
    ("group", PolicyGradient(against_the_others), "several plans per query, each against the others of its query"),
    ("ppo", PPO(), "a value network, generalised advantages over plan boundaries, clipped epochs"),
    ("grpo", PolicyGradient(group_normalised), "several plans per query, against their mean, over their own spread"),
    ("reinforce", PolicyGradient(no_baseline, clipped=False), "the plain policy gradient, without a baseline"),
    ("reinforce-baseline", PolicyGradient(batch_baseline, clipped=False), "the same against the mean of the batch"),
    ("evolution", Evolution(), "evolution strategies on the network's weights, in mirrored pairs"),
    ("distil", Distillation(), "imitation of a teacher that tries designs on every query"),
    ("mcts", Search(soft_mixed), "search for one design: children of the best few, softly mixed (AFlow)"),
    ("archive", Search(anyone, changes=2), "search for one design: children of any design kept (ADAS)"),
):
    LEARNERS.add(_name, _learner, _summary)
