"""The Tasks screen: effect of each task, and the selection with its estimate."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from textual import on
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Input

from curator.results.text_plot import Series, sparkline
from tui.actions import bindings_of
from tui.screens.task_columns import TaskColumns
from tui.state import filters as view
from tui.state.session import Rows as RowNumbers
from tui.widgets import numbers
from tui.widgets.lines import Line, Lines, Part, spread
from tui.widgets.plot import LinePlot
from tui.widgets.rows import Rows
from tui.widgets.selection_estimate import HEADLINE_WIDE, headline, history_lines, measured_line, task_lines
from tui.widgets.task_columns import SORT_TITLES
from tui.widgets.task_table import TaskTable, TaskTitle

if TYPE_CHECKING:
    from tui.state.snapshot import About


class TasksScreen(TaskColumns):
    """Shows the tasks, and changes the selection."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("tasks")
    place = "tasks"

    def __init__(self) -> None:
        super().__init__()
        self._filter_error = ""
        self._arranged = (-1, False)
        """Revision of the flips that the list is sorted by, and whether all flips were known."""

    def body(self) -> Iterable[Widget]:
        """Return estimate, filter and table. Wide screens add plot, task and edits in a second column."""
        table = Vertical(
            Lines([(), ()], id="estimate"),
            Lines([()], id="chip"),
            Input(id="filter", placeholder="filter: words  tag:  aff>0  in:no  -not  a | b"),
            TaskTitle([()], id="title"),
            TaskTable(id="tasks", classes="first-focus"),
            id="main",
            classes="zooms",
        )
        side = Vertical(
            Vertical(LinePlot(id="edits-plot"), classes="box", id="edits-box"),
            Lines(id="task-box", classes="box"),
            Lines(id="groups-box", classes="box"),
            Lines(id="history-box", classes="box"),
            Lines(id="example-box", classes="box"),
            id="side",
        )
        return [Horizontal(table, side)]

    @property
    def table(self) -> TaskTable:
        """Return the table."""
        return self.query_one(TaskTable)

    def note_about(self) -> "About | None":
        """Return the task under the cursor."""
        row, snapshot = self.table.task_row, self.app.snapshot
        return ("task", snapshot.names[row], "") if row is not None and snapshot is not None else None

    # -- showing ----------------------------------------------------------------------------------------------------

    def show(self, topic: str) -> None:
        """Draw a change."""
        app = self.app
        if topic in ("snapshot", "all") or (topic == "session" and self._depends_on("selection")):
            self._view(keep=True)
            self._read_starts_if_shown()
        elif topic == "estimate" and self._depends_on("flips"):
            self._view_flips()
        elif topic in ("session", "estimate"):
            self.table.refresh()
        self._headline()
        if self.is_wide:
            self._side()
        if app.session is not None and topic == "all":
            app.request_estimate()

    def _headline(self) -> None:
        app, width = self.app, self.query_one("#main").size.width or self.app.size.width
        lines: list[Line] = [headline(app, width), self._sizes(width)]
        self.query_one("#estimate", Lines).show(lines)
        self._chip(width)
        title = self.table.title(width, app.place.sort, descending=app.place.descending)
        self.query_one("#title", Lines).show([title])

    def _sizes(self, width: int) -> Line:
        app = self.app
        if app.session is None or not app.knows_tasks:
            return ()
        mask, (examples, tokens) = app.session.mask, app.sizes()
        measured = measured_line(app) if width < HEADLINE_WIDE else None
        left: list[Part] = [" ", measured, " ·"] if measured is not None else []
        left += [
            f" {int(mask.sum())}/{len(mask)} in · {examples[mask].sum():,.0f} examples ·"
            f" {numbers.short(tokens[mask].sum())} tokens"
        ]
        losses = [loss for _, loss in self._curve()]
        edits = f"edit {len(app.session.done)}/{len(app.session.done) + len(app.session.undone)} "
        spark = sparkline(losses[-20:], 20) if len(losses) > 1 and measured is None else ""
        return spread(left, [(spark, "dim"), "  ", edits], width)

    def _chip(self, width: int) -> None:
        app = self.app
        text, table = app.place.filter, self.table
        left: list[Part] = [("─ ", "dim")]
        if self._filter_error:
            left += [("✗ ", "bad"), (self._filter_error, "bad")]
        elif text:
            left += [("/ ", "accent"), text]
        else:
            left += [("all tasks", "dim")]
        total = len(app.snapshot.names) if app.snapshot is not None else 0
        chosen = [f"{len(table.marked)} marked"] if table.marked else []
        if table.range_start is not None:
            chosen.append(f"range of {len(table.chosen())}")
        arrow = "▼" if app.place.descending else "▲"
        right = " · ".join(
            [f"{table.count} of {total}", *chosen, f"{SORT_TITLES.get(app.place.sort, app.place.sort)} {arrow}"]
        )
        left.append(" ")
        line = spread(left, [(f" {right} ", "dim")], width)
        self.query_one("#chip", Lines).show([line])

    def _side(self) -> None:
        app, table = self.app, self.table
        width = max(self.query_one("#side").size.width - 4, 10)
        plot, box = self.query_one("#edits-plot", LinePlot), self.query_one("#edits-box")
        trust = f" · {app.snapshot.trust}" if app.snapshot is not None else ""
        box.border_title = f"estimated loss by edit{trust}"
        plot.show([Series(self._curve())], x_label="edit")
        task = self.query_one("#task-box", Lines)
        if table.task_row is not None and app.snapshot is not None:
            task.border_title = f"task{trust}"
            task.show(task_lines(app, table.task_row, width))
        groups = self._groups(width)
        self.query_one("#groups-box").display = bool(groups)
        self.query_one("#groups-box").border_title = "tags"
        self.query_one("#groups-box", Lines).show(groups)
        edits = self.query_one("#history-box", Lines)
        edits.border_title = "edits   u undo · U redo"
        edits.show(history_lines(app, 6, width))
        self._show_example()

    def _curve(self) -> list[tuple[float, float]]:
        """Return the number and the loss of the last edits. Saving, renaming and deleting do not count."""
        losses = [(edit, loss) for edit, _, loss in self.app.edit_losses() if edit.is_of_selection]
        session = self.app.session
        total = sum(edit.is_of_selection for edit in session.history) if session is not None else 0
        first = total - len(losses) + 1
        return [(float(first + place), loss) for place, (_, loss) in enumerate(losses) if loss is not None]

    def _groups(self, width: int) -> list[Line]:
        snapshot, session = self.app.snapshot, self.app.session
        if snapshot is None or session is None or not any(snapshot.tags):
            return []
        mask = session.mask
        found: dict[str, tuple[int, int]] = {}
        for row, tags in enumerate(snapshot.tags):
            for tag in tags.split():
                inside, count = found.get(tag, (0, 0))
                found[tag] = inside + int(mask[row]), count + 1
        top = sorted(found.items(), key=lambda item: -item[1][1])[:6]
        return [
            [f"{tag[:12]:<13}", (numbers.meter(inside / count, 12), "good"), f" {inside}/{count}"]
            for tag, (inside, count) in top
        ]

    # -- filter and order -------------------------------------------------------------------------------------------

    def _depends_on(self, what: str) -> bool:
        """Return whether the filter or the order depends on the selection, or on the flips."""
        order, words = self.app.place.sort, self.app.place.filter.casefold()
        if what == "selection":
            return order == "in" or "in:" in words or "pin:" in words
        return order == "flip" or "flip" in words

    def _view_flips(self) -> None:
        """Filter and sort when the first flips of a selection are known, and when all are.

        Rows that move with every better estimate are hard to read.
        """
        estimate = self.app.estimate
        if estimate is None or np.isnan(estimate.flips).all():
            return
        now = (estimate.revision, estimate.is_complete)
        if self._arranged != now and self._arranged != (estimate.revision, True):
            self._arranged = now
            self._view(keep=True)
        else:
            self.table.refresh()

    def _view(self, *, keep: bool) -> None:
        """Filter and sort the tasks.

        Args:
            keep: Whether the cursor stays on its task, if the task is still in the list.
        """
        app, table = self.app, self.table
        if app.snapshot is None or app.session is None:
            table.view = np.zeros(0, dtype=np.intp)
            table.changed()
            return
        before = table.task_row if table.count else None
        columns = app.columns()
        try:
            rows = np.flatnonzero(view.filter_rows(app.place.filter, columns))
            self._filter_error = ""
        except view.FilterError as error:
            rows, self._filter_error = table.view[table.view < len(columns.names)], str(error)
        table.view = view.sort_rows(rows, app.place.sort, descending=app.place.descending, columns=columns)
        if before is None and app.place.task in app.snapshot.names:
            before = app.snapshot.names.index(app.place.task)
        found = np.flatnonzero(table.view == before).tolist() if keep and before is not None else []
        table.changed()
        # A task that an edit removes from the list leaves the cursor in its place.
        table.cursor = found[0] if found else table.cursor if keep and before is not None else 0
        table.marked &= set(range(len(app.snapshot.names)))

    def action_filter(self) -> None:
        """Open the field of the filter."""
        field = self.query_one("#filter", Input)
        field.value = self.app.place.filter
        self.add_class("-filtering")
        field.focus()

    @on(Input.Changed, "#filter")
    def _typed(self, event: Input.Changed) -> None:
        if self.has_class("-filtering"):
            self.app.place.filter = event.value
            self._view(keep=True)
            self._headline()

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self._close_filter()

    def _close_filter(self) -> None:
        self.remove_class("-filtering")
        self.table.focus()
        self._headline()
        self.app.request_estimate()

    def action_back(self) -> None:
        """Close the filter, or end the range, or clear the marks, or clear the filter."""
        table = self.table
        if self.has_class("-filtering"):
            self._close_filter()
        elif table.range_start is not None:
            table.range_start = None
        elif table.marked:
            table.marked.clear()
        elif self.app.place.filter:
            self.app.place.filter = ""
            self._view(keep=True)
        table.refresh()
        self._headline()

    def action_sort(self) -> None:
        """Sort by the next column."""
        names = list(view.SORTS)
        self._sort(names[(names.index(self.app.place.sort) + 1) % len(names)])

    def action_reverse(self) -> None:
        """Reverse the sort order."""
        self.app.place.descending = not self.app.place.descending
        self._view(keep=True)
        self._headline()

    @on(TaskTable.Sorted)
    def _clicked_title(self, message: TaskTable.Sorted) -> None:
        if message.column == self.app.place.sort:
            self.action_reverse()
        else:
            self._sort(message.column)

    def _sort(self, column: str) -> None:
        self.app.place.sort, self.app.place.descending = column, view.SORTS[column]
        self._view(keep=False)
        self._headline()

    # -- the selection ----------------------------------------------------------------------------------------------

    def _changed(self, words: str) -> None:
        """Estimate and draw the selection after a change, and end the range."""
        self.table.range_start = None
        self.app.edited(words)

    def action_toggle_task(self) -> None:
        """Toggle the task, the marked tasks, or the range."""
        rows = self.table.chosen()
        if self.app.session is not None and len(rows):
            edit = self.app.session.toggle(rows)
            self._changed(edit.label if edit else "pinned tasks are unchanged: toggle them singly, or unpin with p")

    @on(TaskTable.Toggled)
    def _clicked_glyph(self) -> None:
        if self.app.session is not None and self.table.task_row is not None:
            edit = self.app.session.toggle(np.array([self.table.task_row]))
            self._changed(edit.label if edit else "")

    def action_range(self) -> None:
        """Start or end a range."""
        table = self.table
        if table.range_start is None:
            table.range_start = table.cursor
        else:
            table.marked |= {int(row) for row in table.chosen()}
            table.range_start = None
        table.refresh()
        self._headline()

    def action_mark(self) -> None:
        """Mark the task, and move to the next task."""
        table = self.table
        if table.task_row is not None:
            table.marked ^= {table.task_row}
            table.action_down()
            table.refresh()
            self._headline()

    def _shown(self) -> RowNumbers:
        return np.asarray(self.table.view)

    def action_take_shown(self) -> None:
        """Add all shown tasks."""
        if self.app.session is not None and self.allows("take_shown"):
            edit = self.app.session.put(self._shown(), True)
            self._changed(edit.label if edit else "nothing to add: all shown tasks are in or pinned")

    def action_drop_shown(self) -> None:
        """Remove all shown tasks."""
        if self.app.session is not None and self.allows("drop_shown"):
            edit = self.app.session.put(self._shown(), False)
            self._changed(edit.label if edit else "nothing to remove: all shown tasks are out or pinned")

    def action_invert_shown(self) -> None:
        """Invert all shown tasks."""
        if self.app.session is not None and self.allows("invert_shown"):
            edit = self.app.session.invert(self._shown())
            self._changed(edit.label if edit else "nothing to invert: all shown tasks are pinned")

    def action_pin(self) -> None:
        """Pin in, pin out, or unpin."""
        rows = self.table.chosen()
        if self.app.session is not None and len(rows):
            edit = self.app.session.pin(rows)
            self._changed(edit.label if edit else "")

    def action_fill(self) -> None:
        """Fill up the selection by an automatic method."""
        from tui.dialogs.fill import FillDialog

        if self.app.can_estimate():
            self.app.push_screen(FillDialog(), self.app.fill)

    def action_order(self) -> None:
        """Show the estimated loss as tasks are added in the best order."""
        from tui.dialogs.order import OrderDialog

        if self.app.can_estimate():
            self.app.push_screen(OrderDialog(), self.app.fill)

    # -- the table --------------------------------------------------------------------------------------------------

    @on(Rows.Moved)
    def _moved(self) -> None:
        table, app = self.table, self.app
        if table.task_row is not None and app.snapshot is not None:
            app.place.task = app.snapshot.names[table.task_row]
        if table.range_start is not None:
            self._headline()
        if self.is_wide:
            self._side()
        app.request_visible_estimates()

    @on(Rows.Opened)
    def _opened(self) -> None:
        if self.table.task_row is not None:
            self.app.open_task(self.table.task_row, self.table.view)
