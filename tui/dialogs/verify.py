"""Verify: estimated against measured losses, as a plot and a table, and how far estimates may be trusted."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from textual import on, work
from textual.binding import Binding, BindingType
from textual.widget import Widget

from curator.core.errors import CuratorError
from curator.estimate.calibration import LEAST_RUNS
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

# Made once for each calibration: it takes longer the more is measured.
_reports: WeakKeyDictionary[TargetEstimates, VerifyReport] = WeakKeyDictionary()


class Measured(Rows):
    """Subsets that were really fine-tuned on, the best first."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.subsets: list[tuple[VerifiedSubset, int, str]] = []
        """Each with its number of runs, and in words."""

    @property
    def count(self) -> int:
        """Number of subsets."""
        return len(self.subsets)

    def title(self, width: int) -> Line:
        """The line above the list, of the whole width."""
        return [(f"   estim. {'90 % interval':<{_INTERVAL}}measured  runs   error  subset"[:width], "title")]

    def line(self, row: int, width: int) -> Line:
        """One subset."""
        found, runs, words = self.subsets[row]
        inside, ends = is_inside(found), ""
        if found.estimated_loss_low is not None and found.estimated_loss_high is not None:
            ends = f"{numbers.loss(found.estimated_loss_low)}–{numbers.loss(found.estimated_loss_high)}"
        sign: Part = " " if inside is None else (_INSIDE, "good") if inside else (_OUTSIDE, "bad")
        error = found.estimated_loss / found.measured_loss - 1
        return [
            sign,
            f" {numbers.loss(found.estimated_loss):<7}",
            (f"{ends:<{_INTERVAL}}", "dim"),
            (f"{numbers.loss(found.measured_loss):>8}", "strong"),
            (f"{runs:>6}", "dim"),
            f"{numbers.signed(100 * error, 1):>7}% ",
            (fit(f" {words}", max(width - 49, 4)), ""),
        ]


class VerifyDialog(Dialog[bool]):
    """A plot, the subsets under it, and the figures above; the answer is whether more is to be measured."""

    title_text = "measured ↑ against estimated → losses, nats per target token"
    keys = (("R", "measure more"), ("j k", "subset"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("R", "measure", "measure more", show=False)]

    def content(self) -> Iterable[Widget]:
        """Figures, plot, table."""
        return [
            Lines([[], [], []], id="verify-note"),
            LinePlot(id="verify-plot"),
            Lines([[]], id="verify-title"),
            Measured(classes="first-focus"),
        ]

    def on_mount(self) -> None:
        """Begin."""
        self._found: VerifyReport | None = None
        snapshot = self.app.snapshot
        if snapshot is None or snapshot.answers is None or not snapshot.measured:
            self._show_nothing()
        elif (known := _reports.get(snapshot.answers)) is not None:
            self._show(snapshot, known)
        else:
            self._say([[("comparing …", "dim")], [], []])
            self._report(snapshot, snapshot.answers)

    def _say(self, lines: Sequence[Line]) -> None:
        self.query_one("#verify-note", Lines).show(lines)

    def _show_nothing(self) -> None:
        missing = self.app.missing()
        self.query_one("#verify-plot").display = False
        self._say(
            [
                [(missing, "warn")] if missing else [("nothing is measured yet: estimates are uncalibrated", "warn")],
                [],
                [("R", "accent"), " starts `curator verify` as a run of its own, seen on Runs. It really"],
                ["fine-tunes on some subsets: the selection, all tasks, the target alone,"],
                [f"and others of every size and estimate. With {LEAST_RUNS} they calibrate the"],
                ["estimates, whose intervals are then of the errors that were seen."],
            ]
        )

    @work(thread=True, exclusive=True, group="verify", exit_on_error=False)
    def _report(self, snapshot: "Snapshot", answers: TargetEstimates) -> None:
        # Not before it is wanted: half a second of SciPy comes with it.
        from curator.verify.report import report

        try:
            _reports[answers] = found = report(answers)
        except _ERRORS as error:
            self.app.post_message(Failed("compare estimates with what was measured", error))
            self.app.call_from_thread(self._failed, str(error))
        else:
            self.app.call_from_thread(self._show, snapshot, found)

    def _failed(self, words: str) -> None:
        if self.is_attached:
            self._say([[("✗ ", "bad"), (words, "bad")], [], []])

    def _show(self, snapshot: "Snapshot", found: VerifyReport) -> None:
        if not self.is_attached:
            return
        self._found = found
        runs: dict[tuple[str, ...], int] = {}
        for run in found.runs:
            runs[run.subset] = runs.get(run.subset, 0) + 1
        names = {frozenset(t.name for t in s.manifest.tasks if t.selected): s.name for s in snapshot.selections[::-1]}
        rows = self.query_one(Measured)
        rows.subsets = [
            (point, runs[point.subset], subset_words(point.subset, len(snapshot.names), names))
            for point in sorted(found.points(), key=lambda point: point.measured_loss)
        ]
        rows.changed()
        self._say(summary_lines(found))
        self.query_one("#verify-title", Lines).show([rows.title(self.size.width)])
        self._plot()

    @on(Rows.Moved)
    def _plot(self) -> None:
        """Draw all subsets, and the interval of the one under the cursor."""
        rows = self.query_one(Measured)
        if not rows.count:
            return
        points = [point for point, _, _ in rows.subsets]
        here = points[rows.cursor]
        series = [Series(diagonal(points), style="dim")]
        if here.estimated_loss_low is not None and here.estimated_loss_high is not None:
            # As far as it is in view: axes that move with the cursor cannot be read.
            (low, _), (high, _) = diagonal(points)
            ends = max(here.estimated_loss_low, low), min(here.estimated_loss_high, high)
            series.append(Series([(end, here.measured_loss) for end in ends], style="bold"))
        for mark, style, kinds in ((_INSIDE, "green", (True, None)), (_OUTSIDE, "red", (False,))):
            shown = [(p.estimated_loss, p.measured_loss) for p in points if is_inside(p) in kinds]
            series.append(Series(shown, style=style, mark=mark))
        marker = here.estimated_loss, here.measured_loss
        self.query_one(LinePlot).show(series, x_label="estimated", marker=marker)

    def action_measure(self) -> None:
        """Measure more."""
        self.dismiss(True)


def is_inside(point: VerifiedSubset) -> bool | None:
    """Whether the measured loss is in the interval; None where there is none."""
    if point.estimated_loss_low is None or point.estimated_loss_high is None:
        return None
    return point.estimated_loss_low <= point.measured_loss <= point.estimated_loss_high


def diagonal(points: Sequence[VerifiedSubset]) -> list[tuple[float, float]]:
    """Ends of the line on which estimates are right, as far as there are points."""
    every = [loss for point in points for loss in (point.estimated_loss, point.measured_loss)]
    return [(min(every), min(every)), (max(every), max(every))]


def subset_words(subset: Sequence[str], tasks: int, names: dict[frozenset[str], str]) -> str:
    """A subset, by the name of a selection if it has one.

    Args:
        subset: Names of its tasks.
        tasks: How many there are in all.
        names: Of the selections, by what they hold.
    """
    if not subset:
        return "the target alone"
    if len(subset) == tasks:
        return "all tasks"
    name = names.get(frozenset(subset))
    return (f"{name}: " if name is not None else "") + ", ".join(subset)


def summary_lines(found: VerifyReport) -> list[Line]:
    """How far estimates may be trusted, in figures."""

    def percent(share: float | None, digits: int = 1) -> str:
        return "—" if share is None else f"{share:.{digits}%}"

    rank = "—" if found.spearman is None else f"{found.spearman:.2f}".replace("-", "−")
    kind: Part = ("each estimated by a calibration on the others", "dim")
    if not found.calibrated:
        kind = (f"uncalibrated: {found.subsets} of {LEAST_RUNS} subsets that it takes", "warn")
    return [
        [
            *_figure("error", percent(found.relative_error, 2)),
            *_figure("constant guess", percent(found.constant_relative_error, 2)),
            *_figure("noise between seeds", percent(found.seed_noise, 2)),
        ],
        [
            *_figure("Spearman", rank),
            *_figure("inside the 90 % interval", percent(found.interval_coverage, 0)),
            ("○ inside  × outside", "dim"),
        ],
        [f"{found.subsets} subsets, {len(found.runs)} runs, ", kind],
    ]


def _figure(words: str, value: str) -> list[Part]:
    return [(f"{words} ", "dim"), (f"{value}   ", "strong")]
