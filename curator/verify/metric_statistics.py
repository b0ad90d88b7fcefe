"""Statistics of a metric over measured subsets: its agreement with the loss, its noise, and its own calibration.

The calibration is the linear model of `curator.estimate.calibration` with other priors:

    metric = a + b · estimated change of the loss + Σ effects of the tasks + noise

The noise of a subset is known: the noise between seeds, or else the standard error of its runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm, spearmanr

from curator.core.arrays import Floats
from curator.estimate.calibration import LEAST_RUNS, Evidence, Priors, calibrate, cross_validated

_QUANTILE = 0.95
# Smallest number of subsets for an interval of a rank correlation.
_LEAST_SUBSETS = 4
# The noise between seeds counts as known from so many second runs.
_LEAST_FREEDOM = 3
METRIC_PRIORS = Priors(slopes=1.0, effects=0.3, noise=0.3, offset=10.0)
"""Priors of the metric's calibration. A slope can have any sign and size, so its prior is wide."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SubsetMetrics:
    """The metric of the measured subsets that have a value.

    Attributes:
        subsets: Measured subsets (n).
        runs: Values of the metric of each subset's runs (n lists).
        losses: Mean validation loss of the same runs (n,), nats.
        errors: Standard error of a run's metric (n,), the mean over its runs. NaN if the metric does not say.
        higher_is_better: Whether a higher value is better.
        bounds: Lowest and highest possible value.
    """

    subsets: Sequence[frozenset[str]]
    runs: Sequence[Sequence[float]]
    losses: Floats
    errors: Floats
    higher_is_better: bool
    bounds: tuple[float, float]

    @property
    def means(self) -> Floats:
        """Mean of the metric of each subset (n,)."""
        return np.array([float(np.mean(values)) for values in self.runs])

    @property
    def counts(self) -> Floats:
        """Number of runs of each subset (n,)."""
        return np.array([float(len(values)) for values in self.runs])

    def seed_noise(self) -> tuple[float, int] | None:
        """Return the standard deviation between seeds, pooled over subsets, and its degrees of freedom."""
        several = [np.array(values) for values in self.runs if len(values) > 1]
        if not several:
            return None
        freedom = sum(len(values) - 1 for values in several)
        return math.sqrt(sum(float(((v - v.mean()) ** 2).sum()) for v in several) / freedom), freedom

    def noise(self) -> Floats | None:
        """Return the standard deviation of each subset's mean (n,): from seeds if known, else from standard errors."""
        known = self.seed_noise()
        if known is not None and known[1] >= _LEAST_FREEDOM:
            return np.asarray(known[0] / np.sqrt(self.counts))
        return np.asarray(self.errors / np.sqrt(self.counts)) if np.isfinite(self.errors).all() else None


def correlation_interval(correlation: float, count: int) -> tuple[float, float] | None:
    """Return the 90 % interval of Spearman's rank correlation, by Fisher's transformation.

    The variance is that of Bonett and Wright (2000): (1 + r² / 2) / (n − 3). The transformation of a perfect
    correlation is infinite. Such a correlation counts as that of an order with two swapped neighbours.

    Args:
        correlation: Rank correlation of `count` pairs.
        count: Number of pairs.

    Returns:
        Both ends, or None with fewer than four pairs.
    """
    if count < _LEAST_SUBSETS:
        return None
    most = 1 - 12 / (count * (count * count - 1))
    r = min(max(correlation, -most), most)
    half = float(norm.ppf(_QUANTILE)) * math.sqrt((1 + r * r / 2) / (count - 3))
    low, high = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
    return min(low, correlation), max(high, correlation)


def agreement(losses: Floats, metric: Floats, *, higher_is_better: bool) -> float | None:
    """Return Spearman's rank correlation, 1 if the lowest loss has the best metric. None if either is constant.

    Args:
        losses: Loss of each subset (n,), nats.
        metric: Metric of each subset (n,).
        higher_is_better: Whether a higher value of the metric is better.
    """
    if len(losses) < 2 or np.ptp(losses) == 0 or np.ptp(metric) == 0:
        return None
    return float(spearmanr(losses, -metric if higher_is_better else metric).statistic)


def spread_between(found: SubsetMetrics) -> tuple[float | None, bool | None]:
    """Return the standard deviation between subsets without seed noise, and whether it exceeds that of a mean.

    The variance of the means is the variance between subsets plus that of the seeds:

        spread² = variance of the means − noise² · mean of 1/runs

    Args:
        found: The metric of the subsets.

    Returns:
        The spread, or None with one subset. Whether the metric ranks the subsets, or None if the noise is not known.
    """
    if len(found.subsets) < 2:
        return None, None
    variance, noise = float(found.means.var(ddof=1)), found.seed_noise()
    if noise is None:
        return math.sqrt(variance), None if variance > 0 else False
    of_means = noise[0] ** 2 * float((1 / found.counts).mean())
    spread = math.sqrt(max(variance - of_means, 0.0))
    return spread, spread > math.sqrt(of_means)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetricCalibration:
    """Calibration of a metric by the measured subsets.

    Attributes:
        slope: Change of the metric for a change of the estimated loss by one nat.
        estimates: Metric of each subset (n,), estimated from all others.
        error: Mean absolute error of these estimates.
        constant_error: Mean absolute error of a constant guess: the mean of the other subsets.
        spearman: Rank correlation of estimated and measured metric. None if either is constant.
    """

    slope: float
    estimates: Floats
    error: float
    constant_error: float
    spearman: float | None


def calibrate_metric(evidence: Evidence, rows: Sequence[int], found: SubsetMetrics) -> MetricCalibration | None:
    """Calibrate a metric by the estimated changes of the loss. Return None with too few subsets.

    Args:
        evidence: Measured subsets and their estimates, as for the calibration of the loss.
        rows: Row in the evidence of each subset of `found` (n).
        found: The metric of the subsets.
    """
    count = len(rows)
    if count <= LEAST_RUNS:
        return None
    kept, means = np.array(rows), found.means
    own = replace(
        evidence,
        masks=evidence.masks[kept],
        losses=means,
        known=float(means.mean()),
        changes=evidence.changes[:, kept],
        priors=METRIC_PRIORS,
        slope=0.0,
        noise=found.noise(),
    )
    # A linear model may leave the possible values.
    estimated = np.clip(cross_validated(own)[0], *found.bounds)
    others = (means.sum() - means) / (count - 1)
    return MetricCalibration(
        slope=float(calibrate(own).slopes.sum()),
        estimates=estimated,
        error=float(np.abs(estimated - means).mean()),
        constant_error=float(np.abs(others - means).mean()),
        spearman=agreement(estimated, means, higher_is_better=False),
    )
