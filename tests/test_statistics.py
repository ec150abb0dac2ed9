"""Check the statistics against published formulas, hand-computed values and simulated coverage."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from jaxmas.statistics import (
    Estimate,
    coordination_score,
    hierarchical_bootstrap,
    hypervolume,
    interquartile_mean,
    paired_difference,
    pareto_front,
    performance_profile,
    probability_of_improvement,
    relative_difference,
    standard_error,
    stratified_bootstrap,
)

Floats = NDArray[np.float64]


def crossed_values(
    rng: np.random.Generator, runs: int, queries: int, run_sd: float, query_sd: float, noise_sd: float
) -> Floats:
    """Draw x_rq = u_r + v_q + e_rq, whose true mean is 0."""
    run_effect = rng.normal(0, run_sd, (runs, 1))
    query_effect = rng.normal(0, query_sd, (1, queries))
    return run_effect + query_effect + rng.normal(0, noise_sd, (runs, queries))


def coverage(draw: Callable[[int], Estimate], truth: float = 0.0, repetitions: int = 400) -> float:
    """Return the share of simulated experiments whose interval holds the truth."""
    intervals = [draw(repetition).ci95 for repetition in range(repetitions)]
    return float(np.mean([low <= truth <= high for low, high in intervals]))


# Estimate


def test_estimate_prints_three_digits_and_serialises_to_plain_numbers() -> None:
    estimate = Estimate(0.5634, (0.5512, 0.5748))
    assert str(estimate) == "0.563 [0.551, 0.575]"
    assert json.loads(json.dumps(estimate.to_json())) == {"mean": 0.5634, "ci95": [0.5512, 0.5748]}
    assert estimate.half_width == pytest.approx(0.0118)


def test_estimate_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Estimate(0.0, (0.0, 0.0)).mean = 1.0  # type: ignore[misc]


def test_bootstrap_estimate_holds_python_floats() -> None:
    estimate = hierarchical_bootstrap(np.arange(4.0), num_resamples=10)
    assert [type(number) for number in (estimate.mean, *estimate.ci95)] == [float] * 3


# interquartile mean and standard error


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 1.0, 100.0, 2.0], 2.5),  # one from each end
        ([9.0, 0.0, 3.0], 4.0),  # fewer than four: the mean
        ([-50.0, 1.0, 2.0, 3.0, 4.0, 5.0, 90.0], 3.0),  # ⌊7 / 4⌋ = 1 from each end
        ([-9.0, -8.0, 1.0, 2.0, 3.0, 5.0, 70.0, 80.0], 2.75),  # two from each end
    ],
)
def test_interquartile_mean_by_hand(values: list[float], expected: float) -> None:
    assert interquartile_mean(values) == pytest.approx(expected)


@pytest.mark.parametrize("size", range(1, 14))
def test_interquartile_mean_trims_as_scipy(size: int) -> None:
    values = np.random.default_rng(size).normal(size=(size, 3)) ** 3
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values.ravel(), 0.25))
    for axis in (0, 1, -1):
        np.testing.assert_allclose(interquartile_mean(values, axis=axis), stats.trim_mean(values, 0.25, axis=axis))


def test_interquartile_mean_over_single_episodes_misreports_a_success_rate() -> None:
    runs = np.repeat(np.arange(1000.0) < 680, 10).reshape(1000, 10).T  # ten runs, each 680 of 1,000 solved
    assert interquartile_mean(runs) == pytest.approx(0.86)
    assert interquartile_mean(runs.mean(axis=1)) == pytest.approx(0.68)


def test_standard_error_by_hand() -> None:
    assert standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(np.sqrt(5 / 3) / 2)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, np.nan], [[1.0, 2.0], [3.0, 4.0]]])
def test_standard_error_rejects_what_has_none(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"two values|empty|NaN|dimension"):
        standard_error(values)


# hierarchical bootstrap: exact variances


def test_one_run_resamples_queries() -> None:
    values = np.random.default_rng(0).random(2000)
    estimate = hierarchical_bootstrap(values, num_resamples=8000)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.half_width == pytest.approx(1.96 * standard_error(values), rel=0.05)
    assert hierarchical_bootstrap(values[None], num_resamples=8000) == estimate
    assert hierarchical_bootstrap([values], num_resamples=8000) == estimate
    assert hierarchical_bootstrap(values.tolist(), num_resamples=8000) == estimate


def test_crossed_bootstrap_has_the_variance_of_the_pigeonhole_bootstrap() -> None:
    runs, queries = 30, 40
    values = crossed_values(np.random.default_rng(1), runs, queries, 0.2, 1.0, 1.0) + 3.0
    second_moment = {  # E[n nᵀ] of counts n ~ Multinomial(k; 1/k, …)
        size: np.eye(size) + (1 - 1 / size) * np.ones((size, size)) for size in (runs, queries)
    }
    raw = np.trace(second_moment[runs] @ values @ second_moment[queries] @ values.T) / (runs * queries) ** 2
    variance = raw - values.mean() ** 2
    estimate = hierarchical_bootstrap(values, num_resamples=20_000)
    assert estimate.half_width == pytest.approx(1.96 * np.sqrt(variance), rel=0.04)


def test_nested_bootstrap_has_the_variance_of_two_stage_resampling() -> None:
    runs, queries = 30, 40
    values = crossed_values(np.random.default_rng(2), runs, queries, 0.2, 1.0, 1.0)
    variance = (values.mean(axis=1).var() + values.var(axis=1).mean() / queries) / runs
    estimate = hierarchical_bootstrap(values, paired_queries=False, num_resamples=20_000)
    assert estimate.half_width == pytest.approx(1.96 * np.sqrt(variance), rel=0.04)


def test_shared_queries_widen_the_interval_by_their_difficulty() -> None:
    values = crossed_values(np.random.default_rng(3), 20, 50, 0.0, 1.0, 0.1)
    crossed = hierarchical_bootstrap(values)
    nested = hierarchical_bootstrap(values, paired_queries=False)
    assert crossed.half_width > 3 * nested.half_width


def test_ragged_runs_count_equally() -> None:
    ragged = [np.array([1.0]), np.array([0.0, 0.0, 0.0]), np.array([0.5, 0.5])]
    estimate = hierarchical_bootstrap(ragged, paired_queries=False)
    assert estimate.mean == pytest.approx(0.5)
    assert estimate.ci95 == pytest.approx((0.0, 1.0), abs=0.17)
    with pytest.raises(ValueError, match="paired_queries=False"):
        hierarchical_bootstrap(ragged)


@pytest.mark.parametrize("paired", [True, False])
def test_one_value_per_run_resamples_runs(paired: bool) -> None:
    values = np.random.default_rng(4).random((40, 1))
    estimate = hierarchical_bootstrap(values, paired_queries=paired, num_resamples=8000)
    assert estimate.half_width == pytest.approx(1.96 * values.std() / np.sqrt(40), rel=0.05)


def test_statistic_is_taken_over_run_means() -> None:
    values = np.array([0.0, 1.0, 2.0, 60.0])[:, None] + np.array([-0.25, 0.25])
    assert hierarchical_bootstrap(values).mean == pytest.approx(15.75)
    assert hierarchical_bootstrap(values, "iqm").mean == pytest.approx(1.5)
    assert hierarchical_bootstrap(values, np.max).mean == pytest.approx(60.0)


def test_callable_statistic_equals_the_named_one() -> None:
    values = np.random.default_rng(5).random((8, 20))
    assert hierarchical_bootstrap(values, interquartile_mean) == hierarchical_bootstrap(values, "iqm")
    assert hierarchical_bootstrap(values, np.mean) == hierarchical_bootstrap(values)


def test_seed_decides_the_interval() -> None:
    values = np.random.default_rng(6).random((3, 50))
    assert hierarchical_bootstrap(values, seed=1) == hierarchical_bootstrap(values, seed=1)
    assert hierarchical_bootstrap(values, seed=1) != hierarchical_bootstrap(values, seed=2)


def test_bootstrap_of_a_published_table_takes_under_two_seconds() -> None:
    values = np.random.default_rng(7).random((10, 4096))
    start = time.process_time()
    hierarchical_bootstrap(values)
    assert time.process_time() - start < 2.0


# hierarchical bootstrap: coverage


def test_coverage_of_one_run_of_bernoulli_queries() -> None:
    def draw(repetition: int) -> Estimate:
        values = np.random.default_rng(repetition).random(200) < 0.6
        return hierarchical_bootstrap(values, num_resamples=500, seed=repetition)

    assert 0.90 <= coverage(draw, truth=0.6) <= 0.98


def simulate_crossed(runs: int, paired: bool, run_sd: float = 0.3) -> Callable[[int], Estimate]:
    def draw(repetition: int) -> Estimate:
        rng = np.random.default_rng([runs, repetition])
        values = crossed_values(rng, runs, 100, run_sd, 1.0, 0.5)
        return hierarchical_bootstrap(values, paired_queries=paired, num_resamples=400, seed=repetition)

    return draw


def test_coverage_of_crossed_runs_and_queries() -> None:
    assert 0.90 <= coverage(simulate_crossed(runs=20, paired=True)) <= 0.98


def test_nested_resampling_under_covers_crossed_data() -> None:
    assert coverage(simulate_crossed(runs=20, paired=False), repetitions=120) < 0.85


@pytest.mark.parametrize(("runs", "documented"), [(3, 0.75), (5, 0.85), (10, 0.90), (20, 0.93)])
def test_few_runs_cover_as_documented_where_runs_vary_most(runs: int, documented: float) -> None:
    predicted = 1 - 2 * stats.t.sf(1.96 * np.sqrt((runs - 1) / runs), runs - 1)
    assert predicted == pytest.approx(documented, abs=0.006)
    simulated = coverage(simulate_crossed(runs, paired=True, run_sd=20.0))
    assert simulated == pytest.approx(documented, abs=0.06)


# stratified bootstrap


def test_stratified_bootstrap_takes_the_interquartile_mean_over_runs_and_scenarios() -> None:
    scenarios = [np.array([[0.0, 2.0], [2.0, 2.0]]), np.array([[3.0], [90.0]])]  # run means 1, 2 and 3, 90
    assert stratified_bootstrap(scenarios).mean == pytest.approx(2.5)
    assert stratified_bootstrap(scenarios, "mean").mean == pytest.approx(24.0)


def test_scenarios_are_strata_whose_differences_do_not_widen_the_interval() -> None:
    rng = np.random.default_rng(8)
    easy, hard = rng.normal(10, 1, (20, 30)), rng.normal(-10, 1, (20, 30))
    both = stratified_bootstrap([easy, hard], "mean", num_resamples=8000).half_width
    alone = [hierarchical_bootstrap(values, num_resamples=8000).half_width for values in (easy, hard)]
    assert both == pytest.approx(math.hypot(*alone) / 2, rel=0.05)


def test_stratified_bootstrap_rejects_no_scenarios() -> None:
    with pytest.raises(ValueError, match="empty"):
        stratified_bootstrap([])


# errors of the bootstraps


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "empty"),
        (np.zeros((3, 0)), "empty"),
        (np.zeros((0, 3)), "empty"),
        ([np.zeros(3), np.zeros(0)], "empty"),
        (np.array([0.0, np.nan]), "NaN"),
        ([[0.0, 1.0], [np.inf, 1.0]], "infinity"),
        (np.zeros((2, 2, 2)), "dimension"),
        (np.float64(1.0), "dimension"),
        ([1.0], "no interval"),
    ],
)
def test_bootstrap_rejects_bad_values(values: Floats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hierarchical_bootstrap(values)
    with pytest.raises(ValueError, match=message):
        paired_difference(values, values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"statistic": "iqm"}, "at least 4 runs"),
        ({"statistic": lambda x, axis: x}, "reduce the last axis"),
        ({"num_resamples": 0}, "num_resamples"),
    ],
)
def test_bootstrap_rejects_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hierarchical_bootstrap(np.ones((3, 5)), **arguments)  # type: ignore[arg-type]


def test_bootstrap_rejects_unknown_statistic() -> None:
    with pytest.raises((ValueError, TypeError), match="median"):  # TypeError where annotations are checked
        hierarchical_bootstrap(np.ones((3, 5)), "median")  # type: ignore[arg-type]


# paired difference


def test_paired_difference_ignores_the_difficulty_of_queries() -> None:
    difficulty = np.random.default_rng(9).normal(0, 10, 64)
    estimate = paired_difference(difficulty + 0.25, difficulty)
    assert estimate.mean == pytest.approx(0.25)
    assert estimate.ci95 == pytest.approx((0.25, 0.25))


def test_paired_difference_of_single_runs_bootstraps_the_differences() -> None:
    a, b = np.random.default_rng(10).random((2, 500))
    assert paired_difference(a, b, num_resamples=500) == paired_difference([a], b[None], num_resamples=500)
    estimate = paired_difference(a, b, num_resamples=8000)
    assert estimate.mean == pytest.approx(a.mean() - b.mean())
    assert estimate.half_width == pytest.approx(1.96 * standard_error(a - b), rel=0.05)


def test_paired_difference_resamples_the_runs_of_both_methods_independently() -> None:
    a, b = np.random.default_rng(11).normal(size=(2, 25, 1)) * np.ones((1, 1, 4))
    estimate = paired_difference(a, b, num_resamples=8000)
    variance = (a[:, 0].var() + b[:, 0].var()) / 25
    assert estimate.half_width == pytest.approx(1.96 * np.sqrt(variance), rel=0.05)


def test_paired_difference_compares_all_runs_with_a_baseline_of_one() -> None:
    runs = np.array([1.0, 2.0, 3.0, 90.0])[:, None] + np.zeros(6)
    baseline = np.full(6, 0.5)
    assert paired_difference(runs, baseline).mean == pytest.approx(23.5)
    assert paired_difference(runs, baseline, "iqm").mean == pytest.approx(2.0)
    assert paired_difference(baseline, runs, "iqm").mean == pytest.approx(-2.0)


def test_coverage_of_paired_difference() -> None:
    def draw(repetition: int) -> Estimate:
        rng = np.random.default_rng(repetition)
        difficulty = rng.normal(0, 3, 100)
        baseline = difficulty + rng.normal(0, 1, 100)
        runs = difficulty + 0.5 + crossed_values(rng, 20, 100, 0.2, 0.0, 1.0)
        return paired_difference(runs, baseline, num_resamples=400, seed=repetition)

    assert 0.90 <= coverage(draw, truth=0.5) <= 0.98


def test_paired_difference_rejects_other_queries_and_few_runs() -> None:
    with pytest.raises(ValueError, match="same queries"):
        paired_difference(np.zeros(4), np.zeros(5))
    with pytest.raises(ValueError, match="at least 4 runs"):
        paired_difference(np.zeros((3, 4)), np.zeros(4), "iqm")


# probability of improvement and performance profile


def test_probability_of_improvement_against_brute_force() -> None:
    rng = np.random.default_rng(12)
    x, y = rng.integers(0, 5, (7, 3)), rng.integers(0, 4, (5, 3))
    scores = [float(a > b) + 0.5 * (a == b) for task in range(3) for a in x[:, task] for b in y[:, task]]
    estimate = probability_of_improvement(x, y)
    assert estimate.mean == pytest.approx(np.mean(scores))
    statistics = stats.mannwhitneyu(x, y, axis=0).statistic
    assert estimate.mean == pytest.approx(np.mean(statistics) / 35)
    assert probability_of_improvement(y, x).mean == pytest.approx(1 - estimate.mean)


def test_probability_of_improvement_interval_against_explicit_resampling() -> None:
    rng = np.random.default_rng(13)
    x, y = rng.normal(0.5, 1, (12, 2)), rng.normal(0, 1, (9, 2))
    samples = []
    for _ in range(4000):
        tasks = [(rng.choice(x[:, task], 12), rng.choice(y[:, task], 9)) for task in range(2)]
        samples.append(np.mean([np.mean(a[:, None] > b) for a, b in tasks]))
    estimate = probability_of_improvement(x, y, num_resamples=8000)
    assert estimate.ci95 == pytest.approx(np.percentile(samples, (2.5, 97.5)), abs=0.015)


def test_probability_of_improvement_over_one_baseline_run() -> None:
    estimate = probability_of_improvement([1.0, 2.0, 3.0, 0.0], [1.0])
    assert estimate.mean == pytest.approx(0.625)
    # of the 256 draws of four runs 5 have at most half a win and 19 at most one; in 16 all win
    assert estimate.ci95 == pytest.approx((0.25, 1.0))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0], [2.0], "at least two runs"),
        (np.zeros((3, 2)), np.zeros((3, 1)), "same tasks"),
        ([1.0, np.nan], [1.0, 2.0], "NaN"),
        ([1.0, 2.0], [], "empty"),
    ],
)
def test_probability_of_improvement_rejects_bad_runs(x: Floats, y: Floats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probability_of_improvement(x, y)


def test_performance_profile_by_hand() -> None:
    profile = performance_profile([[0.1, 0.4], [0.2, 0.4], [0.3, 0.9]], [0.0, 0.2, 0.4, 0.9])
    np.testing.assert_allclose(profile.fraction, [1, 4 / 6, 1 / 6, 0])  # strictly above each threshold
    np.testing.assert_allclose(profile.lower[[0, 3]], [1, 0])
    np.testing.assert_allclose(profile.upper[[0, 3]], [1, 0])
    assert json.loads(json.dumps(profile.to_json()))["fraction"] == profile.fraction.tolist()


def test_performance_profile_band_is_that_of_a_binomial_share() -> None:
    scores = np.arange(100.0)
    profile = performance_profile(scores, [69.5], num_resamples=8000)
    expected = stats.binom.ppf([0.025, 0.975], 100, 0.3) / 100
    np.testing.assert_allclose([profile.lower[0], profile.upper[0]], expected, atol=0.011)


def test_performance_profile_resamples_within_tasks() -> None:
    scores = np.stack([np.ones(50), np.zeros(50)], axis=1)
    profile = performance_profile(scores, [0.5])
    assert profile.lower == profile.fraction == profile.upper == 0.5


def test_performance_profile_rejects_one_run() -> None:
    with pytest.raises(ValueError, match="at least two runs"):
        performance_profile([[1.0, 2.0]], [0.5])


# coordination score


@pytest.mark.parametrize(("reward", "expected"), [(0.2, 0.0), (0.6, 1.0), (0.5, 0.75), (0.1, -0.25), (0.8, 1.5)])
def test_coordination_score_by_hand(reward: float, expected: float) -> None:
    assert coordination_score(reward, 0.2, 0.6) == pytest.approx(expected)


def test_coordination_score_needs_a_gap_of_five_standard_errors() -> None:
    assert coordination_score(0.5, 0.0, 1.0, standard_errors=(0.12, 0.16)) == pytest.approx(0.5)  # √ of squares: 0.2
    assert coordination_score(0.5, 0.0, 1.0, standard_errors=(0.13, 0.16)) is None
    assert coordination_score(0.5, 0.0, 1.0, standard_errors=[0.19]) == pytest.approx(0.5)
    assert coordination_score(0.5, 0.0, 1.0, standard_errors=[0.21]) is None


@pytest.mark.parametrize("best", [0.2, 0.1])
def test_coordination_score_is_null_without_headroom(best: float) -> None:
    assert coordination_score(0.5, 0.2, best) is None
    assert coordination_score(0.5, 0.2, best, standard_errors=(0.0, 0.0)) is None


def test_coordination_score_rejects_bad_numbers() -> None:
    with pytest.raises(ValueError, match="NaN"):
        coordination_score(float("nan"), 0.0, 1.0)
    with pytest.raises(ValueError, match="negative"):
        coordination_score(0.5, 0.0, 1.0, standard_errors=(-0.1, 0.1))


# Pareto front and hypervolume


@pytest.mark.parametrize(
    ("cost", "success", "expected"),
    [
        ([3, 1, 2, 4], [0.9, 0.3, 0.5, 0.8], [1, 2, 0]),  # the dearest is dominated; cheap to expensive
        ([1, 1, 2], [0.2, 0.4, 0.4], [1]),  # equal cost: better success; equal success: lower cost
        ([2, 1, 2, 1], [0.7, 0.3, 0.7, 0.3], [1, 3, 0, 2]),  # exact duplicates all stay
        ([1, 2], [0.0, -0.0], [0]),  # signed zeros are equal
        ([0.0, -0.0], [0.5, 0.5], [0, 1]),
        ([5], [0.0], [0]),
        ([1, 2] * 40, [0.3, 0.7] * 40, [*range(0, 80, 2), *range(1, 80, 2)]),
    ],
)
def test_pareto_front_by_hand(cost: list[float], success: list[float], expected: list[int]) -> None:
    assert pareto_front(cost, success).tolist() == expected


def test_pareto_front_against_brute_force() -> None:
    rng = np.random.default_rng(14)
    for _ in range(100):
        cost, success = rng.integers(0, 6, (2, 15))
        no_worse = (cost <= cost[:, None]) & (success >= success[:, None])
        better = (cost < cost[:, None]) | (success > success[:, None])
        assert sorted(pareto_front(cost, success)) == np.flatnonzero(~(no_worse & better).any(axis=1)).tolist()


@pytest.mark.parametrize(
    ("cost", "success", "reference_success", "expected"),
    [
        ([2.0], [0.5], 0.0, 4.0),  # 8 × 0.5
        ([2.0, 6.0], [0.5, 0.75], 0.0, 5.0),  # + 4 × 0.25
        ([2.0, 6.0, 7.0, 2.0], [0.5, 0.75, 0.25, 0.5], 0.0, 5.0),  # a dominated point and a duplicate add nothing
        ([2.0, 2.0], [0.5, 0.25], 0.0, 4.0),
        ([2.0, 6.0], [0.5, 0.75], 0.25, 3.0),  # 8 × 0.25 + 4 × 0.25
        ([2.0, 6.0], [0.5, 0.75], 0.5, 1.0),
        ([2.0, 6.0], [0.125, 0.75], 0.25, 2.0),  # below the reference success
        ([10.0, 12.0], [0.5, 1.0], 0.0, 0.0),  # at and beyond the reference cost
        ([2.0, 12.0], [0.5, 1.0], 0.0, 4.0),
    ],
)
def test_hypervolume_by_hand(
    cost: list[float], success: list[float], reference_success: float, expected: float
) -> None:
    assert hypervolume(cost, success, 10.0, reference_success) == pytest.approx(expected)


def test_hypervolume_against_counting_of_grid_cells() -> None:
    rng = np.random.default_rng(15)
    cells = np.arange(12)
    for _ in range(30):
        cost, success = rng.integers(0, 13, (2, 8))
        covered = (cost[:, None, None] <= cells[:, None]) & (success[:, None, None] > cells)
        assert hypervolume(cost, success, 12) == covered.any(axis=0).sum()


@pytest.mark.parametrize(
    ("cost", "success", "message"),
    [
        ([1.0], [0.5, 0.6], "equal lengths"),
        ([], [], "empty"),
        ([1.0, np.nan], [0.5, 0.5], "NaN"),
        ([[1.0]], [[1.0]], "dim"),
    ],
)
def test_front_and_hypervolume_reject_bad_points(cost: list[float], success: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pareto_front(cost, success)
    with pytest.raises(ValueError, match=message):
        hypervolume(cost, success, 10.0)


def test_a_relative_difference_knows_that_its_reference_is_an_estimate() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.random((4, 300)) < chance for chance in (0.6, 0.3))
    found, points = relative_difference(a, b), paired_difference(a, b)
    assert found.mean == pytest.approx(a.mean() / b.mean() - 1)
    width, naive = found.ci95[1] - found.ci95[0], (points.ci95[1] - points.ci95[0]) / b.mean()
    assert naive < width < 3 * naive
    assert relative_difference(3 * b, b).ci95[0] < 2 < relative_difference(3 * b, b).ci95[1]
    with pytest.raises(ValueError, match="above 0"):
        relative_difference(a, 0 * b)
