"""Record jobs and read their records: one folder per job under `.curator/runs/`.

    run.json        command, process, start, state
    events.jsonl    every event, in order
    output.txt      output of the process, if `curator.workspace.jobs` launched it

The record of a job starts at its first stage. A command that finds every stage cached leaves no record. A launched job
has its folder and its locked log before its process starts.
"""

import itertools
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

from curator.core.errors import DataError
from curator.core.events import Event, EventLog, StageStarted, is_moment, is_written
from curator.core.files import CHECK_DISK, is_alive, read_small_json, remove_left_over, write_whole
from curator.core.text import is_text

State = Literal["running", "done", "failed", "interrupted", "lost"]
EVENTS_NAME = "events.jsonl"
LAUNCHED = "CURATOR_RUN"
"""Environment variable that identifies a launched job: the job's id, a colon, the descriptor of its event log."""
_FACTS_NAME = "run.json"
# Process ids of every supported system fit into 31 bits.
_MOST_PID = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Record of one job, read from its folder."""

    id: str
    command: str
    pid: int
    started: datetime
    ended: datetime | None
    state: State
    message: str
    host: str = ""
    """Name of the machine. Empty if not recorded."""
    cwd: str = ""
    """Folder that relative paths in the arguments start from. Empty if not recorded."""
    arguments: tuple[str, ...] | None = None
    """The command line after `curator`. None if not recorded."""


class JobLog:
    """Record a job: an event sink, used as a context manager.

    Args:
        folder: `.curator/runs`.
        warn: Receives a line if the work is done and its record cannot be completed. None raises a `DataError`.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None] | None = None) -> None:
        self._root, self._warn = folder, warn
        self._log: EventLog | None = None
        self._facts: dict[str, Any] = {}
        self._path = folder

    def __enter__(self) -> Self:
        """Take over the record of a launched job. Any other job writes nothing before its first stage."""
        self._adopt()
        return self

    def __call__(self, event: Event) -> None:
        """Record one event."""
        if self._log is None:
            if not isinstance(event, StageStarted):
                return
            self._begin()
        assert self._log is not None
        with self._disk_errors():
            self._log(event)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Record how the job ended."""
        if self._log is None:
            return
        state: State = "done" if kind is None else "failed"
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            state = "interrupted"
        try:
            with self._disk_errors(), closing(self._log):
                self._write(state=state, ended=_now(), message="" if error is None else str(error))
        except DataError as full:
            # An error that ended the job has priority.
            if error is None and self._warn is None:
                raise
            # The results are stored, and their report must still appear.
            if error is None and self._warn is not None:
                self._warn(f"{full.message}. The work is done, but this job will be listed as lost.")

    def _begin(self) -> None:
        with self._disk_errors():
            for left in self._root.glob(f"*/.{_FACTS_NAME}.*.partial"):
                remove_left_over(left.parent, _FACTS_NAME)
            self._path = make_job_folder(self._root)
            self._log = EventLog(self._path / EVENTS_NAME)
            self._write(**_first_facts())

    def _adopt(self) -> None:
        # Removed, so that processes started by this job do not record themselves as the same job.
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
            with self._disk_errors():
                self._write(**_first_facts())

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"cannot write {self._path}: {error}", hint=CHECK_DISK) from error

    def _write(self, **facts: Any) -> None:
        self._facts |= facts
        write_whole(self._path / _FACTS_NAME, json.dumps(self._facts, indent=1).encode())


def make_job_folder(root: Path) -> Path:
    """Make the folder of a new job. The newest folder sorts last.

    Args:
        root: `.curator/runs`. Created if missing.
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
    """Write the first record of a launched job, unless its process has already written one.

    Args:
        folder: Folder of the job.
        arguments: The command line after `curator`.
        pid: Id of the process.
        cwd: Working folder of the process.
    """
    try:
        with (folder / _FACTS_NAME).open("x", encoding="utf-8") as file:
            file.write(json.dumps(_facts(arguments, pid=pid, cwd=str(cwd)), indent=1))
    except FileExistsError:
        pass


def read_jobs(folder: Path, *, limit: int | None = None) -> list[Job]:
    """Read the records of all jobs, newest first.

    A job is `lost` if its process ended without recording how.

    Args:
        folder: `.curator/runs`.
        limit: Maximum number of jobs. None reads all.
    """
    try:
        paths = sorted(folder.iterdir(), reverse=True)
    except OSError:
        return []
    return list(itertools.islice((job for path in paths if (job := _read(path)) is not None), limit))


def _read(path: Path) -> Job | None:
    job = _read_facts(path)
    if job is None or job.state != "running" or (is_written(path / EVENTS_NAME) and _may_run(job)):
        return job
    # The job may have ended since the first read. A job records its end before it releases its log.
    job = _read_facts(path)
    return replace(job, state="lost") if job is not None and job.state == "running" else job


def _may_run(job: Job) -> bool:
    """Return whether the process of a job may be alive. Another process can hold the log of an ended job open."""
    return job.host not in ("", socket.gethostname()) or job.pid <= 0 or is_alive(job.pid)


def _read_facts(path: Path) -> Job | None:
    try:
        facts = read_small_json(path / _FACTS_NAME)
        arguments = facts.get("arguments")
        known = isinstance(arguments, list) and all(isinstance(argument, str) for argument in arguments)
        if not is_text(path.name) or facts["state"] not in get_args(State):
            return None
        return Job(
            id=path.name,
            command=_encodable(facts["command"]),
            pid=_pid(facts["pid"]),
            started=_time(facts["started"]),
            ended=None if facts["ended"] is None else _time(facts["ended"]),
            state=facts["state"],
            message=_encodable(facts["message"]),
            host=_encodable(facts.get("host", "")),
            # Kept unchanged: file names are not always valid UTF-8.
            cwd=_string(facts.get("cwd", "")),
            arguments=tuple(arguments) if known else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # The folder is damaged, or curator did not write it.
        return None


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _encodable(value: object) -> str:
    # Lone surrogates cannot be encoded as UTF-8 later.
    return _string(value).encode("utf-8", "replace").decode()


def _pid(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_PID:
        raise ValueError(value)
    return value


def _time(value: object) -> datetime:
    moment = datetime.fromisoformat(_string(value))
    # A time without a zone is ambiguous. Times at the ends of the calendar overflow in some zones.
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
