"""A confirmation before an action without undo."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from tui.dialogs.base import Dialog
from tui.widgets.lines import Line
from tui.widgets.wrapped import Wrapped


class ConfirmDialog(Dialog[bool]):
    """Asks for confirmation. The value is True for yes.

    Args:
        title: Title of the dialog.
        lines: Consequences of the action.
    """

    keys = (("y", "yes"),)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "yes", "yes", show=False),
        Binding("n", "cancel", "no", show=False),
    ]

    def __init__(self, title: str, lines: list[Line]) -> None:
        super().__init__()
        self.title_text, self._lines = title, lines

    def content(self) -> Iterable[Widget]:
        """Return the lines."""
        return [Wrapped([*self._lines, []])]

    def action_yes(self) -> None:
        """Confirm the action."""
        self.dismiss(True)
