"""References that look at many outcomes: the best fixed plan, the best few, the best rule, the bracketed oracle.

They are no policies: they live beside the evaluator, choose on one set of outcomes and are scored on another.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmas.algorithms.rules import Rule, fit_rule
from jaxmas.evaluation import team_observations
from jaxmas.registry import TEMPLATES
from jaxmas.statistics import Estimate, hierarchical_bootstrap


def take_rows(table: Any, rows: np.ndarray) -> Any:
    """Return some rows of a table."""
    return jax.tree.map(lambda column: column[rows], table)


def global_features(env: Any, params: Any, keys: Any) -> np.ndarray:
    """Return the few visible numbers of every query ``[queries, features]``."""
    return np.asarray(team_observations(env, params, keys).global_features)


class FittedRule(NamedTuple):
    """A rule, and the template rows that its leaves name."""

    rule: Rule
    rows: np.ndarray

    def taken(self, features: np.ndarray) -> np.ndarray:
        """Return the template row that the rule takes for each query."""
        return self.rows[self.rule(features)]

    def lines(self, env: Any) -> list[str]:
        """Return the rule as readable text."""
        templates = TEMPLATES[env.family]
        names = getattr(env, "global_feature_names", tuple(f"feature {index}" for index in range(64)))
        return self.rule.lines(names, [templates.describe(templates.rows[row]) for row in self.rows])


def best_rule(features: np.ndarray, rewards: np.ndarray) -> FittedRule:
    """Fit the best rule of depth up to 3, with rows of ``rewards`` as its plans.

    ``rewards`` is ``[plans, queries]``. How deep a rule and how many candidate plans the data can bear is chosen by
    two-fold cross-validation, so that the rule is no weaker than a shallower one.
    """
    even = np.arange(rewards.shape[1]) % 2 == 0

    def held_out(depth: int, candidates: int) -> float:
        earned = 0.0
        for train in (even, ~even):
            kept = portfolio(features[train], rewards[:, train], candidates)
            rule = fit_rule(features[train], rewards[kept][:, train].T, depth, min_leaf=_leaf(int(train.sum())))
            rows = kept[rule(features[~train])]
            earned += float(rewards[:, ~train][rows, np.arange((~train).sum())].sum())
        return earned

    depth, candidates = max(((d, c) for d in (1, 2, 3) for c in (4, 12, 40)), key=lambda pair: held_out(*pair))
    kept = portfolio(features, rewards, candidates)
    return FittedRule(fit_rule(features, rewards[kept].T, depth, min_leaf=_leaf(len(features))), kept)


def _leaf(queries: int) -> int:
    return max(16, int(queries) // 24)


def portfolio(features: np.ndarray, rewards: np.ndarray, size: int) -> np.ndarray:
    """Return up to ``size`` plans that are best on average over some group of like queries.

    Groups are the thirds of every feature and their pairwise intersections; the plans that win the most come first,
    after the best overall.
    """
    thirds = []
    for column in features.T:
        low, high = np.quantile(column, [1 / 3, 2 / 3])
        thirds.append((column <= low, (column >= low) & (column <= high), column >= high))
    groups = [group for feature in thirds for group in feature]
    groups += [a & b for i, one in enumerate(thirds) for other in thirds[i + 1 :] for a in one for b in other]
    wins = np.zeros(len(rewards))
    for group in groups:
        if group.sum() >= 16:
            wins[rewards[:, group].mean(axis=1).argmax()] += group.sum()
    wins[rewards.mean(axis=1).argmax()] = np.inf
    order = np.argsort(-wins, kind="stable")[:size]
    return order[wins[order] > 0]


def best_few(rewards: np.ndarray, count: int) -> list[int]:
    """Return ``count`` plans whose per-query best earns most, chosen greedily; ``rewards`` is ``[plans, queries]``."""
    chosen: list[int] = []
    covered = np.full(rewards.shape[1], -np.inf)
    for _ in range(count):
        gains = np.maximum(rewards, covered).mean(axis=1)
        chosen.append(int(gains.argmax()))
        covered = np.maximum(covered, rewards[chosen[-1]])
    return chosen


@dataclasses.dataclass(frozen=True)
class Bracket:
    """What choosing the best plan per query is worth: a lower and an upper bound, and outcomes per query."""

    low: Estimate
    high: Estimate
    low_values: np.ndarray
    best: np.ndarray
    """The row chosen for each query."""

    def to_json(self) -> dict[str, Any]:
        """Return both bounds."""
        return {"low": self.low.to_json(), "high": self.high.to_json()}


def oracle(
    play: Callable[[np.ndarray, range], np.ndarray],
    rows: np.ndarray,
    num_queries: int,
    *,
    rounds: tuple[int, ...] = (24, 48, 96),
    final: int = 192,
    keep: float = 0.35,
) -> Bracket:
    """Bracket the best plan per query by racing.

    ``play(index, replicates)`` plays row ``index[i, q]`` for query q and returns rewards ``[replicates, i, q]``. Each
    round drops, per query, all but the best share of the plans; the final plays the survivors on fresh noise, in two
    halves. ``low`` chooses on everything but one half and is scored on that half; ``high`` chooses and is scored on
    the same outcomes.
    """
    index = np.repeat(rows[:, None], num_queries, axis=1)
    total, count, start = np.zeros(index.shape), 0, 0
    for replicates in rounds:
        total, count = total + play(index, range(start, start + replicates)).sum(axis=0), count + replicates
        start += replicates
        best = np.argsort(-total, axis=0, kind="stable")[: max(3, int(np.ceil(keep * len(index))))]
        index, total = (np.take_along_axis(values, best, axis=0) for values in (index, total))
    fresh = play(index, range(start, start + final))
    halves = [fresh[half::2].sum(axis=0) for half in (0, 1)]
    each = np.arange(num_queries)
    scored = [halves[1 - half][(total + halves[half]).argmax(axis=0), each] / (final // 2) for half in (0, 1)]
    low = (scored[0] + scored[1]) / 2
    whole = (total + halves[0] + halves[1]) / (count + final)
    best = index[whole.argmax(axis=0), each]
    return Bracket(hierarchical_bootstrap(low[None]), hierarchical_bootstrap(whole.max(axis=0)[None]), low, best)
