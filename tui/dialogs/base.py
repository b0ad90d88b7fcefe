"""The base class of all dialogs, and a short list of choices."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widget import Widget

from tui.app_base import AppBase
from tui.widgets.lines import Line, Part, fit_name, width_of
from tui.widgets.rows import Rows
from tui.widgets.wrapped import Wrapped

T = TypeVar("T")
# Cells of the name of a choice.
_LEAST_NAME, _MOST_NAME = 14, 30


class Dialog(ModalScreen[T | None], Generic[T]):
    """A box over the screen. Escape cancels the dialog.

    A subclass returns its widgets (`content`), and closes the dialog with a value (`dismiss`).
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "cancel", show=False)]
    AUTO_FOCUS = ".first-focus"
    title_text = ""
    keys: Sequence[tuple[str, str]] = ()
    app: AppBase

    def content(self) -> Iterable[Widget]:
        """Return the widgets in the box."""
        return ()

    def compose(self) -> ComposeResult:
        """Create the box."""
        box = Vertical(*self.content(), Wrapped([self._keys()], classes="keys"), classes="dialog")
        box.border_title = self.title_text
        yield box

    def _keys(self) -> Line:
        parts: list[Part] = []
        for key, words in (*self.keys, ("esc", "cancel")):
            parts += [(key, "accent"), f" {words}   "]
        return parts

    def action_cancel(self) -> None:
        """Close the dialog without a value."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        """Cancel the dialog after a click outside the box."""
        if event.widget is self:
            self.dismiss(None)


class Choices(Rows):
    """A short list to choose from.

    Args:
        choices: Value, name and description of each choice.
    """

    def __init__(self, choices: Sequence[tuple[str, str, str]], **options: object) -> None:
        super().__init__(**options)
        self.choices = list(choices)

    @property
    def count(self) -> int:
        """Return the number of choices."""
        return len(self.choices)

    @property
    def value(self) -> str:
        """Return the value under the cursor."""
        return self.choices[self.cursor][0]

    def line(self, row: int, width: int) -> Line:
        """Return the line of one choice."""
        _, words, more = self.choices[row]
        name = max(min(max(width_of([name]) for _, name, _ in self.choices), _MOST_NAME, width // 3), _LEAST_NAME)
        return [(fit_name(words, name), "strong" if row == self.cursor else ""), " ", (more, "dim")]

    def on_mount(self) -> None:
        """Set the height to the number of choices."""
        self.fit_height()

    def fit_height(self) -> None:
        """Set the height to the number of choices, at most 12, and draw them."""
        self.styles.height = max(min(self.count, 12), 1)
        self.changed()
