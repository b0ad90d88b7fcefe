"""The current selection, its pins, and the history of edits. This module imports neither Textual nor the store.

`Session.replay` restores a session from its stored history. Undo and redo add entries, so the history only grows.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Mask

if TYPE_CHECKING:
    from curator.workspace.store.records import StoredEdit

Rows = npt.NDArray[np.intp]
Drops = Mapping[str, frozenset[str]]
"""Content hashes of the dropped examples of each task."""
Named = tuple[tuple[str, str], ...]
"""Task and content hash of each dropped example, sorted."""
NO_DROPS: Drops = MappingProxyType({})


class State(IntEnum):
    """State of a task in the selection."""

    OUT = 0
    IN = 1
    PINNED_OUT = 2
    PINNED_IN = 3

    @property
    def selected(self) -> bool:
        """Return whether the task is in the selection."""
        return self in (State.IN, State.PINNED_IN)

    @property
    def pinned(self) -> bool:
        """Return whether the task is pinned. Automatic methods keep pinned tasks."""
        return self in (State.PINNED_OUT, State.PINNED_IN)


GLYPHS = {State.OUT: "○", State.IN: "●", State.PINNED_OUT: "◇", State.PINNED_IN: "◆"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One entry of the history, with everything that undo needs.

    Attributes:
        number: Position in the history, from 0.
        kind: `toggle`, `pin`, `set`, `fill`, `drop`, `load`, `save`, `rename`, `delete`, or `undo` or `redo` of the
            edit `of`.
        label: Description for the user.
        changes: State before and after of each changed task.
        base: Name of the base selection before and after. Only `load`, `save` and `rename` change the base.
        made: Time of the edit.
        loss: Estimated loss after the edit, in nats per target token; None until known.
        of: Number of the edit that is undone or redone.
        drops: Content hashes of the examples that the edit drops and that it restores, by task.
        selection: Name before and after of the saved selection that was renamed or deleted. The empty name after it
            stands for its deletion. Empty for other kinds.
    """

    number: int
    kind: str
    label: str
    changes: dict[str, tuple[int, int]]
    base: tuple[str, str]
    made: datetime
    loss: float | None = None
    of: int | None = None
    drops: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    selection: tuple[str, ...] = ()

    @property
    def is_of_selection(self) -> bool:
        """Return whether the edit sets tasks or examples. To save, rename or delete a selection does not."""
        return self.kind != "save" and not self.selection

    def stored(self) -> "StoredEdit":
        """Convert to the record of the store."""
        from curator.workspace.store.records import StoredEdit

        changes = {name: list(pair) for name, pair in self.changes.items()}
        drops = {name: [list(part) for part in pair] for name, pair in self.drops.items()}
        more = ({"drops": drops} if drops else {}) | ({"selection": list(self.selection)} if self.selection else {})
        return StoredEdit(
            number=self.number,
            kind=self.kind,
            label=self.label,
            changes={"tasks": changes, "base": list(self.base), "of": self.of} | more,
            loss=self.loss,
            made=self.made,
        )


class Session:
    """The selection that the user edits.

    Args:
        names: The auxiliary tasks (t), in the order of all arrays.

    Attributes:
        states: State of every task (t,).
        dropped: Content hashes of the dropped examples, by task.
        base: Name of the saved selection that the session started from, or "" for all tasks.
        revision: Grows with every change. Results for another revision are outdated.
        done: Edits in effect, in order.
        undone: Edits for redo, the next edit last.
        history: All entries, in order.
        saved_masks: Membership (t,) of each saved selection by name, as the store holds it now.
        saved_drops: Dropped examples of each saved selection by name, as the store holds it now.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._rows = {name: row for row, name in enumerate(self.names)}
        self.states = np.full(len(self.names), State.IN, dtype=np.int8)
        self.dropped: dict[str, frozenset[str]] = {}
        self.base = ""
        self.revision = 0
        self.done: list[Edit] = []
        self.undone: list[Edit] = []
        self.history: list[Edit] = []
        self.saved_masks: Mapping[str, Mask] = {}
        self.saved_drops: Mapping[str, Drops] = {}
        self._unsaved: dict[int, Edit] = {}
        self._automatic = 0

    @classmethod
    def replay(cls, names: Sequence[str], entries: Iterable["StoredEdit"]) -> "Session":
        """Restore the session of a stored history. Removed tasks are ignored, and new tasks are in.

        Raises:
            ValueError: An entry of the history is missing or damaged.
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

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def mask(self) -> Mask:
        """Return the membership (t,)."""
        return np.asarray((self.states == State.IN) | (self.states == State.PINNED_IN))

    @property
    def has_base(self) -> bool:
        """Return whether the selection that the session started from is still saved."""
        return self.base in self.saved_masks

    @property
    def saved(self) -> Mask:
        """Return the membership (t,) of the base as it is saved now. Without a saved base, all tasks."""
        return self.saved_masks.get(self.base, np.ones(len(self.names), dtype=bool))

    @property
    def saved_dropped(self) -> Drops:
        """Return the dropped examples of the base as it is saved now. Without a saved base, none."""
        return self.saved_drops.get(self.base, NO_DROPS)

    @property
    def saved_state(self) -> tuple[bytes, Named]:
        """Return a value that changes if the base is saved again with other tasks or other dropped examples."""
        return self.saved.tobytes(), named(self.saved_dropped)

    @property
    def changed_count(self) -> int:
        """Return the number of tasks and examples that differ from the base."""
        now, saved = named(self.dropped), named(self.saved_dropped)
        return int((self.mask != self.saved).sum()) + len({*now} ^ {*saved})

    @property
    def is_changed(self) -> bool:
        """Return whether the selection differs from its base, or is not saved under the name of its base."""
        return self.changed_count > 0 or (self.base != "" and not self.has_base)

    @property
    def edit_count(self) -> int:
        """Return the number of entries that the user made."""
        return max(len(self.history) - self._automatic, 0)

    def pinned(self, state: State) -> list[str]:
        """Return the names of the tasks in one state: pinned in, or pinned out."""
        return [self.names[row] for row in np.flatnonzero(self.states == state)]

    def state(self, row: int) -> State:
        """Return the state of one task."""
        return State(int(self.states[row]))

    # -- changes ----------------------------------------------------------------------------------------------------

    def toggle(self, rows: Rows) -> Edit | None:
        """Toggle one task, or several tasks together.

        Several tasks go out if all are in, else in. A single pinned task keeps its pin and changes sides. Among several
        tasks, pinned tasks are unchanged.
        """
        if len(rows) == 1:
            row = int(rows[0])
            toggled = {
                State.IN: State.OUT,
                State.OUT: State.IN,
                State.PINNED_IN: State.PINNED_OUT,
                State.PINNED_OUT: State.PINNED_IN,
            }[self.state(row)]
            return self._change("toggle", {row: toggled}, f"{'in' if toggled.selected else 'out'} {self.names[row]}")
        return self.put(rows, not bool(self.mask[rows].all()))

    def put(self, rows: Rows, selected: bool) -> Edit | None:
        """Add or remove several tasks. Pinned tasks are unchanged."""
        new = {int(row): State.IN if selected else State.OUT for row in rows if not self.state(int(row)).pinned}
        return self._change("set", new, "in" if selected else "out")

    def invert(self, rows: Rows) -> Edit | None:
        """Invert several tasks. Pinned tasks are unchanged."""
        new = {
            int(row): State.OUT if self.state(int(row)) == State.IN else State.IN
            for row in rows
            if not self.state(int(row)).pinned
        }
        return self._change("set", new, "inverted")

    def pin(self, rows: Rows) -> Edit | None:
        """Pin in, then pin out, then unpin. Several tasks follow the first task."""
        following = {
            State.IN: State.PINNED_IN,
            State.OUT: State.PINNED_IN,
            State.PINNED_IN: State.PINNED_OUT,
            State.PINNED_OUT: State.OUT,
        }
        new = following[self.state(int(rows[0]))]
        words = {State.PINNED_IN: "pinned in", State.PINNED_OUT: "pinned out", State.OUT: "unpinned"}
        return self._change("pin", {int(row): new for row in rows}, words[new])

    def fill(self, mask: Mask, label: str) -> Edit | None:
        """Apply the selection of an automatic method. Pinned tasks are unchanged."""
        new = {
            int(row): State.IN if mask[row] else State.OUT
            for row in np.flatnonzero(mask != self.mask)
            if not self.state(int(row)).pinned
        }
        return self._change("fill", new, label)

    def drop(self, task: str, hashes: Collection[str]) -> Edit | None:
        """Drop examples of a task. If all of them are dropped, restore them.

        Args:
            task: Name of the task.
            hashes: Content hashes of examples.
        """
        there, wanted = self.dropped.get(task, frozenset()), frozenset(hashes)
        new, old = wanted - there, wanted & there
        if not wanted:
            return None
        count, words = (len(new), "dropped") if new else (len(old), "restored")
        label = f"{words} {count} example{'s' if count > 1 else ''} of {task}"
        edit = self._edit("drop", {}, label, drops={task: (new, frozenset() if new else old)})
        self._follow(edit)
        return edit

    def load(
        self,
        name: str,
        mask: Mask,
        pinned_in: Sequence[str] = (),
        pinned_out: Sequence[str] = (),
        dropped: Drops = NO_DROPS,
    ) -> Edit:
        """Load a saved selection, with its pins and its dropped examples."""
        new = {row: State.IN if mask[row] else State.OUT for row in range(len(self.names))}
        new |= {self._rows[task]: State.PINNED_IN for task in pinned_in if task in self._rows}
        new |= {self._rows[task]: State.PINNED_OUT for task in pinned_out if task in self._rows}
        drops = {
            task: (dropped.get(task, frozenset()) - there, there - dropped.get(task, frozenset()))
            for task in {*dropped, *self.dropped}
            for there in [self.dropped.get(task, frozenset())]
        }
        edit = self._edit("load", new, f"loaded {name or 'all tasks'}", base=name, drops=drops)
        self._follow(edit)
        return edit

    def saved_as(self, name: str) -> Edit:
        """Record that the current selection was saved under a name. Undo skips this entry."""
        edit = self._edit("save", {}, f"saved {name}", base=name)
        self._follow(edit)
        return edit

    def renamed(self, before: str, after: str) -> Edit:
        """Record that a saved selection was renamed, or deleted if the name after it is empty."""
        label = f"renamed {before} to {after}" if after else f"deleted {before}"
        base = after if after and self.base == before else self.base
        edit = self._edit("rename" if after else "delete", {}, label, base=base)
        edit = replace(edit, selection=(before, after))
        self._follow(edit)
        return edit

    def undo(self) -> Edit | None:
        """Undo the last edit; None without an edit."""
        if not self.done:
            return None
        last = self.done[-1]
        self._follow(replace(last, number=len(self.history), kind="undo", of=last.number, made=_now(), loss=None))
        return last

    def redo(self) -> Edit | None:
        """Redo the last undone edit; None without such an edit."""
        if not self.undone:
            return None
        last = self.undone[-1]
        self._follow(replace(last, number=len(self.history), kind="redo", of=last.number, made=_now(), loss=None))
        return last

    def set_loss(self, loss: float) -> None:
        """Store the estimated loss of the current selection in the last entry, if the entry has none."""
        if self.history and self.history[-1].loss is None:
            entry = replace(self.history[-1], loss=loss)
            self.history[-1] = self._unsaved[entry.number] = entry

    def begin_from(
        self,
        name: str,
        mask: Mask,
        pinned_in: Sequence[str] = (),
        pinned_out: Sequence[str] = (),
        dropped: Drops = NO_DROPS,
    ) -> None:
        """Load the selection that a new session starts from. It is stored with the first edit of the user."""
        self.load(name, mask, pinned_in, pinned_out, dropped)
        self._automatic = len(self.history)

    def for_tasks(self, names: Sequence[str]) -> "Session":
        """Return the same session for other tasks, with the entries that are not stored yet."""
        other = Session.replay(names, [edit.stored() for edit in self.history])
        other._unsaved, other._automatic = dict(self._unsaved), self._automatic
        other.revision = self.revision + 1
        return other

    def take_unsaved(self) -> "list[StoredEdit]":
        """Return the entries that are not in the store yet, and mark them as stored.

        A session without an edit of the user has nothing to store. Such a session is not worth continuing.
        """
        if not self.edit_count:
            return []
        taken, self._unsaved = [edit.stored() for edit in self._unsaved.values()], {}
        return taken

    def put_back(self, entries: "Sequence[StoredEdit]") -> None:
        """Mark entries as not stored, because storing failed."""
        self._unsaved = {e.number: self.history[e.number] for e in entries} | self._unsaved

    def by_hand(self) -> list[tuple[str, bool]]:
        """Return (task, selected) of each task that differs from the base, the task that changed last at the end."""
        last: dict[str, int] = {}
        for number, edit in enumerate(self.done):
            last |= dict.fromkeys(edit.changes, number)
        rows = sorted(np.flatnonzero(self.mask != self.saved).tolist(), key=lambda row: last.get(self.names[row], -1))
        return [(self.names[row], bool(self.mask[row])) for row in rows]

    def past(self, most: int) -> "list[tuple[Edit, Mask, Named]]":
        """Return the last entries of the history, oldest first, each with the selection after it.

        Args:
            most: Maximum number of entries.

        Returns:
            The entry, the membership (t,) and the dropped examples.
        """
        states, dropped, found = self.states.copy(), self.dropped, []
        for entry in reversed(self.history[-most:] if most else []):
            found.append((entry, np.asarray((states == State.IN) | (states == State.PINNED_IN)), named(dropped)))
            dropped = _changed(dropped, entry, back=entry.kind != "undo")
            for name, (before, after) in entry.changes.items():
                if name in self._rows:
                    states[self._rows[name]] = after if entry.kind == "undo" else before
        return found[::-1]

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

    def _edit(
        self,
        kind: str,
        new: dict[int, State],
        label: str,
        *,
        base: str | None = None,
        drops: Mapping[str, tuple[Collection[str], Collection[str]]] = MappingProxyType({}),
    ) -> Edit:
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
            drops={
                task: (tuple(sorted(out)), tuple(sorted(back)))
                for task, (out, back) in sorted(drops.items())
                if out or back
            },
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
            self.base = entry.base[1]
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
        self.dropped = _changed(self.dropped, edit, back=back)
        if edit.kind in ("load", "rename"):
            self.base = edit.base[0 if back else 1]


def named(dropped: Drops) -> Named:
    """Return task and content hash of each dropped example, sorted."""
    return tuple((task, digest) for task in sorted(dropped) for digest in sorted(dropped[task]))


def drops_of(dropped: Named) -> Drops:
    """Return the content hashes of each task, the inverse of `named`."""
    found: dict[str, set[str]] = {}
    for task, digest in dropped:
        found.setdefault(task, set()).add(digest)
    return {task: frozenset(hashes) for task, hashes in found.items()}


def _changed(dropped: Drops, edit: Edit, *, back: bool) -> dict[str, frozenset[str]]:
    """Return the dropped examples after an edit, or before it. Others may keep the argument, which is unchanged."""
    found = dict(dropped)
    for name, (out, restored) in edit.drops.items():
        out, restored = (restored, out) if back else (out, restored)
        found[name] = (found.get(name, frozenset()) - {*restored}) | {*out}
    return {name: hashes for name, hashes in sorted(found.items()) if hashes}


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
        drops={
            str(name): (tuple(map(str, out)), tuple(map(str, back)))
            for name, (out, back) in content.get("drops", {}).items()
        },
        selection=tuple(map(str, content.get("selection", ()))),
    )


def _now() -> datetime:
    return datetime.now(UTC)
