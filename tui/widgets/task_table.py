"""The table of tasks."""

from typing import Any

import numpy as np
from textual import events
from textual.message import Message

from tui.state.session import GLYPHS, State
from tui.state.session import Rows as RowNumbers
from tui.widgets import numbers
from tui.widgets.lines import Line, Lines, Part, fit, fit_name
from tui.widgets.rows import Rows

# Columns and their cells. The name takes the remaining cells.
_FIXED = (("examples", 8), ("affinity", 9), ("bar", 17), ("flip", 11))
_WIDE = (("tokens", 8),)
_TITLES = {
    "task": "task",
    "examples": "n",
    "tokens": "tokens",
    "affinity": "helps by",
    "bar": "",
    "flip": "if flipped",
    "tag": "tag",
}


class TaskTable(Rows):
    """A table of the tasks in `view`, from snapshot, session and estimate of the application."""

    class Sorted(Message):
        """The title of a column was clicked."""

        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    class Toggled(Message):
        """The glyph of a task was clicked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.view: RowNumbers = np.zeros(0, dtype=np.intp)
        self.marked: set[int] = set()
        self.range_start: int | None = None

    @property
    def count(self) -> int:
        """Return the number of shown tasks."""
        return len(self.view)

    @property
    def task_row(self) -> int | None:
        """Return the task under the cursor; None without tasks."""
        return int(self.view[self.cursor]) if self.count else None

    def chosen(self) -> RowNumbers:
        """Return the tasks for an action: the range, else the marked tasks, else the task under the cursor."""
        if not self.count:
            return self.view
        if self.range_start is not None:
            first, last = sorted((self._clamped(self.range_start), self.cursor))
            return self.view[first : last + 1]
        if self.marked:
            return np.array(sorted(self.marked), dtype=np.intp)
        return self.view[[self.cursor]]

    def columns(self, width: int) -> list[tuple[str, int]]:
        """Return names and cells of the columns at a width."""
        snapshot = self.app.snapshot
        fixed = list(_FIXED)
        if width >= 100:
            fixed = [_FIXED[0], *_WIDE, *_FIXED[1:]]
        tagged = snapshot is not None and any(snapshot.tags)
        tag = 10 if tagged and width >= 74 else 0
        name = width - 5 - sum(cells for _, cells in fixed) - (tag + 1 if tag else 0)
        if name < 14:
            fixed = [column for column in fixed if column[0] != "bar"]
            name += 17
        return [("task", max(name, 6)), *fixed, *([("tag", tag)] if tag else [])]

    def title(self, width: int, sort: str, *, descending: bool) -> Line:
        """Return the titles of the columns."""
        parts: list[Part] = ["    "]
        for column, cells in self.columns(width):
            mark = ("▼" if descending else "▲") if column == sort else ""
            if column == "bar":
                scale = self._scale()
                ends = f"{-scale:.2g}".replace("-", "−"), f"+{scale:.2g}"
                middle = cells - 2 - len(ends[0]) - len(ends[1])
                text = f" {ends[0]}{'0'.center(middle)}{ends[1]} " if scale and middle > 0 else " " * cells
            else:
                text = fit(mark + _TITLES[column], cells, right=column not in ("task", "tag"))
                if column in ("task", "tag"):
                    text = fit((" " if column == "tag" else "") + _TITLES[column] + mark, cells)
            parts.append((text, "title"))
        return parts

    def line(self, row: int, width: int) -> Line:
        """Return the line of one task."""
        app = self.app
        snapshot, session, estimate = app.snapshot, app.session, app.estimate
        if snapshot is None or session is None:
            return ()
        task = int(self.view[row])
        state = session.state(task)
        style = {State.IN: "good", State.OUT: "dim"}.get(state, "pin")
        affinity = float(snapshot.affinity[task])
        parts: list[Part] = [("*" if task in self.marked else " ", "warn"), (GLYPHS[state], style), " "]
        for column, cells in self.columns(width + 1):
            if column == "task":
                parts.append((fit_name(snapshot.names[task], cells), "strong" if state.selected else ""))
            elif column == "examples":
                parts.append(fit(f"{snapshot.examples[task]:,.0f}", cells, right=True))
            elif column == "tokens":
                parts.append(fit(numbers.short(snapshot.tokens[task]), cells, right=True))
            elif column == "affinity":
                unsure = abs(affinity) <= 1.645 * float(snapshot.affinity_error[task])
                shown = "good" if affinity > 0 else "bad"
                parts.append((fit(numbers.signed(affinity) or "·", cells, right=True), "dim" if unsure else shown))
            elif column == "bar":
                parts.append(
                    (f" {numbers.bar(affinity, self._scale(), cells - 2)} ", "good" if affinity > 0 else "bad")
                )
            elif column == "flip":
                parts.append(self._flip(estimate, session.revision, task, cells))
            else:
                parts.append((" " + fit(snapshot.tags[task], cells - 1), "dim"))
        return parts

    def _flip(self, estimate: Any, revision: int, task: int, cells: int) -> Part:
        if estimate is None or estimate.revision != revision or np.isnan(estimate.flips[task]):
            return fit("…" if estimate is not None else "", cells, right=True)
        change = float(estimate.flips[task])
        text = ("" if estimate.solved[task] else "≈") + numbers.signed(change)
        return (fit(text, cells, right=True), "good" if change < 0 else "bad")

    def _scale(self) -> float:
        snapshot = self.app.snapshot
        if snapshot is None:
            return 0.0
        known = np.abs(snapshot.affinity[~np.isnan(snapshot.affinity)])
        return float(known.max()) if known.size else 0.0

    def lies_over(self, row: int) -> str:
        """Return the style of rows in the range."""
        if self.range_start is None:
            return ""
        first, last = sorted((self.range_start, self.cursor))
        return "range" if first <= row <= last else ""

    def clicked(self, row: int, x: int) -> None:
        """Toggle the task after a click on its glyph."""
        if x in (2, 3):
            self.post_message(self.Toggled())


class TaskTitle(Lines):
    """The titles of the columns. A click on a title sorts the table."""

    def on_click(self, event: events.Click) -> None:
        """Sort by the column under the pointer."""
        table = self.screen.query_one(TaskTable)
        left = 4
        for column, cells in table.columns(self.size.width):
            if left <= event.x < left + cells:
                table.post_message(TaskTable.Sorted({"bar": "affinity"}.get(column, column)))
                return
            left += cells
