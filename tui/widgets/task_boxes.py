"""Boxes about one task: state and estimates, transfer to other tasks, and influence of its examples."""

from collections.abc import Sequence

import numpy as np
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from curator.core.arrays import Floats
from curator.core.figures import half_width, is_zero, percent
from curator.core.interval import NORMAL_90, is_clear
from curator.core.text import clean
from curator.data.corpus import Task
from curator.estimate.whatif import LossDifference
from curator.results.text_plot import sparkline
from tui.app_base import AppBase
from tui.background.estimator_thread import LiveEstimate
from tui.state.influence import Influence, histogram
from tui.state.session import GLYPHS, Session, State
from tui.state.snapshot import Snapshot
from tui.widgets import numbers
from tui.widgets.lines import Line, Lines, Part, fit, fit_name, spread, wrap_name
from tui.widgets.task_sentence import task_sentence
from tui.widgets.wrapped import wrapped

_WORDS = {State.IN: "in", State.OUT: "out", State.PINNED_IN: "pinned in", State.PINNED_OUT: "pinned out"}
_WIDE = 110
# Cells of the top line that the name of the task does not get.
_TRAIL = 60


class TaskBoxes(Vertical):
    """A line about a task, and two boxes: transfer to other tasks, and influence of the examples."""

    app: AppBase

    def compose(self) -> ComposeResult:
        """Create the widgets."""
        yield Lines([()], id="task-line")
        with Horizontal(id="task-boxes"):
            yield Lines(id="transfer", classes="box")
            yield Lines(id="influence", classes="box")

    def show(
        self,
        task: Task | None,
        number: int,
        influence: Influence | None,
        transfer: Floats | None,
        effect: LossDifference | None = None,
        trouble: str = "",
    ) -> None:
        """Show a task.

        Args:
            task: The task; None before the project is read.
            number: Number of the task. Target tasks follow the auxiliary tasks.
            influence: Influence of the examples; None until known.
            transfer: Effect of each task on each task (t, t), in nats; None until known.
            effect: Loss of the selection with the task, minus the loss without it; None until known.
            trouble: Why the influence cannot be estimated; "" without an error.
        """
        app, (width, height) = self.app, self.app.size
        snapshot, session = app.snapshot, app.session
        half, rows = max(width // 2 - 4, 20), 6 if height >= 32 else 3
        is_auxiliary = snapshot is not None and number < len(snapshot.names)
        names: list[Line] = []
        sentence: list[Line] = []
        line: Line = [(f" {app.missing()}", "warn")]
        others: list[Line] = []
        own: list[Line] = []
        if snapshot is not None and task is not None:
            if cell_len(clean(task.name)) > width - _TRAIL:
                # The top line cuts this name.
                names = [[" ", (part, "strong")] for part in wrap_name(task.name, width - 2)]
            line = target_line(task, width)
            if is_auxiliary and session is not None:
                line = task_line(task, number, snapshot, session, app.estimate, width)
            if snapshot.answers is None:
                sentence = wrapped([[(f" {app.missing()}", "warn")]], width)
            elif is_auxiliary and session is not None:
                inside = session.state(number).selected
                words = task_sentence(task.name, effect, influence, selected=inside)
                sentence = wrapped([[(" ✗ ", "bad"), (trouble, "bad")] if trouble else words], width)
        if snapshot is not None and snapshot.answers is not None:
            others = affinity_lines(snapshot, half, rows)
            if is_auxiliary:
                others = transfer_lines(snapshot, transfer, number, half, rows)
            if task is not None:
                own = [[("not known", "dim")]] if trouble else influence_lines(influence, half, rows)
        title = "affinity to the target"
        if is_auxiliary:
            title = "transfer, nats" if width < 100 else "transfer: decrease of the training loss, nats"
        self.query_one("#task-line", Lines).show([*names, line, *sentence])
        # Without estimates, the boxes would be empty.
        self.query_one("#task-boxes").display = snapshot is not None and snapshot.answers is not None
        self._fill("#transfer", title, others, rows)
        self._fill("#influence", "influence of its examples" + (" on the target" if width >= 100 else ""), own, rows)

    def _fill(self, box: str, title: str, lines: Sequence[Line], rows: int) -> None:
        widget = self.query_one(box, Lines)
        widget.border_title = title
        widget.show([*lines[:rows], *([()] * (rows - len(lines)))])


def target_line(task: Task, width: int) -> Line:
    """Return the line of a target: its size."""
    return spread([(" ◎ target", "pin"), "   always in"], [(_sizes(task), "dim")], width)


def task_line(
    task: Task, row: int, snapshot: Snapshot, session: Session, estimate: LiveEstimate | None, width: int
) -> Line:
    """Return the line of an auxiliary task: state, affinity, effect of a toggle, and size.

    Args:
        task: The task.
        row: Number of the task.
        snapshot: The project.
        session: The current selection.
        estimate: Estimate of a selection; None until known. The estimate of another selection is not shown.
        width: Cells of the line.
    """
    state = session.state(row)
    style = {State.IN: "good", State.OUT: "dim"}.get(state, "pin")
    left: list[Part] = [(f" {GLYPHS[state]} {_WORDS[state]}", style)]
    affinity, error = float(snapshot.affinity[row]), float(snapshot.affinity_error[row])
    if not np.isnan(affinity):
        is_known = np.isfinite(error)
        style = numbers.style(affinity) if is_clear(affinity, error) else "dim"
        left += [("   helps by ", "dim"), (numbers.signed(affinity), style)]
        left.append((f" {half_width(NORMAL_90 * error)}" if is_known else "", "dim"))
    if snapshot.answers is not None:
        left.append(("   if flipped ", "dim"))
        if estimate is None or estimate.revision != session.revision or np.isnan(estimate.flips[row]):
            left.append(("…", "dim"))
        else:
            change = float(estimate.flips[row])
            left.append((("" if estimate.solved[row] else "≈") + numbers.signed(change), numbers.style(-change)))
            if width >= _WIDE:
                words = "without it" if state.selected else "with it"
                after = f" → {numbers.loss(estimate.target_loss.loss + change)} {words}, {snapshot.trust}"
                left.append((after, "dim"))
    sizes = _sizes(task.without(session.dropped.get(task.name, ())))
    if width >= _WIDE:
        tags = f"{snapshot.tags[row]} · " if snapshot.tags[row] else ""
        sizes = f"{tags}{snapshot.sources[row]} · {sizes}"
    return spread(left, [(fit(sizes, min(len(sizes), width // 3)), "dim")], width)


def transfer_lines(snapshot: Snapshot, transfer: Floats | None, row: int, width: int, rows: int) -> list[Line]:
    """Return the tasks that an auxiliary task helps and hurts most, and the tasks that help and hurt it most.

    Args:
        snapshot: The project.
        transfer: Effect of each task on each task (t, t), in nats; None until known.
        row: Number of the task.
        width: Cells of each line.
        rows: Maximum number of lines.
    """
    if transfer is None or transfer.shape != (len(snapshot.names),) * 2:
        return [[("…", "dim")]]
    others = np.delete(np.arange(len(snapshot.names)), row)
    if not len(others):
        return [[("no other task", "dim")]]
    most = 2 if rows > 3 else 1
    gives, gets = transfer[row, others], transfer[others, row]
    wanted = [("helps", gives, 1, most), ("hurts", gives, -1, 1), ("helped by", gets, 1, most)]
    if rows > 3:
        wanted.append(("hurt by", gets, -1, 1))
    lines = [
        _pair_line(words, snapshot.names[others[place]], float(values[place]), width)
        for words, values, sign, count in wanted
        for place in np.argsort(-sign * values, kind="stable")[:count]
        if values[place] * sign > 0 and not is_zero(float(values[place]))
    ]
    return lines or [[("no transfer to or from other tasks", "dim")]]


def affinity_lines(snapshot: Snapshot, width: int, rows: int) -> list[Line]:
    """Return the tasks with the greatest and the least affinity to the target."""
    affinity = snapshot.affinity
    known = np.flatnonzero(~np.isnan(affinity))
    if not len(known):
        return [[("no affinities yet", "dim")]]
    order = known[np.argsort(-affinity[known], kind="stable")]
    clear = [int(row) for row in order if not is_zero(float(affinity[row]))]
    top = [("helped by", row) for row in clear[: rows - rows // 3] if affinity[row] > 0]
    bottom = [("hurt by", row) for row in clear[::-1][: rows // 3] if affinity[row] < 0]
    return [_pair_line(words, snapshot.names[row], float(affinity[row]), width) for words, row in top + bottom[::-1]]


def influence_lines(influence: Influence | None, width: int, rows: int) -> list[Line]:
    """Return lines about the influence of the examples: distribution, share that helps, and sum.

    Args:
        influence: Influence of the examples; None until known.
        width: Cells of each line.
        rows: Maximum number of lines.
    """
    if influence is None:
        return [[("…", "dim")]]
    summary, unit, gains = influence.summary, influence.unit, influence.kept
    if summary is None:
        return [[("no training examples", "warn")]]
    ends = f" {unit(summary.low)} … {unit(summary.high)} {unit.name}"
    counts = histogram(gains, max(min(width - len(ends), 24), 4))
    bars = sparkline([float(count) for count in counts], len(counts), low=0)
    total = summary.total
    shape = "".join(bar if count else " " for bar, count in zip(bars, counts, strict=True))
    lines: list[Line] = [
        [shape, (ends, "dim")],
        [(percent(summary.helping / summary.count), "good"), f" help: {summary.helping:,} of {summary.count:,}"],
        [
            ("sum ", "dim"),
            (numbers.signed(total), numbers.style(total)),
            (" nats, to first order", "dim"),
        ],
    ]
    if rows <= 3:
        return lines
    if summary.low < 0 < summary.high:
        zero = int(len(counts) * -summary.low / (summary.high - summary.low))
        lines.insert(1, [(" " * zero + "↑ 0", "dim")])
    if summary.half:
        lines.append([("half of the help ", "dim"), f"from {summary.half:,} of {summary.count:,}"])
    if summary.thirds:
        parts: list[Part] = [("mean by length ", "dim")]
        for words, value in zip(("short", "mid", "long"), summary.thirds, strict=True):
            parts += [f" {words} ", (unit(value), numbers.style(value * unit.factor, unit.decimals))]
        lines.append(parts)
    return lines


def _pair_line(words: str, name: str, value: float, width: int) -> Line:
    return [
        (f"{words:<10}", "dim"),
        fit_name(name, max(width - 18, 4)),
        (fit(numbers.signed(value), 8, right=True), numbers.style(value)),
    ]


def _sizes(task: Task) -> str:
    return f"{len(task.split.train):,} ex · {numbers.short(task.tokens)} tok "
