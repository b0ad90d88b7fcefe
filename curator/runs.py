"""What was run, and what became of it: one folder per run under `.curator/runs/`.

    run.json        command, process, start, state
    events.jsonl    every event, as it happened

A run is recorded from its first stage on; a command that finds everything done leaves no trace.
"""

import itertools
import json
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

from curator.events import Event, EventLog, StageStarted, is_written

State = Literal["running", "done", "failed", "interrupted", "lost"]


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
        """Begin; nothing is written before the first stage."""
        return self

    def __call__(self, event: Event) -> None:
        """Record one event."""
        if self._log is None:
            if not isinstance(event, StageStarted):
                return
            self._begin()
        assert self._log is not None
        self._log(event)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Record how the run ended."""
        if self._log is None:
            return
        state: State = "done" if kind is None else "failed"
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            state = "interrupted"
        try:
            self._write(state=state, ended=_now(), message="" if error is None else str(error))
            self._log.close()
        except OSError:
            # A disk that is full has already made itself heard; it must not hide how the run really ended.
            if error is None:
                raise

    def _begin(self) -> None:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        names = (f"{moment}-{os.getpid()}" + (f"-{number}" if number else "") for number in itertools.count())
        self._path = next(path for name in names if not (path := self._root / name).exists())
        self._log = EventLog(self._path / "events.jsonl")
        command = " ".join(["curator", *sys.argv[1:]])
        self._write(command=command, pid=os.getpid(), started=_now(), ended=None, state="running", message="")

    def _write(self, **facts: Any) -> None:
        self._facts |= facts
        partial = self._path / "run.json.partial"
        partial.write_text(json.dumps(self._facts, indent=1), encoding="utf-8")
        partial.replace(self._path / "run.json")


def read_runs(folder: Path) -> list[Run]:
    """All runs, newest first; one whose process is gone without a word is `lost`.

    Args:
        folder: `.curator/runs`.
    """
    runs = []
    for path in sorted(folder.glob("*/run.json"), reverse=True):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            state = facts["state"]
            if state not in get_args(State):
                continue
            if state == "running" and not is_written(path.parent / "events.jsonl"):
                state = "lost"
            ended = facts["ended"] and datetime.fromisoformat(facts["ended"])
            runs.append(
                Run(
                    id=path.parent.name,
                    command=str(facts["command"]),
                    pid=int(facts["pid"]),
                    started=datetime.fromisoformat(facts["started"]),
                    ended=ended,
                    state=state,
                    message=str(facts["message"]),
                )
            )
        except (OSError, ValueError, KeyError, TypeError):
            # A folder that somebody else made or damaged is no run of ours.
            continue
    return runs


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
