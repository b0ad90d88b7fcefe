"""Choose the columns of the table of tasks."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget

from tui.dialogs.base import Dialog
from tui.widgets.lines import Line
from tui.widgets.rows import Rows
from tui.widgets.task_columns import BY_NAME, COLUMNS


class _Columns(Rows):
    """All columns, with a sign for chosen ones."""

    def __init__(self, chosen: Sequence[str], **options: object) -> None:
        super().__init__(**options)
        self.chosen = [name for name in chosen if name in BY_NAME]

    @property
    def count(self) -> int:
        return len(COLUMNS)

    def line(self, row: int, width: int) -> Line:
        column = COLUMNS[row]
        sign = ("● ", "good") if column.name in self.chosen else ("○ ", "dim")
        return [sign, (f"{column.title or column.name:<15}", "strong"), (column.words, "dim")]

    def on_mount(self) -> None:
        self.styles.height = self.count
        self.changed()

    def clicked(self, row: int, x: int) -> None:
        if x <= 2:
            self.toggle()

    def toggle(self) -> None:
        """Choose or leave out the column under the cursor."""
        name = COLUMNS[self.cursor].name
        if name in self.chosen:
            self.chosen.remove(name)
        else:
            self.chosen.append(name)
        self.refresh()


class ColumnsDialog(Dialog[list[str]]):
    """Asks which columns to show. The value is a list of names. The empty list shows as many as fit.

    Args:
        chosen: Columns that are chosen now.
    """

    title_text = "columns: without a choice, as many as fit"
    keys = (("space", "choose"), ("c", "clear"), ("enter", "keep"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "choose", "choose", show=False),
        Binding("c", "clear", "clear", show=False),
    ]

    def __init__(self, chosen: Sequence[str]) -> None:
        super().__init__()
        self._chosen = chosen

    def content(self) -> Iterable[Widget]:
        """Return the list of columns."""
        return [_Columns(self._chosen, classes="first-focus")]

    def action_choose(self) -> None:
        """Choose or leave out the column under the cursor."""
        self.query_one(_Columns).toggle()

    def action_clear(self) -> None:
        """Choose no column, so that the table shows as many as fit."""
        rows = self.query_one(_Columns)
        rows.chosen.clear()
        rows.refresh()

    @on(Rows.Opened)
    def _keep(self) -> None:
        self.dismiss(list(self.query_one(_Columns).chosen))
