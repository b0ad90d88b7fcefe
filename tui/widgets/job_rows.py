"""The list of jobs."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curator.core.figures import percent, span
from curator.workspace.job_log import Job
from tui.background.run_watcher import JobView
from tui.widgets import numbers
from tui.widgets.lines import Line, Part, fit, width_of
from tui.widgets.rows import Rows

GLYPHS = {
    "running": ("▶", "warn"),
    "done": ("✓", "good"),
    "failed": ("✗", "bad"),
    "interrupted": ("■", "dim"),
    "lost": ("◌", "bad"),
}
_STAGE, _STATE, _PERCENT, _TIME = 11, 14, 5, 12
_LEAST_COMMAND = 8


def share_of(view: JobView) -> float | None:
    """Return the finished share of the stage of a job, from 0 to 1; None if not known."""
    if view.job.state == "done":
        return 1.0
    return min(view.done / view.total, 1.0) if view.total > 0 else None


def one_line(text: str) -> str:
    """Join the words of a text on one line. The text is cleaned later, when it is drawn."""
    return " ".join(text.split())


def short_command(job: Job, root: Path) -> str:
    """Shorten a command: without `curator` and without the folder of this project."""
    if job.arguments is None:
        return one_line(job.command).removeprefix("curator ")
    kept, skip = [], False
    for argument, following in zip(job.arguments, [*job.arguments[1:], ""], strict=True):
        if skip:
            skip = False
        elif argument in ("-p", "--project") and Path(job.cwd, following) == root:
            skip = True
        else:
            kept.append(argument)
    return one_line(" ".join(kept))


class JobRows(Rows):
    """A list of jobs, newest first. The cursor stays on its job when other jobs appear or disappear."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.jobs: Sequence[JobView] = ()

    @property
    def count(self) -> int:
        """Return the number of jobs."""
        return len(self.jobs)

    @property
    def view(self) -> JobView | None:
        """Return the job under the cursor; None without jobs."""
        return self.jobs[self._clamped(self.cursor)] if self.jobs else None

    def take(self, jobs: Sequence[JobView], wanted: str | None) -> None:
        """Show jobs.

        Args:
            jobs: All jobs, newest first.
            wanted: Id of the job under the cursor, if the job exists.
        """
        here = self.view.job.id if self.view is not None else None
        before, ids = [view.job.id for view in self.jobs], [view.job.id for view in jobs]
        self.jobs = jobs
        place = next((ids.index(name) for name in (wanted, here) if name is not None and name in ids), None)
        if place is None:
            running = [row for row, view in enumerate(jobs) if view.job.state == "running"]
            place = running[0] if running and not before else self._clamped(self.cursor)
        self.cursor = place
        # With the same jobs, keep the scroll position of the mouse wheel.
        if ids == before:
            self.refresh()
        else:
            self.changed()

    def watch_cursor(self, before: int, after: int) -> None:
        """Read the whole log of the job under the cursor."""
        super().watch_cursor(before, after)
        if self.view is not None:
            # Set at once. A reading before the message arrives would move the cursor back.
            self.app.watched = self.view.job.id

    def _columns(self, width: int) -> tuple[int, int, int]:
        """Return the cells of the meter, the start and the command."""
        today = datetime.now(UTC).astimezone().date()
        start = 5 if all(view.job.started.astimezone().date() == today for view in self.jobs) else 11
        meter = 20 if width >= 110 else 10
        rest = width - _STAGE - _STATE - _PERCENT - _TIME - start - 4
        if rest - meter < _LEAST_COMMAND:
            meter = 0
        return meter, start, max(rest - meter, 0)

    def title(self, width: int) -> Line:
        """Return the titles of the columns, in the width of the list."""
        meter, start, command = self._columns(width - 1)
        progress = fit("progress", meter + _PERCENT) if meter else " " * _PERCENT
        words = f" {'stage':<{_STAGE}}{'state':<{_STATE}}{progress} {'left · took':<{_TIME}} {'start':<{start}}  "
        return [(words, "title"), (fit("command", command), "title")]

    def line(self, row: int, width: int) -> Line:
        """Return the line of one job."""
        view = self.jobs[row]
        job, share = view.job, share_of(view)
        meter, start, command = self._columns(width)
        glyph, style = GLYPHS[job.state]
        if job.state == "running" and view.seconds_left is not None:
            time = f"{span(view.seconds_left)} left"
        else:
            time = span(view.elapsed)
        began = job.started.astimezone()
        calm = "dim" if style == "dim" else ""
        return [
            fit(view.stage or "·", _STAGE - 1) + " ",
            (f"{glyph} ", style),
            (fit(job.state, _STATE - 2), style),
            (numbers.meter(share or 0.0, meter), style),
            f"{percent(share):>{_PERCENT}}" if share is not None else " " * _PERCENT,
            (f" {time:<{_TIME}} ", calm),
            (f"{began:%H:%M}  " if start == 5 else f"{began:%m-%d %H:%M}  ", "dim"),
            *self._command(view, command),
        ]

    def _command(self, view: JobView, width: int) -> list[Part]:
        words = short_command(view.job, self.app.root)
        error = one_line(view.job.message) if view.job.state == "failed" else ""
        used = min(width_of([fit(words, width).rstrip()]) + 3, width)
        if error and width - used >= _LEAST_COMMAND:
            return [fit(words, width).rstrip(), (" · ", "dim"), (fit(error, width - used), "bad")]
        return [fit(words, width)]
