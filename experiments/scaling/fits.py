"""Which law a curve over the number of agents follows: a logistic or a power law, each with a level of its own.

Both are y = c + h · g(n). For each shape of g on a grid, c and h are those of least squares; the grid has no starting
point to choose, never diverges, and fits all resamples of a bootstrap in one product.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxmas.statistics import bootstrap_means

Values = Float[np.ndarray, "resamples sizes"]
SURE = 0.95
"""Share of the resamples in which the better law has to be better."""


@dataclasses.dataclass(frozen=True)
class Law:
    """A family of curves over the number of agents."""

    formula: str
    names: tuple[str, ...]
    """Of the numbers that give g its shape."""
    shapes: Float[np.ndarray, "grid numbers"]
    curve: Callable[..., Float[np.ndarray, "grid sizes"]]
    """g, of the number of agents and the numbers that give it its shape."""

    def curves(self, agents: Sequence[int]) -> Float[np.ndarray, "grid sizes"]:
        """Return g at so many agents for every shape of the grid."""
        return self.curve(np.array(agents, float), *self.shapes.T[:, :, None])

    def fit(self, agents: Sequence[int], values: Values) -> Float[np.ndarray, "resamples numbers"]:
        """Return the shape, the level c and the height h of the best fit to every row of values."""
        curves = self.curves(agents)
        level = curves.mean(axis=1)
        spread = np.maximum(np.linalg.norm(curves - level[:, None], axis=1), 1e-12)
        unit, mean = (curves - level[:, None]) / spread[:, None], values.mean(axis=1)
        match = (values - mean[:, None]) @ unit.T
        best = np.argmax(match**2, axis=1)
        height = match[np.arange(len(values)), best] / spread[best]
        return np.column_stack([self.shapes[best], mean - height * level[best], height])

    def at(self, numbers: Float[np.ndarray, "resamples numbers"], agents: Sequence[int]) -> Values:
        """Return fitted curves at so many agents."""
        shape, (level, height) = numbers[:, :-2], numbers[:, -2:].T[:, :, None]
        return level + height * self.curve(np.array(agents, float), *shape.T[:, :, None])

    def left_out(self, agents: Sequence[int], values: Values) -> Float[np.ndarray, "resamples"]:
        """Return the root mean square error at each size of the curve that was fitted to the others."""
        errors = []
        for index, size in enumerate(agents):
            rest = [other for other in range(len(agents)) if other != index]
            numbers = self.fit([agents[other] for other in rest], values[:, rest])
            errors.append(values[:, index] - self.at(numbers, [size])[:, 0])
        return np.sqrt(np.mean(np.square(errors), axis=0))


def _logistic(agents: Any, midpoint: Any, width: Any) -> Any:
    return 1 / (1 + np.exp((midpoint - np.log2(agents)) / width))


def _power(agents: Any, exponent: Any) -> Any:
    return agents**exponent


def laws(agents: Sequence[int]) -> dict[str, Law]:
    """Return the laws; a logistic has its middle between the smallest and the largest number of agents."""
    middles = np.linspace(np.log2(min(agents)), np.log2(max(agents)), 57)
    widths = np.geomspace(0.25, 4.0, 33)
    exponents = np.concatenate([np.arange(-300, 0), np.arange(1, 201)]) / 100
    return {
        "logistic": Law(
            "c + h / (1 + exp((m - log2 n) / w))",
            ("midpoint m, log2 agents", "width w, doublings"),
            np.array(list(itertools.product(middles, widths))),
            _logistic,
        ),
        "power law": Law("c + h n^b", ("exponent b",), exponents[:, None], _power),
    }


def compared(agents: Sequence[int], outcomes: Sequence[np.ndarray], *, same_runs: bool = False) -> dict[str, Any]:
    """Fit both laws to the means of outcomes ``[runs, queries]``, one per size; name the better by leave-one-size-out.

    Intervals are those of ``hierarchical_bootstrap``, size by size; ``same_runs`` says that the runs at every size are
    the same ones, which are then resampled together.
    """
    seeds = [0 if same_runs else index for index in range(len(agents))]
    drawn = [bootstrap_means(values, seed=seed) for values, seed in zip(outcomes, seeds, strict=True)]
    # The point comes first.
    values = np.vstack([[np.mean(values) for values in outcomes], np.column_stack(drawn)])
    found: dict[str, Any] = {"agents": list(agents), "laws": {}}
    missed = {}
    for name, law in laws(agents).items():
        numbers = law.fit(agents, values)
        missed[name] = law.left_out(agents, values)
        named = dict(zip((*law.names, "level c", "height h"), numbers.T, strict=True))
        found["laws"][name] = {
            "formula": law.formula,
            "numbers": {key: interval(column) for key, column in named.items()},
            "fitted": law.at(numbers[:1], agents)[0].tolist(),
            "rmse": float(np.sqrt(np.mean((law.at(numbers[:1], agents) - values[:1]) ** 2))),
            "left_out": interval(missed[name]),
        }
    better = min(missed, key=lambda name: missed[name][0])
    share = float(np.mean([missed[better][1:] <= other[1:] for name, other in missed.items() if name != better]))
    return found | {"better": better, "share": share, "told_apart": share >= SURE}


def interval(column: np.ndarray) -> dict[str, Any]:
    """Return the point, which comes first, with the percentile interval of the resamples."""
    low, high = np.percentile(column[1:], (2.5, 97.5))
    return {"mean": float(column[0]), "ci95": [float(low), float(high)]}
