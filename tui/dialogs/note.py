"""Write a note."""

from collections.abc import Iterable

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from tui.dialogs.base import Dialog
from tui.widgets.lines import Lines


class NoteDialog(Dialog[str]):
    """Asks for a note. The value is the text. An empty text removes the note.

    Args:
        about: Name of what the note is about.
        text: The present note, or "".
    """

    title_text = "note"
    keys = (("enter", "keep"),)

    def __init__(self, about: str, text: str) -> None:
        super().__init__()
        self._about, self._text = about, text

    def content(self) -> Iterable[Widget]:
        """Return what the note is about, and a field for the text."""
        return [Lines([[(self._about, "dim")]]), Input(value=self._text, id="text", classes="first-focus")]

    @on(Input.Submitted, "#text")
    def _keep(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())
