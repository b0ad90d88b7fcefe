"""Calibrate estimates with measured subsets, and derive intervals from the errors on these subsets.

The calibrated estimate of subset S adds to the loss of all tasks together

    offset + Σ_p slope_p · change_p(S) + Σ_{t∈S} effect_t + misfit(S)

where change_p(S) is the estimate from reading p of meta-training. All terms have normal priors
(Rasmussen & Williams 2006, chapter 2). The prior mean of each slope is 1/readings, or 0 if a metric is calibrated.
All other prior means are 0. The misfits of two subsets are the more alike, the fewer tasks differ (correction.py).
The factor of estimate.ridge is the one with the highest marginal likelihood.

Intervals are conformal (Barber et al. 2021, "Predictive inference with the jackknife+").
Half of an interval is the 0.9 (n + 1)th smallest of n absolute leave-one-out errors of the whole procedure.
An interval contains the measured loss of another subset with a probability of about 0.9.
This holds if that subset is drawn in the same way.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.estimate.correction import Correction, alike

RIDGE_SCALES = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Candidate factors of estimate.ridge."""
LEAST_RUNS = 5
"""Minimum number of different measured subsets for a calibration."""
COVERAGE = 0.9
LEAST_ERRORS = round(COVERAGE / (1 - COVERAGE))
"""Minimum number n of errors that decide an interval: the 0.9 (n + 1)th smallest of them exists."""
# Smallest standard deviation of a value's known noise, as a share of the spread of the values. No model is exact.
_LEAST_NOISE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Priors:
    """Prior standard deviations, in units of the standard deviation of the measured losses.

    Attributes:
        slopes: Contribution of a slope to an estimate.
        effects: Joint effects of an average subset.
        noise: Residual noise of a measured loss.
        offset: Offset of all estimates.
        misfit: What the other terms do not explain.
        reach: Share of different tasks at which the correlation of two misfits has fallen to 1/e.
    """

    slopes: float = 0.3
    effects: float = 0.3
    noise: float = 0.3
    # It is wide because the loss of all tasks together comes from one run.
    offset: float = 10.0
    misfit: float = 0.0
    reach: float = 0.25


TRAJECTORY_PRIORS = Priors(slopes=0.05, effects=0.6, noise=0.5, offset=0.5, misfit=0.8)
"""Priors for the trajectory estimator, whose changes have nearly the right size. docs/decisions/ has the figures.

Effects, misfit and reach are those of the race (posterior.py).
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Measured subsets and their estimates.

    Attributes:
        masks: Membership of the auxiliary tasks (n, t).
        losses: Measured losses, means over seeds (n,), nats.
        known: Loss of all tasks together at the end of meta-training, nats.
        changes: Estimated difference to `known` for each ridge scale and each checkpoint (r, n, p), nats.
        scales: Ridge scales (r). An estimator without a ridge has one, 1.0.
        priors: Priors that fit the estimator.
        slope: Prior mean of the sum of the slopes. 1 for a loss that the changes estimate, 0 for another measure.
        noise: Known standard deviation of each measured value (n,). None for the prior's share of their spread.
    """

    masks: Mask
    losses: Floats
    known: float
    changes: Floats
    scales: Sequence[float]
    priors: Priors = field(default_factory=Priors)
    slope: float = 1.0
    noise: Floats | None = None

    def __len__(self) -> int:
        """Return the number n of subsets."""
        return len(self.losses)

    def without(self, number: int) -> "Evidence":
        """Return the evidence without one subset."""
        kept = np.arange(len(self)) != number
        return Evidence(
            masks=self.masks[kept],
            losses=self.losses[kept],
            known=self.known,
            changes=self.changes[:, kept],
            scales=self.scales,
            priors=self.priors,
            slope=self.slope,
            noise=None if self.noise is None else self.noise[kept],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration(Correction):
    """Correction of the estimates, fitted to measured subsets.

    Attributes:
        scale: Factor of the ridge.
        residuals: Leave-one-out errors, measured minus estimated (n,), nats.
    """

    scale: float
    residuals: Floats

    @property
    def half_width(self) -> float | None:
        """Half of the 90 % interval of a measured loss, nats. None with too few runs."""
        return conformal(self.residuals)

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration as JSON types, for the store."""
        return {name: np.asarray(value).tolist() for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """Restore a calibration from the result of `as_dict`."""

        def array(name: str) -> Floats:
            return np.array(values[name], dtype=np.float64)

        return cls(
            offset=float(values["offset"]),
            slopes=array("slopes"),
            effects=array("effects"),
            misfits=array("misfits"),
            masks=np.array(values["masks"], dtype=bool),
            reach=float(values["reach"]),
            scale=float(values["scale"]),
            residuals=array("residuals"),
        )

    def noise_of_difference(self, tasks: float) -> float | None:
        """Return half of the 90 % interval of the estimated difference of two subsets, nats.

        Errors of an estimate add up over tasks. The error of a difference therefore grows like the square root of the
        number of different tasks. All pairs of measured subsets give the factor.

        Args:
            tasks: Number of tasks in which the two subsets differ. A part of a task counts as its share.

        Returns:
            Half width, or None with too few runs.
        """
        if self.half_width is None:
            return None
        first, second = np.triu_indices(len(self.residuals), 1)
        apart = (self.masks[first] ^ self.masks[second]).sum(axis=1)
        errors = np.abs(self.residuals[first] - self.residuals[second]) / np.sqrt(np.maximum(apart, 1))
        return float(np.quantile(errors, COVERAGE)) * math.sqrt(tasks)


def conformal(residuals: Floats) -> float | None:
    """Return the 0.9 (n + 1)th smallest of n absolute errors, interpolated. None with fewer than `LEAST_ERRORS`."""
    if len(residuals) < LEAST_ERRORS:
        return None
    rank = COVERAGE * (len(residuals) + 1)
    return float(np.interp(rank, np.arange(1, len(residuals) + 1), np.sort(np.abs(residuals))))


def calibrate(evidence: Evidence) -> Calibration:
    """Fit the correction to measured subsets.

    Args:
        evidence: At least `LEAST_RUNS` subsets.

    Returns:
        The fitted calibration.
    """
    row, found = fit(evidence)
    return Calibration(
        offset=found.offset,
        slopes=found.slopes,
        effects=found.effects,
        misfits=found.misfits,
        masks=found.masks,
        reach=found.reach,
        scale=float(evidence.scales[row]),
        residuals=evidence.losses - _left_out(evidence),
    )


def cross_validated(evidence: Evidence) -> tuple[Floats, Floats]:
    """Estimate each measured subset with a calibration on all others.

    Args:
        evidence: More than `LEAST_RUNS` subsets.

    Returns:
        Estimated losses (n,) and half of their intervals (n,), nats. A half width is NaN if the others are too few.
    """
    widths = np.full(len(evidence), np.nan)
    for number in range(len(evidence)):
        others = evidence.without(number)
        widths[number] = conformal(others.losses - _left_out(others)) or np.nan
    return _left_out(evidence), widths


def _left_out(evidence: Evidence) -> Floats:
    """Return the estimated loss of each subset (n,) from a fit to all others."""
    losses = np.zeros(len(evidence))
    for number in range(len(evidence)):
        row, found = fit(evidence.without(number))
        own = [number]
        (losses[number],) = found.losses(evidence.known, evidence.changes[row, own], evidence.masks[own])
    return losses


def fit(evidence: Evidence) -> tuple[int, Correction]:
    """Fit the correction to measured subsets, without its leave-one-out errors.

    Args:
        evidence: Measured subsets.

    Returns:
        The index of the most likely ridge scale, and its correction.
    """
    found = [_posterior(evidence, changes) for changes in evidence.changes]
    best = max(range(len(found)), key=lambda row: found[row][0])
    return best, found[best][1]


def _posterior(evidence: Evidence, changes: Floats) -> tuple[float, Correction]:
    """Return the log marginal likelihood of the losses, up to a constant, and the posterior mean."""
    points, tasks, priors = changes.shape[1], evidence.masks.shape[1], evidence.priors
    spread = float(evidence.losses.std()) or 1.0
    # The prior of a slope is in units of its contribution, because ridges shrink changes by orders of magnitude.
    # The lower bound covers subsets with equal estimates, which differ by rounding only.
    unit = max(float(changes.mean(axis=1).std()), 1e-3 * float(np.abs(changes).max(initial=0.0))) or 1.0
    design = np.c_[np.ones(len(evidence)), changes, evidence.masks]
    prior = np.concatenate([[0.0], np.full(points, evidence.slope / points), np.zeros(tasks)])
    slopes, effects = priors.slopes / (unit * math.sqrt(points)), priors.effects / math.sqrt(max(tasks / 4, 1))
    variances = (spread * np.concatenate([[priors.offset], np.full(points, slopes), np.full(tasks, effects)])) ** 2
    misfit = (spread * priors.misfit) ** 2
    left = evidence.losses - evidence.known - design @ prior
    noise = np.full(len(evidence), priors.noise * spread)
    if evidence.noise is not None:
        noise = np.maximum(evidence.noise, _LEAST_NOISE * spread)
    covariance = (design * variances) @ design.T + np.diag(noise**2)
    covariance += misfit * alike(evidence.masks, evidence.masks, priors.reach)
    dual = np.linalg.solve(covariance, left)
    likelihood = -(left @ dual + np.linalg.slogdet(covariance)[1]) / 2
    mean = prior + variances * (design.T @ dual)
    return float(likelihood), Correction(
        offset=float(mean[0]),
        slopes=mean[1 : 1 + points],
        effects=mean[1 + points :],
        misfits=misfit * dual,
        masks=evidence.masks,
        reach=priors.reach,
    )
