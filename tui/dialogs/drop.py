"""Ask how many of the most harmful examples to drop."""

from collections.abc import Iterable

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from tui.dialogs.base import Dialog
from tui.widgets.lines import Lines


class DropDialog(Dialog[int]):
    """Asks for a number of examples. The value is the number.

    Args:
        harmful: Number of examples that harm and are not dropped.
    """

    title_text = "drop the most harmful examples"
    keys = (("enter", "drop (undo with u)"),)

    def __init__(self, harmful: int) -> None:
        super().__init__()
        self._harmful = harmful

    def content(self) -> Iterable[Widget]:
        """Return a note and a field for the number."""
        count = self._harmful
        note = "1 example harms" if count == 1 else f"{count:,} examples harm"
        return [
            Lines([[(f"{note} the target, to first order", "dim")]], id="note"),
            Input(value=str(min(3, count)), type="integer", id="count", classes="first-focus"),
        ]

    @on(Input.Submitted, "#count")
    def _take(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        if text.isdigit() and 1 <= int(text) <= self._harmful:
            self.dismiss(int(text))
        else:
            self.query_one("#note", Lines).show([[(f"enter a number from 1 to {self._harmful}", "warn")]])
