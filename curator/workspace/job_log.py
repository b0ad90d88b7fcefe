"""What was run, and what became of it: one folder per run under `.curator/runs/`.

    run.json        command, process, start, state
    events.jsonl    every event, as it happened
    output.txt      what the process printed, where `curator.jobs` launched it

A run is recorded from its first stage on; a command that finds everything done leaves no trace. A run that was launched
has its folder, and holds its log, before its process has begun.
"""

import itertools
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

from curator.core.errors import DataError
from curator.core.events import Event, EventLog, StageStarted, is_moment, is_written
from curator.core.files import read_small_json, remove_left_over, write_whole
from curator.core.text import is_text

State = Literal["running", "done", "failed", "interrupted", "lost"]
EVENTS_NAME = "events.jsonl"
LAUNCHED = "CURATOR_RUN"
"""Environment variable that tells a process which run it is: the run's id, a colon, the descriptor of its events."""
_FACTS_NAME = "run.json"
# What a process number fits into on every system of ours.
_MOST_PID = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as its folder tells it."""

    id: str
    command: str
    pid: int
    started: datetime
    ended: datetime | None
    state: State
    message: str
    host: str = ""
    """Name of the machine; empty where it was not recorded."""
    cwd: str = ""
    """The folder that relative paths in the arguments start from; empty where it was not recorded."""
    arguments: tuple[str, ...] | None = None
    """The command line after `curator`, or None where it was not recorded."""


class RunLog:
    """An event sink that records a run; use it as a context manager.

    Args:
        folder: `.curator/runs`.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._log: EventLog | None = None
        self._facts: dict[str, Any] = {}
        self._path = folder

    def __enter__(self) -> Self:
        """Begin; nothing is written before the first stage, unless this process was launched as a run."""
        self._adopt()
        return self

    def __call__(self, event: Event) -> None:
        """Record one event."""
        if self._log is None:
            if not isinstance(event, StageStarted):
                return
            self._begin()
        assert self._log is not None
        with self._told():
            self._log(event)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Record how the run ended."""
        if self._log is None:
            return
        state: State = "done" if kind is None else "failed"
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            state = "interrupted"
        try:
            with self._told():
                self._write(state=state, ended=_now(), message="" if error is None else str(error))
                self._log.close()
        except DataError:
            # A disk that is full has already made itself heard; it must not hide how the run really ended.
            if error is None:
                raise

    def _begin(self) -> None:
        with self._told():
            for left in self._root.glob(f"*/.{_FACTS_NAME}.*.partial"):
                remove_left_over(left.parent, _FACTS_NAME)
            self._path = make_run_folder(self._root)
            self._log = EventLog(self._path / EVENTS_NAME)
            self._write(**_first_facts())

    def _adopt(self) -> None:
        # Taken away, so that what this process starts does not take itself for the same run.
        name, _, descriptor = os.environ.pop(LAUNCHED, "").rpartition(":")
        if not name or not descriptor.isdecimal():
            return
        path = self._root / name
        try:
            there = os.path.samestat(os.fstat(int(descriptor)), (path / EVENTS_NAME).stat())
        except OSError:
            there = False
        if there:
            self._path = path
            self._log = EventLog(path / EVENTS_NAME, descriptor=int(descriptor))
            with self._told():
                self._write(**_first_facts())

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self._path}: cannot be written: {error}", hint="Is the disk full or read-only?"
            ) from error

    def _write(self, **facts: Any) -> None:
        self._facts |= facts
        write_whole(self._path / _FACTS_NAME, json.dumps(self._facts, indent=1).encode())


def make_run_folder(root: Path) -> Path:
    """Make the folder of a new run; the newest sorts last.

    Args:
        root: `.curator/runs`; made if need be.
    """
    root.mkdir(parents=True, exist_ok=True)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    for number in itertools.count():
        path = root / (f"{moment}-{os.getpid()}" + (f"-{number}" if number else ""))
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError


def write_launched(folder: Path, arguments: Sequence[str], *, pid: int, cwd: Path) -> None:
    """Write what is known of a run before its process speaks for itself; where it already has, that stands.

    Args:
        folder: The run's own folder.
        arguments: The command line after `curator`.
        pid: The process.
        cwd: The process's working folder.
    """
    try:
        with (folder / _FACTS_NAME).open("x", encoding="utf-8") as file:
            file.write(json.dumps(_facts(arguments, pid=pid, cwd=str(cwd)), indent=1))
    except FileExistsError:
        pass


def read_runs(folder: Path, *, limit: int | None = None) -> list[Run]:
    """All runs, newest first; one whose process is gone without a word is `lost`.

    Args:
        folder: `.curator/runs`.
        limit: At most so many; None for all.
    """
    try:
        paths = sorted(folder.iterdir(), reverse=True)
    except OSError:
        return []
    return list(itertools.islice((run for path in paths if (run := _read(path)) is not None), limit))


def _read(path: Path) -> Run | None:
    run = _read_facts(path)
    if run is None or run.state != "running" or is_written(path / EVENTS_NAME):
        return run
    # It may have ended well since: a run says how it ended before it lets go of its log.
    run = _read_facts(path)
    return replace(run, state="lost") if run is not None and run.state == "running" else run


def _read_facts(path: Path) -> Run | None:
    try:
        facts = read_small_json(path / _FACTS_NAME)
        arguments = facts.get("arguments")
        known = isinstance(arguments, list) and all(isinstance(argument, str) for argument in arguments)
        if not is_text(path.name) or facts["state"] not in get_args(State):
            return None
        return Run(
            id=path.name,
            command=_words(facts["command"]),
            pid=_pid(facts["pid"]),
            started=_moment(facts["started"]),
            ended=None if facts["ended"] is None else _moment(facts["ended"]),
            state=facts["state"],
            message=_words(facts["message"]),
            host=_words(facts.get("host", "")),
            # As they are, for they may name files whose names are no text.
            cwd=_string(facts.get("cwd", "")),
            arguments=tuple(arguments) if known else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # A folder that somebody else made or damaged is no run of ours.
        return None


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _words(value: object) -> str:
    # Halves of characters cannot be written anywhere else.
    return _string(value).encode("utf-8", "replace").decode()


def _pid(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_PID:
        raise ValueError(value)
    return value


def _moment(value: object) -> datetime:
    moment = datetime.fromisoformat(_string(value))
    # Without a time zone it is no moment, and none at the ends of the calendar can be told in every zone.
    if moment.tzinfo is None or not is_moment(moment.timestamp()):
        raise ValueError(value)
    return moment


def _first_facts() -> dict[str, Any]:
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = ""
    return _facts(sys.argv[1:], pid=os.getpid(), cwd=cwd)


def _facts(arguments: Sequence[str], *, pid: int, cwd: str) -> dict[str, Any]:
    return {
        "command": " ".join(["curator", *arguments]),
        "arguments": list(arguments),
        "cwd": cwd,
        "host": socket.gethostname(),
        "pid": pid,
        "started": _now(),
        "ended": None,
        "state": "running",
        "message": "",
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
