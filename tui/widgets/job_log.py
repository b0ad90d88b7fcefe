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
_HEADING = "─ what the process printed last"

Entry = tuple[float | None, str]
"""Seconds since the epoch, or None of what the process printed; and the words, not cleaned."""


@lru_cache(maxsize=4096)
def fold(text: str, width: int) -> tuple[str, ...]:
    """Foreign text, cleaned, in pieces of at most so many cells."""
    return tuple(chop_cells(clean(text.expandtabs(4)), max(width, _LEAST))) or ("",)


class JobLog(Rows):
    """The log of one job, and what its process printed last where that is known.

    Attributes:
        following: Whether the cursor keeps to the end.
        query: What is searched for, and marked where it is found.
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
        """Rows of the folded log."""
        return len(self._rows)

    @property
    def entry(self) -> int | None:
        """Place of the entry under the cursor."""
        return self._rows[self.cursor][0] if self.cursor < self.count else None

    def take(self, view: JobView | None) -> None:
        """Show a job's log; of the same job, the cursor stays on its line."""
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
            # Of a long log the beginning is forgotten: its lines move up.
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
        """Cells beside the cursor's and the scrollbar."""
        return self.scrollable_content_region.width - 1

    def _first_row(self, entry: int) -> int:
        return next((row for row, (number, _) in enumerate(self._rows) if number >= entry), max(self.count - 1, 0))

    def on_resize(self) -> None:
        """Fold to the new width."""
        if self.entries and self._room != self._folded_for:
            self._fold(self.entries)

    def line(self, row: int, width: int) -> Line:
        """One row."""
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
        """Keep to the end, or stay."""
        self.following = on
        if on:
            self.cursor = self.count - 1
            self._keep_in_view()
        self.post_message(self.Moved(self))

    def action_up(self) -> None:
        """Row before; the log is read, and no longer followed."""
        self.following = False
        super().action_up()

    def action_page_up(self) -> None:
        """Up by a page."""
        self.following = False
        super().action_page_up()

    def action_first(self) -> None:
        """First row."""
        self.following = False
        super().action_first()

    def action_last(self) -> None:
        """Last row, and those that will follow."""
        self.follow(True)

    def on_mouse_scroll_up(self) -> None:
        """As moving up."""
        self.following = False
        self.post_message(self.Moved(self))

    def clicked(self, row: int, x: int) -> None:
        """A line that was chosen is kept."""
        self.following = row == self.count - 1
        self.post_message(self.Moved(self))

    # -- searching --------------------------------------------------------------------------------------------------

    def matches(self) -> list[int]:
        """Places of the entries that hold what is searched for."""
        query = self.query_text.casefold()
        return [n for n, (_, text) in enumerate(self.entries) if query in clean(text).casefold()] if query else []

    def search(self, step: int) -> bool:
        """Put the cursor on a match, going round at the ends.

        Args:
            step: 1 for the next, −1 for the one before, 0 for the nearest at or before the cursor.

        Returns:
            Whether there is one.
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
