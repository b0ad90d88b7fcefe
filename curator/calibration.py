"""What really fine-tuned subsets say about estimates: a correction, and how far a corrected estimate may be wrong.

The corrected estimate of subset S adds to the loss of all tasks together

    offset + Σ_p slope_p · change_p(S) + Σ_{t∈S} effect_t

where change_p(S) is what point p of meta-training estimates. Without runs all slopes are 1/points and the rest is 0;
that is the prior, from which the runs move it by ridge regression (a Bayesian linear model: every slope and effect is
normal around it). How far they may, and by how much estimate.ridge is multiplied, is what predicts each subset best
from the others.

Intervals are split-conformal on leave-one-out residuals (Vovk et al. 2005; Barber et al. 2021, "Predictive inference
with the jackknife+"): of n residuals, the ⌈0.9 (n + 1)⌉th smallest is half of an interval that holds another subset's
measured loss nine times out of ten, whatever the residuals' distribution, where subsets are drawn alike.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RIDGE_SCALES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Factors of estimate.ridge that are tried."""
LEAST_RUNS = 5
"""Different subsets without which nothing is calibrated."""
COVERAGE = 0.9
# Widths of the priors, of the measured losses' spread: of a slope, of all effects of an average subset together.
_SLOPES, _EFFECTS = (0.03, 0.3, 1.0), (0.0, 0.1, 0.3, 1.0)
# What the runs themselves vary by, of their spread: the unit of the widths above.
_NOISE = 0.1


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
        residuals: Leave-one-out errors, measured minus estimated (n,).
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
    """The ⌈0.9 (n + 1)⌉th smallest absolute residual of n, or None where there is no such one."""
    rank = math.ceil(COVERAGE * (len(residuals) + 1) - 1e-9)
    return None if rank > len(residuals) else float(np.sort(np.abs(residuals))[rank - 1])


def calibrate(evidence: Evidence) -> Calibration:
    """Fit the correction to measured subsets.

    Args:
        evidence: At least `LEAST_RUNS` subsets.

    Returns:
        The correction that predicts each subset best from the others, by the mean of squared leave-one-out errors.
    """
    best: tuple[float, float, Floats, Floats] | None = None
    for (number, scale), slopes, effects in product(enumerate(evidence.scales), _SLOPES, _EFFECTS):
        found, residuals = _fit(evidence, evidence.changes[number], slopes, effects)
        error = float((residuals**2).mean())
        if best is None or error < best[0] * (1 - 1e-9):
            best = error, scale, found, residuals
    assert best is not None
    _, scale, found, residuals = best
    points = evidence.changes.shape[2]
    return Calibration(
        scale=scale,
        offset=float(found[0]),
        slopes=found[1 : 1 + points],
        effects=found[1 + points :],
        residuals=residuals,
        masks=evidence.masks,
    )


def cross_validated(evidence: Evidence) -> tuple[Floats, Floats]:
    """What a calibration on all other subsets says of each.

    Returns:
        Estimated losses (n,) and half of their intervals (n,), NaN where the others are too few.
    """
    losses, widths = np.zeros(len(evidence)), np.full(len(evidence), np.nan)
    for number in range(len(evidence)):
        found = calibrate(evidence.without(number))
        row = list(evidence.scales).index(found.scale)
        part = slice(number, number + 1)
        losses[number] = found.losses(evidence.known, evidence.changes[row, part], evidence.masks[part])[0]
        widths[number] = np.nan if found.half_width is None else found.half_width
    return losses, widths


def _fit(evidence: Evidence, changes: Floats, slope_width: float, effect_width: float) -> tuple[Floats, Floats]:
    """Coefficients (1 + p + t,) for given widths of the priors, and leave-one-out residuals (n,)."""
    points, tasks = changes.shape[1], evidence.masks.shape[1]
    spread = float(evidence.losses.std()) or 1.0
    # A slope's width counts where the mean change varies as much as the measured losses do.
    unit = float(changes.mean(axis=1).std()) or 1.0
    design = np.c_[np.ones(len(evidence)), changes / unit, evidence.masks]
    prior = np.concatenate([[0.0], np.full(points, unit / points), np.zeros(tasks)])
    widths = spread * np.concatenate(
        [[10.0], np.full(points, slope_width), np.full(tasks, effect_width / math.sqrt(max(tasks / 4, 1)))]
    )
    left = evidence.losses - evidence.known - design @ prior
    # The dual form needs no inverse of a width, which may be 0.
    kernel = (design * widths**2) @ design.T
    matrix = kernel + (_NOISE * spread) ** 2 * np.eye(len(evidence))
    inverse = np.linalg.inv(matrix)
    dual = inverse @ left
    found = prior + widths**2 * (design.T @ dual)
    found[1 : 1 + points] /= unit
    return found, dual / np.diagonal(inverse)
