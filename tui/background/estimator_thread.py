"""Estimates in a thread of their own, so that no key press waits for one.

Only the newest question counts: an answer is given up as soon as another question arrives, and every answer carries
the revision that it belongs to, so that nothing old is ever shown.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.estimate.estimator import TargetEstimator
from curator.estimate.whatif import Difference, Judgement, difference, flips, judge, judge_each

Rows = npt.NDArray[np.intp]

# Up to so many tasks, every flip is solved in full; of more, those on the screen.
SOLVED_IN_FULL = 300
# In seconds. The screen gets the processor first, and is not drawn anew for every few flips.
_HEAD_START = 0.1
_SAY_EVERY = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is wanted: the selection (t,), the saved one (t,), and the rows that people can see."""

    revision: int
    mask: Mask
    saved: Mask
    visible: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """What the selection of one revision is estimated to come to.

    Attributes:
        revision: Of the session.
        judgement: Its estimate.
        versus_all: Its difference to all tasks.
        versus_saved: Its difference to the saved selection.
        seconds: How long the estimate took.
        flips: What turning each task round adds to the loss (t,); NaN where it is not known yet.
        solved: Whether that is estimated in full, rather than to first order (t,).
    """

    revision: int
    judgement: Judgement
    versus_all: Difference
    versus_saved: Difference
    seconds: float
    flips: Floats
    solved: Mask


class Thinker(threading.Thread):
    """TargetEstimates the newest question.

    Args:
        estimator: Makes the estimator; called once, in this thread.
        answered: Told of each `Outlook`, better and better, in this thread; and of an error that ended an answer.
    """

    def __init__(
        self, estimator: Callable[[], TargetEstimator], answered: Callable[[Outlook | Exception], None]
    ) -> None:
        super().__init__(name="thinker", daemon=True)
        self._make, self._answered = estimator, answered
        self._changed = threading.Condition()
        self._question: Question | None = None
        self._stopped = False
        self._references: dict[bytes, Judgement] = {}
        self._first: Outlook | None = None

    def ask(self, question: Question) -> None:
        """Ask; whatever was asked before is given up."""
        with self._changed:
            self._question = question
            self._changed.notify_all()

    def first_answer(self, revision: int, seconds: float) -> Outlook | None:
        """The estimate of a revision, if it comes within some seconds.

        Drawing a screen takes longer than most estimates, and both at once take longer than one after the other.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._first is not None and self._first.revision == revision, seconds)
            found = self._first
        return found if found is not None and found.revision == revision else None

    def stop(self) -> None:
        """End, after the solve that is under way."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def run(self) -> None:
        """Answer until told to stop."""
        while True:
            with self._changed:
                while self._question is None and not self._stopped:
                    self._changed.wait()
                question, self._question = self._question, None
            if self._stopped:
                return
            assert question is not None
            try:
                for outlook in self._answer(question):
                    if self._is_old():
                        break
                    self._answered(outlook)
            except Exception as error:
                self._answered(error)

    def _is_old(self) -> bool:
        return self._stopped or self._question is not None

    def _answer(self, question: Question) -> Iterator[Outlook]:
        estimator = self._make()
        began = time.perf_counter()
        current = judge(estimator, question.mask)
        every = self._reference(estimator, np.ones_like(question.mask))
        saved = self._reference(estimator, question.saved)
        count = len(question.mask)
        outlook = Outlook(
            question.revision,
            current,
            difference(estimator, current, every),
            difference(estimator, current, saved),
            time.perf_counter() - began,
            np.full(count, np.nan),
            np.zeros(count, dtype=bool),
        )
        with self._changed:
            self._first = outlook
            self._changed.notify_all()
        yield outlook
        if not count or self._waited(_HEAD_START):
            return
        # Over many tasks it takes longer than a key may wait.
        gains = estimator.task_gains(question.mask, stop=self._is_old)
        if self._is_old():
            return
        changes, solved = np.where(question.mask, gains, -gains), np.zeros(count, dtype=bool)
        yield _with(outlook, changes, solved)
        rest = np.arange(count) if count <= SOLVED_IN_FULL else np.zeros(0, dtype=np.intp)
        wanted = np.concatenate([question.visible, np.setdiff1d(rest, question.visible)])
        said = time.perf_counter()
        # One at a time: the next question waits for no more than one solve.
        for task in wanted:
            if self._is_old():
                return
            changes[task], solved[task] = flips(estimator, current, np.array([task]))[0], True
            if time.perf_counter() - said > _SAY_EVERY:
                said = time.perf_counter()
                yield _with(outlook, changes, solved)
        yield _with(outlook, changes, solved)

    def _waited(self, seconds: float) -> bool:
        """Wait a little, and say whether another question came meanwhile."""
        with self._changed:
            return self._changed.wait_for(self._is_old, seconds)

    def _reference(self, estimator: TargetEstimator, mask: Mask) -> Judgement:
        key = mask.tobytes()
        if key not in self._references:
            if len(self._references) > 100:
                self._references.clear()
            self._references[key] = judge_each(estimator, mask[None])[0]
        return self._references[key]


def _with(outlook: Outlook, changes: Floats, solved: Mask) -> Outlook:
    return Outlook(
        outlook.revision,
        outlook.judgement,
        outlook.versus_all,
        outlook.versus_saved,
        outlook.seconds,
        changes.copy(),
        solved.copy(),
    )
