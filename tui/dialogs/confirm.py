"""A question before something that cannot be taken back."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from tui.dialogs.base import Dialog
from tui.widgets.lines import Line, Lines


class ConfirmDialog(Dialog[bool]):
    """Yes, or no.

    Args:
        title: What it is about.
        lines: What will happen.
        yes: What yes is called.
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
        """What will happen."""
        return [Lines([*self._lines, []])]

    def action_yes(self) -> None:
        """Do it."""
        self.dismiss(True)
