"""The list of tasks of compared selections."""

from typing import Any

import numpy as np

from curator.core.arrays import Floats, Mask
from tui.state.comparison import LETTERS
from tui.state.session import Rows as RowNumbers
from tui.widgets import numbers
from tui.widgets.lines import Line, Part, fit, fit_name
from tui.widgets.rows import Rows


class Differences(Rows):
    """A list of tasks with their membership in each selection."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.view: RowNumbers = np.zeros(0, dtype=np.intp)
        self.masks: Mask = np.zeros((0, 0), dtype=bool)
        self.changes: Floats = np.zeros(0)
        self.solved: Mask = np.zeros(0, dtype=bool)

    def clear(self) -> None:
        """Remove all tasks from the list."""
        self.view, self.masks, self.changes = np.zeros(0, dtype=np.intp), np.zeros((0, 0), dtype=bool), np.zeros(0)
        self.changed()

    def take(self, view: RowNumbers) -> None:
        """Show tasks. The cursor stays on its task."""
        task, self.view = self.task_row, view
        self.changed()
        found = np.flatnonzero(view == task)
        # A cursor in the first row stays in the first row.
        if len(found) and self.cursor:
            self.cursor = int(found[0])

    @property
    def count(self) -> int:
        """Return the number of shown tasks."""
        return len(self.view)

    @property
    def task_row(self) -> int | None:
        """Return the task under the cursor; None without tasks."""
        return int(self.view[self.cursor]) if self.count else None

    def _cells(self, width: int) -> tuple[int, int]:
        """Return the cells of the name and of the bar in a line."""
        room = width - 2 * len(self.masks) - 1 - 9 - 10 - 17
        bar = 25 if room >= 60 else 0
        return max(room - bar, 8), bar

    def title(self, width: int) -> Line:
        """Return the titles of the columns, in the whole width."""
        name, bar = self._cells(width - 1)
        letters = "".join(f" {letter}" for letter in LETTERS[: len(self.masks)])
        scale = self._scale()
        ends = f"full bar {scale:.2g}".rjust(bar) if bar and scale else ""
        return [(f" {letters}  {fit('task', name)}{'n':>8} {'helps by':>10}  {'if moved in A':<15}{ends}", "title")]

    def _scale(self) -> float:
        known = np.abs(self.changes[self.view][~np.isnan(self.changes[self.view])])
        return float(known.max()) if known.size else 0.0

    def line(self, row: int, width: int) -> Line:
        """Return the line of one task."""
        snapshot = self.app.snapshot
        if snapshot is None or self.masks.shape[1] != len(snapshot.names):
            # Tasks were added or removed, and the screen is not up to date yet.
            return ()
        task, (name, bar) = int(self.view[row]), self._cells(width)
        parts: list[Part] = []
        for mask in self.masks:
            parts.append(("● " if mask[task] else "○ ", "good" if mask[task] else "dim"))
        affinity = float(snapshot.affinity[task])
        parts += [
            " ",
            fit_name(snapshot.names[task], name),
            f"{snapshot.examples[task]:>8,.0f} ",
            (f"{numbers.signed(affinity) or '·':>10}", numbers.style(affinity)),
        ]
        change = float(self.changes[task])
        style = numbers.style(-change)
        word = "drop" if self.masks[0][task] else "add "
        if np.isnan(change):
            parts.append((f"  {word} …".ljust(17), "dim"))
        else:
            about = " " if self.solved[task] else "≈"
            parts += [f"  {word} ", (f"{about}{numbers.signed(change)}".ljust(10), style)]
            if bar:
                parts.append((numbers.bar(change, self._scale(), bar), style))
        return parts
