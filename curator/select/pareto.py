"""Find the subsets that no other subset beats for every one of several targets.

Forward selection searches for each of several weightings of the targets. Other subsets, such as random ones, join them.
The Pareto front keeps a subset unless another one is as good for all targets and better for one.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.estimate.affinity import SubsetEstimator
from curator.select.search import Constraints, select_forward

# Weightings of two targets. More targets have coarser steps, and not many more weightings.
_STEPS, _MOST_WEIGHTINGS = 10, 36


@dataclass(frozen=True, slots=True, eq=False)
class Reweighted:
    """An estimator with other weights of the validation examples.

    Attributes:
        estimator: Estimates the losses of the validation examples.
        validation_weights: Weight of each validation example (v,). The weights sum to 1.
    """

    estimator: SubsetEstimator
    validation_weights: Floats

    @property
    def task_count(self) -> int:
        """Number t of auxiliary tasks."""
        return self.estimator.task_count

    def validation_losses(self, masks: Mask) -> Floats:
        """Estimate the loss of each validation example (s, v) under each subset (s, t), nats."""
        return self.estimator.validation_losses(masks)

    def losses_and_readings(self, masks: Mask, weights: Floats) -> tuple[Floats, Floats]:
        """Return `validation_losses`, and the estimate (s, p) of each part of meta-training alone, nats."""
        return self.estimator.losses_and_readings(masks, weights)

    def reading_noise(self, readings: Floats) -> Floats:
        """Return the standard error (…) of a mean of readings, or of their differences (…, p), nats."""
        return self.estimator.reading_noise(readings)


def weightings(targets: int) -> Floats:
    """Return evenly spread weights of several targets (w, u). Each row sums to 1."""
    steps = _STEPS
    while steps > 1 and _count(targets, steps) > _MOST_WEIGHTINGS:
        steps -= 1
    rows = [
        np.bincount(np.array(chosen), minlength=targets)
        for chosen in combinations_with_replacement(range(targets), steps)
    ]
    return np.array(rows, dtype=np.float64) / steps


def pareto_front(losses: Floats) -> Mask:
    """Return which subsets (s,) no other subset beats.

    Args:
        losses: Loss of each subset for each target (s, u). Of equal rows, all are on the front or none is.
    """
    front = np.ones(len(losses), dtype=bool)
    for number, own in enumerate(losses):
        others = losses[(losses <= own).all(axis=1)]
        front[number] = not (others < own).any()
    return front


def competing_subsets(estimator: SubsetEstimator, memberships: Floats, constraints: Constraints, others: Mask) -> Mask:
    """Return different subsets that may be on the front (s, t).

    Args:
        estimator: Estimates the losses of the validation examples.
        memberships: Weight of each validation example in the loss of each target (u, v). Each row sums to 1.
        constraints: Limits of the subsets.
        others: More subsets (m, t).
    """
    found = [
        select_forward(Reweighted(estimator, weights @ memberships), constraints).mask
        for weights in weightings(len(memberships))
    ]
    every = np.concatenate([np.stack(found), others])
    unique: dict[bytes, Mask] = {mask.tobytes(): mask for mask in every}
    return np.stack(list(unique.values()))


def _count(targets: int, steps: int) -> int:
    return comb(steps + targets - 1, steps)
