"""The saved selections: load, rename, delete, annotate, measure or export one."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget

from tui.dialogs.base import Choices, Dialog
from tui.widgets import numbers
from tui.widgets.rows import Rows
from tui.widgets.wrapped import Wrapped

if TYPE_CHECKING:
    from tui.state.snapshot import SavedSelection


class SelectionsDialog(Dialog[tuple[str, str]]):
    """Lists the saved selections.

    The value is an action and the name of a selection: `load`, `measure` or `export`. The empty name is all tasks.
    Renaming, deleting and annotating keep the dialog open.
    """

    title_text = "saved selections"
    keys = (
        ("enter", "load"),
        ("r", "rename"),
        ("x", "delete"),
        ("u", "undo"),
        ("n", "note"),
        ("M", "measure"),
        ("e", "export"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "rename", "rename", show=False),
        Binding("x", "delete", "delete", show=False),
        Binding("u", "undo", "undo", show=False),
        Binding("n", "note", "note", show=False),
        Binding("M", "take('measure')", "measure", show=False),
        Binding("e", "take('export')", "export", show=False),
    ]

    def content(self) -> Iterable[Widget]:
        """Return the list of selections, and the note on the one under the cursor."""
        return [Choices(self._choices(), classes="first-focus"), Wrapped([[]], id="selection-note")]

    def _choices(self) -> list[tuple[str, str, str]]:
        snapshot = self.app.snapshot
        saved = snapshot.selections if snapshot is not None else ()
        return [*((s.name, s.name, self._words(s)) for s in saved), ("", "all tasks", "every task in")]

    def on_mount(self) -> None:
        """Follow saves of other windows, and better estimates."""
        self.app.changed.subscribe(self, self._follow)
        self._show_note()

    @on(Rows.Moved)
    def _show_note(self) -> None:
        snapshot, name = self.app.snapshot, self.query_one(Choices).value
        note = snapshot.notes.get(("selection", name, ""), "") if snapshot is not None and name else ""
        self.query_one("#selection-note", Wrapped).show([[("note: ", "dim"), note]] if note else [[]])

    def _follow(self, topic: str) -> None:
        if topic in ("snapshot", "estimate") and self.is_attached:
            choices = self.query_one(Choices)
            here, row = choices.value, choices.cursor
            choices.choices = self._choices()
            # Without the selection, stay at its line.
            last = min(row, len(choices.choices) - 1)
            choices.cursor = next((row for row, (name, _, _) in enumerate(choices.choices) if name == here), last)
            choices.fit_height()
            self._show_note()

    def _words(self, saved: "SavedSelection") -> str:
        """Describe a selection. Its loss is that of the current estimator, if the loss is known."""
        snapshot, manifest = self.app.snapshot, saved.manifest
        assert snapshot is not None
        known = None if saved.is_weighted else self.app.known_loss(saved.mask(snapshot.names), saved.dropped)
        loss = f"loss {numbers.loss(known.loss)} {snapshot.trust}, " if known is not None else ""
        origin = f", from {manifest.started_from}" if manifest.started_from else ""
        return f"{loss}{sum(t.selected for t in manifest.tasks)} in, {saved.method}{origin}"

    @property
    def _chosen_name(self) -> str:
        """Return the selection under the cursor, or "" with a word about it in the flash line."""
        name = self.query_one(Choices).value
        if not name:
            self.app.flash("all tasks are not a saved selection: they have no name or note", "warn")
        return name

    @on(Rows.Opened)
    def _load(self) -> None:
        self.dismiss(("load", self.query_one(Choices).value))

    def action_take(self, what: str) -> None:
        """Close the dialog to measure or to export the selection."""
        name = self.query_one(Choices).value
        if name or what == "measure":
            self.dismiss((what, name))
        else:
            self.app.flash("only a saved selection can be exported: save all tasks first (w)", "warn")

    def action_rename(self) -> None:
        """Ask for another name."""
        if name := self._chosen_name:
            self.app.ask_name(name)

    def action_delete(self) -> None:
        """Delete the selection. Undo restores it."""
        if name := self._chosen_name:
            self.app.delete_selection(name)

    def action_undo(self) -> None:
        """Undo the last edit."""
        self.app.undo()

    def action_note(self) -> None:
        """Write a note on the selection."""
        if name := self._chosen_name:
            self.app.ask_note(("selection", name, ""))
