"""Show progress on standard error: a bar on a terminal, else plain lines with times."""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from curator.core.errors import DataError, EndedEarly
from curator.core.events import (
    LOG_INTERVAL,
    Event,
    Note,
    StageFinished,
    StageProgress,
    StageStarted,
    describe,
    log_line,
)
from curator.core.figures import duration
from curator.core.files import CHECK_DISK
from curator.core.text import clean, styled

if TYPE_CHECKING:
    from rich.progress import TaskID


class PlainProgress(AbstractContextManager["PlainProgress"]):
    """Write plain lines with the time of day."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, StageProgress) and event.time - self._last < LOG_INTERVAL:
            return
        self._last = event.time
        stamp = time.strftime("%H:%M:%S", time.localtime(event.time))
        print(f"{stamp} {clean(log_line(event))}", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""


class BarProgress(AbstractContextManager["BarProgress"]):
    """Draw a Rich progress bar for the running stage, and print a line for each finished stage."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(stderr=True)
        self._progress: Progress = Progress(
            TextColumn("{task.fields[stage]:<9}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[state]}"),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, StageStarted):
            self._clear()
            self._task = self._progress.add_task(
                "", total=event.total or None, completed=event.done, stage=clean(event.stage), state=""
            )
        elif isinstance(event, StageProgress) and self._task is not None:
            self._progress.update(self._task, completed=event.done, state=clean(describe(event)))
        elif isinstance(event, StageFinished):
            self._clear()
            took = "nothing to do" if event.cached else duration(event.seconds)
            self._console.print(
                styled("✓ ", "green"),
                styled(f"{event.stage:<9}"),
                styled(f"{took:>13}  "),
                styled(event.summary, "dim"),
                sep="",
            )
        elif isinstance(event, Note):
            mark, style = ("! ", "yellow") if event.level == "warning" else ("  ", "dim")
            self._console.print(styled(mark, style), styled(event.message), sep="")

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        self._clear()
        self._progress.stop()


class NoProgress(AbstractContextManager["NoProgress"]):
    """Show no progress."""

    def __call__(self, event: Event) -> None:
        """Ignore one event."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""


class LogFile(AbstractContextManager["LogFile"]):
    """Append every event to a text file, with date and time, and the error that ends the command.

    Args:
        path: The file. It is created if missing.

    Raises:
        DataError: The file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, 0.0
        with self._disk_errors():
            self._file = path.open("a", encoding="utf-8", errors="replace")

    def __call__(self, event: Event) -> None:
        """Write one event. Progress is written at most every few seconds."""
        if isinstance(event, StageProgress):
            if event.time - self._last < LOG_INTERVAL:
                return
            self._last = event.time
        self._write(log_line(event), event.time)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the error that ends the command, and close the file."""
        if isinstance(error, KeyboardInterrupt):
            self._write("interrupted", time.time())
        elif error is not None and not isinstance(error, EndedEarly):
            self._write(f"error: {error or type(error).__name__}", time.time())
        with self._disk_errors():
            self._file.close()

    def _write(self, line: str, moment: float) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(moment))
        with self._disk_errors():
            print(f"{stamp} {clean(line)}", file=self._file, flush=True)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"cannot write {self._path}: {error}", hint=CHECK_DISK) from error


def make_progress(*, quiet: bool) -> PlainProgress | BarProgress | NoProgress:
    """Return a display for standard error: none if quiet, a bar on a terminal, else plain lines."""
    if quiet:
        return NoProgress()
    return BarProgress() if sys.stderr.isatty() else PlainProgress()
