"""The Matrix screen: which task helps which, and the effect of two tasks on the target."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import get_current_worker

from curator.core.arrays import Mask
from curator.core.errors import CuratorError
from tui.actions import bindings_of
from tui.screens.base import CuratorScreen
from tui.state import filters as view
from tui.state.messages import Failed
from tui.state.transfer import Cell, Together, Transfer, together, transfer_of
from tui.widgets.lines import Line, Lines
from tui.widgets.matrix import Matrix
from tui.widgets.matrix_panels import (
    cell_lines,
    cell_title,
    group_lines,
    legend_line,
    legend_lines,
    nothing_line,
    title_line,
    together_lines,
)
from tui.widgets.rows import Rows

if TYPE_CHECKING:
    from curator.estimate.target import TargetEstimates
    from tui.state.snapshot import Snapshot

MOST_SHOWN = 1500
ARRANGEMENTS = ("cluster", "affinity", "name")
_REST_SECONDS = 0.15


class MatrixScreen(CuratorScreen):
    """Shows the matrix, the cell under the cursor, and groups of similar tasks."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("matrix")
    place = "matrix"

    class Computed(Message):
        """The effects of tasks on each other are computed; None after an error."""

        def __init__(self, key: str, transfer: Transfer | None) -> None:
            super().__init__()
            self.key, self.transfer = key, transfer

    class Estimated(Message):
        """The effect of two tasks is estimated."""

        def __init__(self, together: Together) -> None:
            super().__init__()
            self.together = together

    def __init__(self) -> None:
        super().__init__()
        self.transfer: Transfer | None = None
        self.together: Together | None = None
        self._wanted = ""
        self._arrangement = ARRANGEMENTS[0]
        self._filter_error = ""
        self._passed = 0
        self._rest: Timer | None = None

    def body(self) -> Iterable[Widget]:
        """Return matrix, legend and cell. Wide screens show cell, groups and legend in a second column."""
        return [
            Horizontal(
                Vertical(
                    Horizontal(
                        Lines([()], id="matrix-title"),
                        Input(id="filter", placeholder="filter: words  tag:  aff>0  in:no  -not  a | b"),
                    ),
                    Lines([()], id="matrix-head"),
                    Matrix(id="matrix", classes="first-focus"),
                    Lines([()], id="matrix-note"),
                    Lines([(), (), ()], id="cell-below", classes="box"),
                    id="matrix-main",
                    classes="zooms",
                ),
                Vertical(
                    Lines(id="cell-right", classes="box"),
                    Lines(id="groups", classes="box"),
                    Lines(id="legend", classes="box"),
                    id="matrix-side",
                ),
            )
        ]

    @property
    def matrix(self) -> Matrix:
        """Return the matrix."""
        return self.query_one(Matrix)

    # -- showing ------------------------------------------------------------------------------------------------------

    def show(self, topic: str) -> None:
        """Draw a change."""
        if topic in ("jobs", "estimate"):
            return
        if topic in ("snapshot", "all"):
            self._request_transfer()
            self._view()
        self.matrix.refresh()
        self._around()
        self._request_together()

    @property
    def _known(self) -> Transfer | None:
        """Return the transfer; None if it belongs to other gradients."""
        snapshot, transfer = self.app.snapshot, self.transfer
        if snapshot is None or snapshot.answers is None or self.app.session is None or transfer is None:
            return None
        return transfer if transfer.key == snapshot.answers.key else None

    def _around(self) -> None:
        """Draw everything except the matrix."""
        known, matrix, app = self._known, self.matrix, self.app
        width = self.query_one("#matrix-main").size.width or app.size.width
        total = len(app.snapshot.names) if app.snapshot is not None else 0
        count = f"{matrix.count} of {total}"
        if self._passed > matrix.count:
            count = f"the first {matrix.count:,} of {self._passed:,}"
        right = f"order: {self._arrangement} · {count}"
        title = title_line(app.place.filter, self._filter_error, right, width, transposed=matrix.transposed)
        self.query_one("#matrix-title", Lines).show([title])
        head, note = self.query_one("#matrix-head", Lines), self.query_one("#matrix-note", Lines)
        cell = self.query_one("#cell-right" if self.is_wide else "#cell-below", Lines)
        inner = 39 if self.is_wide else max(width - 4, 20)
        lines = self._cell(inner)
        cell.show(lines)
        cell.border_title = cell_title(matrix) if any(lines) else "cell"
        if known is None or app.snapshot is None or app.session is None:
            head.show([nothing_line(app, known, failed=not self._wanted)])
            note.show([()])
            groups, legend = list[Line](), list[Line]()
        else:
            head.show(matrix.titles(app.snapshot.names) if matrix.count else [nothing_line(app, known)])
            note.show([legend_line(matrix, wide=self.is_wide)])
            groups = group_lines(known, matrix, app.session.mask, inner) if matrix.count else []
            legend = legend_lines(matrix)
        if self.is_wide:
            for name, title, shown in (("#groups", "similar tasks", groups), ("#legend", "legend", legend)):
                box = self.query_one(name, Lines)
                box.border_title = title
                box.show(shown)
            self.query_one("#groups").display = bool(groups)

    # -- the cell -----------------------------------------------------------------------------------------------------

    def _cell(self, width: int) -> list[Line]:
        """Return lines about the pair under the cursor."""
        known, snapshot, session, cell = self._known, self.app.snapshot, self.app.session, self.matrix.cell
        if known is None or snapshot is None or session is None or cell is None:
            return [(), (), ()]
        found = self.together if self.together is not None and self.together.cell == self._wanted_cell() else None
        now, wide = (bool(session.mask[cell[0]]), bool(session.mask[cell[1]])), self.is_wide
        pair = together_lines(found, now, transposed=self.matrix.transposed, wide=wide)
        return cell_lines(known, cell, snapshot, pair, width, wide=wide)

    def _wanted_cell(self) -> Cell | None:
        known, session, cell = self._known, self.app.session, self.matrix.cell
        return Cell(known.key, session.revision, *cell) if known and session is not None and cell else None

    def _request_together(self) -> None:
        """Request the estimate of a pair after the cursor has rested."""
        if self._rest is not None:
            self._rest.stop()
            self._rest = None
        wanted = self._wanted_cell()
        known = self.together is not None and self.together.cell == wanted
        if wanted is not None and wanted.giver != wanted.taker and not known:
            self._rest = self.set_timer(_REST_SECONDS, self._rested)

    def _rested(self) -> None:
        wanted, snapshot, session = self._wanted_cell(), self.app.snapshot, self.app.session
        if wanted is not None and snapshot is not None and snapshot.answers is not None and session is not None:
            self._estimate(snapshot.answers, session.mask, wanted)

    @work(thread=True, exclusive=True, group="together", exit_on_error=False)
    def _estimate(self, answers: "TargetEstimates", mask: Mask, cell: Cell) -> None:
        worker = get_current_worker()
        try:
            found = together(answers.estimator, mask, cell)
        except (CuratorError, OSError) as error:
            self.app.post_message(Failed("estimate the two tasks", error))
        else:
            if not worker.is_cancelled:
                self.post_message(self.Estimated(found))

    @on(Estimated)
    def _estimated(self, message: Estimated) -> None:
        if message.together.cell == self._wanted_cell():
            self.together = message.together
            self._around()

    # -- transfer -----------------------------------------------------------------------------------------------------

    def _request_transfer(self) -> None:
        snapshot = self.app.snapshot
        if snapshot is not None and snapshot.answers is not None and snapshot.answers.key != self._wanted:
            self._wanted = snapshot.answers.key
            self._compute(snapshot.answers, snapshot)

    @work(thread=True, exclusive=True, group="transfer", exit_on_error=False)
    def _compute(self, answers: "TargetEstimates", snapshot: "Snapshot") -> None:
        transfer = None
        try:
            transfer = transfer_of(answers, snapshot)
        except (CuratorError, OSError) as error:
            self.app.post_message(Failed("compute the matrix", error))
        self.post_message(self.Computed(answers.key, transfer))

    @on(Computed)
    def _computed(self, message: Computed) -> None:
        if message.key != self._wanted:
            return
        if message.transfer is None:
            # The next reading of the project, or the next visit of the screen, tries again.
            self._wanted = ""
        else:
            self.transfer = message.transfer
            self._view()
        self._around()
        self._request_together()

    # -- which tasks, in which order ----------------------------------------------------------------------------------

    def _view(self) -> None:
        """Filter and sort the tasks."""
        app, matrix, known = self.app, self.matrix, self._known
        if known is None or app.snapshot is None or len(known.values) != len(app.snapshot.names):
            matrix.clear()
            return
        columns = app.columns()
        try:
            passed = view.filter_rows(app.place.filter, columns)
            self._filter_error = ""
        except view.FilterError as error:
            self._filter_error = str(error)
            passed = np.isin(np.arange(len(columns.names)), matrix.tasks)
        if self._arrangement == "cluster":
            order = known.arrangement.order
        else:
            by = "task" if self._arrangement == "name" else "affinity"
            every = np.arange(len(columns.names))
            order = view.sort_rows(every, by, descending=by == "affinity", columns=columns)
        shown = order[passed[order]]
        self._passed = len(shown)
        wanted = columns.names.index(app.place.task) if app.place.task in columns.names else None
        matrix.take(shown[:MOST_SHOWN], known, columns.affinity, wanted)

    @on(Rows.Moved)
    def _moved(self) -> None:
        app, matrix = self.app, self.matrix
        if matrix.row_task is not None and app.snapshot is not None:
            app.place.task = app.snapshot.names[matrix.row_task]
        self._around()
        self._request_together()

    @on(Rows.Opened)
    def _opened(self) -> None:
        if self.matrix.row_task is not None:
            self.app.open_task(self.matrix.row_task, self.matrix.tasks)

    def action_left(self) -> None:
        """Move to the previous column."""
        self.matrix.column -= 1

    def action_right(self) -> None:
        """Move to the next column."""
        self.matrix.column += 1

    def action_zoom(self) -> None:
        """Show numbers."""
        self._zoom(zoomed=True)

    def action_unzoom(self) -> None:
        """Show glyphs."""
        self._zoom(zoomed=False)

    def _zoom(self, *, zoomed: bool) -> None:
        self.matrix.zoomed = zoomed
        self.matrix.follow()
        self._around()

    def action_arrange(self) -> None:
        """Switch to the next order."""
        place = ARRANGEMENTS.index(self._arrangement)
        self._arrangement = ARRANGEMENTS[(place + 1) % len(ARRANGEMENTS)]
        self._view()
        self._around()

    def action_transpose(self) -> None:
        """Swap rows and columns. The cursor stays on its pair."""
        matrix = self.matrix
        matrix.transposed = not matrix.transposed
        matrix.cursor, matrix.column = matrix.column, matrix.cursor
        matrix.refresh()
        self._around()

    def action_toggle_task(self) -> None:
        """Toggle the task of the row."""
        if self.app.session is not None and self.matrix.row_task is not None:
            edit = self.app.session.toggle(np.array([self.matrix.row_task]))
            self.app.edited(edit.label if edit else "")

    # -- filter -------------------------------------------------------------------------------------------------------

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
            self._view()
            self._around()

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self._close_filter()

    def _close_filter(self) -> None:
        self.remove_class("-filtering")
        self.matrix.focus()
        self._around()

    def action_back(self) -> None:
        """Close or clear the filter."""
        if self.has_class("-filtering"):
            self._close_filter()
        elif self.app.place.filter:
            self.app.place.filter = ""
            self._view()
            self._around()
