"""Search for one design for all queries, as a learner: an archive, who has children, and what all of them earned."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxmas.design_policies import FixedDesign, LearnedPolicy
from jaxmas.errors import refuse
from jaxmas.groups import GroupSizes, returns
from jaxmas.logs import log_plays
from jaxmas.types import MetaPolicy, TeamObservation

KEPT = 64
"""Designs in the archive of a search."""
NOT_YET = -1e6
"""The score of an empty place."""


@dataclasses.dataclass(frozen=True)
class Search:
    """Search for one design for all queries: an archive of designs, their children, and what all of them earned.

    Every update plays the best of the archive once more beside as many children of its members, all on the same
    queries. A design's score is its mean over all its plays, each corrected by how its queries suited those designs
    that had played before; its children take the places of the worst.
    """

    parents: Callable[[Float[Array, "kept"]], Float[Array, "kept"]]
    """Scores to the logits of being a parent."""
    changes: int = 1
    """Variations between parent and child."""

    def check(self, config: Any) -> None:
        """Refuse fewer than one old and one new design per update."""
        wrong = config.plans < 2 or config.plans % 2 != 0 or config.plans > KEPT
        refuse(wrong, f"{config.called}: search needs an even number of plans, of at most {KEPT}, not {config.plans}")

    def sizes(self, config: Any) -> GroupSizes:
        """Return every design on every query."""
        return GroupSizes(config.queries, config.plans)

    def begin(self, config: Any, policy: LearnedPolicy, key: PRNGKeyArray, team: TeamObservation) -> tuple[Any, Any]:
        """Return an archive of as many random designs as are played again in an update."""
        choices = jax.vmap(lambda key: policy.space.propose(key, team))(jax.random.split(key, KEPT))
        score = jnp.where(jnp.arange(KEPT) < config.plans // 2, 0.0, NOT_YET)
        return {"choice": choices, "score": score, "plays": jnp.zeros(KEPT), "noise": jnp.float32(1)}, ()

    def learn(
        self, config: Any, policy: LearnedPolicy, trial: Any, params: Any, memory: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """Play the best once more and children beside them; keep what they earned."""
        half, space = config.plans // 2, policy.space
        parent_key, vary_key = jax.random.split(trial.key)
        best = jax.lax.top_k(params["score"], half)[1]
        parents = jax.random.categorical(parent_key, self.parents(params["score"]), shape=(half,))

        def child(parent, key):
            for change in range(self.changes):
                parent = space.vary(jax.random.fold_in(key, change), parent, trial.team)
            return parent

        at = functools.partial(_rows, params["choice"])
        children = jax.vmap(child)(at(parents), jax.random.split(vary_key, half))
        tried = jax.tree.map(lambda *parts: jnp.concatenate(parts), at(best), children)
        steps = jax.vmap(lambda choice: trial.play(FixedDesign(space), choice, GroupSizes(config.queries)))(tried)
        earned = returns(steps)[:, :, 0]
        value = corrected(params, best, jnp.mean(earned, axis=1))
        before = params["plays"][best]
        score = params["score"].at[best].set((params["score"][best] * before + value[:half]) / (before + 1))
        place = jnp.argsort(score)[:half]
        params = {
            "choice": jax.tree.map(lambda old, new: old.at[place].set(new), params["choice"], children),
            "score": score.at[place].set(value[half:]),
            "plays": params["plays"].at[best].add(1).at[place].set(1.0),
            "noise": jnp.mean(jnp.std(earned, axis=1)) / jnp.sqrt(config.queries),
        }
        logs = log_plays(steps, earned) | {"best_score": jnp.max(lower_bound(params))}
        return params, memory, logs

    def deployed(self, config: Any, policy: LearnedPolicy, params: Any) -> tuple[MetaPolicy, Any]:
        """Return the design that is best for sure: by its score less the error of its mean."""
        return FixedDesign(policy.space), _rows(params["choice"], jnp.argmax(lower_bound(params)))


def _rows(tree: Any, index: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def corrected(archive: dict[str, Any], best: Array, mean: Float[Array, "plans"]) -> Float[Array, "plans"]:
    """Return what designs earned, less how much kinder these queries were to the best that had played before.

    ``mean`` has the best first.
    """
    known = archive["plays"][best] > 0
    kinder = jnp.where(known, mean[: len(best)] - archive["score"][best], 0.0)
    return mean - jnp.sum(kinder) / jnp.maximum(jnp.sum(known), 1)


def lower_bound(archive: dict[str, Any]) -> Float[Array, "kept"]:
    """Return each design's score less the standard error of a mean over so many plays."""
    plays = archive["plays"]
    return jnp.where(plays > 0, archive["score"] - archive["noise"] / jnp.sqrt(jnp.maximum(plays, 1)), NOT_YET)


def soft_mixed(
    score: Float[Array, "kept"], top: int = 4, mix: float = 0.3, sharpness: float = 20.0
) -> Float[Array, "kept"]:
    """Return log(λ / n + (1 − λ) softmax(α s)) over the best n: AFlow's soft mixed selection (arXiv 2410.10762, eq. 3).

    λ and α are those of its code, which counts scores in percent.
    """
    among = score >= jax.lax.top_k(score, top)[0][-1]
    among &= score > NOT_YET
    sharp = jax.nn.softmax(jnp.where(among, sharpness * score, -jnp.inf))
    return jnp.where(among, jnp.log(mix / jnp.maximum(jnp.sum(among), 1) + (1 - mix) * sharp), -jnp.inf)


def anyone(score: Float[Array, "kept"]) -> Float[Array, "kept"]:
    """Return equal chances for all that is in the archive."""
    return jnp.where(score > NOT_YET, 0.0, -jnp.inf)
