"""Verify: estimated against measured losses as a plot and a table, with the errors of the estimates."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from textual import on, work
from textual.binding import Binding, BindingType
from textual.widget import Widget

from curator.core.errors import CuratorError
from curator.core.figures import correlation, percent, signed_percent
from curator.estimate.calibration import LEAST_ERRORS, LEAST_RUNS
from curator.estimate.target import TargetEstimates
from curator.results.text_plot import Series
from curator.results.verification import VerifiedSubset, VerifyReport
from tui.dialogs.base import Dialog
from tui.state.messages import Failed
from tui.widgets import numbers
from tui.widgets.lines import Line, Lines, Part, fit
from tui.widgets.plot import LinePlot
from tui.widgets.rows import Rows

if TYPE_CHECKING:
    from tui.state.snapshot import Snapshot

_ERRORS = (CuratorError, OSError, np.linalg.LinAlgError)
_INSIDE, _OUTSIDE = "○", "×"
_INTERVAL = 17

# One report for each calibration. The more subsets are measured, the longer a report takes.
_reports: WeakKeyDictionary[TargetEstimates, VerifyReport] = WeakKeyDictionary()


class Measured(Rows):
    """Measured subsets, the best first."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.subsets: list[tuple[VerifiedSubset, int, str]] = []
        """Each subset with its number of runs and its description."""

    @property
    def count(self) -> int:
        """Return the number of subsets."""
        return len(self.subsets)

    def title(self, width: int) -> Line:
        """Return the titles of the columns, in the whole width."""
        return [(f"   estim. {'90 % interval':<{_INTERVAL}}measured  runs   error  subset"[:width], "title")]

    def line(self, row: int, width: int) -> Line:
        """Return the line of one subset."""
        found, runs, words = self.subsets[row]
        inside, ends = is_inside(found), ""
        if found.estimated_loss_low is not None and found.estimated_loss_high is not None:
            ends = f"{numbers.loss(found.estimated_loss_low)}–{numbers.loss(found.estimated_loss_high)}"
        sign: Part = " " if inside is None else (_INSIDE, "good") if inside else (_OUTSIDE, "bad")
        error = signed_percent(found.estimated_loss / found.measured_loss - 1) if found.measured_loss else "—"
        return [
            sign,
            f" {numbers.loss(found.estimated_loss):<7}",
            (f"{ends:<{_INTERVAL}}", "dim"),
            (f"{numbers.loss(found.measured_loss):>8}", "strong"),
            (f"{runs:>6}", "dim"),
            f"{error.replace('-', '−'):>8} ",
            (fit(f" {words}", max(width - 49, 4)), ""),
        ]


class VerifyDialog(Dialog[bool]):
    """Shows figures, a plot and the measured subsets. The value is True if the user wants to measure more."""

    title_text = "measured ↑ against estimated → losses, nats per target token"
    keys = (("R", "measure more"), ("j k", "subset"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("R", "measure", "measure more", show=False)]

    def content(self) -> Iterable[Widget]:
        """Return figures, plot and table."""
        return [
            Lines([[], [], []], id="verify-note"),
            LinePlot(id="verify-plot"),
            Lines([[]], id="verify-title"),
            Measured(classes="first-focus"),
        ]

    def on_mount(self) -> None:
        """Show the report, or start its computation."""
        self._found: VerifyReport | None = None
        snapshot = self.app.snapshot
        if snapshot is None or snapshot.answers is None or not snapshot.measured:
            self._show_nothing()
        elif (known := _reports.get(snapshot.answers)) is not None:
            self._show(snapshot, known)
        else:
            self._show_note([[("comparing …", "dim")], [], []])
            self._report(snapshot, snapshot.answers)

    def _show_note(self, lines: Sequence[Line]) -> None:
        self.query_one("#verify-note", Lines).show(lines)

    def _show_nothing(self) -> None:
        missing = self.app.missing()
        self.query_one("#verify-plot").display = False
        self._show_note(
            [
                [(missing, "warn")] if missing else [("no measured losses yet: estimates are uncalibrated", "warn")],
                [],
                [("R", "accent"), " starts `curator verify` as a job, shown on Jobs. The job fine-tunes"],
                ["on some subsets: the selection, all tasks, the target alone, and subsets"],
                [f"of every size and estimate. From {LEAST_RUNS} measured subsets on, estimates are"],
                [f"calibrated. From {LEAST_ERRORS} on, their intervals result from measured errors."],
            ]
        )

    @work(thread=True, exclusive=True, group="verify", exit_on_error=False)
    def _report(self, snapshot: "Snapshot", answers: TargetEstimates) -> None:
        # Import late: SciPy needs half a second.
        from curator.verify.report import report

        try:
            _reports[answers] = found = report(answers)
        except _ERRORS as error:
            self.app.post_message(Failed("compare estimates with measured losses", error))
            self.app.call_from_thread(self._failed, str(error))
        else:
            self.app.call_from_thread(self._show, snapshot, found)

    def _failed(self, words: str) -> None:
        if self.is_attached:
            self._show_note([[("✗ ", "bad"), (words, "bad")], [], []])

    def _show(self, snapshot: "Snapshot", found: VerifyReport) -> None:
        if not self.is_attached:
            return
        self._found = found
        runs: dict[tuple[str, ...], int] = {}
        for run in found.runs:
            runs[run.subset] = runs.get(run.subset, 0) + 1
        # These runs train on whole tasks.
        whole = [saved for saved in snapshot.selections[::-1] if not saved.dropped]
        names = {frozenset(t.name for t in s.manifest.tasks if t.selected): s.name for s in whole}
        rows = self.query_one(Measured)
        rows.subsets = [
            (point, runs[point.subset], subset_words(point.subset, len(snapshot.names), names))
            for point in sorted(found.points(), key=lambda point: point.measured_loss)
        ]
        rows.changed()
        self._show_note(summary_lines(found))
        self.query_one("#verify-title", Lines).show([rows.title(self.size.width)])
        self._plot()

    @on(Rows.Moved)
    def _plot(self) -> None:
        """Draw all subsets, and the interval of the subset under the cursor."""
        rows = self.query_one(Measured)
        if not rows.count:
            return
        points = [point for point, _, _ in rows.subsets]
        here = points[rows.cursor]
        series = [Series(diagonal(points), style="dim")]
        if here.estimated_loss_low is not None and here.estimated_loss_high is not None:
            # Cut the interval at the axes, so that the axes do not change with the cursor.
            (low, _), (high, _) = diagonal(points)
            ends = max(here.estimated_loss_low, low), min(here.estimated_loss_high, high)
            series.append(Series([(end, here.measured_loss) for end in ends], style="bold"))
        for mark, style, kinds in ((_INSIDE, "green", (True, None)), (_OUTSIDE, "red", (False,))):
            shown = [(p.estimated_loss, p.measured_loss) for p in points if is_inside(p) in kinds]
            series.append(Series(shown, style=style, mark=mark))
        marker = here.estimated_loss, here.measured_loss
        self.query_one(LinePlot).show(series, x_label="estimated", marker=marker)

    def action_measure(self) -> None:
        """Close the dialog to measure more."""
        self.dismiss(True)


def is_inside(point: VerifiedSubset) -> bool | None:
    """Return whether the measured loss is in the interval; None without an interval."""
    if point.estimated_loss_low is None or point.estimated_loss_high is None:
        return None
    return point.estimated_loss_low <= point.measured_loss <= point.estimated_loss_high


def diagonal(points: Sequence[VerifiedSubset]) -> list[tuple[float, float]]:
    """Return the ends of the line on which estimated and measured losses are equal, for the range of the points."""
    every = [loss for point in points for loss in (point.estimated_loss, point.measured_loss)]
    return [(min(every), min(every)), (max(every), max(every))]


def subset_words(subset: Sequence[str], tasks: int, names: dict[frozenset[str], str]) -> str:
    """Describe a subset: the name of its selection, if any, and its tasks.

    Args:
        subset: Names of the tasks in the subset.
        tasks: Number of all auxiliary tasks.
        names: Names of saved selections by their tasks.
    """
    if not subset:
        return "the target alone"
    if len(subset) == tasks:
        return "all tasks"
    name = names.get(frozenset(subset))
    return (f"{name}: " if name is not None else "") + ", ".join(subset)


def summary_lines(found: VerifyReport) -> list[Line]:
    """Return lines about the errors of the estimates."""

    def shown(share: float | None, digits: int) -> str:
        return "—" if share is None else percent(share, digits)

    rank = "—" if found.spearman is None else correlation(found.spearman).replace("-", "−")
    kind: Part = ("each estimate calibrated on the other subsets", "dim")
    if not found.calibrated:
        kind = (f"uncalibrated: {found.subsets} of {LEAST_RUNS} required subsets", "warn")
    return [
        [
            *_figure("error", shown(found.relative_error, 2)),
            *_figure("constant guess", shown(found.constant_relative_error, 2)),
            *_figure("noise between seeds", shown(found.seed_noise, 2)),
        ],
        [
            *_figure("Spearman", rank),
            *_figure("inside the 90 % interval", shown(found.interval_coverage, 0)),
            ("○ inside  × outside", "dim"),
        ],
        [f"{_count(found.subsets, 'subset')}, {_count(len(found.runs), 'run')}, ", kind],
    ]


def _figure(words: str, value: str) -> list[Part]:
    return [(f"{words} ", "dim"), (f"{value}   ", "strong")]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
