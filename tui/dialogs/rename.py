"""Rename a saved selection."""

from collections.abc import Iterable

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from tui.dialogs.base import Dialog
from tui.widgets.lines import Lines
from tui.widgets.wrapped import Wrapped


class RenameDialog(Dialog[str]):
    """Asks for another name. The value is the name.

    Args:
        name: Present name of the selection.
    """

    title_text = "rename selection"
    keys = (("enter", "rename"),)

    def __init__(self, name: str) -> None:
        super().__init__()
        self._selection = name

    def content(self) -> Iterable[Widget]:
        """Return a note and a field for the name."""
        return [Wrapped([[]], id="note"), Input(value=self._selection, id="name", classes="first-focus")]

    @property
    def _problem(self) -> str:
        """Return why the name cannot be used; "" if it can."""
        name, snapshot = self.query_one("#name", Input).value.strip(), self.app.snapshot
        if not name:
            return "enter a name"
        if name != self._selection and snapshot is not None and snapshot.selection(name) is not None:
            return "another selection has this name"
        return ""

    @on(Input.Changed, "#name")
    def _show_note(self) -> None:
        words = self._problem
        kept: tuple[str, str] = ("note, measured losses and hashes stay", "dim")
        self.query_one("#note", Lines).show([[(words, "warn") if words else kept]])

    @on(Input.Submitted, "#name")
    def _rename(self, event: Input.Submitted) -> None:
        if not self._problem:
            self.dismiss(event.value.strip())
