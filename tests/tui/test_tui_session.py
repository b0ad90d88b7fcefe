"""A session is its history: every path through it can be taken back, forward, and replayed from what was stored."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.workspace.store.records import StoredEdit
from tui.state.session import GLYPHS, Session, State

NAMES = ["a", "b", "c", "d", "\x1b[31m'; DROP"]

rows = st.lists(st.integers(0, len(NAMES) - 1), min_size=1, max_size=4, unique=True).map(
    lambda found: np.array(found, dtype=np.intp)
)
masks = st.lists(st.booleans(), min_size=len(NAMES), max_size=len(NAMES)).map(lambda found: np.array(found, dtype=bool))
operations = st.one_of(
    st.tuples(st.just("toggle"), rows),
    st.tuples(st.just("put"), rows, st.booleans()),
    st.tuples(st.just("invert"), rows),
    st.tuples(st.just("pin"), rows),
    st.tuples(st.just("fill"), masks, st.just("filled")),
    st.tuples(st.just("load"), st.sampled_from(["", "best"]), masks, st.just(["a"]), st.just(["b"])),
    st.tuples(st.just("saved_as"), st.just("mine")),
    st.tuples(st.just("undo")),
    st.tuples(st.just("redo")),
)


def _do(session: Session, operation: tuple[Any, ...]) -> None:
    getattr(session, operation[0])(*operation[1:])


def _stored(session: Session) -> list[StoredEdit]:
    """As they come back from the store, where changes are JSON."""
    return [
        replace(entry, changes=json.loads(json.dumps(entry.changes))) for entry in (e.stored() for e in session.history)
    ]


def _facts(session: Session) -> tuple[Any, ...]:
    return session.states.tolist(), session.base, session.saved.tolist(), len(session.done), len(session.undone)


@given(st.lists(operations, max_size=25))
def test_undo_to_the_origin_and_redo_to_the_end(steps: list[tuple[Any, ...]]) -> None:
    session = Session(NAMES)
    for step in steps:
        _do(session, step)
    end = session.states.copy()
    count = len(session.done)
    before = len(session.history)
    while session.undo():
        pass
    assert session.states.tolist() == [State.IN] * len(NAMES)
    for _ in range(count):
        assert session.redo()
    assert session.states.tolist() == end.tolist()
    assert len(session.history) == before + 2 * count, "nothing is ever taken out of the history"


@given(st.lists(operations, max_size=25))
def test_a_history_leads_to_the_same_session_again(steps: list[tuple[Any, ...]]) -> None:
    session = Session(NAMES)
    for step in steps:
        _do(session, step)
    again = Session.replay(NAMES, _stored(session))
    assert _facts(again) == _facts(session)
    assert again.by_hand() == session.by_hand()
    assert again.take_unsaved() == []
    for step in [("undo",), ("redo",), ("toggle", np.array([2]))]:
        _do(session, step)
        _do(again, step)
    assert _facts(again) == _facts(session)


@given(st.lists(operations, max_size=15))
def test_pins_are_left_alone_by_what_is_automatic(steps: list[tuple[Any, ...]]) -> None:
    session = Session(NAMES)
    for step in steps:
        before = session.states.copy()
        _do(session, step)
        if step[0] in ("put", "invert", "fill"):
            pinned = before >= State.PINNED_OUT
            assert (session.states[pinned] == before[pinned]).all()


def test_what_was_stored_goes_on_after_tasks_came_and_went() -> None:
    session = Session(NAMES)
    session.toggle(np.array([0]))
    session.pin(np.array([1]))
    later = Session.replay(["b", "new", "a"], _stored(session))
    assert [later.state(row) for row in range(3)] == [State.PINNED_IN, State.IN, State.OUT]
    later.undo()
    later.undo()
    assert later.mask.all()


def test_edits_by_hand_are_those_since_the_selection_was_loaded() -> None:
    session = Session(NAMES)
    session.toggle(np.array([3]))
    session.load("best", np.array([True, False, False, False, False]))
    session.toggle(np.array([1]))
    session.pin(np.array([0]))
    session.toggle(np.array([1]))
    session.toggle(np.array([2]))
    session.undo()
    assert session.by_hand() == [("b", True), ("b", False)]
    assert session.saved.tolist() == [True, False, False, False, False]
    assert not session.is_changed
    session.undo()
    assert session.is_changed


def test_a_history_is_stored_once_and_put_back_when_that_fails() -> None:
    session = Session(NAMES)
    session.toggle(np.array([0]))
    first = session.take_unsaved()
    assert [e.number for e in first] == [0]
    session.toggle(np.array([1]))
    session.put_back(first)
    assert [e.number for e in session.take_unsaved()] == [0, 1]
    session.set_loss(0.5)
    assert [(e.number, e.loss) for e in session.take_unsaved()] == [(1, 0.5)]
    session.set_loss(0.7)
    assert session.take_unsaved() == [], "the loss of an edit is known once"


def test_one_pinned_task_moves_with_its_pin() -> None:
    session = Session(NAMES)
    session.pin(np.array([0]))
    assert session.state(0) == State.PINNED_IN
    session.toggle(np.array([0]))
    assert session.state(0) == State.PINNED_OUT
    session.pin(np.array([0]))
    assert session.state(0) == State.OUT


def test_every_state_has_a_glyph_of_its_own() -> None:
    assert len(set(GLYPHS.values())) == len(State) == len(GLYPHS)


def test_a_history_with_a_gap_is_an_error() -> None:
    session = Session(NAMES)
    session.toggle(np.array([0]))
    session.toggle(np.array([1]))
    with pytest.raises(ValueError, match="missing"):
        Session.replay(NAMES, _stored(session)[1:])


@pytest.mark.parametrize("content", [{}, {"tasks": {"a": [0, 9]}, "base": ["", ""], "of": None}, {"tasks": 3}])
def test_a_damaged_history_is_an_error(content: dict[str, Any]) -> None:
    session = Session(NAMES)
    session.toggle(np.array([0]))
    broken = replace(_stored(session)[0], changes=content)
    with pytest.raises(ValueError, match=r"damaged|valid"):
        Session.replay(NAMES, [broken])
