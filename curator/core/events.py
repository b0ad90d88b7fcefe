"""Report progress as typed events, written as JSON lines and read by every front end.

Stages report through a `Reporter`. The reporter passes each event to its sinks: the job's `events.jsonl`, and a display
(a progress bar, plain lines or the terminal interface).
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, Literal, get_args, get_origin, get_type_hints

from curator.core.figures import duration, fixed
from curator.core.files import open_regular


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage starts, or resumes after an interruption."""

    stage: str
    total: int
    """Total units of work. 0 if unknown."""
    unit: str
    done: int = 0
    """Units that an earlier job has already finished."""
    time: float = field(default_factory=time.time)
    """Seconds since the epoch. The same holds for every event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """A stage has finished more units."""

    stage: str
    done: int
    total: int
    unit: str
    rate: float
    """Units per second in this job."""
    seconds_left: float | None
    loss: float | None = None
    """Training loss in nats per token. None for a stage that does not train."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished:
    """A stage is complete."""

    stage: str
    seconds: float
    summary: str
    cached: bool = False
    """True if the result was cached."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Information or a warning for the user."""

    message: str
    level: Literal["info", "warning"] = "info"
    time: float = field(default_factory=time.time)


Event = StageStarted | StageProgress | StageFinished | Note
LOG_INTERVAL = 5.0
"""Seconds between two progress lines of a stage in plain output."""
Sink = Callable[[Event], None]
_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in (StageStarted, StageProgress, StageFinished, Note)}
_FIELDS = {kind: get_type_hints(kind) for kind in _TYPES.values()}
# Largest valid number in an event. Real counts, rates and losses are far smaller, and displays can still show it.
_LARGEST = 10**18
# The year 3000, in seconds since the epoch: every time zone has a date for it.
_LATEST = 32_503_680_000
# Size in bytes of a log that takes all progress events, and largest size of a log.
_SMALL_LOG, _LARGEST_LOG = 2_000_000, 64_000_000
# Attempts to lock a log, and seconds between them.
_LOCK_TRIES, _LOCK_PAUSE = 20, 0.1
# Maximum length of a line in bytes. Lines that `EventLog` writes are far shorter.
_MOST_BYTES = 1_000_000


class Stage:
    """Count the finished units of a running stage, and report at most ten times a second.

    Args:
        emit: Receives the events.
        name: Name of the stage.
        total: Total units of work. 0 if unknown.
        unit: Plural name of the units.
        done: Units that an earlier job has already finished.
    """

    _interval = 0.1

    def __init__(self, emit: Sink, name: str, total: int, unit: str, done: int = 0) -> None:
        self._emit, self._name, self._total, self._unit = emit, name, total, unit
        self._done = self._begun = done
        self._start, self._last = time.monotonic(), 0.0
        emit(StageStarted(stage=name, total=total, unit=unit, done=done))

    def advance_to(self, done: int, *, loss: float | None = None) -> None:
        """Report that `done` units are finished."""
        self._done, now = done, time.monotonic()
        if now - self._last < self._interval and done < self._total:
            return
        self._last = now
        rate = (done - self._begun) / max(now - self._start, 1e-9)
        left = (self._total - done) / rate if rate > 0 and self._total else None
        self._emit(
            StageProgress(
                stage=self._name,
                done=done,
                total=self._total,
                unit=self._unit,
                rate=rate,
                seconds_left=left,
                loss=loss,
            )
        )

    def advance(self, step: int = 1, *, loss: float | None = None) -> None:
        """Report that `step` more units are finished."""
        self.advance_to(self._done + step, loss=loss)

    def finish(self, summary: str) -> None:
        """Report that the stage is complete."""
        seconds = time.monotonic() - self._start
        self._emit(StageFinished(stage=self._name, seconds=seconds, summary=summary))


class Reporter:
    """Pass the events of stages to sinks.

    Args:
        sinks: Functions that receive each event. Without sinks, events are discarded.
    """

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def emit(self, event: Event) -> None:
        """Pass one event to every sink."""
        for sink in self._sinks:
            sink(event)

    def with_sink(self, sink: Sink) -> "Reporter":
        """Return a reporter that also reports to `sink`."""
        return Reporter(*self._sinks, sink)

    def stage(self, name: str, total: int, unit: str, *, done: int = 0) -> Stage:
        """Report the start of a stage of `total` units, of which `done` are already finished."""
        return Stage(self.emit, name, total, unit, done)

    def cached(self, name: str, summary: str) -> None:
        """Report a stage whose result is cached."""
        self.emit(StageFinished(stage=name, seconds=0.0, summary=summary, cached=True))

    def warn(self, message: str) -> None:
        """Report a warning: a problem that the user may want to fix."""
        self.emit(Note(message=message, level="warning"))

    def note(self, message: str) -> None:
        """Report information for the user."""
        self.emit(Note(message=message))


class Stopwatch:
    """Measure how long a whole stage takes. A sink for a `Reporter`.

    If an earlier job finished part of the stage, the duration of that part is extrapolated from the rest.
    """

    def __init__(self) -> None:
        self._done = self._total = 0
        self.whole = 0.0
        """Duration in seconds of the last finished stage."""

    def __call__(self, event: Event) -> None:
        """Record the start or the end of a stage."""
        if isinstance(event, StageStarted):
            self._done, self._total = event.done, event.total
        elif isinstance(event, StageFinished):
            self.whole = (
                event.seconds * self._total / max(self._total - self._done, 1) if self._total else event.seconds
            )


def describe(event: StageProgress) -> str:
    """Format count, rate, loss and time left, as far as known."""
    parts = [f"{event.done}/{event.total}" if event.total else f"{event.done}", event.unit]
    if event.rate > 0:
        parts.append(f"· {event.rate:.1f}/s")
    if event.loss is not None:
        parts.append(f"· loss {fixed(event.loss, 3)}")
    if event.seconds_left is not None and event.total:
        parts.append(f"· {duration(event.seconds_left)} left")
    return " ".join(parts)


def log_line(event: Event) -> str:
    """Format an event as one line, without its time.

    The line holds untrusted text. Clean the line before printing it.
    """
    if isinstance(event, StageProgress):
        return f"{event.stage}: {describe(event)}"
    if isinstance(event, StageStarted):
        if event.done:
            return f"{event.stage}: resumed at {event.done}" + (
                f" of {event.total} {event.unit}" if event.total else ""
            )
        return f"{event.stage}: started" + (f" ({event.total} {event.unit})" if event.total else "")
    if isinstance(event, StageFinished):
        took = "nothing to do" if event.cached else f"done in {duration(event.seconds)}"
        return f"{event.stage}: {took}" + (f" ({event.summary})" if event.summary else "")
    return f"{event.level}: {event.message}"


class EventLog:
    """Append events to a JSON Lines file. Each line is flushed. The log holds a lock on the file.

    Args:
        path: The file. The file and its folder are created if missing.
        descriptor: Descriptor of the same file, open for appending. The log takes ownership of the descriptor.
    """

    def __init__(self, path: Path, *, descriptor: int | None = None) -> None:
        if descriptor is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        else:
            # Child processes must not keep the lock after this process ends.
            os.set_inheritable(descriptor, False)
            self._file = open(descriptor, "a", encoding="utf-8")  # noqa: SIM115
        self._size, self._reported = self._file.tell(), 0.0
        self._held: StageProgress | None = None
        # The system releases the lock when this process ends. `is_written` relies on the lock.
        _take_lock(self._file.fileno())

    def __call__(self, event: Event) -> None:
        """Write one event. The larger the file, the fewer progress events it takes, so that it stays small."""
        if isinstance(event, StageProgress):
            pause = 0.0 if self._size < _SMALL_LOG else 0.1 * 2.0 ** (self._size / _SMALL_LOG)
            if 0 <= event.time - self._reported < pause:
                self._held = event
                return
            self._reported, self._held = event.time, None
        self._write_held()
        self._write(event)

    def _write_held(self) -> None:
        """Write the last progress event that was held back, so that the log ends where the work ended."""
        if self._held is not None:
            self._write(self._held)
            self._held = None

    def _write(self, event: Event) -> None:
        line = json.dumps({"event": type(event).__name__, **asdict(event)})
        if self._size + len(line) > _LARGEST_LOG:
            return
        self._file.write(line + "\n")
        self._file.flush()
        self._size += len(line) + 1

    def close(self) -> None:
        """Flush the file to disk and close it."""
        self._write_held()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _take_lock(descriptor: int) -> None:
    """Lock a log. Another user may read the log, and hold the lock of it, so the wait ends."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE)
        else:
            return


def read_events(path: Path) -> Iterator[Event]:
    """Read the events of a log that may still be growing.

    Args:
        path: A file that `EventLog` writes.

    Yields:
        The events in order. Lines that are not events of this version are skipped. A last line without its line break
        is incomplete and is skipped too.

    Raises:
        OSError: The file does not exist, cannot be read or is not a regular file.
    """
    with open_regular(path) as file:
        yield from (event for _, event in _complete_lines(file) if event is not None)


class EventTail:
    """Follow a log while it grows.

    Args:
        path: A file that `EventLog` writes. The file need not exist yet.
        last: Start at the first whole line within this many last bytes of the file. None reads all that `EventLog`
            writes at most.
    """

    def __init__(self, path: Path, *, last: int | None = None) -> None:
        # `EventLog` writes no larger file, but another program may.
        self._path, self._last = path, _LARGEST_LOG if last is None else last
        self._offset = 0

    def read(self) -> list[Event]:
        """Return the events appended since the last call, by the rules of `read_events`.

        A file that is larger than `EventLog` allows is read at its end only.
        """
        events = []
        try:
            with open_regular(self._path) as file:
                self._skip(file)
                self._last = _LARGEST_LOG
                file.seek(self._offset)
                for size, event in _complete_lines(file):
                    self._offset += size
                    if event is not None:
                        events.append(event)
        except OSError:
            # A log that is missing or unreadable has no events.
            pass
        return events

    def _skip(self, file: BinaryIO) -> None:
        start = file.seek(0, os.SEEK_END) - self._last
        if start > self._offset:
            # One byte earlier, so that a line that starts exactly at `start` is kept.
            file.seek(start - 1)
            self._offset = start - 1 + len(file.readline(self._last + 1))


def _complete_lines(file: BinaryIO) -> Iterator[tuple[int, Event | None]]:
    """Yield each complete line's size in bytes and its event. None for a line that is not an event of this version."""
    while line := file.readline(_MOST_BYTES):
        if not line.endswith(b"\n") and len(line) < _MOST_BYTES:
            return
        yield len(line), _event_of(line)


def _event_of(line: bytes) -> Event | None:
    # Displays must not fail on lines that a full disk cut, that a newer curator wrote, or that are hostile.
    try:
        values = json.loads(line)
        event = _TYPES[values.pop("event")](**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    fits = all(_fits(getattr(event, name), kind) for name, kind in _FIELDS[type(event)].items())
    return event if fits and is_moment(event.time) else None


def _fits(value: object, kind: Any) -> bool:
    """Return whether a value has the type of a field. A number must also be finite and within limits."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if kind is int:
        return type(value) is int and 0 <= value <= _LARGEST
    if kind is float:
        return isinstance(value, int | float) and type(value) is not bool and abs(value) <= _LARGEST
    return type(value) is kind


def is_moment(seconds: float) -> bool:
    """Return whether a time in seconds since the epoch is a valid date in every time zone."""
    return 0 <= seconds <= _LATEST


def is_written(path: Path) -> bool:
    """Return whether a running process holds this log open for writing."""
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
