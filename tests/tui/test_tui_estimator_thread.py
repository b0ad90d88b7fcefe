"""The thread of the estimator estimates only the newest request, and estimates it correctly."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from drawn_estimators import TASKS, all_masks, draw_checkpoints, make_estimator

from curator.estimate.estimator import TargetEstimator
from curator.estimate.whatif import judge
from tui.background.estimator_thread import EstimateRequest, EstimatorThread, SelectionEstimate

EVERY = np.ones(TASKS, dtype=bool)


class Answers:
    """Collects the estimates of a thread."""

    def __init__(self) -> None:
        self.all: list[SelectionEstimate | Exception] = []
        self.came = threading.Condition()

    def __call__(self, answer: SelectionEstimate | Exception) -> None:
        with self.came:
            self.all.append(answer)
            self.came.notify_all()

    def wait(self, test: Callable[["Answers"], bool]) -> None:
        with self.came:
            assert self.came.wait_for(lambda: test(self), 10)


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
    return isinstance(last, SelectionEstimate) and bool(last.solved.all())


def test_estimator_thread_one_request_delivers_estimate_of_estimator(
    estimator_thread: tuple[EstimatorThread, Answers], estimator: TargetEstimator
) -> None:
    made, answers = estimator_thread
    mask = all_masks()[6]
    made.request(_request(7, mask))
    answers.wait(_is_complete)
    last = answers.all[-1]
    assert isinstance(last, SelectionEstimate)
    assert last.revision == 7
    assert last.target_loss.loss == pytest.approx(judge(estimator, mask).loss)
    assert last.versus_all.value == pytest.approx(judge(estimator, mask).loss - judge(estimator, EVERY).loss)
    assert last.versus_saved.value == pytest.approx(judge(estimator, mask).loss - judge(estimator, all_masks()[3]).loss)
    for task in range(TASKS):
        flipped = mask.copy()
        flipped[task] ^= True
        assert last.flips[task] == pytest.approx(judge(estimator, flipped).loss - last.target_loss.loss)
    first = answers.all[0]
    assert isinstance(first, SelectionEstimate)
    assert np.isnan(first.flips).all(), "the first estimate does not wait for the flips"


def test_estimator_thread_many_requests_estimates_the_newest(estimator_thread: tuple[EstimatorThread, Answers]) -> None:
    made, answers = estimator_thread
    for revision in range(200):
        made.request(_request(revision, all_masks()[revision % 16]))
    answers.wait(lambda a: _is_complete(a) and a.all[-1].revision == 199)  # type: ignore[union-attr]
    revisions = [a.revision for a in answers.all if isinstance(a, SelectionEstimate)]
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


def test_estimator_thread_many_tasks_solves_visible_flips(
    estimator_thread: tuple[EstimatorThread, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.background.estimator_thread.SOLVED_IN_FULL", TASKS - 1)
    made, answers = estimator_thread
    made.request(_request(1, EVERY))
    answers.wait(
        lambda a: isinstance(a.all[-1], SelectionEstimate) and bool(a.all[-1].solved.any()) if a.all else False
    )
    last = answers.all[-1]
    assert isinstance(last, SelectionEstimate)
    assert np.flatnonzero(last.solved).tolist() == [1]
    assert not np.isnan(last.flips).any(), "other flips are known to first order"
