"""The log of a job, folded to the width. The end stays visible while the log grows."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from rich.cells import chop_cells

from curator.core.text import clean
from tui.background.run_watcher import JobView
from tui.widgets.lines import Line, Part
from tui.widgets.rows import Rows

_INDENT = 10
_LEAST = 8
_HEADING = "─ last output of the process"

Entry = tuple[float | None, str]
"""Seconds since the epoch, or None for output of the process, and the text, which is not cleaned."""


@lru_cache(maxsize=4096)
def fold(text: str, width: int) -> tuple[str, ...]:
    """Clean a text, and split the text into pieces of at most `width` cells."""
    return tuple(chop_cells(clean(text.expandtabs(4)), max(width, _LEAST))) or ("",)


class JobLog(Rows):
    """The log of one job, with the last output of its process if known.

    Attributes:
        following: Whether the cursor follows the end.
        query_text: Text of the search. Matches are marked.
        entries: The entries of the log.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.following = True
        self.query_text = ""
        self.entries: list[Entry] = []
        self._rows: list[tuple[int, str]] = []
        self._job = ""
        self._folded_for = 0

    @property
    def count(self) -> int:
        """Return the number of rows of the folded log."""
        return len(self._rows)

    @property
    def entry(self) -> int | None:
        """Return the position of the entry under the cursor; None without entries."""
        return self._rows[self.cursor][0] if self.cursor < self.count else None

    def take(self, view: JobView | None) -> None:
        """Show the log of a job. In the log of the same job, the cursor stays on its line."""
        job = view.job.id if view is not None else ""
        entries: list[Entry] = []
        if view is not None:
            entries += view.log
            if view.words:
                entries.append((None, _HEADING))
                entries += [(None, words) for words in view.words]
        other = job != self._job
        if other:
            self._job, self.entries, self._rows, self.following = job, [], [], True
        if other or entries != self.entries or self._room != self._folded_for:
            self._fold(entries)

    def _fold(self, entries: list[Entry]) -> None:
        here = self.entry
        top = self.scroll_offset.y - self.cursor
        if here is not None and self.entries:
            # A long log loses its first entries, so that other entries move up.
            first = entries[0] if entries else None
            here -= self.entries.index(first) if first in self.entries else 0
        self.entries, self._folded_for = entries, self._room
        self._rows = [
            (number, piece)
            for number, (moment, text) in enumerate(entries)
            for piece in fold(text, self._room - (_INDENT if moment is not None else 0))
        ]
        if self.following or here is None:
            self.cursor = self.count - 1
        else:
            self.cursor = self._first_row(max(here, 0))
            self.changed()
            self.scroll_to(y=max(self.cursor + top, 0), animate=False)
            return
        self.changed()

    @property
    def _room(self) -> int:
        """Return the cells without cursor and scrollbar."""
        return self.scrollable_content_region.width - 1

    def _first_row(self, entry: int) -> int:
        return next((row for row, (number, _) in enumerate(self._rows) if number >= entry), max(self.count - 1, 0))

    def on_resize(self) -> None:
        """Fold to the new width."""
        if self.entries and self._room != self._folded_for:
            self._fold(self.entries)

    def line(self, row: int, width: int) -> Line:
        """Return the line of one row."""
        number, text = self._rows[row]
        moment, words = self.entries[number]
        begins = row == 0 or self._rows[row - 1][0] != number
        if moment is None and words == _HEADING:
            return [(text, "title")]
        if moment is None:
            return self._marked(text, "")
        style = "warn" if words.startswith("warning") else ""
        when = f"{datetime.fromtimestamp(moment, UTC).astimezone():%H:%M:%S}" if begins else ""
        return [(f"{when:<{_INDENT}}", "dim"), *self._marked(text, style)]

    def _marked(self, text: str, style: str) -> list[Part]:
        query, parts, at = self.query_text.casefold(), list[Part](), 0
        low = text.casefold()
        if not query or len(low) != len(text):
            return [(text, style)]
        while (found := low.find(query, at)) >= 0:
            parts += [(text[at:found], style), (text[found : found + len(query)], "range strong")]
            at = found + len(query)
        return [*parts, (text[at:], style)]

    # -- following --------------------------------------------------------------------------------------------------

    def follow(self, on: bool) -> None:
        """Follow the end of the log, or pause."""
        self.following = on
        if on:
            self.cursor = self.count - 1
            self._keep_in_view()
        self.post_message(self.Moved(self))

    def action_up(self) -> None:
        """Move to the previous row, and pause."""
        self.following = False
        super().action_up()

    def action_page_up(self) -> None:
        """Move up by a page, and pause."""
        self.following = False
        super().action_page_up()

    def action_first(self) -> None:
        """Move to the first row, and pause."""
        self.following = False
        super().action_first()

    def action_last(self) -> None:
        """Move to the last row, and follow the end."""
        self.follow(True)

    def on_mouse_scroll_up(self) -> None:
        """Pause after a scroll up."""
        self.following = False
        self.post_message(self.Moved(self))

    def clicked(self, row: int, x: int) -> None:
        """Pause after a click on a row, or follow the end after a click on the last row."""
        self.following = row == self.count - 1
        self.post_message(self.Moved(self))

    # -- searching --------------------------------------------------------------------------------------------------

    def matches(self) -> list[int]:
        """Return the positions of the entries that contain the text of the search."""
        query = self.query_text.casefold()
        return [n for n, (_, text) in enumerate(self.entries) if query in clean(text).casefold()] if query else []

    def search(self, step: int) -> bool:
        """Put the cursor on a match. The search wraps at the ends.

        Args:
            step: 1 for the next match, −1 for the previous match, 0 for the nearest match at or before the cursor.

        Returns:
            Whether a match exists.
        """
        found, here = self.matches(), self.entry or 0
        self.refresh()
        if not found:
            return False
        if step > 0:
            chosen = next((n for n in found if n > here), found[0])
        else:
            chosen = next((n for n in reversed(found) if n < here + 1 + step), found[-1])
        self.following = False
        self.cursor = self._first_row(chosen)
        self.post_message(self.Moved(self))
        return True
