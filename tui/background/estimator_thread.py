"""Estimates selections in a thread, so that no key press waits for an estimate.

Only the newest request counts. A new request ends the work on the earlier request. Every estimate carries the revision
of its selection, so that screens can ignore an old estimate.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.core.errors import CuratorError
from curator.core.interval import Interval
from curator.estimate import whatif
from curator.estimate.loss_estimator import LossEstimator
from curator.estimate.whatif import LossDifference, difference, estimate_selection, estimate_selections, flips

Rows = npt.NDArray[np.intp]
Named = tuple[tuple[str, str], ...]
"""Task and content hash of each dropped example, sorted."""
Lacking = Callable[[Named], tuple[LossEstimator, float]]
"""Returns the estimator without some examples, and the dropped shares of tasks, summed over the tasks."""

# Up to this number of tasks, every flip is solved in full. Beyond this number, only flips of visible tasks are.
SOLVED_IN_FULL = 300
# In seconds. The screen gets the processor first. Flips are delivered in groups, to draw less often.
_HEAD_START = 0.1
_DELIVER_EVERY = 0.2
# Other selections that are estimated at once, so that the next request does not wait long.
_AT_ONCE = 8
_MOST_KEPT = 1000


@dataclass(frozen=True, slots=True, eq=False)
class EstimateRequest:
    """A request to estimate a selection.

    Attributes:
        revision: Revision of the session.
        mask: Membership of the selection (t,).
        saved: Membership of the saved selection (t,).
        visible: Numbers of the tasks on the screen. Their flips are solved first.
        others: Other selections on the screens, saved ones and those of earlier edits: membership (t,) and dropped
            examples.
        dropped: Examples that the selection drops.
        saved_dropped: Examples that the saved selection drops.
    """

    revision: int
    mask: Mask
    saved: Mask
    visible: Rows
    others: Sequence[tuple[Mask, Named]] = ()
    dropped: Named = ()
    saved_dropped: Named = ()


@dataclass(frozen=True, slots=True)
class KnownLoss:
    """Estimated target loss of another selection, in nats, with its plain interval and its difference to all tasks."""

    loss: float
    versus_all: LossDifference
    interval: Interval


def selection_key(mask: Mask, dropped: Named) -> bytes:
    """Return the identity of a selection: its membership (t,) and the examples that it drops."""
    return mask.tobytes() + (repr(dropped).encode() if dropped else b"")


@dataclass(frozen=True, slots=True, eq=False)
class LiveEstimate:
    """The estimate of a selection.

    Attributes:
        revision: Revision of the session.
        target_loss: Estimated target loss.
        versus_all: Difference to the loss of all tasks.
        versus_saved: Difference to the loss of the saved selection.
        seconds: Duration of the estimation.
        flips: Change of the loss if a task is toggled (t,); NaN where the change is not known yet.
        solved: Whether a flip is solved in full, not only to first order (t,).
        losses: Losses of other selections by their `selection_key`, from the same estimator.
        is_complete: Whether no better estimate of the revision follows.
        versus_none: Difference to the loss of the target alone.
    """

    revision: int
    target_loss: whatif.SelectionEstimate
    versus_all: LossDifference
    versus_saved: LossDifference
    seconds: float
    flips: Floats
    solved: Mask
    losses: Mapping[bytes, KnownLoss] = field(default_factory=dict)
    is_complete: bool = False
    versus_none: LossDifference | None = None


class EstimatorThread(threading.Thread):
    """Estimates the selection of the newest request.

    Args:
        estimator: Returns the estimator. Called in this thread for every request.
        deliver: Receives each `LiveEstimate`, each better than the last, or an error. Called in this thread.
        lacking: Returns the estimator without some examples. Called in this thread for requests that drop some.
    """

    def __init__(
        self,
        estimator: Callable[[], LossEstimator],
        deliver: Callable[[LiveEstimate | Exception], None],
        lacking: Lacking | None = None,
    ) -> None:
        super().__init__(name="estimator", daemon=True)
        self._make, self._deliver, self._lacking = estimator, deliver, lacking
        self._changed = threading.Condition()
        self._request: EstimateRequest | None = None
        self._stopped = False
        self._references: dict[bytes, whatif.SelectionEstimate] = {}
        self._losses: dict[bytes, KnownLoss] = {}
        self._first: LiveEstimate | None = None

    def request(self, request: EstimateRequest) -> None:
        """Request an estimate. Work on the earlier request ends."""
        with self._changed:
            self._request = request
            self._changed.notify_all()

    def first_estimate(self, revision: int, seconds: float) -> LiveEstimate | None:
        """Wait for the estimate of a revision; None if the time runs out.

        Drawing a screen takes longer than most estimates. Both at the same time are slower than one after the
        other.

        Args:
            revision: Revision of the session.
            seconds: Longest time to wait.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._first is not None and self._first.revision == revision, seconds)
            found = self._first
        return found if found is not None and found.revision == revision else None

    def stop(self) -> None:
        """End the thread after the current solve."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def run(self) -> None:
        """Estimate until `stop` is called."""
        while True:
            with self._changed:
                while self._request is None and not self._stopped:
                    self._changed.wait()
                request, self._request = self._request, None
            if self._stopped:
                return
            assert request is not None
            try:
                for estimate in self._estimates(request):
                    if self._is_old():
                        break
                    self._deliver(estimate)
            except Exception as error:
                self._deliver(error)

    def _is_old(self) -> bool:
        return self._stopped or self._request is not None

    def _estimates(self, request: EstimateRequest) -> Iterator[LiveEstimate]:
        whole = self._make()
        began = time.perf_counter()
        estimator, share = self._without(whole, request.dropped)
        current = estimate_selection(estimator, request.mask)
        every = self._reference(whole, np.ones_like(request.mask))
        none = self._reference(whole, np.zeros_like(request.mask))
        saved = self._reference(whole, request.saved, request.saved_dropped)
        apart = abs(share - self._without(whole, request.saved_dropped)[1])
        count = len(request.mask)
        versus_all = difference(estimator, current, every, dropped=share)
        if len(self._losses) > _MOST_KEPT:
            self._losses.clear()
        self._losses[selection_key(request.mask, request.dropped)] = KnownLoss(
            current.loss, versus_all, current.estimate
        )
        self._losses[selection_key(every.mask, ())] = KnownLoss(
            every.loss, difference(whole, every, every), every.estimate
        )
        self._losses[selection_key(none.mask, ())] = KnownLoss(none.loss, difference(whole, none, every), none.estimate)
        estimate = LiveEstimate(
            request.revision,
            current,
            versus_all,
            difference(estimator, current, saved, dropped=apart),
            time.perf_counter() - began,
            np.full(count, np.nan),
            np.zeros(count, dtype=bool),
            dict(self._losses),
            is_complete=not count,
            versus_none=difference(estimator, current, none, dropped=share),
        )
        with self._changed:
            self._first = estimate
            self._changed.notify_all()
        yield estimate
        if not count or self._waited(_HEAD_START):
            return
        if self._estimate_others(whole, request.others, every):
            estimate = replace(estimate, losses=dict(self._losses))
            yield estimate
        if self._is_old():
            return
        # With many tasks, this takes longer than a key press may wait.
        gains = estimator.task_gains(request.mask, stop=self._is_old)
        if self._is_old():
            return
        changes, solved = np.where(request.mask, gains, -gains), np.zeros(count, dtype=bool)
        yield _with(estimate, changes, solved)
        rest = np.arange(count) if count <= SOLVED_IN_FULL else np.zeros(0, dtype=np.intp)
        wanted = np.concatenate([request.visible, np.setdiff1d(rest, request.visible)])
        delivered = time.perf_counter()
        # Solve one flip at a time, so that the next request waits for one solve at most.
        for task in wanted:
            if self._is_old():
                return
            changes[task], solved[task] = flips(estimator, current, np.array([task]))[0], True
            if time.perf_counter() - delivered > _DELIVER_EVERY:
                delivered = time.perf_counter()
                yield _with(estimate, changes, solved)
        yield replace(_with(estimate, changes, solved), is_complete=True)

    def _estimate_others(
        self, whole: LossEstimator, others: Sequence[tuple[Mask, Named]], every: whatif.SelectionEstimate
    ) -> bool:
        """Estimate selections that are not known yet. Return whether at least one was."""
        missing: dict[Named, dict[bytes, Mask]] = {}
        for mask, dropped in others:
            key = selection_key(mask, dropped)
            if key not in self._losses:
                missing.setdefault(dropped, {})[key] = mask
        for dropped, masks in missing.items():
            keys = list(masks)
            for first in range(0, len(keys), _AT_ONCE):
                if self._is_old():
                    return True
                try:
                    estimator, share = self._without(whole, dropped)
                except CuratorError:
                    # The selection in hand does not depend on this one, so only this loss stays unknown.
                    break
                part = keys[first : first + _AT_ONCE]
                found = estimate_selections(estimator, np.stack([masks[key] for key in part]))
                for key, other in zip(part, found, strict=True):
                    self._losses[key] = KnownLoss(
                        other.loss, difference(estimator, other, every, dropped=share), other.estimate
                    )
        return bool(missing)

    def _waited(self, seconds: float) -> bool:
        """Wait some seconds, and return whether another request arrived."""
        with self._changed:
            return self._changed.wait_for(self._is_old, seconds)

    def _without(self, whole: LossEstimator, dropped: Named) -> tuple[LossEstimator, float]:
        """Return the estimator without dropped examples, and the dropped shares of tasks."""
        return self._lacking(dropped) if dropped and self._lacking is not None else (whole, 0.0)

    def _reference(self, whole: LossEstimator, mask: Mask, dropped: Named = ()) -> whatif.SelectionEstimate:
        key = selection_key(mask, dropped)
        if key not in self._references:
            if len(self._references) > 100:
                self._references.clear()
            self._references[key] = estimate_selections(self._without(whole, dropped)[0], mask[None])[0]
        return self._references[key]


def _with(estimate: LiveEstimate, changes: Floats, solved: Mask) -> LiveEstimate:
    return replace(estimate, flips=changes.copy(), solved=solved.copy())
