"""The Jobs screen: all jobs, their progress and their logs."""

import threading
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from curator.core.errors import CuratorError
from curator.core.text import clean
from curator.results.text_plot import Series
from curator.workspace import jobs
from curator.workspace.job_log import Job
from tui.actions import bindings_of
from tui.background.machine import Machine, MachineReader
from tui.background.run_watcher import JobView
from tui.dialogs.confirm import ConfirmDialog
from tui.screens.base import CuratorScreen
from tui.state.messages import Failed
from tui.widgets.job_detail import (
    History,
    command_lines,
    command_of,
    count_line,
    head_line,
    machine_lines,
    message_line,
    remember,
    rule,
    stage_chips,
    stage_lines,
)
from tui.widgets.job_log import JobLog
from tui.widgets.job_rows import JobRows, one_line
from tui.widgets.lines import Line, Lines, Part, spread
from tui.widgets.plot import LinePlot
from tui.widgets.rows import Rows

if TYPE_CHECKING:
    from curator.core.config import Config

_MACHINE_SECONDS = 2.0
_FIRST_SECONDS = 0.3
"""Duration of the first reading of the machine, in seconds."""
_LEAST_LOG, _LEAST_PLOT, _MOST_PLOT = 4, 5, 24
_SIDE, _RIGHT = 54, 40
_COPIED = 60


class MachineRead(Message):
    """The machine was read."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine


# Actions on the job under the cursor, its log or its plot.
_OF_JOBS = frozenset({"open", "next_pane", "zoom_pane", "copy", "stop", "resume", "follow", "log_scale", "search"})


class RunsScreen(CuratorScreen):
    """Shows the list of jobs, and details of the job under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("runs")
    place = "runs"

    def __init__(self) -> None:
        super().__init__()
        self._machine: Machine | None = None
        self._history: History = {}
        self._reader: MachineReader | None = None
        self._reading = threading.Lock()
        self._read_at = 0.0

    def body(self) -> Iterable[Widget]:
        """Return the list, and below it state, loss, machine and log of one job. Wide screens have boxes."""
        curve = Horizontal(
            Vertical(LinePlot(id="loss-plot"), id="loss-box", classes="pane"),
            Lines(id="machine-right"),
            id="run-curve",
        )
        log = Vertical(
            Lines([()], id="log-head"),
            Input(id="log-search", placeholder="search the log"),
            JobLog(id="log"),
            id="log-box",
            classes="pane",
        )
        side = Vertical(
            Lines(id="machine-box", classes="box"),
            Lines(id="stages-box", classes="box"),
            Lines(id="command-box", classes="box"),
            id="run-side",
        )
        return [
            Lines([()], id="runs-title"),
            JobRows(id="runs", classes="first-focus"),
            Lines([(), (), ()], id="run-head"),
            Horizontal(Vertical(curve, log, id="run-main"), side, id="run-lower"),
        ]

    @property
    def rows(self) -> JobRows:
        """Return the list of jobs."""
        return self.query_one(JobRows)

    @property
    def log_rows(self) -> JobLog:
        """Return the log."""
        return self.query_one(JobLog)

    @property
    def job_view(self) -> JobView | None:
        """Return the job under the cursor; None without jobs."""
        return self.rows.view

    @property
    def folder(self) -> Path:
        """Return the folder of all jobs."""
        return self.app.root / ".curator" / "runs"

    def offers(self, action: str) -> bool:
        """Return whether an action makes sense here: it needs a job, and some need a job in one state."""
        view = self.job_view
        if view is None:
            return action not in _OF_JOBS
        is_running = view.job.state == "running"
        if action == "open":
            return self.rows.has_focus
        return {"stop": is_running, "resume": not is_running, "log_scale": bool(view.losses)}.get(action, True)

    # -- showing ----------------------------------------------------------------------------------------------------

    def show(self, topic: str) -> None:
        """Draw a change."""
        if topic not in ("jobs", "snapshot", "all"):
            return
        app, rows = self.app, self.rows
        before = {view.job.id for view in rows.jobs}
        rows.take(app.jobs, app.watched)
        if rows.view is not None and (app.watched is None or app.watched in before - {v.job.id for v in app.jobs}):
            app.watched = rows.view.job.id
        self._show_run()

    def _show_run(self) -> None:
        width, view = self.app.size.width, self.job_view
        self.query_one("#runs-title", Lines).show([self.rows.title(width)])
        self._arrange(view)
        head = self.query_one("#run-head", Lines)
        if view is None:
            head.show(self._nothing(width))
            self.query_one("#loss-plot", LinePlot).show([])
        else:
            head.show(self._head(view, width))
            points = [(float(x), y) for x, y in view.losses] if view.whole else []
            # Training counts steps, verification the tokens of all its runs.
            unit = view.unit if view.stage == "verify" else "step"
            self.query_one("#loss-plot", LinePlot).show([Series(points)], x_label=unit)
        self.log_rows.take(view)
        self._log_head()
        self._show_machine()

    def _nothing(self, width: int) -> list[Line]:
        if not self.app.jobs_known:
            return [rule([("reading the jobs …", "dim")], "", width)]
        lines: list[Line] = [rule([("no jobs yet", "dim")], "", width), []]
        lines += [[(" R", "accent"), " starts a stage as a job. The job continues when this terminal closes."]]
        lines += [[(" Jobs that you start elsewhere with `curator train` or `select` appear here.", "dim")]]
        return lines

    def _stages_known(self) -> list[str]:
        snapshot = self.app.snapshot
        return [stage.stage for stage in snapshot.status.stages] if snapshot is not None else []

    def _head(self, view: JobView, width: int) -> list[Line]:
        lines = [head_line(view, width), count_line(view, width)]
        if view.job.state == "failed" and view.job.message:
            lines.append(message_line(view, width))
        elif not self.is_wide:
            lines.append(stage_chips(view, self._stages_known(), width))
        return lines

    def _arrange(self, view: JobView | None) -> None:
        """Share the rows among list, curve and log."""
        body = self.app.size.height - 3
        most = body if self.maximized is self.rows else max(3, body // 5)
        rows = max(1, min(self.rows.count, most))
        self.rows.styles.height = rows
        left = body - 1 - rows - (2 if self.is_wide else 3)
        frame = 2 if self.is_wide else 0
        room = left - _LEAST_LOG - 1 - 2 * frame
        has_loss = view is not None and bool(view.losses) and view.whole
        plot = min(room, max(_LEAST_PLOT, round(0.55 * left) - frame), _MOST_PLOT)
        curve, right = self.query_one("#run-curve"), self.query_one("#machine-right")
        machine = len(machine_lines(self._machine, self._history, self.app.size.width, 5))
        self.query_one("#loss-box").display = has_loss
        right.display = not self.is_wide and view is not None
        if has_loss:
            curve.display, curve.styles.height = plot >= _LEAST_PLOT, plot + frame
        else:
            curve.display, curve.styles.height = right.display and room >= machine, machine
        self.query_one("#run-side").display = self.is_wide and view is not None
        self.query_one("#run-lower").display = view is not None

    def _show_machine(self) -> None:
        view = self.job_view
        if view is None:
            return
        if not self.is_wide:
            wide = not self.query_one("#loss-box").display
            right = self.query_one("#machine-right", Lines)
            right.styles.width = "1fr" if wide else _RIGHT
            width, most = (
                (self.app.size.width, 5) if wide else (_RIGHT, max(self.query_one("#run-curve").size.height, 4))
            )
            lines = machine_lines(self._machine, self._history, width, most)
            if not wide:
                lines = [[("│ ", "dim"), *line] for line in lines]
                lines += [[("│", "dim")]] * (most - len(lines))
            else:
                lines = [[" ", *line] for line in lines]
            right.show(lines)
            return
        width = _SIDE - 4
        left = self.app.size.height - 3 - 1 - self.rows.count - 3
        boxes = (
            ("#machine-box", "this machine", self._machine_box(width, left)),
            ("#stages-box", "stages of the job", stage_lines(view, self._stages_known(), width)),
            ("#command-box", "command", command_lines(view, self._config(), width)),
        )
        left = self.query_one("#run-lower").size.height or left
        for name, title, lines in boxes:
            box = self.query_one(name, Lines)
            box.border_title = title
            box.show(lines)
            box.display = left >= len(lines) + 2
            left -= len(lines) + 2 if box.display else 0

    def _machine_box(self, width: int, room: int) -> list[Line]:
        return machine_lines(self._machine, self._history, width, max(min(room // 2, 11), 4))

    def _config(self) -> "Config | None":
        snapshot = self.app.snapshot
        return snapshot.project.config if snapshot is not None else None

    def _log_head(self) -> None:
        log = self.log_rows
        width = log.size.width + 1 if self.is_wide else self.app.size.width
        left: list[Part] = [("log", "accent" if log.has_focus else "title"), "   "]
        left += [("● following", "good")] if log.following else [("○ paused", "dim"), (" · f follow", "dim")]
        if log.query_text:
            count = len(log.matches())
            left += [("   / ", "accent"), log.query_text, (f" {count}", "good" if count else "bad")]
            left += [(" · n N", "dim")] if count else []
        else:
            left += [("   / search", "dim")]
        right = f"{log.cursor + 1:,} of {log.count:,}" if log.count else "empty"
        if (view := self.job_view) is not None and not view.whole:
            right = f"reading … · {right}"
        line = spread(left, [(f"{right} ", "dim")], width) if self.is_wide else rule(left, right, width)
        self.query_one("#log-head", Lines).show([line])
        plot, box = self.query_one("#loss-plot", LinePlot), self.query_one("#loss-box")
        if view is not None and self.is_wide:
            box.border_title = "loss · log scale" if plot.log_y else "loss"

    @on(Rows.Moved, "#runs")
    def _chosen(self) -> None:
        self._show_run()
        self.show_hints()
        self.app.look_at_jobs()

    @on(Rows.Moved, "#log")
    def _read_on(self) -> None:
        self._log_head()

    # -- the machine ------------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Start to read the machine regularly."""
        self.set_interval(_MACHINE_SECONDS / 4, self._look)

    def on_screen_resume(self) -> None:
        """Read the jobs and the machine at once."""
        self.app.look_at_jobs()
        self._look()

    def _look(self) -> None:
        shown = self.app.current_mode == "runs" and not self.has_class("-small")
        if shown and time.monotonic() - self._read_at >= _MACHINE_SECONDS and not self._reading.locked():
            self._read_at = time.monotonic()
            self._read_machine()

    @work(thread=True, group="machine", exit_on_error=False)
    def _read_machine(self) -> None:
        with self._reading:
            if self._reader is None:
                self._reader = MachineReader(self.app.root)
                time.sleep(_FIRST_SECONDS)
            self.post_message(MachineRead(self._reader.read()))

    @on(MachineRead)
    def _machine_read(self, message: MachineRead) -> None:
        self._machine = message.machine
        remember(self._history, message.machine)
        self._arrange(self.job_view)
        self._show_machine()

    # -- actions ---------------------------------------------------------------------------------------------------

    def action_stop(self) -> None:
        """Stop the job after a confirmation."""
        view = self.job_view
        if view is None or view.job.state != "running":
            self.app.flash("no job to stop" if view is None else f"cannot stop: the job is {view.job.state}", "warn")
            return
        lines: list[Line] = [
            [command_of(view)],
            [],
            ["Finished work is kept. Press ", ("r", "accent"), " to resume the job."],
        ]
        self.app.push_screen(ConfirmDialog("stop the job?", lines), partial(self._stop_if, view.job))

    def _stop_if(self, job: Job, wanted: bool | None) -> None:
        if wanted:
            self.app.flash("stopping the job …")
            self._stop(job)

    @work(thread=True, group="stop", exit_on_error=False)
    def _stop(self, job: Job) -> None:
        try:
            jobs.stop(self.folder, job)
        except (CuratorError, OSError) as error:
            self.app.post_message(Failed("stop the job", error))
        else:
            self.app.call_from_thread(self.app.flash, "stop requested: the job saves its work, then ends")
            self.app.call_from_thread(self.app.look_at_jobs)

    def action_resume(self) -> None:
        """Start the command of the job again."""
        view = self.job_view
        if view is None:
            self.app.flash("no job to resume", "warn")
        elif view.job.state == "running":
            self.app.flash("cannot resume: the job is running", "warn")
        elif view.job.arguments is None or not view.job.cwd:
            self.app.flash("cannot resume: the command was not recorded. Press R to start a stage.", "warn")
        elif "--fresh" in view.job.arguments:
            lines: list[Line] = [
                [command_of(view)],
                [],
                ["With --fresh, the job recomputes everything."],
            ]
            self.app.push_screen(ConfirmDialog("run the job again?", lines), partial(self._resume_if, view.job))
        else:
            self._resume_if(view.job, True)

    def _resume_if(self, job: Job, wanted: bool | None) -> None:
        if wanted and job.arguments is not None:
            self.app.launch(list(job.arguments), cwd=Path(job.cwd))

    def action_follow(self) -> None:
        """Follow the end of the log, or pause."""
        self.log_rows.follow(not self.log_rows.following)
        self._log_head()

    def action_log_scale(self) -> None:
        """Switch between linear and logarithmic loss axis."""
        plot = self.query_one("#loss-plot", LinePlot)
        plot.log_y = not plot.log_y
        self._log_head()
        self.app.flash(f"loss axis: {'logarithmic' if plot.log_y else 'linear'}")

    def action_copy(self) -> None:
        """Copy the line under the cursor of the log, or the command if the log has no focus."""
        log, view = self.log_rows, self.job_view
        if log.has_focus and log.entry is not None:
            text = clean(log.entries[log.entry][1])
        elif view is not None:
            text = clean(command_of(view))
        else:
            self.app.flash("nothing to copy", "warn")
            return
        self.app.copy_to_clipboard(text)
        self.app.flash(f"sent to the terminal: {text if len(text) <= _COPIED else text[:_COPIED] + '…'}")

    def action_next_pane(self) -> None:
        """Move between list and log."""
        if self.job_view is not None and not self.log_rows.has_focus:
            self.log_rows.focus()
        else:
            self.rows.focus()

    @on(Rows.Opened, "#runs")
    def _open_log(self) -> None:
        self.log_rows.focus()

    def action_back(self) -> None:
        """Clear the search, or move to the list."""
        if self.has_class("-searching"):
            self._close_search()
            self.log_rows.query_text = ""
        elif self.log_rows.query_text:
            self.log_rows.query_text = ""
        else:
            self.rows.focus()
        self.log_rows.refresh()
        self._log_head()

    # -- searching --------------------------------------------------------------------------------------------------

    def action_search(self) -> None:
        """Open the field of the search."""
        if self.job_view is None:
            return
        field = self.query_one("#log-search", Input)
        self.add_class("-searching")
        field.value = self.log_rows.query_text
        field.focus()

    @on(Input.Changed, "#log-search")
    def _typed(self, event: Input.Changed) -> None:
        if self.has_class("-searching"):
            self.log_rows.query_text = event.value
            self.log_rows.search(0)
            self._log_head()

    @on(Input.Submitted, "#log-search")
    def _close_search(self) -> None:
        self.remove_class("-searching")
        self.log_rows.focus()
        self._log_head()

    def action_next_match(self) -> None:
        """Move to the next match."""
        self._search(1)

    def action_previous_match(self) -> None:
        """Move to the previous match."""
        self._search(-1)

    def _search(self, step: int) -> None:
        if not self.log_rows.query_text:
            self.action_search()
        elif not self.log_rows.search(step):
            self.app.flash(f"not found in the log: {one_line(self.log_rows.query_text)}", "warn")
