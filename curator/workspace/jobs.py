"""Runs as processes of their own: launched from a front end, they live on when it ends.

A launched run has its folder and its locked event log before its process begins, so that it is seen from the first
moment, also if it dies before it can say a word. What it prints goes to `output.txt` beside its events.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from curator.core.errors import ConfigError, DataError
from curator.core.events import EventLog, is_written
from curator.core.files import open_regular
from curator.workspace.job_log import EVENTS_NAME, LAUNCHED, Run, make_run_folder, write_launched

_OUTPUT_NAME = "output.txt"
_MOST_BYTES = 64 * 1024


def launch(folder: Path, arguments: Sequence[str], *, cwd: Path) -> str:
    """Start a curator command as a run of its own, which does not end with this process.

    To resume a run, launch its arguments again.

    Args:
        folder: `.curator/runs` of the project that the command works on.
        arguments: The command line after `curator`. The command must be one that works on a project, as `check` or
            `select` do: no other says how it ended.
        cwd: Working folder of the process, which relative paths in the arguments start from.

    Returns:
        The run's id.

    Raises:
        DataError: The process cannot be started, or the run's folder cannot be written.
    """
    try:
        path = make_run_folder(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}", hint="Is the disk full or read-only?") from error
    try:
        process = _start(path, arguments, cwd)
    except (OSError, ValueError) as error:
        shutil.rmtree(path, ignore_errors=True)
        raise DataError(f"curator {' '.join(arguments)}: cannot be started in {cwd}: {error}") from error
    # Takes note of its end: until then the process would stay in the table of processes, and its number with it.
    threading.Thread(target=process.wait, name=f"run {path.name}", daemon=True).start()
    return path.name


def stop(folder: Path, run: Run) -> None:
    """Ask a run to stop; it keeps what it has done, and ends as `interrupted`.

    Args:
        folder: `.curator/runs`.
        run: One of `read_runs`.

    Raises:
        ConfigError: The run is on another machine, or has ended.
        DataError: The process belongs to somebody else.
    """
    if run.state == "running" and run.host not in ("", socket.gethostname()):
        raise ConfigError(f"run {run.id} is on {run.host}", hint=f"Stop it there: kill {run.pid}")
    # A process number says nothing once its process has ended, for it is given to others; the lock cannot be.
    events = folder / run.id / EVENTS_NAME
    if run.state != "running" or run.pid <= 0 or not is_written(events) or not _has_open(run.pid, events):
        raise ConfigError(f"run {run.id} is not running any more", hint="There is nothing to stop.")
    try:
        os.kill(run.pid, signal.SIGTERM)
    except ProcessLookupError:
        raise ConfigError(f"run {run.id} is not running any more", hint="There is nothing to stop.") from None
    except OSError as error:
        problem = f"run {run.id}: process {run.pid} cannot be stopped: {error}"
        raise DataError(problem, hint="Did another user start it?") from error


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open: what a run says of itself may be another's number, or made up."""
    import psutil

    try:
        files = psutil.Process(pid).open_files()
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, OSError):
        # Another user's: the system will say whether it may be stopped.
        return True
    return any(os.path.realpath(file.path) == os.path.realpath(path) for file in files)


def last_words(folder: Path, run_id: str, *, lines: int = 200) -> list[str]:
    """The last lines that a launched run printed; none where it printed nothing or was not launched.

    Args:
        folder: `.curator/runs`.
        run_id: The run.
        lines: At most so many; of the last 64 kB. They are not cleaned.
    """
    try:
        with open_regular(folder / run_id / _OUTPUT_NAME) as file:
            start = max(file.seek(0, os.SEEK_END) - _MOST_BYTES, 0)
            file.seek(start)
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    words = text.removesuffix("\n").split("\n") if text else []
    if start and len(words) > 1:
        # The first is most likely the rest of a longer line.
        del words[0]
    return words[-lines:] if lines > 0 else []


def _start(path: Path, arguments: Sequence[str], cwd: Path) -> "subprocess.Popen[bytes]":
    events = os.open(path / EVENTS_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    # The child's descriptor shares this lock: it holds until both are closed.
    log = EventLog(path / EVENTS_NAME, descriptor=events)
    try:
        with (path / _OUTPUT_NAME).open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - starts this interpreter, from a list of words
                # -P: what lies in the working folder must not stand in for a module of Python.
                [sys.executable, "-P", "-m", "curator", *arguments],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[events],
                env=os.environ | {LAUNCHED: f"{path.name}:{events}", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
            )
        # Where the disk is full, the process itself will say so; it must not run on without its folder.
        with contextlib.suppress(OSError):
            write_launched(path, arguments, pid=process.pid, cwd=cwd.absolute())
        return process
    finally:
        log.close()
