"""The matrix of tasks by tasks, as glyphs or as numbers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from textual import events
from textual.reactive import reactive

from curator.core.arrays import Floats
from tui.state.session import GLYPHS, State
from tui.state.session import Rows as RowNumbers
from tui.state.transfer import Transfer
from tui.widgets import numbers
from tui.widgets.lines import Line, Part, fit_name
from tui.widgets.rows import Rows

# Shades help, low blocks hurt. The sign is visible without color, and both cover as much of a cell.
# The numbers are shares of the full scale at which each begins.
HELPS = ((0.875, "█"), (0.625, "▓"), (0.375, "▒"), (0.125, "░"))
HURTS = ((0.875, "▇"), (0.5, "▄"), (0.125, "▂"))
_NARROW_CELLS, _GLYPH_CELLS, _NUMBER_CELLS = 2, 3, 8
# Cells of the affinity at the right: a line, a glyph, a number.
_TARGET_CELLS = 11
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def glyph(value: float, scale: float) -> str:
    """Return the glyph of a value: a shade if it helps, a low block if it hurts, a blank near 0, `?` for NaN.

    Args:
        value: Effect in nats. A positive value helps.
        scale: Full scale, in nats.
    """
    if math.isnan(value):
        return "?"
    share = abs(value) / scale if scale > 0 else 0.0
    return next((sign for least, sign in (HELPS if value > 0 else HURTS) if share >= least), " ")


def label(number: int, count: int) -> str:
    """Return the label of a row: A, B, … z. More than 52 rows have two letters each."""
    if count <= len(_LETTERS):
        return _LETTERS[number]
    first, second = divmod(number, len(_LETTERS))
    return _LETTERS[first % len(_LETTERS)] + _LETTERS[second]


def _short(value: float, cells: int) -> str:
    """Format a number in few cells, right-justified: +.0123, +1.234, +123."""
    if math.isnan(value):
        return "?".rjust(cells)
    for digits in range(cells - 3, -1, -1):
        text = numbers.signed(value, digits)
        text = text[0] + text[2:] if text[1:3] == "0." else text
        if len(text) < cells:
            return text.rjust(cells)
    return f"{value:+.0e}".replace("-", "−").rjust(cells)


class Matrix(Rows):
    """A matrix of tasks by tasks that draws only the cells on the screen."""

    column: reactive[int] = reactive(0, repaint=False)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.tasks: RowNumbers = np.zeros(0, dtype=np.intp)
        self.values: Floats = np.zeros((0, 0))
        """Effect of each task, by row, on each task, by column, for all tasks (t, t), in nats."""
        self.scale = self.target_scale = 0.0
        """Full scale of the cells and of the affinities, in nats."""
        self.beyond = 0.0
        """Share of all pairs beyond the full scale, from 0 to 1."""
        self.transposed = False
        self.zoomed = False
        self.left = 0

    @property
    def count(self) -> int:
        """Return the number of shown tasks."""
        return len(self.tasks)

    @property
    def cell(self) -> tuple[int, int] | None:
        """Return the tasks of the cell under the cursor: the task that helps, and the task that is helped."""
        if not self.count:
            return None
        row, column = int(self.tasks[self.cursor]), int(self.tasks[min(self.column, self.count - 1)])
        return (column, row) if self.transposed else (row, column)

    @property
    def row_task(self) -> int | None:
        """Return the task in the row of the cursor; None without tasks."""
        return int(self.tasks[self.cursor]) if self.count else None

    def clear(self) -> None:
        """Remove all tasks."""
        self.tasks, self.values = np.zeros(0, dtype=np.intp), np.zeros((0, 0))
        self.changed()

    def take(self, tasks: RowNumbers, known: Transfer, affinity: Floats, wanted: int | None) -> None:
        """Show tasks. The cursor stays on its pair, if the pair is still shown.

        Args:
            tasks: Shown tasks, in order.
            known: Effects of tasks on each other.
            affinity: Affinity of all tasks to the target (t,), in nats.
            wanted: Task for the row of the cursor. None keeps the task of the row.
        """
        first, row = not self.count, self.row_task if wanted is None else wanted
        column = int(self.tasks[self.column]) if self.count else -1
        sizes = np.abs(affinity[~np.isnan(affinity)])
        self.target_scale = float(np.quantile(sizes, 0.95)) if sizes.size else 0.0
        self.tasks, self.values, self.scale, self.beyond = tasks, known.values, known.scale, known.beyond
        self.changed()
        found = np.flatnonzero(tasks == row)
        self.cursor = int(found[0]) if len(found) else 0
        found = np.flatnonzero(tasks == column)
        # Start on a pair, not on the diagonal.
        start = 1 if first and self.cursor == 0 else 0
        self.column = int(found[0]) if len(found) else start

    # -- geometry -----------------------------------------------------------------------------------------------------

    @property
    def cells(self) -> int:
        """Return the width of a cell with the gap before it. Cells are wider if all columns fit."""
        if self.zoomed:
            return _NUMBER_CELLS
        return _GLYPH_CELLS if self.count * _GLYPH_CELLS <= self._room else _NARROW_CELLS

    @property
    def _room(self) -> int:
        """Return the cells between names and affinities."""
        return self.size.width - self.head - _TARGET_CELLS - 1

    @property
    def letters(self) -> int:
        """Return the number of letters of a label."""
        return len(label(0, max(self.count, 1)))

    @property
    def head(self) -> int:
        """Return the cells before the first column: cursor, label, state and name."""
        name = 30 if self.size.width >= 110 else 24 if self.size.width >= 90 else 18
        return self.letters + 5 + name

    @property
    def shown_columns(self) -> range:
        """Return the columns on the screen."""
        room = max(self._room // self.cells, 1)
        first = max(0, min(self.left, self.count - room))
        return range(first, min(first + room, self.count))

    def follow(self) -> None:
        """Scroll horizontally until the cursor is on the screen."""
        shown = self.shown_columns
        if self.column < shown.start:
            self.left = self.column
        elif self.column >= shown.stop:
            self.left = shown.start + self.column - shown.stop + 1
        else:
            self.left = shown.start
        self.refresh()

    def validate_column(self, column: int) -> int:
        """Keep the cursor in the matrix."""
        return self._clamped(column)

    def watch_column(self) -> None:
        """Follow the cursor."""
        self.follow()
        self.post_message(self.Moved(self))

    def changed(self) -> None:
        """Draw after the tasks have changed."""
        super().changed()
        self.column = self._clamped(self.column)
        self.follow()

    def on_resize(self) -> None:
        """Keep the cursor on the screen."""
        super().on_resize()
        self.call_after_refresh(self.follow)

    def clicked(self, row: int, x: int) -> None:
        """Put the cursor on the clicked cell."""
        shown = self.shown_columns
        column = shown.start + (x - self.head) // self.cells
        if x >= self.head and column in shown:
            self.column = column

    def on_mouse_scroll_right(self, event: events.MouseScrollRight) -> None:
        """Move right by three columns."""
        self.column += 3

    def on_mouse_scroll_left(self, event: events.MouseScrollLeft) -> None:
        """Move left by three columns."""
        self.column -= 3

    # -- drawing ------------------------------------------------------------------------------------------------------

    def titles(self, names: Sequence[str]) -> list[Line]:
        """Return the lines above the matrix: labels of the columns, and names of the tasks above numbers."""
        shown, cells = self.shown_columns, self.cells
        style = ["accent" if column == self.column else "title" for column in shown]
        texts = [label(column, self.count) for column in shown]
        lines: list[Line] = []
        if self.zoomed:
            fitted = [fit_name(names[self.tasks[column]], cells - 1) for column in shown]
            lines.append([" " * self.head, *((" " + name, s) for name, s in zip(fitted, style, strict=True))])
            lines.append([" " * self.head, *((text.rjust(cells), s) for text, s in zip(texts, style, strict=True))])
        else:
            for letter in range(self.letters):
                parts = [(text[letter].rjust(cells), s) for text, s in zip(texts, style, strict=True)]
                lines.append([" " * self.head, *parts])
        lines[-1] = [*lines[-1], (" │ → target", "title")]
        return lines

    def line(self, row: int, width: int) -> Line:
        """Return the line of one task, with its effect on each task."""
        snapshot, session = self.app.snapshot, self.app.session
        if snapshot is None or session is None or len(self.values) != len(session.names):
            # Tasks were added or removed, and the screen is not up to date yet.
            return ()
        task = int(self.tasks[row])
        state = session.state(task)
        style = {State.IN: "good", State.OUT: "dim"}.get(state, "pin")
        here = row == self.cursor
        name = self.head - self.letters - 5
        parts: list[Part] = [
            (label(row, self.count), "accent" if here else "title"),
            " ",
            (GLYPHS[state], style),
            " ",
            (fit_name(snapshot.names[task], name), "strong" if here or state.selected else ""),
        ]
        columns = np.array(self.shown_columns, dtype=np.intp)
        others = self.tasks[columns]
        values = self.values[others, task] if self.transposed else self.values[task, others]
        gap, cells = " ", self.cells
        for column, value in zip(columns.tolist(), values.tolist(), strict=True):
            text, style = self._cell(value, cells, itself=row == column)
            if here and column == self.column:
                parts += [("[", "accent"), (text, style)]
                gap = "]"
            elif gap == "]":
                parts += [(gap, "accent"), (text, style)]
                gap = " "
            else:
                parts.append((gap + text, style))
        affinity = float(snapshot.affinity[task])
        shown = numbers.style(affinity)
        parts += [(gap, "accent"), ("│", "dim"), (glyph(affinity, self.target_scale), shown)]
        parts.append((f" {numbers.signed(affinity):>7}", shown))
        return parts

    def _cell(self, value: float, cells: int, *, itself: bool) -> tuple[str, str]:
        style = "dim" if itself else numbers.style(value)
        if self.zoomed:
            return _short(value, cells - 1), style
        return ("·" if itself else glyph(value, self.scale)) * (cells - 1), style
