"""A list with a cursor that draws only the rows on the screen."""

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
    """A list with a cursor. A subclass returns the number of rows (`count`) and each row (`line`)."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("list")
    cursor: reactive[int] = reactive(0, repaint=False)
    app: AppBase

    class Moved(Message):
        """The cursor has moved."""

        def __init__(self, rows: "Rows") -> None:
            super().__init__()
            self.rows = rows

        @property
        def control(self) -> "Rows":
            """Return the list."""
            return self.rows

        def can_replace(self, message: Message) -> bool:
            """Replace an older message of the same list, because only the last move counts."""
            return isinstance(message, Rows.Moved) and message.rows is self.rows

    class Opened(Message):
        """The user opens the row under the cursor."""

        def __init__(self, rows: "Rows") -> None:
            super().__init__()
            self.rows = rows

        @property
        def control(self) -> "Rows":
            """Return the list."""
            return self.rows

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.show_horizontal_scrollbar = False

    # -- for subclasses -----------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Return the number of rows."""
        raise NotImplementedError

    def line(self, row: int, width: int) -> Line:
        """Return the line of a row."""
        raise NotImplementedError

    def lies_over(self, row: int) -> str:
        """Return the style of a whole row, in addition to the style of the cursor."""
        return ""

    # -- showing ------------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Draw after rows were added, changed or removed."""
        self.virtual_size = Size(0, self.count)
        self.cursor = self._clamped(self.cursor)
        self._keep_in_view()
        self.refresh()

    @property
    def visible_rows(self) -> range:
        """Return the rows on the screen."""
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
        """Keep the cursor in the list."""
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
        """Draw the list with the focus."""
        self.refresh()

    def on_blur(self) -> None:
        """Draw the list without the focus."""
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Put the cursor under the pointer. A double click opens the row."""
        row = self.scroll_offset.y + event.y
        if row < self.count:
            self.cursor = row
            if event.chain == 2:
                self.post_message(self.Opened(self))
            else:
                self.clicked(row, event.x)

    def clicked(self, row: int, x: int) -> None:
        """Handle a click on a row at a column. Subclasses override this method."""

    def action_down(self) -> None:
        """Move to the next row."""
        self.cursor += 1

    def action_up(self) -> None:
        """Move to the previous row."""
        self.cursor -= 1

    def action_page_down(self) -> None:
        """Move down by a page."""
        self.cursor += max(self.size.height - 1, 1)

    def action_page_up(self) -> None:
        """Move up by a page."""
        self.cursor -= max(self.size.height - 1, 1)

    def action_first(self) -> None:
        """Move to the first row."""
        self.cursor = 0

    def action_last(self) -> None:
        """Move to the last row."""
        self.cursor = self.count - 1

    def action_open(self) -> None:
        """Open the row under the cursor."""
        if self.count:
            self.post_message(self.Opened(self))
