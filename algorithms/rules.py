"""Depth-3 rules: the best if-else on a few visible numbers, the reference that a learned designer has to beat."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rule:
    """A binary tree over features; its leaves name plans."""

    choice: int = -1
    feature: int = -1
    threshold: float = 0.0
    low: "Rule | None" = None
    high: "Rule | None" = None

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the plan chosen for each row of features ``[queries, features]``."""
        if self.low is None or self.high is None:
            return np.full(len(features), self.choice)
        below = features[:, self.feature] <= self.threshold
        return np.where(below, self.low(features), self.high(features))

    def lines(self, names: tuple[str, ...], plans: list[str], indent: str = "") -> list[str]:
        """Return the rule as readable text."""
        if self.low is None or self.high is None:
            return [f"{indent}{plans[self.choice]}"]
        head = f"{indent}if {names[self.feature]} <= {self.threshold:.3f}:"
        inner = indent + "    "
        return [head, *self.low.lines(names, plans, inner), f"{indent}else:", *self.high.lines(names, plans, inner)]


def fit_rule(
    features: np.ndarray, rewards: np.ndarray, depth: int = 3, *, cuts: int = 12, tries: int = 6, min_leaf: int = 20
) -> Rule:
    """Fit the tree that earns most on ``rewards [queries, plans]``.

    At each node the ``tries`` splits that are best with constant leaves are grown in full and the best kept; where two
    levels are left every split is tried, so that those are exact up to the places of the cuts.
    """
    if depth == 0 or len(features) < 2 * min_leaf:
        return Rule(choice=int(rewards.sum(0).argmax()))
    splits = _splits(features, rewards, cuts, min_leaf)
    if not splits:
        return Rule(choice=int(rewards.sum(0).argmax()))
    kept = {1: splits[:1], 2: splits}.get(depth, splits[:tries])
    grown = [_grow(features, rewards, split, depth, cuts, tries, min_leaf) for split in kept]
    return max(grown, key=lambda rule: _earned(rule, features, rewards))


def _splits(features, rewards, cuts: int, min_leaf: int) -> list[tuple[int, float]]:
    """Return all splits, the one whose two sides earn most with one plan each first."""
    columns = np.sort(features, axis=0).T
    wanted = np.linspace(min_leaf, len(features) - min_leaf, cuts).astype(int)
    places = [(feature, place) for feature, column in enumerate(columns) for place in _places(column, wanted, min_leaf)]
    if not places:
        return []
    feature, place = np.array(places).T
    threshold = (columns[feature, place - 1] + columns[feature, place]) / 2
    below = (features[:, feature] <= threshold).T.astype(rewards.dtype)
    low = below @ rewards
    earned = low.max(axis=1) + (rewards.sum(axis=0) - low).max(axis=1)
    scored = zip(earned.tolist(), feature.tolist(), threshold.tolist(), strict=True)
    return [(feature, threshold) for _, feature, threshold in sorted(scored, reverse=True)]


def _places(values: np.ndarray, wanted: np.ndarray, min_leaf: int) -> list[int]:
    """Return up to as many places to cut sorted values as are wanted, each moved to where a value ends."""
    ends = np.flatnonzero(values[1:] > values[:-1]) + 1
    ends = ends[(ends >= min_leaf) & (ends <= len(values) - min_leaf)]
    if len(ends) <= len(wanted):
        return ends.tolist()
    return sorted(set(ends[np.minimum(np.searchsorted(ends, wanted), len(ends) - 1)].tolist()))


def _grow(features, rewards, split: tuple[int, float], depth: int, cuts: int, tries: int, min_leaf: int) -> Rule:
    feature, threshold = split
    below = features[:, feature] <= threshold
    sides = [
        fit_rule(features[side], rewards[side], depth - 1, cuts=cuts, tries=tries, min_leaf=min_leaf)
        for side in (below, ~below)
    ]
    return Rule(feature=feature, threshold=threshold, low=sides[0], high=sides[1])


def _earned(rule: Rule, features: np.ndarray, rewards: np.ndarray) -> float:
    return float(rewards[np.arange(len(features)), rule(features)].sum())
