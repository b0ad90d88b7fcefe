"""Reads the state of all jobs of a project from their folders."""

import math
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from curator.core.events import LOG_INTERVAL, Event, EventTail, StageFinished, StageProgress, StageStarted, log_line
from curator.core.figures import duration, percent
from curator.workspace.job_log import EVENTS_NAME, Job, read_jobs
from curator.workspace.jobs import last_words

StageState = Literal["done", "running", "cached"]

MOST_JOBS = 200
_MOST_LOSSES = 1000
_MOST_LINES = 500
_MOST_RATES = 20
# In bytes. The end of the log is enough for a job that has ended and is not selected.
_END_OF_LOG = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """The state of a job for display. Texts are not cleaned."""

    job: Job
    stage: str
    """The running stage or the last one; empty before the first stage."""
    done: int
    total: int
    """Units of work in the stage; 0 if the number is not known."""
    unit: str
    rate: float
    """Units per second."""
    seconds_left: float | None
    """Seconds left of the stage; None if the number is not known."""
    losses: tuple[tuple[int, float], ...]
    """Units done and loss, of the last stage with losses. At most 1,000 points, with the extremes."""
    rates: tuple[float, ...]
    """The last 20 rates of the stage, in units per second."""
    stages: tuple[tuple[str, StageState, float | None], ...]
    """Name, state and seconds of every stage in order. A stage that is `running` in an ended job was cut short."""
    log: tuple[tuple[float, str], ...]
    """Seconds since the epoch and text of the last 500 lines."""
    elapsed: float
    """Seconds from the start until now or the end. For a lost job, until its last event."""
    words: tuple[str, ...]
    """Last output of the process, if the job failed or is lost."""
    whole: bool
    """Whether the whole log was read. If not, losses, stages and log cover only its end."""


def progress_words(view: JobView) -> str:
    """Return what a running job does, with the progress and the time left of its stage."""
    share = f", {percent(view.done / view.total)}" if view.total else ""
    left = f", {duration(view.seconds_left)} left" if view.seconds_left is not None else ""
    return f"{view.stage or name_of(view)} is running{share}{left}"


def name_of(view: JobView) -> str:
    """Return the name of a job: its command, or its stage if the command is not known."""
    return view.job.arguments[0] if view.job.arguments else view.stage or "job"


class JobWatcher:
    """Reads the jobs of one project. Each call reads only the events since the last call.

    Args:
        folder: `.curator/runs`. The folder may be missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stories: dict[str, _Story] = {}
        self._ended: dict[str, JobView] = {}

    def read(self, detail: str | None = None) -> tuple[JobView, ...]:
        """Return the newest 200 jobs, newest first.

        Args:
            detail: Id of the selected job. Its log is read from the start, like that of a running job.
        """
        jobs = read_jobs(self._folder, limit=MOST_JOBS)
        here = {job.id for job in jobs}
        self._stories = {name: story for name, story in self._stories.items() if name in here}
        self._ended = {name: view for name, view in self._ended.items() if name in here}
        return tuple(self._view(job, whole=job.state == "running" or job.id == detail) for job in jobs)

    def _view(self, job: Job, *, whole: bool) -> JobView:
        known = self._ended.get(job.id)
        if known is not None and known.job == job and (known.whole or not whole):
            return known
        path = self._folder / job.id / EVENTS_NAME
        story = self._stories.pop(job.id, None)
        if story is None:
            story = _Story(EventTail(path, last=None if whole else _END_OF_LOG), whole=_is_whole(path, whole))
        story.read_new()
        words = last_words(self._folder, job.id) if job.state in ("failed", "lost") else []
        view = story.view(job, words)
        if job.state == "running":
            self._stories[job.id] = story
        else:
            self._ended[job.id] = view
        return view


def _is_whole(path: Path, wanted: bool) -> bool:
    try:
        return wanted or path.stat().st_size <= _END_OF_LOG
    except OSError:
        return True


class _Story:
    """The state of one job, from its events so far."""

    def __init__(self, tail: EventTail, *, whole: bool) -> None:
        self._tail, self._whole = tail, whole
        self._now = StageProgress(stage="", done=0, total=0, unit="", rate=0.0, seconds_left=None, time=0.0)
        self._stages: list[tuple[str, StageState, float | None]] = []
        self._curve, self._curve_stage = Curve(), -1
        self._rates: deque[float] = deque(maxlen=_MOST_RATES)
        self._log: deque[tuple[float, str]] = deque(maxlen=_MOST_LINES)
        self._last_event = self._last_line = 0.0

    def read_new(self) -> None:
        """Read the events since the last call."""
        for event in self._tail.read():
            self._add(event)

    def _add(self, event: Event) -> None:
        self._last_event = event.time
        if isinstance(event, StageProgress):
            self._progress(event)
        elif isinstance(event, StageStarted):
            self._begin(event.stage, event.total, event.unit, event.done)
        elif isinstance(event, StageFinished):
            self._finish(event)
        if not isinstance(event, StageProgress) or event.time - self._last_line >= LOG_INTERVAL:
            self._last_line = event.time
            self._log.append((event.time, log_line(event)))

    def _begin(self, stage: str, total: int, unit: str, done: int) -> None:
        self._stages.append((stage, "running", None))
        self._now = StageProgress(stage=stage, done=done, total=total, unit=unit, rate=0.0, seconds_left=None)
        self._rates.clear()

    def _progress(self, event: StageProgress) -> None:
        number = self._running(event.stage)
        if number is None:
            # The stage began before the part of the log that was read.
            number = len(self._stages)
            self._begin(event.stage, event.total, event.unit, event.done)
        if self._now.stage != event.stage:
            self._rates.clear()
        self._now = event
        self._rates.append(event.rate)
        if event.loss is not None:
            if self._curve_stage != number:
                self._curve, self._curve_stage = Curve(), number
            self._curve.add(event.done, event.loss)

    def _finish(self, event: StageFinished) -> None:
        state: StageState = "cached" if event.cached else "done"
        number = self._running(event.stage)
        if number is None:
            if event.cached and any(name == event.stage for name, _, _ in self._stages):
                # The job asks for the result of a stage again, at its end.
                return
            if self._running(self._now.stage) is None:
                self._begin(event.stage, 0, "", 0)
                self._stages.pop()
            self._stages.append((event.stage, state, event.seconds))
            return
        self._stages[number] = (event.stage, state, event.seconds)
        if event.stage == self._now.stage:
            self._now = replace(self._now, seconds_left=None)

    def _running(self, stage: str) -> int | None:
        """Return the position of a stage that has begun and not ended; None if the stage does not run."""
        for number, (name, state, _) in enumerate(self._stages):
            if name == stage and state == "running":
                return number
        return None

    def view(self, job: Job, words: list[str]) -> JobView:
        """Return the current state of the job."""
        end = datetime.now(UTC) if job.state == "running" else job.ended
        until = self._last_event if end is None else end.timestamp()
        left = self._now.seconds_left if job.state == "running" else None
        if left is not None:
            # As `curator status` counts it.
            left = max(left - max(until - self._now.time, 0.0), 0.0)
        return JobView(
            job=job,
            stage=self._now.stage,
            done=self._now.done,
            total=self._now.total,
            unit=self._now.unit,
            rate=self._now.rate,
            seconds_left=left,
            losses=self._curve.points(),
            rates=tuple(self._rates),
            stages=tuple(self._stages),
            log=tuple(self._log),
            elapsed=max(until - job.started.timestamp(), 0.0),
            words=tuple(words),
            whole=self._whole,
        )


@dataclass(slots=True)
class _Bucket:
    count: int
    low: tuple[int, float]
    high: tuple[int, float]


@dataclass(slots=True)
class Curve:
    """Keeps at most `limit` points of a growing curve: the lowest and the highest point of every bucket.

    All buckets have equally many points, so that the beginning is as fine as the end.
    """

    limit: int = _MOST_LOSSES
    """Maximum number of points, at least 4."""
    _buckets: list[_Bucket] = field(default_factory=list)
    _width: int = 1
    _last: tuple[int, float] | None = None

    def add(self, x: int, y: float) -> None:
        """Add a point. Points that are not finite are ignored."""
        if not math.isfinite(y):
            return
        self._last = point = (x, y)
        if self._buckets and self._buckets[-1].count < self._width:
            last = self._buckets[-1]
            last.count += 1
            last.low, last.high = min(last.low, point, key=_height), max(last.high, point, key=_height)
            return
        if 2 * (len(self._buckets) + 1) + 1 > self.limit:
            # Merge buckets in pairs: half as many buckets, twice as wide.
            pairs = zip(self._buckets[::2], [*self._buckets[1::2], None], strict=False)
            self._buckets = [first if second is None else _join(first, second) for first, second in pairs]
            self._width *= 2
            self.add(x, y)
            return
        self._buckets.append(_Bucket(1, point, point))

    def points(self) -> tuple[tuple[int, float], ...]:
        """Return the kept points in order. The newest point is always among them."""
        kept: dict[tuple[int, float], None] = {}
        for bucket in self._buckets:
            kept |= dict.fromkeys(sorted((bucket.low, bucket.high)))
        if self._last is not None:
            kept[self._last] = None
        return tuple(kept)


def _height(point: tuple[int, float]) -> float:
    return point[1]


def _join(first: _Bucket, second: _Bucket) -> _Bucket:
    return _Bucket(
        first.count + second.count,
        min(first.low, second.low, key=_height),
        max(first.high, second.high, key=_height),
    )
