"""The thread of the estimator estimates only the newest request, and estimates it correctly."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from drawn_estimators import TASKS, all_masks, draw_checkpoints, make_estimator

from curator.core.errors import CuratorError
from curator.estimate.estimator import TargetEstimator
from curator.estimate.whatif import estimate_selection
from tui.background.estimator_thread import EstimateRequest, EstimatorThread, LiveEstimate, selection_key

EVERY = np.ones(TASKS, dtype=bool)


class Answers:
    """Collects the estimates of a thread."""

    def __init__(self) -> None:
        self.all: list[LiveEstimate | Exception] = []
        self.arrived = threading.Condition()

    def __call__(self, answer: LiveEstimate | Exception) -> None:
        with self.arrived:
            self.all.append(answer)
            self.arrived.notify_all()

    def wait(self, test: Callable[["Answers"], bool]) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: test(self), 10)


@pytest.fixture
def estimator() -> TargetEstimator:
    return make_estimator(draw_checkpoints(), [2.0, 3.0])


@pytest.fixture
def estimator_thread(estimator: TargetEstimator) -> Iterator[tuple[EstimatorThread, Answers]]:
    answers = Answers()
    made = EstimatorThread(lambda: estimator, answers)
    made.start()
    yield made, answers
    made.stop()
    made.join(10)
    assert not made.is_alive()


def _request(revision: int, mask: np.ndarray) -> EstimateRequest:
    return EstimateRequest(revision, mask, all_masks()[3], np.array([1]))


def _is_complete(answers: Answers) -> bool:
    last = answers.all[-1] if answers.all else None
    return isinstance(last, LiveEstimate) and bool(last.solved.all())


def test_estimator_thread_one_request_delivers_estimate_of_estimator(
    estimator_thread: tuple[EstimatorThread, Answers], estimator: TargetEstimator
) -> None:
    made, answers = estimator_thread
    mask = all_masks()[6]
    made.request(_request(7, mask))
    answers.wait(_is_complete)
    last = answers.all[-1]
    assert isinstance(last, LiveEstimate)
    assert last.revision == 7
    assert last.target_loss.loss == pytest.approx(estimate_selection(estimator, mask).loss)
    assert last.versus_all.value == pytest.approx(
        estimate_selection(estimator, mask).loss - estimate_selection(estimator, EVERY).loss
    )
    assert last.versus_saved.value == pytest.approx(
        estimate_selection(estimator, mask).loss - estimate_selection(estimator, all_masks()[3]).loss
    )
    for task in range(TASKS):
        flipped = mask.copy()
        flipped[task] ^= True
        assert last.flips[task] == pytest.approx(estimate_selection(estimator, flipped).loss - last.target_loss.loss)
    first = answers.all[0]
    assert isinstance(first, LiveEstimate)
    assert np.isnan(first.flips).all(), "the first estimate does not wait for the flips"


def test_estimator_thread_many_requests_estimates_the_newest(estimator_thread: tuple[EstimatorThread, Answers]) -> None:
    made, answers = estimator_thread
    for revision in range(200):
        made.request(_request(revision, all_masks()[revision % 16]))
    answers.wait(lambda a: _is_complete(a) and a.all[-1].revision == 199)  # type: ignore[union-attr]
    revisions = [a.revision for a in answers.all if isinstance(a, LiveEstimate)]
    assert revisions == sorted(revisions)
    time.sleep(0.05)
    assert len(answers.all) == len(revisions)


def test_estimator_thread_error_is_delivered_and_next_request_succeeds(estimator: TargetEstimator) -> None:
    calls = 0

    def make() -> TargetEstimator:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("damaged")
        return estimator

    answers = Answers()
    made = EstimatorThread(make, answers)
    made.start()
    made.request(_request(1, EVERY))
    answers.wait(lambda a: len(a.all) == 1)
    assert isinstance(answers.all[0], RuntimeError)
    made.request(_request(2, EVERY))
    answers.wait(_is_complete)
    made.stop()


def test_estimator_thread_other_selection_without_estimate_leaves_the_rest(estimator: TargetEstimator) -> None:
    def lacking(dropped: tuple[tuple[str, str], ...]) -> tuple[TargetEstimator, float]:
        raise CuratorError("this estimator drops no examples")

    answers = Answers()
    made = EstimatorThread(lambda: estimator, answers, lacking)
    made.start()
    mask, other, known = all_masks()[6], all_masks()[5], all_masks()[9]
    earlier = [(other, (("a", "1"),)), (known, ())]
    made.request(EstimateRequest(1, mask, EVERY, np.array([1]), earlier))
    answers.wait(_is_complete)
    made.stop()
    last = answers.all[-1]
    assert isinstance(last, LiveEstimate)
    assert selection_key(known, ()) in last.losses
    assert selection_key(other, (("a", "1"),)) not in last.losses


def test_estimator_thread_many_tasks_solves_visible_flips(
    estimator_thread: tuple[EstimatorThread, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.background.estimator_thread.SOLVED_IN_FULL", TASKS - 1)
    made, answers = estimator_thread
    made.request(_request(1, EVERY))
    answers.wait(lambda a: isinstance(a.all[-1], LiveEstimate) and bool(a.all[-1].solved.any()) if a.all else False)
    last = answers.all[-1]
    assert isinstance(last, LiveEstimate)
    assert np.flatnonzero(last.solved).tolist() == [1]
    assert not np.isnan(last.flips).any(), "other flips are known to first order"
