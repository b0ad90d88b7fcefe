"""What a budget buys: estimated loss against training tokens, and the subsets that no other one beats on both."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.estimate import TargetEstimator
from curator.whatif import Judgement, judge_each

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class CurvePoint:
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
) -> list[CurvePoint]:
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
        points.append(CurvePoint(judged[number], int(costs[number]), judged[number].loss < least))
        least = min(least, judged[number].loss)
    return points
