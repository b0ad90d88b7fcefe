"""Save the selection under a name."""

from collections.abc import Iterable

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from tui.dialogs.base import Dialog
from tui.widgets.lines import Lines


class SaveDialog(Dialog[str]):
    """Asks for a name."""

    title_text = "save selection"
    keys = (("enter", "save"),)

    def content(self) -> Iterable[Widget]:
        """A field, and what the name means."""
        base = self.app.session.base if self.app.session is not None else ""
        hand = base if base.endswith("-edited") or not base else f"{base}-edited"
        return [
            Lines([[]], id="note"),
            Input(value=hand or "mine", id="name", classes="first-focus"),
        ]

    def on_mount(self) -> None:
        """Say what the first name means."""
        self._say()

    @on(Input.Changed, "#name")
    def _say(self) -> None:
        name, snapshot = self.query_one("#name", Input).value.strip(), self.app.snapshot
        there = snapshot is not None and snapshot.selection(name) is not None
        words = ("! takes the place of the selection of that name", "warn") if there else ("a new selection", "dim")
        self.query_one("#note", Lines).show([[("name it", "warn") if not name else words]])

    @on(Input.Submitted, "#name")
    def _save(self, event: Input.Submitted) -> None:
        if name := event.value.strip():
            self.dismiss(name)
