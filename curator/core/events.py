"""Progress has one road: typed events, written as JSON lines, read by every front end.

The engine reports through a `Reporter`; the events go to the sinks it was given: the run's `events.jsonl`, and whatever
shows them (a progress bar, plain lines, the terminal interface).
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

from curator.core.files import open_regular


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage begins, or goes on where it was interrupted."""

    stage: str
    total: int
    """Units of work in all; 0 when it is not known beforehand."""
    unit: str
    done: int = 0
    """Units that an earlier run has already done."""
    time: float = field(default_factory=time.time)
    """Seconds since the epoch, as in every event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """A stage has come further."""

    stage: str
    done: int
    total: int
    unit: str
    rate: float
    """Units per second in this run."""
    seconds_left: float | None
    loss: float | None = None
    """Training loss in nats per token, where the stage trains."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished:
    """A stage is complete."""

    stage: str
    seconds: float
    summary: str
    cached: bool = False
    """True when nothing had to be done."""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that people should know."""

    message: str
    level: Literal["info", "warning"] = "info"
    time: float = field(default_factory=time.time)


Event = StageStarted | StageProgress | StageFinished | Note
LOG_INTERVAL = 5.0
"""Seconds between two lines about the progress of a stage, where people read lines."""
Sink = Callable[[Event], None]
_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in (StageStarted, StageProgress, StageFinished, Note)}
_FIELDS = {kind: get_type_hints(kind) for kind in _TYPES.values()}
# No count, rate or loss of ours comes near it, and what shows numbers can still draw it.
_LARGEST = 10**18
# The year 3000, in seconds since the epoch: every time zone has a date for it.
_LATEST = 32_503_680_000
# In bytes. No line of ours is that long.
_MOST_BYTES = 1_000_000


class Stage:
    """One stage while it runs: counts, and reports at most ten times a second."""

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
    """Where the engine reports to.

    Args:
        sinks: Functions that take an event; without one, reporting costs nothing.
    """

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def emit(self, event: Event) -> None:
        """Hand one event to every sink."""
        for sink in self._sinks:
            sink(event)

    def with_sink(self, sink: Sink) -> "Reporter":
        """Return a reporter that also writes to `sink`."""
        return Reporter(*self._sinks, sink)

    def stage(self, name: str, total: int, unit: str, *, done: int = 0) -> Stage:
        """Begin a stage of `total` units, `done` of which are already there."""
        return Stage(self.emit, name, total, unit, done)

    def cached(self, name: str, summary: str) -> None:
        """Report a stage that has nothing to do."""
        self.emit(StageFinished(stage=name, seconds=0.0, summary=summary, cached=True))

    def warn(self, message: str) -> None:
        """Report something that people should know and may want to change."""
        self.emit(Note(message=message, level="warning"))

    def note(self, message: str) -> None:
        """Report something that people should know."""
        self.emit(Note(message=message))


class Stopwatch:
    """A sink that tells how long a stage takes as a whole.

    Where an earlier run did part of it, that part is reckoned at the rate of the rest.
    """

    def __init__(self) -> None:
        self._done = self._total = 0
        self.whole = 0.0
        """Seconds of the last stage that was finished."""

    def __call__(self, event: Event) -> None:
        """Follow one event."""
        if isinstance(event, StageStarted):
            self._done, self._total = event.done, event.total
        elif isinstance(event, StageFinished):
            self.whole = (
                event.seconds * self._total / max(self._total - self._done, 1) if self._total else event.seconds
            )


def describe(event: StageProgress) -> str:
    """Count, rate, loss and time left, as far as they are known."""
    parts = [f"{event.done}/{event.total}" if event.total else f"{event.done}", event.unit]
    if event.rate > 0:
        parts.append(f"· {event.rate:.1f}/s")
    if event.loss is not None:
        parts.append(f"· loss {event.loss:.3f}")
    if event.seconds_left is not None and event.total:
        parts.append(f"· {duration(event.seconds_left)} left")
    return " ".join(parts)


def duration(seconds: float) -> str:
    """A span of time, in the two units that matter."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def log_line(event: Event) -> str:
    """An event in words, without its time.

    The words are those of whoever reported: clean them before they reach a terminal.
    """
    if isinstance(event, StageProgress):
        return f"{event.stage}: {describe(event)}"
    if isinstance(event, StageStarted):
        total = f" of {event.total} {event.unit}" if event.total else ""
        gone_on = f", going on at {event.done}" if event.done else ""
        return f"{event.stage}: begins{total}{gone_on}"
    if isinstance(event, StageFinished):
        took = "nothing to do" if event.cached else f"done in {duration(event.seconds)}"
        return f"{event.stage}: {took}" + (f" ({event.summary})" if event.summary else "")
    return f"{event.level}: {event.message}"


class EventLog:
    """Appends events to a JSON-lines file, one flushed line each.

    Args:
        path: The file; it is created, and its folder too.
        descriptor: The same file where it is already open for appending; the log owns it from now on.
    """

    def __init__(self, path: Path, *, descriptor: int | None = None) -> None:
        if descriptor is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        else:
            # A process that we start must not keep the lock when we are gone.
            os.set_inheritable(descriptor, False)
            self._file = open(descriptor, "a", encoding="utf-8")  # noqa: SIM115
        # Held until this process ends, however it ends: that is how others know that the log is still written.
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __call__(self, event: Event) -> None:
        """Write one event."""
        line = json.dumps({"event": type(event).__name__, **asdict(event)})
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def read_events(path: Path) -> Iterator[Event]:
    """Read the events of a log that may still be growing.

    Args:
        path: A file that `EventLog` writes.

    Yields:
        The events in order. A last line without its line break is still being written and is left for later; a line
        that is no event of this version is passed over.
    """
    with open_regular(path) as file:
        yield from (event for _, event in _complete_lines(file) if event is not None)


class EventTail:
    """Follows a log while it grows.

    Args:
        path: A file that `EventLog` writes; it need not be there yet.
        last: Begin at most this many bytes before its end, at the next whole line; None begins at its start.
    """

    def __init__(self, path: Path, *, last: int | None = None) -> None:
        self._path, self._last = path, last
        self._offset = 0

    def read(self) -> list[Event]:
        """The events that were appended since the last call, by the rules of `read_events`."""
        events = []
        try:
            with open_regular(self._path) as file:
                self._skip(file)
                file.seek(self._offset)
                for size, event in _complete_lines(file):
                    self._offset += size
                    if event is not None:
                        events.append(event)
        except OSError:
            # Not there yet, or nothing that can be read: a run whose log tells nothing.
            pass
        return events

    def _skip(self, file: BinaryIO) -> None:
        if self._last is None:
            return
        start = file.seek(0, os.SEEK_END) - self._last
        self._last = None
        if start > 0:
            # One byte back: a line that begins just there is whole.
            file.seek(start - 1)
            self._offset = start - 1 + len(file.readline())


def _complete_lines(file: BinaryIO) -> Iterator[tuple[int, Event | None]]:
    """Size in bytes of every line that is complete, and the event in it, if it is one of this version."""
    while line := file.readline(_MOST_BYTES):
        if not line.endswith(b"\n") and len(line) < _MOST_BYTES:
            return
        yield len(line), _event_of(line)


def _event_of(line: bytes) -> Event | None:
    # What shows progress must not fail where a full disk cut a line, a newer curator says more, or a stranger wrote it.
    try:
        values = json.loads(line)
        event = _TYPES[values.pop("event")](**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    fits = all(_fits(getattr(event, name), kind) for name, kind in _FIELDS[type(event)].items())
    return event if fits and is_moment(event.time) else None


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of a field's type, and a number that can be reckoned with."""
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
    """Whether seconds since the epoch are a time that a clock can show, in any time zone."""
    return 0 <= seconds <= _LATEST


def is_written(path: Path) -> bool:
    """Whether a process that is alive holds this log open for writing."""
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
