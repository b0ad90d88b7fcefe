"""What would change: answers fast enough to be asked at every key press.

A `Judgement` is the estimate of one subset with all that is needed to compare it with another; a `Difference` knows
whether it is more than noise.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.core.interval import Interval
from curator.estimate.estimator import NORMAL_90, ROUNDING, TargetEstimator


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """The estimated target loss of one subset, in nats per target token.

    Attributes:
        mask: The subset (t,).
        estimate: Estimated loss and its 90 % interval.
        each: Estimated loss of every validation example (v,).
    """

    mask: Mask
    estimate: Interval
    each: Floats

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
class Difference:
    """What one subset's estimated loss is above another's, in nats, and how far that may be chance.

    Attributes:
        value: Negative where the first is better.
        noise: Half of the 90 % interval of the difference: over the validation examples, which are the same for both,
            and, where subsets were really fine-tuned on, over what estimates got wrong of these.
    """

    value: float
    noise: float

    @property
    def is_noise(self) -> bool:
        """Whether the two cannot be told apart."""
        return abs(self.value) <= self.noise


def judge(estimator: TargetEstimator, mask: Mask) -> Judgement:
    """Estimate one subset (t,)."""
    return judge_each(estimator, mask[None])[0]


def judge_each(estimator: TargetEstimator, masks: Mask) -> list[Judgement]:
    """Estimate several subsets (s, t)."""
    each = estimator.validation_losses(masks)
    found = []
    for mask, losses, half in zip(masks, each, estimator.half_widths(each), strict=True):
        loss = float(losses @ estimator.validation_weights)
        found.append(Judgement(mask, Interval.around(loss, float(half)), losses))
    return found


def difference(estimator: TargetEstimator, first: Judgement, second: Judgement) -> Difference:
    """Compare two subsets, validation example by validation example."""
    change = first.each - second.each
    # The same subset, summed in another order, is the same subset.
    change = np.where(np.abs(change) < ROUNDING, 0.0, change)
    value, noise = _mean_and_noise(change, estimator.validation_weights)
    if estimator.calibration is not None:
        noise = math.hypot(
            noise, estimator.calibration.noise_of_difference(int((first.mask ^ second.mask).sum())) or 0.0
        )
    return Difference(value, noise)


def _mean_and_noise(values: Floats, weights: Floats) -> tuple[float, float]:
    mean = float(values @ weights)
    return mean, NORMAL_90 * float(np.sqrt(((weights * (values - mean)) ** 2).sum()))


def flips(estimator: TargetEstimator, current: Judgement, tasks: npt.NDArray[np.intp]) -> Floats:
    """What putting each of several tasks in, or taking it out, adds to the estimated loss (len(tasks),)."""
    masks = np.repeat(current.mask[None], len(tasks), axis=0)
    masks[np.arange(len(tasks)), tasks] ^= True
    return np.asarray(estimator.validation_losses(masks) @ estimator.validation_weights - current.loss)


def best_order(
    estimator: TargetEstimator, start: Mask, allowed: Mask, *, stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, float]]:
    """Add tasks one at a time, the one that promises most first, until all that are allowed are in.

    The promise of a task is its first-order gain around the subset so far; each step's loss is estimated in full.

    Args:
        estimator: Of the target's loss.
        start: The subset to begin with (t,).
        allowed: The tasks that may be added (t,).
        stop: Asked before each step whether to give up.

    Yields:
        The task that was added (−1 for the start), and the estimated loss with it.
    """
    mask = start.copy()
    yield -1, judge(estimator, mask).loss
    while (remaining := np.flatnonzero(allowed & ~mask)).size and not stop():
        gains = estimator.task_gains(mask)
        task = int(remaining[np.argmax(gains[remaining])])
        mask[task] = True
        yield task, judge(estimator, mask).loss


@dataclass(frozen=True, slots=True, eq=False)
class BudgetStep:
    """One subset on the way from the target alone to all tasks.

    Attributes:
        judged: Its estimate.
        tokens: Training tokens of its tasks, without the target's.
        on_front: Whether no other subset here is estimated lower at no more tokens.
    """

    judged: Judgement
    tokens: int
    on_front: bool


def budget_curve(
    estimator: TargetEstimator,
    tokens: npt.NDArray[np.int64],
    *,
    extra: Mask | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> list[BudgetStep]:
    """Walk from nothing to everything, each time by the task that gives most per token, and back the same way.

    Both ways are greedy: adding finds the tasks that help alone, removing those that help beside others.

    Args:
        estimator: Of the target's loss.
        tokens: Training tokens of each task (t,).
        extra: Other subsets to show (s, t), selections perhaps.
        on_step: Told how many of the 2t steps are done.

    Returns:
        Different subsets by their tokens, then by their loss.
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
            # Adding: most gain for a token. Removing: least loss for a token given back.
            best = int(np.argmin((losses - here) / price[left]))
            mask = tried[best]
            masks.append(mask)
            on_step(step + 1 if member else count + step + 1)
    every = np.unique(np.concatenate([np.stack(masks), *([] if extra is None else [extra])]), axis=0)
    costs = every @ tokens
    judged = judge_each(estimator, every)
    order = sorted(range(len(every)), key=lambda n: (costs[n], judged[n].loss))
    points, least = [], np.inf
    for number in order:
        points.append(BudgetStep(judged[number], int(costs[number]), judged[number].loss < least))
        least = min(least, judged[number].loss)
    return points
