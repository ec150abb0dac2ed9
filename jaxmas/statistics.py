"""Estimate scores and their uncertainty by the protocol that every table of the benchmark follows.

Episodes are averaged within a training run first; runs are the unit of everything after that.
Shapes: `runs` are independent training runs (seeds), `queries` are test instances, `tasks` are scenarios.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Estimate",
    "PerformanceProfile",
    "Statistic",
    "bootstrap_means",
    "coordination_score",
    "hierarchical_bootstrap",
    "hypervolume",
    "interquartile_mean",
    "paired_difference",
    "pareto_front",
    "performance_profile",
    "probability_of_improvement",
    "standard_error",
    "stratified_bootstrap",
]

Floats: TypeAlias = NDArray[np.float64]
Values: TypeAlias = ArrayLike | Sequence[Any]  # run-time checks refuse some plain tuples as ArrayLike
Statistic: TypeAlias = Literal["mean", "iqm"] | Callable[..., Any]

_INTERVAL = (2.5, 97.5)  # percentiles of the bootstrap distribution
_MIN_IQM_RUNS = 4  # with fewer runs nothing is trimmed and the name would mislead
_MIN_GAP_ERRORS = 5.0
_COUNTS_PER_CHUNK = 2**21  # bounds the memory of a bootstrap to some tens of megabytes


@dataclass(frozen=True)
class Estimate:
    """Hold a point estimate and its 95 % interval."""

    mean: float
    ci95: tuple[float, float]

    @property
    def half_width(self) -> float:
        """Return half the width of the interval."""
        return (self.ci95[1] - self.ci95[0]) / 2

    def to_json(self) -> dict[str, float | list[float]]:
        """Return plain numbers for a results file."""
        return {"mean": self.mean, "ci95": list(self.ci95)}

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.ci95[0]:.3f}, {self.ci95[1]:.3f}]"


@dataclass(frozen=True, eq=False)
class PerformanceProfile:
    """Hold a run-score distribution and its pointwise 95 % band, each `[thresholds]`."""

    thresholds: Floats
    fraction: Floats
    lower: Floats
    upper: Floats

    def to_json(self) -> dict[str, list[float]]:
        """Return plain lists for a results file."""
        return {name: getattr(self, name).tolist() for name in ("thresholds", "fraction", "lower", "upper")}


def interquartile_mean(values: Values, axis: int | None = None) -> Any:
    """Average the middle half of run-level values (Agarwal et al. 2021, arXiv 2108.13264, §4.3).

    IQM = Σ_{i=g}^{n−g−1} x₍ᵢ₎ / (n − 2g), g = ⌊n / 4⌋, over the sorted x₍₀₎ ≤ … ≤ x₍ₙ₋₁₎.

    The trim count is rounded down and no value has a fractional weight, as in `scipy.stats.trim_mean(x, 0.25)`,
    which the paper's code calls: below four values it is the mean.

    Never call it on single episodes: successes are 0 or 1, so trimming discards failures and moves
    a success rate of 0.68 to 0.86. Average the episodes of each run first.
    """
    ordered = np.sort(_finite(values, "values"), axis=axis)
    ordered = ordered if axis is None else np.moveaxis(ordered, axis, -1)
    count = ordered.shape[-1]
    trim = count // 4
    return ordered[..., trim : count - trim].mean(axis=-1)


def standard_error(values: Values) -> float:
    """Return the standard error of the mean of independent values.

    SE = √(Σ (xᵢ − x̄)² / (n − 1)) / √n. Values are `[n]`: for several runs, pass the mean of each run.
    """
    sample = _finite(values, "values", ndim=(1,))
    if sample.size < 2:
        raise ValueError("a standard error needs at least two values")
    return float(sample.std(ddof=1) / math.sqrt(sample.size))


def hierarchical_bootstrap(
    values: Values,
    statistic: Statistic = "mean",
    *,
    paired_queries: bool = True,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Estimate a statistic of the runs' means and its interval over runs and queries.

    θ* = statistic_j( Σ_q n_q x[r_j, q] / Q ), r_j ~ Uniform(runs), n ~ Multinomial(Q; 1/Q, …, 1/Q).

    `values` are `[queries]` (one run: queries alone are resampled), `[runs, queries]`, or a list of one vector per run.
    `statistic` is "mean", "iqm" (at least four runs), or a callable on `[..., runs]` that takes `axis=-1`.

    `paired_queries=True` shares n between the runs, since all met the same queries: runs and queries are crossed
    (Owen 2007, "The pigeonhole bootstrap"). `False` draws n anew for each r_j: queries are nested in runs, and
    runs may have different numbers of them. On crossed data `False` is too narrow, as it averages out the difficulty
    of the queries.

    The interval is the plain percentile one. Where runs vary more than queries do, R runs cover about
    P(|t₍R−1₎| < 1.96 √((R−1)/R)): 0.75 for 3 runs, 0.85 for 5, 0.90 for 10, 0.93 for 20. Below ten runs read it as
    an optimistic interval. Where the run-by-query interaction dominates it is conservative instead.
    """
    return stratified_bootstrap(
        [values], statistic, paired_queries=paired_queries, num_resamples=num_resamples, seed=seed
    )


def bootstrap_means(values: Values, *, num_resamples: int = 2000, seed: int = 0) -> Floats:
    """Return the resampled means over runs that `hierarchical_bootstrap` takes the interval of, `[num_resamples]`.

    For statistics of several such means, as a curve that is fitted to them. Runs that several tables share are
    resampled alike with the same seed, where the tables have equal shapes.
    """
    return _resample(_as_runs(values), num_resamples, True, _generator(num_resamples, seed)).mean(axis=-1)


def stratified_bootstrap(
    scenarios: Sequence[Values],
    statistic: Statistic = "iqm",
    *,
    paired_queries: bool = True,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Estimate a statistic over runs × scenarios, with runs and queries resampled within each scenario.

    Every scenario is a stratum (Agarwal et al. 2021, §4.1) in which `hierarchical_bootstrap` resamples; the statistic
    is taken over all runs of all scenarios. Normalise scores first where scenarios differ in scale.
    """
    strata = [_as_runs(values) for values in scenarios]
    if not strata:
        raise ValueError("scenarios must not be empty")
    if sum(run.size for runs in strata for run in runs) < 2:
        raise ValueError("one value has no interval: give at least two queries or two runs")
    rng = _generator(num_resamples, seed)
    point = np.concatenate([[run.mean() for run in runs] for runs in strata])
    samples = np.concatenate([_resample(runs, num_resamples, paired_queries, rng) for runs in strata], axis=1)
    return _estimate(_aggregate(point, statistic), _aggregate(samples, statistic))


def paired_difference(
    a: Values, b: Values, statistic: Statistic = "mean", *, num_resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Estimate how much `a` exceeds `b` on the same queries.

    θ* = statistic_j( Σ_q n_q a[r_j, q] / Q ) − statistic_k( Σ_q n_q b[s_k, q] / Q ), n shared by both.

    Each is `[queries]` or `[runs, queries]`. The runs of `a` and of `b` are resampled independently: run i of one has
    nothing to do with run i of the other. Where they do share a seed, `hierarchical_bootstrap(a - b)` is sharper.
    A method of one run (a strategy without training) is compared with all runs of the other, whatever the statistic.
    """
    point, samples = _paired(a, b, statistic, num_resamples, seed)
    return _estimate(point[0] - point[1], samples[0] - samples[1])


def relative_difference(a: Values, b: Values, *, num_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate how much the mean of `a` exceeds that of `b`, as a share of the latter: ā / b̄ − 1.

    Both are resampled as in `paired_difference`: the mean that is divided by is an estimate, too.
    """
    point, samples = _paired(a, b, "mean", num_resamples, seed)
    if min(point[1], samples[1].min()) <= 0:
        raise ValueError("a relative difference needs a reference whose mean is above 0 in every resample")
    return _estimate(point[0] / point[1] - 1, samples[0] / samples[1] - 1)


def probability_of_improvement(x_runs: Values, y_runs: Values, *, num_resamples: int = 2000, seed: int = 0) -> Estimate:
    """Estimate how likely a run of X beats a run of Y on a task drawn at random (Agarwal et al. 2021, §4.3).

    P(X > Y) = 1/M Σ_m 1/(N K) Σ_i Σ_j S(x_mi, y_mj), S = 1 if x > y, ½ if x = y, else 0 (Mann–Whitney U).

    Run-level scores are `[runs]` or `[runs, tasks]`; the numbers of runs may differ, the tasks are the same.
    Values are resampled within each task.
    """
    x, y = _as_run_scores(x_runs, "x_runs"), _as_run_scores(y_runs, "y_runs")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x_runs and y_runs must have the same tasks, got {x.shape[1]} and {y.shape[1]}")
    if x.shape[0] == y.shape[0] == 1:
        raise ValueError("one run of each has no interval: give at least two runs of one")
    rng = _generator(num_resamples, seed)
    point, samples = [], []
    for x_task, y_task in zip(x.T, y.T, strict=True):
        wins = 0.5 + 0.5 * np.sign(x_task[:, None] - y_task[None, :])
        x_counts, y_counts = (_counts(num_resamples, side.size, rng) for side in (x_task, y_task))
        point.append(wins.mean())
        samples.append(((x_counts @ wins) * y_counts).sum(axis=1) / wins.size)
    return _estimate(np.mean(point), np.mean(samples, axis=0))


def performance_profile(
    scores: Values, thresholds: Values, *, num_resamples: int = 2000, seed: int = 0
) -> PerformanceProfile:
    """Return the share of runs × tasks that score above each threshold (Agarwal et al. 2021, §4.2).

    F̂(τ) = 1/M Σ_m 1/N Σ_n 1[x_mn > τ], with a pointwise 95 % band over runs resampled within each task.

    Run-level scores are `[runs]` or `[runs, tasks]`. The band holds at one τ at a time, not for the whole curve.
    """
    runs = _as_run_scores(scores, "scores")
    levels = _finite(thresholds, "thresholds", ndim=(1,))
    if runs.shape[0] < 2:
        raise ValueError("one run has no band: give at least two runs")
    rng = _generator(num_resamples, seed)
    samples = np.zeros((num_resamples, levels.size))
    for task in runs.T:
        samples += _counts(num_resamples, task.size, rng) @ (task[:, None] > levels)
    lower, upper = np.percentile(samples / runs.size, _INTERVAL, axis=0)
    fraction = (runs.ravel()[:, None] > levels).mean(axis=0)
    return PerformanceProfile(levels, fraction, lower, upper)


def coordination_score(
    reward: SupportsFloat,
    random: SupportsFloat,
    best_strategy: SupportsFloat,
    *,
    standard_errors: Values | None = None,
) -> float | None:
    """Place a reward between the random plan (0) and the best hand-crafted strategy (1).

    score = (reward − random) / (best − random); `None` where best − random ≤ 0 or < 5 √(Σ SE²).

    `standard_errors` are those of the two anchors, or one: that of their paired difference.
    """
    value, low, high = _finite([float(reward), float(random), float(best_strategy)], "reward and anchors")
    errors = _finite([0.0] if standard_errors is None else standard_errors, "standard_errors", ndim=(1,))
    if (errors < 0.0).any():
        raise ValueError("standard_errors must not be negative")
    gap = high - low
    if gap <= 0.0 or gap < _MIN_GAP_ERRORS * math.hypot(*errors):
        return None
    return float((value - low) / gap)


def pareto_front(cost: Values, success: Values) -> NDArray[np.intp]:
    """Return the indices of the points that no other dominates, from cheap to expensive.

    j dominates i: cost_j ≤ cost_i and success_j ≥ success_i, one of them strictly. Exact duplicates do not dominate
    each other, so all copies of a point on the front are returned, in input order.
    """
    costs, successes = _as_points(cost, success)
    points, inverse = np.unique(np.stack([costs, -successes], axis=1), axis=0, return_inverse=True)
    cheaper_best = np.concatenate([[np.inf], np.minimum.accumulate(points[:-1, 1])])
    members = np.flatnonzero((points[:, 1] < cheaper_best)[inverse.reshape(-1)])
    return members[np.argsort(costs[members], kind="stable")]


def hypervolume(
    cost: Values, success: Values, reference_cost: SupportsFloat, reference_success: SupportsFloat = 0.0
) -> float:
    """Return the area that a set of points dominates (Zitzler and Thiele 1999).

    HV = Σ_i (s_i − s_{i−1}) (c_ref − c_i) over the front inside the reference box, by cost, with s₀ = s_ref.

    A point at or beyond the reference adds nothing. Unit: cost × success.
    """
    costs, successes = _as_points(cost, success)
    most, least = _finite([float(reference_cost), float(reference_success)], "reference")
    inside = (costs < most) & (successes > least)
    if not inside.any():
        return 0.0
    costs, successes = costs[inside], successes[inside]
    front = pareto_front(costs, successes)
    gains = np.diff(successes[front], prepend=least)
    return float(gains @ (most - costs[front]))


def _finite(values: Values, name: str, *, ndim: tuple[int, ...] | None = None) -> Floats:
    """Return values as a finite, non-empty float array."""
    array = np.asarray(values, dtype=np.float64)
    if ndim is not None and array.ndim not in ndim:
        expected = " or ".join(map(str, ndim))
        raise ValueError(f"{name} must have {expected} dimension(s), got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite: found NaN or infinity")
    return array


def _as_runs(values: Values) -> list[Floats]:
    """Return one vector of query values per run."""
    if not isinstance(values, list | tuple):
        array = _finite(values, "values", ndim=(1, 2))
        return list(array[None] if array.ndim == 1 else array)
    if not values:
        raise ValueError("values must not be empty")
    runs = [values] if np.ndim(values[0]) == 0 else values
    return [_finite(run, "values of a run", ndim=(1,)) for run in runs]


def _as_run_scores(values: Values, name: str) -> Floats:
    """Return run-level scores as `[runs, tasks]`."""
    scores = _finite(values, name, ndim=(1, 2))
    return scores[:, None] if scores.ndim == 1 else scores


def _as_points(cost: Values, success: Values) -> tuple[Floats, Floats]:
    """Return costs and successes of equal length."""
    costs, successes = _finite(cost, "cost", ndim=(1,)), _finite(success, "success", ndim=(1,))
    if costs.shape != successes.shape:
        raise ValueError(f"cost and success must have equal lengths, got {costs.size} and {successes.size}")
    return costs, successes


def _paired(
    a: Values, b: Values, statistic: Statistic, num_resamples: int, seed: int
) -> tuple[list[Floats], list[Floats]]:
    """Return the statistic of either side, and its resamples over runs and over queries that both share."""
    sides = [_as_runs(a), _as_runs(b)]
    rows = _stack_queries(sides[0] + sides[1], "paired methods must meet the same queries")
    if rows.size < 3:
        raise ValueError("one difference has no interval: give at least two queries or two runs")
    rng = _generator(num_resamples, seed)
    means = _resampled_means(rows, num_resamples, rng)
    point, samples = [], []
    for side in np.split(np.arange(len(rows)), [len(sides[0])]):
        across = statistic if side.size > 1 else "mean"
        point.append(_aggregate(rows[side].mean(axis=1), across))
        samples.append(_aggregate(_draw_runs(means[:, side], rng), across))
    return point, samples


def _stack_queries(runs: list[Floats], problem: str) -> Floats:
    """Return runs that met the same queries as `[runs, queries]`."""
    sizes = sorted({run.size for run in runs})
    if len(sizes) > 1:
        raise ValueError(f"{problem}, got runs of {sizes} queries")
    return np.stack(runs)


def _generator(num_resamples: int, seed: int) -> np.random.Generator:
    """Return the generator of one bootstrap."""
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be positive, got {num_resamples}")
    return np.random.default_rng(seed)


def _counts(num_resamples: int, size: int, rng: np.random.Generator) -> Floats:
    """Draw how often each of `size` items occurs in each resample, `[num_resamples, size]`.

    n_b ~ Multinomial(size; 1/size, …, 1/size), by counting draws: several times faster than conditional binomials.
    """
    draws = rng.integers(size, size=(num_resamples, size))
    draws += size * np.arange(num_resamples)[:, None]
    counts = np.bincount(draws.ravel(), minlength=num_resamples * size)
    return counts.reshape(num_resamples, size).astype(np.float64)


def _resampled_means(rows: Floats, num_resamples: int, rng: np.random.Generator) -> Floats:
    """Return the mean of each row over query draws that all rows share, `[num_resamples, rows]`."""
    num_queries = rows.shape[1]
    chunk = max(1, _COUNTS_PER_CHUNK // num_queries)
    means = np.empty((num_resamples, rows.shape[0]))
    for start in range(0, num_resamples, chunk):
        part = means[start : start + chunk]
        # not `@`: its threads cost more than they save here, and their number changes the last digits
        part[:] = np.einsum("bq,rq->br", _counts(len(part), num_queries, rng), rows) / num_queries
    return means


def _draw_runs(means: Floats, rng: np.random.Generator) -> Floats:
    """Resample the runs of each row, `[num_resamples, runs]`."""
    return np.take_along_axis(means, rng.integers(means.shape[1], size=means.shape), axis=1)


def _resample(runs: list[Floats], num_resamples: int, paired: bool, rng: np.random.Generator) -> Floats:
    """Return the means of resampled runs over resampled queries, `[num_resamples, runs]`."""
    if paired:
        problem = "runs that met different queries need paired_queries=False"
        return _draw_runs(_resampled_means(_stack_queries(runs, problem), num_resamples, rng), rng)
    drawn = rng.integers(len(runs), size=(num_resamples, len(runs)))
    means = np.empty(drawn.shape)
    for index, run in enumerate(runs):
        chosen = drawn == index
        means[chosen] = _resampled_means(run[None], int(chosen.sum()), rng)[:, 0]
    return means


def _aggregate(run_means: Floats, statistic: Statistic) -> Floats:
    """Take a statistic over the last axis, `[..., runs]`."""
    if callable(statistic):
        result = np.asarray(statistic(run_means, axis=-1), dtype=np.float64)
        if result.shape != run_means.shape[:-1]:
            raise ValueError(f"statistic must reduce the last axis of {run_means.shape}, got {result.shape}")
        return result
    if statistic == "mean":
        return np.asarray(run_means.mean(axis=-1))
    if statistic != "iqm":
        raise ValueError(f"statistic must be 'mean', 'iqm' or a callable, got {statistic!r}")
    if run_means.shape[-1] < _MIN_IQM_RUNS:
        raise ValueError(f"the interquartile mean needs at least {_MIN_IQM_RUNS} runs, got {run_means.shape[-1]}")
    return np.asarray(interquartile_mean(run_means, axis=-1))


def _estimate(point: Values, samples: Floats) -> Estimate:
    """Return the point with the percentile interval of its bootstrap samples."""
    lower, upper = np.percentile(samples, _INTERVAL)
    return Estimate(float(np.asarray(point)), (float(lower), float(upper)))
