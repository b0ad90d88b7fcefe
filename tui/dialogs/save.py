"""Save the selection under a name."""

from collections.abc import Iterable

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from tui.dialogs.base import Dialog
from tui.widgets.lines import Lines
from tui.widgets.wrapped import Wrapped


class SaveDialog(Dialog[str]):
    """Asks for the name of the selection. The value is the name."""

    title_text = "save selection"
    keys = (("enter", "save"),)

    def content(self) -> Iterable[Widget]:
        """Return a note and a field for the name."""
        base = self.app.session.base if self.app.session is not None else ""
        hand = base if base.endswith("-edited") or not base else f"{base}-edited"
        return [
            Wrapped([[]], id="note"),
            Input(value=hand or "mine", id="name", classes="first-focus"),
        ]

    def on_mount(self) -> None:
        """Show the note of the first name."""
        self._show_note()

    @on(Input.Changed, "#name")
    def _show_note(self) -> None:
        name, snapshot = self.query_one("#name", Input).value.strip(), self.app.snapshot
        exists = snapshot is not None and snapshot.selection(name) is not None
        words = ("! replaces the selection of the same name", "warn") if exists else ("a new selection", "dim")
        self.query_one("#note", Lines).show([[("enter a name", "warn") if not name else words]])

    @on(Input.Submitted, "#name")
    def _save(self, event: Input.Submitted) -> None:
        if name := event.value.strip():
            self.dismiss(name)
