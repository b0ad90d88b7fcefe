"""Every sequence of edits can be undone, redone, and replayed from the stored history."""

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
    st.tuples(st.just("renamed"), st.sampled_from(["best", "mine"]), st.sampled_from(["other", ""])),
    st.tuples(st.just("undo")),
    st.tuples(st.just("redo")),
)


def _do(session: Session, operation: tuple[Any, ...]) -> None:
    getattr(session, operation[0])(*operation[1:])


def _stored(session: Session) -> list[StoredEdit]:
    """Return the history as the store returns it. The store keeps changes as JSON."""
    return [
        replace(entry, changes=json.loads(json.dumps(entry.changes))) for entry in (e.stored() for e in session.history)
    ]


def _facts(session: Session) -> tuple[Any, ...]:
    return session.states.tolist(), session.base, session.saved.tolist(), len(session.done), len(session.undone)


@given(st.lists(operations, max_size=25))
def test_session_undo_all_then_redo_all_restores_states(steps: list[tuple[Any, ...]]) -> None:
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
    assert len(session.history) == before + 2 * count, "the history only grows"


@given(st.lists(operations, max_size=25))
def test_session_replay_restores_same_session(steps: list[tuple[Any, ...]]) -> None:
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
def test_session_automatic_changes_keep_pins(steps: list[tuple[Any, ...]]) -> None:
    session = Session(NAMES)
    for step in steps:
        before = session.states.copy()
        _do(session, step)
        if step[0] in ("put", "invert", "fill"):
            pinned = before >= State.PINNED_OUT
            assert (session.states[pinned] == before[pinned]).all()


def test_session_replay_other_tasks_keeps_known_states() -> None:
    session = Session(NAMES)
    session.toggle(np.array([0]))
    session.pin(np.array([1]))
    later = Session.replay(["b", "new", "a"], _stored(session))
    assert [later.state(row) for row in range(3)] == [State.PINNED_IN, State.IN, State.OUT]
    later.undo()
    later.undo()
    assert later.mask.all()


def test_session_by_hand_returns_edits_since_load() -> None:
    session = Session(NAMES)
    session.toggle(np.array([3]))
    session.load("best", np.array([True, False, False, False, False]))
    session.saved_masks = {"best": session.mask}
    session.toggle(np.array([1]))
    session.pin(np.array([0]))
    session.toggle(np.array([1]))
    session.toggle(np.array([2]))
    session.undo()
    assert session.by_hand() == [], "one change of b and its reverse"
    assert session.saved.tolist() == [True, False, False, False, False]
    assert not session.is_changed
    session.undo()
    assert session.is_changed
    assert session.by_hand() == [("b", True)]
    session.saved_as("mine")
    session.saved_masks = {"mine": session.mask}
    session.toggle(np.array([2]))
    assert session.by_hand() == [("c", True)], "edits before the save belong to the saved selection"


def test_session_take_unsaved_returns_each_entry_once() -> None:
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
    assert session.take_unsaved() == [], "the loss of an edit is set once"


def test_session_toggle_pinned_task_moves_the_pin() -> None:
    session = Session(NAMES)
    session.pin(np.array([0]))
    assert session.state(0) == State.PINNED_IN
    session.toggle(np.array([0]))
    assert session.state(0) == State.PINNED_OUT
    session.pin(np.array([0]))
    assert session.state(0) == State.OUT


def test_glyphs_every_state_has_own_glyph() -> None:
    assert len(set(GLYPHS.values())) == len(State) == len(GLYPHS)


def test_session_replay_missing_entry_is_error() -> None:
    session = Session(NAMES)
    session.toggle(np.array([0]))
    session.toggle(np.array([1]))
    with pytest.raises(ValueError, match="missing"):
        Session.replay(NAMES, _stored(session)[1:])


@pytest.mark.parametrize("content", [{}, {"tasks": {"a": [0, 9]}, "base": ["", ""], "of": None}, {"tasks": 3}])
def test_session_replay_damaged_entry_is_error(content: dict[str, Any]) -> None:
    session = Session(NAMES)
    session.toggle(np.array([0]))
    broken = replace(_stored(session)[0], changes=content)
    with pytest.raises(ValueError, match=r"damaged|valid"):
        Session.replay(NAMES, [broken])
