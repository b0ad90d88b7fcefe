"""Pick up to four selections to compare."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

from tui.dialogs.base import Dialog
from tui.widgets.lines import Line, Lines, fit_name
from tui.widgets.rows import Rows
from tui.widgets.wrapped import Wrapped

MOST = 4


class _Selections(Rows):
    """Selections, with the letters of picked selections."""

    class Picked(Message):
        """The glyph of a selection was clicked."""

    def __init__(self, choices: Sequence[tuple[str, str, str]], picked: Sequence[str], **options: object) -> None:
        super().__init__(**options)
        self.choices, self.picked = list(choices), list(picked)

    @property
    def count(self) -> int:
        return len(self.choices)

    def line(self, row: int, width: int) -> Line:
        value, words, more = self.choices[row]
        chosen = value in self.picked
        letter = "ABCD"[self.picked.index(value)] if chosen else " "
        name = max(width // 2 - 4, 8)
        return [
            ("● " if chosen else "○ ", "good" if chosen else "dim"),
            (f"{letter} ", "accent"),
            (fit_name(words, name), "strong" if chosen else ""),
            (f" {more}", "dim"),
        ]

    def on_mount(self) -> None:
        self.styles.height = max(min(self.count, 12), 1)
        self.changed()

    def clicked(self, row: int, x: int) -> None:
        if x <= 2:
            self.post_message(self.Picked())


class PickDialog(Dialog[list[str]]):
    """Asks which selections to compare. The value is a list of keys, and the first key is A.

    Args:
        choices: Key, name and description of each selection.
        picked: Keys of picked selections, in order.
    """

    title_text = "compare up to four selections"
    keys = (("space", "pick"), ("enter", "compare"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "pick", "pick", show=False)]

    def __init__(self, choices: Sequence[tuple[str, str, str]], picked: Sequence[str]) -> None:
        super().__init__()
        self._choices, self._picked = choices, picked

    def content(self) -> Iterable[Widget]:
        """Return the list, and a line for warnings."""
        return [_Selections(self._choices, self._picked, classes="first-focus"), Wrapped([[]], id="pick-note")]

    @on(_Selections.Picked)
    def _clicked(self) -> None:
        self.action_pick()

    def action_pick(self) -> None:
        """Pick or unpick the selection under the cursor."""
        rows = self.query_one(_Selections)
        value, words = rows.choices[rows.cursor][0], ""
        if value in rows.picked:
            rows.picked.remove(value)
        elif len(rows.picked) < MOST:
            rows.picked.append(value)
        else:
            words = f"at most {MOST} selections: unpick one first"
        self.query_one("#pick-note", Lines).show([[(words, "warn")]])
        rows.refresh()

    @on(Rows.Opened)
    def _keep(self) -> None:
        picked = self.query_one(_Selections).picked
        if picked:
            self.dismiss(list(picked))
        else:
            self.query_one("#pick-note", Lines).show([[("pick at least one selection", "warn")]])
