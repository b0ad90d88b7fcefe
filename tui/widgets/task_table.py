"""The table of tasks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from textual import events
from textual.message import Message

from curator.core.arrays import Floats
from curator.core.figures import half_width
from curator.core.interval import NORMAL_90, is_clear
from tui.state.filters import SORTS
from tui.state.session import GLYPHS, State
from tui.state.session import Rows as RowNumbers
from tui.widgets import numbers
from tui.widgets.lines import Line, Lines, Part, fit, fit_name, width_of
from tui.widgets.reading import preview
from tui.widgets.rows import Rows
from tui.widgets.task_columns import BY_NAME, COLUMNS, laid_out


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
        self.starts: Mapping[str, str] = {}
        """Start of the first example of each task, by name."""
        self._laid_out: tuple[object, list[tuple[str, int]]] | None = None
        self._ranks: tuple[object, Floats] | None = None

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
        chosen = tuple(self.app.settings.columns)
        wanted = (width, chosen, id(self.app.snapshot))
        if self._laid_out is None or self._laid_out[0] != wanted:
            snapshot = self.app.snapshot
            names = snapshot.names if snapshot is not None else ()
            tagged = snapshot is not None and any(snapshot.tags)
            known = [column.name for column in COLUMNS if tagged or column.name != "tag"]
            longest = max((width_of([name]) for name in names), default=0)
            self._laid_out = wanted, laid_out(width, longest=longest, chosen=chosen, known=known)
        return self._laid_out[1]

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
                known = BY_NAME.get(column)
                text = fit(mark + known.title, cells, right=True) if known is not None else fit("task" + mark, cells)
                if known is not None and not known.right:
                    text = fit(f" {known.title}{mark}", cells)
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
                parts.append(self._size_part(f"{app.sizes()[0][task]:,.0f}", task, cells))
            elif column == "tokens":
                parts.append(self._size_part(numbers.short(app.sizes()[1][task]), task, cells))
            elif column == "affinity":
                clear = is_clear(affinity, float(snapshot.affinity_error[task]))
                shown = numbers.style(affinity) if clear else "dim"
                parts.append((fit(numbers.signed(affinity) or "·", cells, right=True), shown))
            elif column == "bar":
                parts.append((f" {numbers.bar(affinity, self._scale(), cells - 2)} ", numbers.style(affinity)))
            elif column == "flip":
                parts.append(self._flip(estimate, session.revision, task, cells))
            elif column == "error":
                error = NORMAL_90 * float(snapshot.affinity_error[task])
                words = half_width(error) if np.isfinite(error) and not np.isnan(affinity) else ""
                # A bound needs the cell of its sign, which the title has too.
                words = words if len(words) < cells else words.removeprefix("±")
                parts.append((fit(words, cells, right=True), "dim"))
            elif column == "rank":
                rank = self._rank()[task]
                parts.append((fit(f"{rank:.0f}" if rank else "", cells, right=True), "dim"))
            elif column == "preview":
                parts.append((" " + fit(preview(self.starts.get(snapshot.names[task], ""), cells), cells - 1), "dim"))
            else:
                words = snapshot.tags[task] if column == "tag" else snapshot.sources[task]
                parts.append((" " + (fit if column == "tag" else fit_name)(words, cells - 1), "dim"))
        return parts

    def _size_part(self, words: str, task: int, cells: int) -> Part:
        """Return the size of a task. A sign precedes the size of a task that lacks dropped examples."""
        assert self.app.session is not None
        if self.app.session.dropped.get(self.app.session.names[task]):
            return (fit(f"✗ {words}", cells, right=True), "warn")
        return fit(words, cells, right=True)

    def _rank(self) -> Floats:
        """Return the rank of each task by affinity (t,), 1 first; 0 without an affinity."""
        affinity = self.app.snapshot.affinity if self.app.snapshot is not None else np.zeros(0)
        if self._ranks is None or self._ranks[0] is not affinity:
            known = np.flatnonzero(~np.isnan(affinity))
            ranks = np.zeros(len(affinity))
            ranks[known[np.argsort(-affinity[known], kind="stable")]] = np.arange(1, len(known) + 1)
            self._ranks = affinity, ranks
        return self._ranks[1]

    def _flip(self, estimate: Any, revision: int, task: int, cells: int) -> Part:
        if estimate is None or estimate.revision != revision or np.isnan(estimate.flips[task]):
            return fit("…" if estimate is not None else "", cells, right=True)
        change = float(estimate.flips[task])
        text = ("" if estimate.solved[task] else "≈") + numbers.signed(change)
        return (fit(text, cells, right=True), numbers.style(-change))

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
                column = {"bar": "affinity", "rank": "affinity"}.get(column, column)
                if column in SORTS:
                    table.post_message(TaskTable.Sorted(column))
                return
            left += cells
