"""Estimates without some examples. This module imports no Textual.

The last estimators are kept, because the thread of estimates and the Task screen ask for the same ones.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from curator.core.arrays import Mask
from curator.data.dropped import Dropped
from curator.estimate.loss_estimator import LossEstimator
from curator.estimate.reduced import ReducedEstimates
from curator.estimate.target import TargetEstimates
from curator.estimate.whatif import LossDifference, SelectionEstimate, difference, estimate_selection

Named = tuple[tuple[str, str], ...]
"""Task and content hash of each dropped example, sorted."""

_KEPT = 4
_lock = threading.Lock()
_made: OrderedDict[tuple[str, Named], ReducedEstimates] = OrderedDict()


@dataclass(frozen=True, slots=True, eq=False)
class DropEffect:
    """What dropping examples of one task does to the selection.

    Attributes:
        before: Estimate with the examples.
        after: Estimate without them.
        change: Difference of the two, with its noise. Negative if dropping helps.
        rows: Number of examples that are dropped or marked.
    """

    before: SelectionEstimate
    after: SelectionEstimate
    change: LossDifference
    rows: int


def lacking_estimator(answers: TargetEstimates, dropped: Named) -> tuple[LossEstimator, float]:
    """Return the estimator without some examples, and the dropped shares of tasks, summed over the tasks.

    Examples that the project does not hold any more are ignored.

    Raises:
        CuratorError: The examples cannot be read, or the estimator cannot drop examples.
    """
    there = Dropped.of(dropped).within(answers.corpus)
    if not there:
        return answers.estimator, 0.0
    key = answers.key, there.named
    with _lock:
        if key not in _made:
            _made[key] = ReducedEstimates(answers, there)
            while len(_made) > _KEPT:
                _made.popitem(last=False)
        _made.move_to_end(key)
        found = _made[key]
        return found.estimator, found.share_dropped([task for task, _ in there.by_task])


def drop_effect(answers: TargetEstimates, mask: Mask, others: Named, own: Named) -> DropEffect:
    """Estimate a selection with and without some examples of one task.

    Args:
        answers: Estimates of the project.
        mask: Membership of the selection (t,).
        others: Dropped examples of other tasks.
        own: Examples of the task that are dropped or marked.

    Raises:
        CuratorError: The examples cannot be read, or the estimator cannot drop examples.
    """
    first, share = lacking_estimator(answers, others)
    second, more = lacking_estimator(answers, tuple(sorted((*others, *own))))
    before, after = estimate_selection(first, mask), estimate_selection(second, mask)
    return DropEffect(before, after, difference(second, after, before, dropped=more - share), len(own))
