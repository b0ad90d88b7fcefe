"""Affinity of each task: the mean gain in estimated loss over random subsets."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from curator.core.arrays import Floats, Mask


class SubsetEstimator(Protocol):
    """Interface that sampling and selection need of an estimator."""

    @property
    def task_count(self) -> int:
        """Number t of auxiliary tasks."""

    def validation_losses(self, masks: Mask) -> Floats:
        """Estimate the loss of each validation example (s, v) under each subset (s, t), nats."""

    @property
    def validation_weights(self) -> Floats:
        """Weight (v,) of each validation example in the target's loss. The weights sum to 1."""

    def losses_and_readings(self, masks: Mask, weights: Floats) -> tuple[Floats, Floats]:
        """Return `validation_losses`, and the estimate (s, p) of each part of meta-training alone, nats."""

    def reading_noise(self, readings: Floats) -> Floats:
        """Return the standard error (…) of a mean of readings, or of their differences (…, p), nats."""


@dataclass(frozen=True, slots=True)
class Affinities:
    """Effect of each task on the target's estimated loss.

    Attributes:
        values: Mean estimate of the sampled subsets without the task minus the mean with it (t,), nats. Positive values
            help.
        standard_errors: Standard errors of `values` (t,), nats. They cover the draw of subsets and of validation
            examples.
    """

    values: Floats
    standard_errors: Floats


def sample_subsets(task_count: int, *, subsets: int, share: float, seed: int) -> Mask:
    """Draw random subsets. Each task is in a subset independently of the other tasks.

    Independence makes the affinity the task's own effect. In subsets of one fixed size, each task replaces another.
    The least harmful of several harmful tasks would then seem to help.

    Args:
        task_count: Number t of tasks.
        subsets: Number s of subsets.
        share: Probability that a subset contains a task.
        seed: Seed of the draw.

    Returns:
        Membership (s, t).
    """
    return np.asarray(np.random.default_rng(seed).random((subsets, task_count)) < share)


def sample_affinities(
    estimator: SubsetEstimator, masks: Mask, *, chunk: int = 256, on_chunk: Callable[[int], None] = lambda _: None
) -> Affinities:
    """Estimate random subsets, and compare those with a task to those without the task.

    Args:
        estimator: Estimates the target's loss.
        masks: Sampled subsets (s, t), from `sample_subsets`.
        chunk: Number of subsets to estimate at once.
        on_chunk: Called with the number of finished subsets.

    Returns:
        Affinity and standard error of each task, nats. If all or none of the subsets contain a task, its affinity is 0
        and its standard error is infinite.
    """
    weights = estimator.validation_weights
    count, tasks = masks.shape
    losses = np.zeros(count)
    with_task, without = np.zeros((2, tasks, len(weights)))
    for start in range(0, count, chunk):
        part = masks[start : start + chunk]
        each = estimator.validation_losses(part)
        losses[start : start + chunk] = each @ weights
        with_task += part.T.astype(np.float64) @ each
        without += (~part).T.astype(np.float64) @ each
        on_chunk(min(start + chunk, count))
    inside = masks.sum(axis=0).astype(np.float64)
    outside = count - inside
    values, errors = np.zeros(tasks), np.full(tasks, np.inf)
    for task in np.flatnonzero((inside > 0) & (outside > 0)):
        difference = without[task] / outside[task] - with_task[task] / inside[task]
        values[task] = difference @ weights
        judged = float((weights**2 * (difference - values[task]) ** 2).sum())
        groups: Iterable[tuple[Any, float]] = ((masks[:, task], inside[task]), (~masks[:, task], outside[task]))
        drawn = sum(float(losses[group].var()) / size for group, size in groups)
        errors[task] = np.sqrt(judged + drawn)
    return Affinities(values, errors)
