"""Affinity of each task: the mean gain in estimated loss over random subsets."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from curator.core.arrays import Floats, Mask


class SubsetEstimator(Protocol):
    """What selection needs of an estimator."""

    @property
    def task_count(self) -> int:
        """Number t of auxiliary tasks."""

    def validation_losses(self, masks: Mask) -> Floats:
        """Estimated loss of each validation example (s, v) under each subset (s, t)."""

    @property
    def validation_weights(self) -> Floats:
        """Weight (v,) of each validation example in the target's loss; they sum to 1."""


@dataclass(frozen=True, slots=True)
class Affinities:
    """What each task does to the target's estimated loss.

    Attributes:
        values: Mean estimate of the sampled subsets without the task minus the mean with it (t,); > 0 helps.
        standard_errors: Of `values` (t,): which subsets were drawn, and which validation examples judge.
    """

    values: Floats
    standard_errors: Floats


def sample_subsets(task_count: int, *, subsets: int, share: float, seed: int) -> Mask:
    """Draw random subsets, in which each task is or is not by itself.

    With subsets of one fixed size a task would stand in another's place, and among harmful tasks the least harmful one
    would seem to help. Drawn independently, a task's affinity is its own effect.

    Args:
        task_count: Number t of tasks.
        subsets: How many to draw (s).
        share: Probability that a task is in a subset, and so the mean share of the tasks in it.
        seed: Seed.

    Returns:
        Membership (s, t).
    """
    return np.asarray(np.random.default_rng(seed).random((subsets, task_count)) < share)


def sample_affinities(
    estimator: SubsetEstimator, masks: Mask, *, chunk: int = 256, on_chunk: Callable[[int], None] = lambda _: None
) -> Affinities:
    """Estimate random subsets and compare those with a task with those without it.

    Args:
        estimator: Of the target's loss.
        masks: Sampled subsets (s, t), from `sample_subsets`.
        chunk: Subsets that are estimated at once.
        on_chunk: Told how many subsets are done.

    Returns:
        Affinity and standard error of each task. A task that is in all or in none of the subsets has affinity 0 and an
        infinite standard error.
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
