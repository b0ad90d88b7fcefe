"""A list with a cursor that draws only the rows on the screen, however many there are."""

from typing import Any, ClassVar

from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.actions import bindings_of
from tui.app_base import AppBase
from tui.widgets.lines import Drawn, Line


class Rows(Drawn, ScrollView, can_focus=True):
    """A list with a cursor. A subclass says how many rows there are and what stands in each."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("list")
    cursor: reactive[int] = reactive(0, repaint=False)
    app: AppBase

    class Moved(Message):
        """The cursor stands elsewhere."""

        def __init__(self, rows: "Rows") -> None:
            super().__init__()
            self.rows = rows

        @property
        def control(self) -> "Rows":
            """The list."""
            return self.rows

        def can_replace(self, message: Message) -> bool:
            """Only the last of several moves counts."""
            return isinstance(message, Rows.Moved) and message.rows is self.rows

    class Opened(Message):
        """Somebody wants to see what the cursor is on."""

        def __init__(self, rows: "Rows") -> None:
            super().__init__()
            self.rows = rows

        @property
        def control(self) -> "Rows":
            """The list."""
            return self.rows

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.show_horizontal_scrollbar = False

    # -- for subclasses -----------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Number of rows."""
        raise NotImplementedError

    def line(self, row: int, width: int) -> Line:
        """What stands in a row."""
        raise NotImplementedError

    def lies_over(self, row: int) -> str:
        """Style of a whole row, beside the cursor's."""
        return ""

    # -- showing ------------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Draw again after rows were added, changed or removed."""
        self.virtual_size = Size(0, self.count)
        self.cursor = self._clamped(self.cursor)
        self._keep_in_view()
        self.refresh()

    @property
    def visible_rows(self) -> range:
        """Rows that are on the screen."""
        first = self.scroll_offset.y
        return range(first, min(first + max(self.size.height, 1), self.count))

    def render_line(self, y: int) -> Strip:
        """Draw one row of the screen."""
        width, row = self.size.width, self.scroll_offset.y + y
        if row >= self.count:
            return self.strip((), width)
        here = row == self.cursor
        over = " ".join(filter(None, [self.lies_over(row), "cursor" if here and self.has_focus else ""]))
        return self.strip([("▌" if here else " ", "accent"), *self.line(row, width - 1)], width, over=over)

    # -- moving -------------------------------------------------------------------------------------------------------

    def watch_cursor(self, before: int, after: int) -> None:
        """Follow the cursor."""
        top = self.scroll_offset.y
        self._keep_in_view()
        if self.scroll_offset.y == top and not self.lies_over(before) and not self.lies_over(after):
            for row in (before, after):
                self.refresh(Region(0, row - top, self.size.width, 1))
        else:
            self.refresh()
        self.post_message(self.Moved(self))

    def validate_cursor(self, cursor: int) -> int:
        """The cursor stays in the list."""
        return self._clamped(cursor)

    def _clamped(self, cursor: int) -> int:
        return max(0, min(cursor, self.count - 1))

    def _keep_in_view(self) -> None:
        height = max(self.size.height, 1)
        top = self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False)

    def on_resize(self) -> None:
        """Keep the cursor on the screen."""
        self.call_after_refresh(self._keep_in_view)

    def on_focus(self) -> None:
        """Show that keys come here."""
        self.refresh()

    def on_blur(self) -> None:
        """Show that keys go elsewhere."""
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Put the cursor under the pointer; twice opens."""
        row = self.scroll_offset.y + event.y
        if row < self.count:
            self.cursor = row
            if event.chain == 2:
                self.post_message(self.Opened(self))
            else:
                self.clicked(row, event.x)

    def clicked(self, row: int, x: int) -> None:
        """A row was clicked at a column; for subclasses."""

    def action_down(self) -> None:
        """Next row."""
        self.cursor += 1

    def action_up(self) -> None:
        """Row before."""
        self.cursor -= 1

    def action_page_down(self) -> None:
        """Down by a page."""
        self.cursor += max(self.size.height - 1, 1)

    def action_page_up(self) -> None:
        """Up by a page."""
        self.cursor -= max(self.size.height - 1, 1)

    def action_first(self) -> None:
        """First row."""
        self.cursor = 0

    def action_last(self) -> None:
        """Last row."""
        self.cursor = self.count - 1

    def action_open(self) -> None:
        """Open what the cursor is on."""
        if self.count:
            self.post_message(self.Opened(self))
