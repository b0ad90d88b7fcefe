"""The base of all dialogs, and a short list of choices."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widget import Widget

from tui.app_base import AppBase
from tui.widgets.lines import Line, Lines, Part
from tui.widgets.rows import Rows

T = TypeVar("T")


class Dialog(ModalScreen[T | None], Generic[T]):
    """A box over the screen; escape leaves it without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "cancel", show=False)]
    AUTO_FOCUS = ".first-focus"
    title_text = ""
    keys: Sequence[tuple[str, str]] = ()
    app: AppBase

    def content(self) -> Iterable[Widget]:
        """The widgets in the box."""
        return ()

    def compose(self) -> ComposeResult:
        """Make the box."""
        box = Vertical(*self.content(), Lines([self._keys()], classes="keys"), classes="dialog")
        box.border_title = self.title_text
        yield box

    def _keys(self) -> Line:
        parts: list[Part] = []
        for key, words in (*self.keys, ("esc", "cancel")):
            parts += [(key, "accent"), f" {words}   "]
        return parts

    def action_cancel(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        """A click beside the box leaves it."""
        if event.widget is self:
            self.dismiss(None)


class Choices(Rows):
    """A short list to choose from.

    Args:
        choices: (value, words, more words).
    """

    def __init__(self, choices: Sequence[tuple[str, str, str]], **options: object) -> None:
        super().__init__(**options)
        self.choices = list(choices)

    @property
    def count(self) -> int:
        """Number of choices."""
        return len(self.choices)

    @property
    def value(self) -> str:
        """The value under the cursor."""
        return self.choices[self.cursor][0]

    def line(self, row: int, width: int) -> Line:
        """One choice."""
        _, words, more = self.choices[row]
        return [(f"{words:<14} ", "strong" if row == self.cursor else ""), (more, "dim")]

    def on_mount(self) -> None:
        """Take as many rows as there are choices."""
        self.styles.height = max(min(self.count, 12), 1)
        self.changed()
