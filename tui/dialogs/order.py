"""The budget curve: estimated loss against tokens as tasks are added, best first."""

from collections.abc import Iterable

import numpy as np
from textual import on, work
from textual.widget import Widget
from textual.worker import get_current_worker

from curator.core.errors import CuratorError
from curator.estimate.whatif import best_order
from curator.results.text_plot import Series
from tui.dialogs.base import Dialog
from tui.dialogs.fill import Found
from tui.state.dropping import lacking_estimator
from tui.state.session import State, named
from tui.widgets import numbers
from tui.widgets.lines import Line, Lines, Part, fit_name
from tui.widgets.plot import LinePlot
from tui.widgets.rows import Rows
from tui.widgets.trust import measured_part
from tui.widgets.wrapped import Wrapped

# Mark of the current selection on the plot.
_NOW = "×"


class _Steps(Rows):
    """The tasks in the best order."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.steps: list[tuple[str, float, float, float]] = []
        self.best = 0

    @property
    def count(self) -> int:
        return len(self.steps)

    def line(self, row: int, width: int) -> Line:
        name, tokens, loss, change = self.steps[row]
        return [
            f"{row:>4} ",
            (fit_name(name, max(width - 39, 8)), "strong" if row <= self.best else "dim"),
            f"{numbers.short(tokens):>8} ",
            f"{numbers.loss(loss)} ",
            (f"{numbers.signed(change):>8}", numbers.style(-change)),
            (" ◀ least", "accent") if row == self.best else "",
        ]


class OrderDialog(Dialog[Found]):
    """Shows a plot of the budget curve, and the tasks below the plot.

    The value is the membership (t,) up to the line under the cursor, and a label.
    """

    title_text = "estimated loss against tokens, tasks added best first"
    keys = (("enter", "take up to this line"),)

    def content(self) -> Iterable[Widget]:
        """Return a plot and a list."""
        return [
            Wrapped([[("estimating …", "dim")], []], id="order-note"),
            LinePlot(id="order-plot"),
            _Steps(classes="first-focus"),
        ]

    def _now(self) -> tuple[Line, list[tuple[float, float]]]:
        """Return a line about the current selection, and its point on the plot."""
        snapshot, session, estimate = self.app.snapshot, self.app.session, self.app.estimate
        if snapshot is None or session is None:
            return (), []
        parts: list[Part] = [(snapshot.trust, "dim")]
        if estimate is None or estimate.revision != session.revision:
            return parts, []
        mask, loss = session.mask, estimate.target_loss.loss
        tokens = float(self.app.sizes()[1][mask].sum())
        words = f"{_NOW} now   {numbers.loss(loss)} with {_tasks(int(mask.sum()))}, {numbers.short(tokens)} tokens  "
        measured = snapshot.measured_loss(mask, session.dropped)
        return [words, *([measured_part(measured), "  "] if measured is not None else []), *parts], [(tokens, loss)]

    def on_mount(self) -> None:
        """Start the estimation."""
        self._added: list[int] = []
        self._start = np.zeros(0, dtype=bool)
        self._order()

    @on(Rows.Opened)
    def _take(self) -> None:
        rows = self.query_one(_Steps)
        if not rows.count or self.app.session is None or len(self.app.session.names) != len(self._start):
            return
        mask = self._start.copy()
        mask[self._added[: rows.cursor]] = True
        self.dismiss((mask, f"best order, {_tasks(int(mask.sum()))}"))

    @work(thread=True, exclusive=True, group="order", exit_on_error=False)
    def _order(self) -> None:
        worker, snapshot, session = get_current_worker(), self.app.snapshot, self.app.session
        assert snapshot is not None
        assert snapshot.answers is not None
        assert session is not None
        start = np.asarray(session.states == State.PINNED_IN)
        allowed = np.asarray(session.states != State.PINNED_OUT)
        try:
            # The curve and the point on it are of the same examples.
            estimator, _ = lacking_estimator(snapshot.answers, named(session.dropped))
        except (CuratorError, OSError) as error:
            self.app.call_from_thread(self._fail, str(error))
            return
        steps = best_order(estimator, start, allowed, stop=lambda: worker.is_cancelled)
        self._start = start
        tokens = float(self.app.sizes()[1][start].sum())
        found: list[tuple[str, float, float, float]] = []
        for task, loss in steps:
            if task >= 0:
                tokens += self.app.sizes()[1][task]
                self._added.append(task)
            name = snapshot.names[task] if task >= 0 else "the target" + (" and pinned tasks" if start.any() else "")
            found.append((name, tokens, loss, loss - found[-1][2] if found else 0.0))
            if worker.is_cancelled:
                return
            if len(found) % 10 == 1:
                self.app.call_from_thread(self._show, list(found), int((allowed & ~start).sum()))
        self.app.call_from_thread(self._show, found, 0)

    def _fail(self, words: str) -> None:
        if self.is_attached:
            self.query_one("#order-note", Lines).show([[("✗ ", "bad"), (words, "bad")]])

    def _show(self, found: list[tuple[str, float, float, float]], of: int) -> None:
        if not self.is_attached:
            return
        rows = self.query_one(_Steps)
        rows.steps, rows.best = found, int(np.argmin([step[2] for step in found]))
        rows.changed()
        _, tokens, loss, _ = found[rows.best]
        words = f"{len(found) - 1} of {of} …" if of else "pins are kept"
        held = _tasks(int(self._start.sum()) + rows.best)
        least = f"● least {numbers.loss(loss)} with {held}, {numbers.short(tokens)} tokens  "
        now, here = self._now()
        self.query_one("#order-note", Lines).show([[least, (words, "dim")], now])
        points = [(tokens, loss) for _, tokens, loss, _ in found]
        self.query_one(LinePlot).show(
            [Series(points), Series(here, style="bold", mark=_NOW)], x_label="tokens", marker=points[rows.best]
        )


def _tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"
