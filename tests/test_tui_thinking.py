"""Only the newest question is answered, and what is answered is right."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from test_estimate import TASKS, _estimator, _masks, _points

from curator.estimate.estimator import TargetEstimator
from curator.estimate.whatif import judge
from tui.background.estimator_thread import Outlook, Question, Thinker

EVERY = np.ones(TASKS, dtype=bool)


class Answers:
    """Collects what a thinker says."""

    def __init__(self) -> None:
        self.all: list[Outlook | Exception] = []
        self.came = threading.Condition()

    def __call__(self, answer: Outlook | Exception) -> None:
        with self.came:
            self.all.append(answer)
            self.came.notify_all()

    def wait(self, test: Callable[["Answers"], bool]) -> None:
        with self.came:
            assert self.came.wait_for(lambda: test(self), 10)


@pytest.fixture
def estimator() -> TargetEstimator:
    return _estimator(_points(), [2.0, 3.0])


@pytest.fixture
def thinker(estimator: TargetEstimator) -> Iterator[tuple[Thinker, Answers]]:
    answers = Answers()
    made = Thinker(lambda: estimator, answers)
    made.start()
    yield made, answers
    made.stop()
    made.join(10)
    assert not made.is_alive()


def _question(revision: int, mask: np.ndarray) -> Question:
    return Question(revision, mask, _masks()[3], np.array([1]))


def _is_complete(answers: Answers) -> bool:
    last = answers.all[-1] if answers.all else None
    return isinstance(last, Outlook) and bool(last.solved.all())


def test_an_answer_is_what_the_estimator_says(thinker: tuple[Thinker, Answers], estimator: TargetEstimator) -> None:
    made, answers = thinker
    mask = _masks()[6]
    made.ask(_question(7, mask))
    answers.wait(_is_complete)
    last = answers.all[-1]
    assert isinstance(last, Outlook)
    assert last.revision == 7
    assert last.judgement.loss == pytest.approx(judge(estimator, mask).loss)
    assert last.versus_all.value == pytest.approx(judge(estimator, mask).loss - judge(estimator, EVERY).loss)
    assert last.versus_saved.value == pytest.approx(judge(estimator, mask).loss - judge(estimator, _masks()[3]).loss)
    for task in range(TASKS):
        flipped = mask.copy()
        flipped[task] ^= True
        assert last.flips[task] == pytest.approx(judge(estimator, flipped).loss - last.judgement.loss)
    first = answers.all[0]
    assert isinstance(first, Outlook)
    assert np.isnan(first.flips).all(), "the estimate itself does not wait for the flips"


def test_of_many_questions_the_last_is_answered(thinker: tuple[Thinker, Answers]) -> None:
    made, answers = thinker
    for revision in range(200):
        made.ask(_question(revision, _masks()[revision % 16]))
    answers.wait(lambda a: _is_complete(a) and a.all[-1].revision == 199)  # type: ignore[union-attr]
    revisions = [a.revision for a in answers.all if isinstance(a, Outlook)]
    assert revisions == sorted(revisions)
    time.sleep(0.05)
    assert len(answers.all) == len(revisions)


def test_an_error_is_told_and_the_next_question_is_answered(estimator: TargetEstimator) -> None:
    calls = 0

    def make() -> TargetEstimator:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("damaged")
        return estimator

    answers = Answers()
    made = Thinker(make, answers)
    made.start()
    made.ask(_question(1, EVERY))
    answers.wait(lambda a: len(a.all) == 1)
    assert isinstance(answers.all[0], RuntimeError)
    made.ask(_question(2, EVERY))
    answers.wait(_is_complete)
    made.stop()


def test_many_tasks_are_solved_where_they_are_seen(
    thinker: tuple[Thinker, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.background.estimator_thread.SOLVED_IN_FULL", TASKS - 1)
    made, answers = thinker
    made.ask(_question(1, EVERY))
    answers.wait(lambda a: isinstance(a.all[-1], Outlook) and bool(a.all[-1].solved.any()) if a.all else False)
    last = answers.all[-1]
    assert isinstance(last, Outlook)
    assert np.flatnonzero(last.solved).tolist() == [1]
    assert not np.isnan(last.flips).any(), "the others are known to first order"
