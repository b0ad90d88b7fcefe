"""What really fine-tuned subsets say about estimates: a correction, and how far a corrected estimate may be wrong.

The corrected estimate of subset S adds to the loss of all tasks together

    offset + Σ_p slope_p · change_p(S) + Σ_{t∈S} effect_t

where change_p(S) is what point p of meta-training estimates. Without runs all slopes are 1/points and the rest is 0.
That is the mean of a prior, from which the runs move it: a Bayesian linear model in which every slope and effect is
normal (Rasmussen & Williams 2006, chapter 2). By how much estimate.ridge is multiplied is what makes the runs most
likely.

Intervals are conformal on leave-one-out errors of the whole procedure (Barber et al. 2021, "Predictive inference with
the jackknife+"): the 0.9 (n + 1)th smallest of n errors is half of an interval that holds the measured loss of another
subset about nine times out of ten, where subsets are drawn alike.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from curator.core.arrays import Floats, Mask

RIDGE_SCALES = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Factors of estimate.ridge that are tried."""
LEAST_RUNS = 5
"""Different subsets without which nothing is calibrated."""
COVERAGE = 0.9
# Standard deviations of the prior, in the standard deviation of the measured losses: what a slope adds, what the
# effects of an average subset do together, and what no estimate knows. Found on the benchmarks (docs/decisions/).
_SLOPES, _EFFECTS, _NOISE = 0.3, 0.3, 0.3
# Of the offset: wide, because the loss of all tasks together is that of one run.
_OFFSET = 10.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Subsets that were really fine-tuned on, and what is estimated of them.

    Attributes:
        masks: Membership of the auxiliary tasks (n, t).
        losses: Measured loss of each, the mean over its seeds (n,).
        known: Loss of all tasks together at the end of meta-training.
        changes: Estimated difference to that, for each ridge scale and each point of meta-training (r, n, p).
        scales: The ridge scales (r).
    """

    masks: Mask
    losses: Floats
    known: float
    changes: Floats
    scales: Sequence[float]

    def __len__(self) -> int:
        """How many subsets."""
        return len(self.losses)

    def without(self, number: int) -> "Evidence":
        """All but one subset."""
        kept = np.arange(len(self)) != number
        return Evidence(
            masks=self.masks[kept],
            losses=self.losses[kept],
            known=self.known,
            changes=self.changes[:, kept],
            scales=self.scales,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """What the runs made of the estimator.

    Attributes:
        scale: Factor of the ridge.
        offset: Added to every estimate, nats.
        slopes: Of each point's estimated change (p,).
        effects: Added where a task is in the subset (t,), nats.
        residuals: Errors on each subset of a calibration on all others, measured minus estimated (n,).
        masks: The subsets they belong to (n, t).
    """

    scale: float
    offset: float
    slopes: Floats
    effects: Floats
    residuals: Floats
    masks: Mask

    @property
    def half_width(self) -> float | None:
        """Half of the 90 % interval of a measured loss, nats; None with too few runs to tell."""
        return conformal(self.residuals)

    def as_dict(self) -> dict[str, Any]:
        """As it is kept."""
        return {name: np.asarray(value).tolist() for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """From what `as_dict` gave."""
        arrays = {name: np.array(values[name], dtype=np.float64) for name in ("slopes", "effects", "residuals")}
        masks = np.array(values["masks"], dtype=bool)
        return cls(scale=values["scale"], offset=values["offset"], masks=masks, **arrays)

    def losses(self, known: float, changes: Floats, masks: Mask) -> Floats:
        """Corrected estimates (s,) from each point's changes (s, p) and membership (s, t)."""
        return np.asarray(known + self.offset + changes @ self.slopes + masks @ self.effects)

    def noise_of_difference(self, tasks: int) -> float | None:
        """How far the estimated difference of two subsets may be wrong nine times out of ten, nats.

        What an estimate gets wrong adds up over tasks, so that the error of a difference grows like the root of the
        number of tasks in which two subsets differ: found from all pairs of measured ones.

        Args:
            tasks: In how many tasks they differ.

        Returns:
            None with too few runs to tell.
        """
        if self.half_width is None:
            return None
        first, second = np.triu_indices(len(self.residuals), 1)
        apart = (self.masks[first] ^ self.masks[second]).sum(axis=1)
        errors = np.abs(self.residuals[first] - self.residuals[second]) / np.sqrt(np.maximum(apart, 1))
        return float(np.quantile(errors, COVERAGE)) * math.sqrt(tasks)


def conformal(residuals: Floats) -> float | None:
    """The 0.9 (n + 1)th smallest of n absolute errors, between two of them as it falls; None with fewer than 9."""
    rank = COVERAGE * (len(residuals) + 1)
    if rank > len(residuals) + 1e-9:
        return None
    return float(np.interp(rank, np.arange(1, len(residuals) + 1), np.sort(np.abs(residuals))))


def calibrate(evidence: Evidence) -> Calibration:
    """Fit the correction to measured subsets.

    Args:
        evidence: At least `LEAST_RUNS` subsets.
    """
    row, found = _fit(evidence)
    points = evidence.changes.shape[2]
    return Calibration(
        scale=float(evidence.scales[row]),
        offset=float(found[0]),
        slopes=found[1 : 1 + points],
        effects=found[1 + points :],
        residuals=evidence.losses - _left_out(evidence),
        masks=evidence.masks,
    )


def cross_validated(evidence: Evidence) -> tuple[Floats, Floats]:
    """What a calibration on all other subsets says of each.

    Args:
        evidence: More than `LEAST_RUNS` subsets.

    Returns:
        Estimated losses (n,) and half of their intervals (n,), NaN where the others are too few.
    """
    widths = np.full(len(evidence), np.nan)
    for number in range(len(evidence)):
        others = evidence.without(number)
        widths[number] = conformal(others.losses - _left_out(others)) or np.nan
    return _left_out(evidence), widths


def _left_out(evidence: Evidence) -> Floats:
    """Estimated loss of each subset (n,) from all others."""
    losses = np.zeros(len(evidence))
    for number in range(len(evidence)):
        row, found = _fit(evidence.without(number))
        design = np.concatenate([[1.0], evidence.changes[row, number], evidence.masks[number]])
        losses[number] = evidence.known + design @ found
    return losses


def _fit(evidence: Evidence) -> tuple[int, Floats]:
    """The ridge scale by number, and offset, slopes and effects (1 + p + t,), that make the losses most likely."""
    found = [_posterior(evidence, changes) for changes in evidence.changes]
    best = max(range(len(found)), key=lambda row: found[row][0])
    return best, found[best][1]


def _posterior(evidence: Evidence, changes: Floats) -> tuple[float, Floats]:
    """Log marginal likelihood of the measured losses but for a constant, and the posterior mean (1 + p + t,)."""
    points, tasks = changes.shape[1], evidence.masks.shape[1]
    spread = float(evidence.losses.std()) or 1.0
    # A slope is measured by what it adds: ridges shrink changes by orders of magnitude.
    # Where all subsets are estimated alike, what they differ by is rounding.
    unit = max(float(changes.mean(axis=1).std()), 1e-3 * float(np.abs(changes).max(initial=0.0))) or 1.0
    design = np.c_[np.ones(len(evidence)), changes, evidence.masks]
    prior = np.concatenate([[0.0], np.full(points, 1 / points), np.zeros(tasks)])
    slopes, effects = _SLOPES / (unit * math.sqrt(points)), _EFFECTS / math.sqrt(max(tasks / 4, 1))
    variances = (spread * np.concatenate([[_OFFSET], np.full(points, slopes), np.full(tasks, effects)])) ** 2
    left = evidence.losses - evidence.known - design @ prior
    covariance = (design * variances) @ design.T + (_NOISE * spread) ** 2 * np.eye(len(evidence))
    dual = np.linalg.solve(covariance, left)
    likelihood = -(left @ dual + np.linalg.slogdet(covariance)[1]) / 2
    return float(likelihood), prior + variances * (design.T @ dual)
