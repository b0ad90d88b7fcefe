"""Estimate the effect of changes to a selection, fast enough for every key press.

A `SelectionEstimate` is the estimate of one subset, with the numbers that a comparison with another subset needs.
A `LossDifference` compares two subsets and knows its noise.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.core.interval import NORMAL_90, Interval
from curator.estimate.loss_estimator import ROUNDING, LossEstimator

TRIED = 64
"""Most tasks whose addition is estimated in one step of the best order."""


@dataclass(frozen=True, slots=True, eq=False)
class SelectionEstimate:
    """Estimated target loss of one subset, in nats per target token.

    Attributes:
        mask: The subset (t,).
        estimate: Estimated loss and its 90 % interval.
        each: Estimated loss of every validation example (v,).
        readings: Estimated difference to the loss of all tasks by each part of meta-training alone (p,).
    """

    mask: Mask
    estimate: Interval
    each: Floats
    readings: Floats

    @property
    def loss(self) -> float:
        """Estimated loss."""
        return self.estimate.value

    @property
    def low(self) -> float:
        """Lower end of the 90 % interval."""
        return self.estimate.low

    @property
    def high(self) -> float:
        """Upper end of the 90 % interval."""
        return self.estimate.high


@dataclass(frozen=True, slots=True)
class LossDifference:
    """Estimated loss of one subset minus that of another, in nats.

    Attributes:
        value: Negative if the first subset is better.
        noise: Half of the 90 % interval of the difference. It covers the choice of validation examples, which both
            subsets share. With a calibration, it also covers the errors on measured subsets. Without one, it covers the
            spread between the parts of meta-training.
    """

    value: float
    noise: float

    @property
    def is_noise(self) -> bool:
        """Whether noise alone can explain the difference."""
        return abs(self.value) <= self.noise


def estimate_selection(estimator: LossEstimator, mask: Mask) -> SelectionEstimate:
    """Estimate one subset (t,)."""
    return estimate_selections(estimator, mask[None])[0]


def estimate_selections(estimator: LossEstimator, masks: Mask) -> list[SelectionEstimate]:
    """Estimate several subsets (s, t)."""
    each, readings = estimator.losses_and_readings(masks, estimator.validation_weights)
    half_widths = estimator.half_widths(each, readings)
    found = []
    for mask, losses, parts, half in zip(masks, each, readings, half_widths, strict=True):
        loss = float(losses @ estimator.validation_weights)
        found.append(SelectionEstimate(mask, Interval.around(loss, float(half)), losses, parts))
    return found


def difference(
    estimator: LossEstimator, first: SelectionEstimate, second: SelectionEstimate, *, dropped: float = 0.0
) -> LossDifference:
    """Compare two subsets, validation example by validation example.

    Args:
        estimator: Estimates the target's loss.
        first: Estimate of one subset.
        second: Estimate of the other subset.
        dropped: Shares of tasks that only one of the subsets drops, summed over the tasks.
    """
    change, readings = _without_rounding(first.each - second.each), _without_rounding(first.readings - second.readings)
    value, noise = _mean_and_noise(change, estimator.validation_weights)
    apart = float((first.mask ^ second.mask).sum()) + dropped
    learned = None if estimator.calibration is None else estimator.calibration.noise_of_difference(apart)
    if learned is None:
        learned = NORMAL_90 * float(estimator.reading_noise(readings))
    return LossDifference(value, math.hypot(noise, learned))


def _without_rounding(change: Floats) -> Floats:
    """Return a change with exact zeros: equal subsets, summed in another order, differ by rounding only."""
    return np.where(np.abs(change) < ROUNDING, 0.0, change)


def doubtful_tasks(estimator: LossEstimator, mask: Mask) -> npt.NDArray[np.intp]:
    """Return the tasks of a subset (t,) whose removal changes the estimate by less than its noise.

    The noise is half of the 90 % interval of the difference. It covers the choice of validation examples, and the
    spread between the parts of meta-training. Errors on measured subsets are left out: they are those of many tasks.
    """
    tasks = np.flatnonzero(mask)
    masks = np.repeat(mask[None], len(tasks) + 1, axis=0)
    masks[np.arange(len(tasks)), tasks] = False
    weights = estimator.validation_weights
    each, readings = estimator.losses_and_readings(masks, weights)
    spread = NORMAL_90 * estimator.reading_noise(readings[:-1] - readings[-1])
    pairs = [_mean_and_noise(one - each[-1], weights) for one in each[:-1]]
    within = [abs(value) <= math.hypot(noise, more) for (value, noise), more in zip(pairs, spread, strict=True)]
    return np.asarray(tasks[np.array(within, dtype=bool)])


def _mean_and_noise(values: Floats, weights: Floats) -> tuple[float, float]:
    mean = float(values @ weights)
    return mean, NORMAL_90 * float(np.sqrt(((weights * (values - mean)) ** 2).sum()))


def flips(estimator: LossEstimator, current: SelectionEstimate, tasks: npt.NDArray[np.intp]) -> Floats:
    """Estimate the change of the loss when each of several tasks is toggled (len(tasks),), nats."""
    masks = np.repeat(current.mask[None], len(tasks), axis=0)
    masks[np.arange(len(tasks)), tasks] ^= True
    return np.asarray(estimator.validation_losses(masks) @ estimator.validation_weights - current.loss)


def best_order(
    estimator: LossEstimator, start: Mask, allowed: Mask, *, stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, float]]:
    """Add tasks one at a time until all allowed tasks are in. Each step adds the task that gives the lowest estimate.

    With more than `TRIED` tasks left, a step tries those with the highest gain to first order.

    Args:
        estimator: Estimates the target's loss.
        start: First subset (t,).
        allowed: Tasks that may be added (t,).
        stop: Called before each step. True stops the work.

    Yields:
        The added task (−1 for the start), and the estimated loss with it, nats.
    """
    mask = start.copy()
    yield -1, estimate_selection(estimator, mask).loss
    while (remaining := np.flatnonzero(allowed & ~mask)).size and not stop():
        if len(remaining) > TRIED:
            gains = estimator.task_gains(mask)[remaining]
            remaining = remaining[np.argsort(-gains, kind="stable")[:TRIED]]
        tried = np.repeat(mask[None], len(remaining), axis=0)
        tried[np.arange(len(remaining)), remaining] = True
        losses = estimator.validation_losses(tried) @ estimator.validation_weights
        best = int(np.argmin(losses))
        mask = tried[best]
        yield int(remaining[best]), float(losses[best])


@dataclass(frozen=True, slots=True, eq=False)
class BudgetStep:
    """One subset on the path from the target alone to all tasks.

    Attributes:
        estimated: Estimate of the subset.
        tokens: Training tokens of the auxiliary tasks in the subset.
        on_front: Whether every other subset with at most as many tokens has a higher or equal estimate.
    """

    estimated: SelectionEstimate
    tokens: int
    on_front: bool


def budget_curve(
    estimator: LossEstimator,
    tokens: npt.NDArray[np.int64],
    *,
    extra: Mask | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> list[BudgetStep]:
    """Walk from no task to all tasks by the gain per token, and back by the loss per token.

    Both paths are greedy. Adding finds tasks that help alone. Removing finds tasks that help together with others.

    Args:
        estimator: Estimates the target's loss.
        tokens: Training tokens of each task (t,).
        extra: Other subsets to include (s, t).
        on_step: Called with the number of finished steps, of 2t.

    Returns:
        Different subsets, by tokens and then by loss.
    """
    count = estimator.task_count
    price = np.maximum(tokens, 1).astype(np.float64)
    masks = [np.zeros(count, dtype=bool), np.ones(count, dtype=bool)]
    for begin, member in ((masks[0], True), (masks[1], False)):
        mask = begin.copy()
        for step in range(count):
            left = np.flatnonzero(mask != member)
            tried = np.repeat(mask[None], len(left), axis=0)
            tried[np.arange(len(left)), left] = member
            losses = estimator.validation_losses(tried) @ estimator.validation_weights
            here = float(estimator.validation_losses(mask[None])[0] @ estimator.validation_weights)
            # Adding: highest gain per token. Removing: lowest loss per saved token.
            best = int(np.argmin((losses - here) / price[left]))
            mask = tried[best]
            masks.append(mask)
            on_step(step + 1 if member else count + step + 1)
    every = np.unique(np.concatenate([np.stack(masks), *([] if extra is None else [extra])]), axis=0)
    costs = every @ tokens
    estimated = estimate_selections(estimator, every)
    order = sorted(range(len(every)), key=lambda n: (costs[n], estimated[n].loss))
    points, least = [], np.inf
    for number in order:
        points.append(BudgetStep(estimated[number], int(costs[number]), estimated[number].loss < least))
        least = min(least, estimated[number].loss)
    return points
