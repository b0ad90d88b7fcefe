"""The selection in hand: which tasks are in, which are pinned, and every edit that led there. No Textual, no store.

A session is its history: `Session.replay` makes the same session again from the entries that were kept. Undo and redo
are entries like any other, so that nothing is ever taken out of the history.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Mask

if TYPE_CHECKING:
    from curator.workspace.store.records import StoredEdit

Rows = npt.NDArray[np.intp]


class State(IntEnum):
    """Where a task stands."""

    OUT = 0
    IN = 1
    PINNED_OUT = 2
    PINNED_IN = 3

    @property
    def selected(self) -> bool:
        """Whether the task is in the selection."""
        return self in (State.IN, State.PINNED_IN)

    @property
    def pinned(self) -> bool:
        """Whether automatic methods must leave it."""
        return self in (State.PINNED_OUT, State.PINNED_IN)


GLYPHS = {State.OUT: "○", State.IN: "●", State.PINNED_OUT: "◇", State.PINNED_IN: "◆"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change, and all that is needed to take it back.

    Attributes:
        number: Place in the history, from 0.
        kind: `toggle`, `pin`, `set`, `fill` or `load`; `save`; `undo` or `redo` of the edit `of`.
        label: What was done, in words.
        changes: State before and after of each task that changed.
        base: Name of the selection that the session rests on, before and after; both the same but for `load`.
        made: When.
        loss: Estimated loss after it, in nats per target token, once it is known.
        of: The edit that is undone or redone.
    """

    number: int
    kind: str
    label: str
    changes: dict[str, tuple[int, int]]
    base: tuple[str, str]
    made: datetime
    loss: float | None = None
    of: int | None = None

    def stored(self) -> "StoredEdit":
        """As the store keeps it."""
        from curator.workspace.store.records import StoredEdit

        changes = {name: list(pair) for name, pair in self.changes.items()}
        return StoredEdit(
            number=self.number,
            kind=self.kind,
            label=self.label,
            changes={"tasks": changes, "base": list(self.base), "of": self.of},
            loss=self.loss,
            made=self.made,
        )


class Session:
    """A selection that somebody is at work on.

    Args:
        names: The auxiliary tasks (t), in the order of all arrays.

    Attributes:
        states: Of every task (t,).
        base: Name of the saved selection that it began with, or "" for all tasks.
        revision: Grows with every change: what was computed for another revision is old.
        done: Edits that are in effect, in order.
        undone: Edits that may be redone, the next one last.
        history: All entries, in order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._rows = {name: row for row, name in enumerate(self.names)}
        self.states = np.full(len(self.names), State.IN, dtype=np.int8)
        self.base = ""
        self.revision = 0
        self.done: list[Edit] = []
        self.undone: list[Edit] = []
        self.history: list[Edit] = []
        self._saved = self.mask
        self._saved_before: dict[int, Mask] = {}
        self._unsaved: dict[int, Edit] = {}

    @classmethod
    def replay(cls, names: Sequence[str], entries: Iterable["StoredEdit"]) -> "Session":
        """The session that a history leads to; tasks that are gone are left out, new ones are in.

        Raises:
            ValueError: The history is damaged.
        """
        session = cls(names)
        for place, entry in enumerate(entries):
            if entry.number != place:
                raise ValueError(f"entry {place} of the history is missing")
            try:
                session._follow(_read(entry))
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                raise ValueError(f"entry {entry.number} of the history is damaged: {error}") from error
        session._unsaved = {}
        return session

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def mask(self) -> Mask:
        """Membership (t,)."""
        return np.asarray((self.states == State.IN) | (self.states == State.PINNED_IN))

    @property
    def saved(self) -> Mask:
        """Membership (t,) when the session was loaded or saved last."""
        return self._saved

    @property
    def is_changed(self) -> bool:
        """Whether it differs from what was loaded or saved last."""
        return bool((self.mask != self._saved).any())

    def pinned(self, state: State) -> list[str]:
        """Names of the tasks that are pinned in, or out."""
        return [self.names[row] for row in np.flatnonzero(self.states == state)]

    def state(self, row: int) -> State:
        """State of one task."""
        return State(int(self.states[row]))

    # -- changes ----------------------------------------------------------------------------------------------------

    def toggle(self, rows: Rows) -> Edit | None:
        """Turn one task round, or bring several to one side: out if all are in, else in. A single pin moves along.

        Of several tasks, those that are pinned are left alone.
        """
        if len(rows) == 1:
            row = int(rows[0])
            turned = {
                State.IN: State.OUT,
                State.OUT: State.IN,
                State.PINNED_IN: State.PINNED_OUT,
                State.PINNED_OUT: State.PINNED_IN,
            }[self.state(row)]
            return self._change("toggle", {row: turned}, f"{'in' if turned.selected else 'out'} {self.names[row]}")
        return self.put(rows, not bool(self.mask[rows].all()))

    def put(self, rows: Rows, selected: bool) -> Edit | None:
        """Put several tasks in, or take them out; those that are pinned are left alone."""
        new = {int(row): State.IN if selected else State.OUT for row in rows if not self.state(int(row)).pinned}
        return self._change("set", new, "in" if selected else "out")

    def invert(self, rows: Rows) -> Edit | None:
        """Turn several tasks round; those that are pinned are left alone."""
        new = {
            int(row): State.OUT if self.state(int(row)) == State.IN else State.IN
            for row in rows
            if not self.state(int(row)).pinned
        }
        return self._change("set", new, "turned round")

    def pin(self, rows: Rows) -> Edit | None:
        """Pin in, then out, then let go; several tasks follow the first."""
        following = {
            State.IN: State.PINNED_IN,
            State.OUT: State.PINNED_IN,
            State.PINNED_IN: State.PINNED_OUT,
            State.PINNED_OUT: State.OUT,
        }
        new = following[self.state(int(rows[0]))]
        words = {State.PINNED_IN: "pinned in", State.PINNED_OUT: "pinned out", State.OUT: "let go"}
        return self._change("pin", {int(row): new for row in rows}, words[new])

    def fill(self, mask: Mask, label: str) -> Edit | None:
        """Take over what an automatic method selected; pins stay what they are."""
        new = {
            int(row): State.IN if mask[row] else State.OUT
            for row in np.flatnonzero(mask != self.mask)
            if not self.state(int(row)).pinned
        }
        return self._change("fill", new, label)

    def load(self, name: str, mask: Mask, pinned_in: Sequence[str] = (), pinned_out: Sequence[str] = ()) -> Edit:
        """Begin from a saved selection."""
        new = {row: State.IN if mask[row] else State.OUT for row in range(len(self.names))}
        new |= {self._rows[task]: State.PINNED_IN for task in pinned_in if task in self._rows}
        new |= {self._rows[task]: State.PINNED_OUT for task in pinned_out if task in self._rows}
        edit = self._edit("load", new, f"loaded {name or 'all tasks'}", base=name)
        self._follow(edit)
        return edit

    def saved_as(self, name: str) -> Edit:
        """Record that the selection as it is was saved under a name; undo passes over it."""
        edit = self._edit("save", {}, f"saved {name}", base=name)
        self._follow(edit)
        return edit

    def undo(self) -> Edit | None:
        """Take the last edit back; None when there is none."""
        if not self.done:
            return None
        last = self.done[-1]
        self._follow(replace(last, number=len(self.history), kind="undo", of=last.number, made=_now(), loss=None))
        return last

    def redo(self) -> Edit | None:
        """Make the last undone edit again; None when there is none."""
        if not self.undone:
            return None
        last = self.undone[-1]
        self._follow(replace(last, number=len(self.history), kind="redo", of=last.number, made=_now(), loss=None))
        return last

    def set_loss(self, loss: float) -> None:
        """Remember the estimated loss of the selection as it is, with the entry that led to it."""
        if self.history and self.history[-1].loss is None:
            entry = replace(self.history[-1], loss=loss)
            self.history[-1] = self._unsaved[entry.number] = entry

    def take_unsaved(self) -> "list[StoredEdit]":
        """The entries that are not in the store yet; they count as stored from now on."""
        taken, self._unsaved = [edit.stored() for edit in self._unsaved.values()], {}
        return taken

    def put_back(self, entries: "Sequence[StoredEdit]") -> None:
        """Entries that could not be stored are not, after all."""
        self._unsaved = {e.number: self.history[e.number] for e in entries} | self._unsaved

    def by_hand(self) -> list[tuple[str, bool]]:
        """(task, selected) of each change since the selection was loaded, in order, without what was undone."""
        first = max((n for n, edit in enumerate(self.done) if edit.kind == "load"), default=-1) + 1
        return [
            (name, State(after).selected)
            for edit in self.done[first:]
            for name, (before, after) in edit.changes.items()
            if State(before).selected != State(after).selected
        ]

    # -- one way in -------------------------------------------------------------------------------------------------

    def _change(self, kind: str, new: dict[int, State], label: str) -> Edit | None:
        new = {row: state for row, state in new.items() if self.state(row) != state}
        if not new:
            return None
        if kind in ("set", "pin"):
            first = self.names[next(iter(new))]
            label = f"{label} {first}" + (f" +{len(new) - 1}" if len(new) > 1 else "")
        edit = self._edit(kind, new, label)
        self._follow(edit)
        return edit

    def _edit(self, kind: str, new: dict[int, State], label: str, *, base: str | None = None) -> Edit:
        return Edit(
            number=len(self.history),
            kind=kind,
            label=label,
            changes={
                self.names[row]: (int(self.states[row]), int(state))
                for row, state in new.items()
                if self.states[row] != state
            },
            base=(self.base, self.base if base is None else base),
            made=_now(),
        )

    def _follow(self, entry: Edit) -> None:
        """Apply an entry, new or from the store."""
        if entry.kind == "undo":
            edit = self.done.pop()
            self.undone.append(edit)
            self._apply(edit, back=True)
        elif entry.kind == "redo":
            edit = self.undone.pop()
            self.done.append(edit)
            self._apply(edit)
        elif entry.kind == "save":
            self.base, self._saved = entry.base[1], self.mask
        else:
            self.undone.clear()
            self.done.append(entry)
            self._apply(entry)
        self.history.append(entry)
        self._unsaved[entry.number] = entry
        self.revision += 1

    def _apply(self, edit: Edit, *, back: bool = False) -> None:
        for name, (before, after) in edit.changes.items():
            if name in self._rows:
                self.states[self._rows[name]] = before if back else after
        if edit.kind != "load":
            return
        self.base = edit.base[0 if back else 1]
        if back:
            self._saved = self._saved_before.pop(edit.number)
        else:
            self._saved_before[edit.number], self._saved = self._saved, self.mask


def _read(entry: "StoredEdit") -> Edit:
    content: dict[str, Any] = entry.changes
    return Edit(
        number=entry.number,
        kind=entry.kind,
        label=entry.label,
        changes={name: (int(State(a)), int(State(b))) for name, (a, b) in content["tasks"].items()},
        base=(str(content["base"][0]), str(content["base"][1])),
        made=entry.made,
        loss=entry.loss,
        of=content["of"],
    )


def _now() -> datetime:
    return datetime.now(UTC)
