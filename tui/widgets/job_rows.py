"""The list of jobs."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curator.workspace.job_log import Run
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


def span(seconds: float) -> str:
    """A span of time, in seconds, in at most six cells: 9.5s, 2m10s, 14h02m, 3d04h."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    for unit, small, part, name in ((86400, 3600, "h", "d"), (3600, 60, "m", "h"), (60, 1, "s", "m")):
        if seconds >= unit:
            whole, rest = divmod(int(seconds), unit)
            return f"{whole}{name}{rest // small:02}{part}"
    return f"{int(seconds)}s"


def share_of(view: JobView) -> float | None:
    """How much of its stage a job has done, from 0 to 1; None where it is not known."""
    if view.job.state == "done":
        return 1.0
    return min(view.done / view.total, 1.0) if view.total > 0 else None


def one_line(text: str) -> str:
    """Words on one line; what they hold is cleaned where they are drawn."""
    return " ".join(text.split())


def short_command(job: Run, root: Path) -> str:
    """A command without what is the same for all: `curator`, and the project's own folder."""
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
    """Jobs, newest first. The cursor stays on its job when others come and go."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.jobs: Sequence[JobView] = ()

    @property
    def count(self) -> int:
        """Number of jobs."""
        return len(self.jobs)

    @property
    def view(self) -> JobView | None:
        """The job under the cursor."""
        return self.jobs[self._clamped(self.cursor)] if self.jobs else None

    def take(self, jobs: Sequence[JobView], wanted: str | None) -> None:
        """Show other jobs, or what has become of the same.

        Args:
            jobs: All jobs, newest first.
            wanted: Id of the one that the cursor belongs on, once it is there.
        """
        here = self.view.job.id if self.view is not None else None
        before, ids = [view.job.id for view in self.jobs], [view.job.id for view in jobs]
        self.jobs = jobs
        place = next((ids.index(name) for name in (wanted, here) if name is not None and name in ids), None)
        if place is None:
            running = [row for row, view in enumerate(jobs) if view.job.state == "running"]
            place = running[0] if running and not before else self._clamped(self.cursor)
        self.cursor = place
        # Where nothing came or went, the list stays where the pointer's wheel has brought it.
        if ids == before:
            self.refresh()
        else:
            self.changed()

    def watch_cursor(self, before: int, after: int) -> None:
        """The job under the cursor is the one whose whole log is read."""
        super().watch_cursor(before, after)
        if self.view is not None:
            # Here, and not when the message arrives: a reading in between would bring the cursor back.
            self.app.watched = self.view.job.id

    def _columns(self, width: int) -> tuple[int, int, int]:
        """Cells of the meter, the start and the command."""
        today = datetime.now(UTC).astimezone().date()
        start = 5 if all(view.job.started.astimezone().date() == today for view in self.jobs) else 11
        meter = 20 if width >= 110 else 10
        rest = width - _STAGE - _STATE - _PERCENT - _TIME - start - 4
        if rest - meter < _LEAST_COMMAND:
            meter = 0
        return meter, start, max(rest - meter, 0)

    def title(self, width: int) -> Line:
        """The line above the list, of the same width as it."""
        meter, start, command = self._columns(width - 1)
        progress = fit("progress", meter + _PERCENT) if meter else " " * _PERCENT
        words = f" {'stage':<{_STAGE}}{'state':<{_STATE}}{progress} {'left · took':<{_TIME}} {'start':<{start}}  "
        return [(words, "title"), (fit("command", command), "title")]

    def line(self, row: int, width: int) -> Line:
        """One job."""
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
            f"{share:>{_PERCENT}.0%}" if share is not None else " " * _PERCENT,
            (f" {time:<{_TIME}} ", calm),
            (f"{began:%H:%M}  " if start == 5 else f"{began:%m-%d %H:%M}  ", "dim"),
            *self._command(view, command),
        ]

    def _command(self, view: JobView, width: int) -> list[Part]:
        words = short_command(view.job, self.app.root)
        said = one_line(view.job.message) if view.job.state == "failed" else ""
        used = min(width_of([fit(words, width).rstrip()]) + 3, width)
        if said and width - used >= _LEAST_COMMAND:
            return [fit(words, width).rstrip(), (" · ", "dim"), (fit(said, width - used), "bad")]
        return [fit(words, width)]
