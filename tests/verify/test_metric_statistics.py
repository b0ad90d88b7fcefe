"""Statistics of a metric over subsets, on drawn values."""

import math
from typing import Any

import numpy as np
import pytest

from curator.estimate.calibration import TRAJECTORY_PRIORS, Evidence
from curator.verify.metric_statistics import (
    SubsetMetrics,
    agreement,
    calibrate_metric,
    correlation_interval,
    spread_between,
)


def _metrics(runs: list[list[float]], **values: Any) -> SubsetMetrics:
    given = {
        "losses": np.zeros(len(runs)),
        "errors": np.full(len(runs), np.nan),
        "higher_is_better": True,
        "bounds": (0.0, 1.0),
    } | values
    return SubsetMetrics(subsets=[frozenset({str(n)}) for n in range(len(runs))], runs=runs, **given)


def test_agreement_of_loss_and_accuracy_is_one_if_the_lowest_loss_is_best() -> None:
    losses, accuracy = np.array([0.5, 0.7, 0.9]), np.array([0.9, 0.8, 0.1])
    assert agreement(losses, accuracy, higher_is_better=True) == pytest.approx(1.0)
    assert agreement(losses, accuracy, higher_is_better=False) == pytest.approx(-1.0)
    assert agreement(losses, np.ones(3), higher_is_better=True) is None
    assert agreement(losses[:1], accuracy[:1], higher_is_better=True) is None


def test_correlation_interval_follows_bonett_and_wright() -> None:
    # By hand: atanh(0.5) ± 1.6449 · √(1.125 / 21)
    low, high = correlation_interval(0.5, 24) or (0.0, 0.0)
    half = 1.6448536 * math.sqrt(1.125 / 21)
    assert low == pytest.approx(math.tanh(0.5493061 - half), abs=1e-6)
    assert high == pytest.approx(math.tanh(0.5493061 + half), abs=1e-6)
    assert correlation_interval(0.5, 3) is None


@pytest.mark.parametrize("count", [4, 6, 24])
def test_correlation_interval_perfect_order_is_not_certain(count: int) -> None:
    low, high = correlation_interval(1.0, count) or (0.0, 0.0)
    assert high == 1.0
    assert low < 1.0
    assert correlation_interval(-1.0, count) == pytest.approx((-1.0, -low))


def test_correlation_interval_covers_the_truth_of_drawn_pairs() -> None:
    from scipy.stats import spearmanr

    rng, inside = np.random.default_rng(0), 0
    truth = 6 / math.pi * math.asin(0.6 / 2)
    for _ in range(400):
        first, other = rng.standard_normal((2, 24))
        low, high = correlation_interval(float(spearmanr(first, 0.6 * first + 0.8 * other).statistic), 24) or (0, 0)
        inside += low <= truth <= high
    assert 0.86 <= inside / 400 <= 0.95


def test_seed_noise_is_pooled_over_subsets_with_several_runs() -> None:
    found = _metrics([[0.1, 0.3], [0.5], [0.2, 0.2, 0.5]])
    assert found.seed_noise() == (pytest.approx(math.sqrt((0.02 + 0.06) / 3)), 3)
    assert _metrics([[0.1], [0.2]]).seed_noise() is None
    noise = found.noise()
    assert noise is not None
    assert noise == pytest.approx(math.sqrt(0.08 / 3) / np.sqrt([2, 1, 3]))


def test_noise_without_second_runs_comes_from_standard_errors() -> None:
    assert _metrics([[0.1], [0.2]], errors=np.array([0.05, 0.06])).noise() == pytest.approx([0.05, 0.06])
    assert _metrics([[0.1], [0.2]]).noise() is None


def test_spread_between_subsets_leaves_out_the_noise_of_seeds() -> None:
    # Means 0.2 and 0.6, seeds ±0.1: variance 0.08 − 0.02 / 2.
    spread, can_rank = spread_between(_metrics([[0.1, 0.3], [0.5, 0.7]]))
    assert spread == pytest.approx(math.sqrt(0.08 - 0.01))
    assert can_rank is True


def test_spread_between_equal_subsets_cannot_rank_them() -> None:
    spread, can_rank = spread_between(_metrics([[0.1, 0.5], [0.2, 0.6], [0.15, 0.5]]))
    assert spread == 0.0
    assert can_rank is False
    assert spread_between(_metrics([[0.1], [0.1]])) == (0.0, False)
    assert spread_between(_metrics([[0.1], [0.2]])) == (pytest.approx(math.sqrt(0.005)), None)
    assert spread_between(_metrics([[0.1, 0.2]])) == (None, None)


def _evidence(count: int, *, slope: float, noise: float) -> tuple[Evidence, np.ndarray]:
    rng = np.random.default_rng(3)
    masks = rng.random((count, 8)) < 0.5
    changes = rng.normal(0.0, 0.1, count)
    metric = 0.5 + slope * changes + noise * rng.standard_normal(count)
    evidence = Evidence(
        masks=masks,
        losses=1.0 + changes,
        known=1.0,
        changes=changes[None, :, None],
        scales=(1.0,),
        priors=TRAJECTORY_PRIORS,
    )
    return evidence, metric


@pytest.mark.parametrize("slope", [-2.0, 3.0])
def test_calibrate_metric_finds_the_slope_and_its_sign(slope: float) -> None:
    evidence, metric = _evidence(24, slope=slope, noise=0.02)
    found = calibrate_metric(evidence, range(24), _metrics([[value] for value in metric], errors=np.full(24, 0.02)))
    assert found is not None
    assert found.slope == pytest.approx(slope, abs=0.35)
    assert found.error < 0.3 * found.constant_error
    assert found.spearman is not None
    assert found.spearman > 0.9


def test_calibrate_metric_estimates_of_a_share_stay_between_zero_and_one() -> None:
    evidence, metric = _evidence(24, slope=-6.0, noise=0.0)
    share = np.clip(metric, 0.0, 1.0)
    values = {"errors": np.full(24, 0.01)}
    free = calibrate_metric(evidence, range(24), _metrics([[x] for x in share], bounds=(-math.inf, math.inf), **values))
    found = calibrate_metric(evidence, range(24), _metrics([[x] for x in share], **values))
    assert free is not None
    assert found is not None
    assert free.estimates.min() < 0.0 < 1.0 < free.estimates.max()
    assert (found.estimates.min(), found.estimates.max()) == (0.0, 1.0)
    assert found.error < free.error


def test_calibrate_metric_large_known_noise_shrinks_the_slope() -> None:
    evidence, metric = _evidence(24, slope=-2.0, noise=0.02)
    runs = [[value] for value in metric]
    exact = calibrate_metric(evidence, range(24), _metrics(runs, errors=np.full(24, 0.02)))
    vague = calibrate_metric(evidence, range(24), _metrics(runs, errors=np.full(24, 2.0)))
    assert exact is not None
    assert vague is not None
    assert abs(vague.slope) < 0.5 * abs(exact.slope)


def test_calibrate_metric_subset_without_value_is_left_out() -> None:
    evidence, metric = _evidence(24, slope=-2.0, noise=0.0)
    rows = [n for n in range(24) if n % 3]
    found = calibrate_metric(evidence, rows, _metrics([[metric[n]] for n in rows], errors=np.full(16, 0.01)))
    assert found is not None
    assert found.estimates.shape == (16,)
    assert found.estimates == pytest.approx(metric[rows], abs=0.1)
    assert calibrate_metric(evidence, rows[:5], _metrics([[0.1]] * 5)) is None
