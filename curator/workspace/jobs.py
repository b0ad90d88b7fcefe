"""Start and stop jobs: processes that continue when the front end that launched them ends.

A launched job has its folder and its locked event log before its process starts. Front ends therefore list the job at
once, even if its process dies early. The output of the process goes to `output.txt` next to the event log.
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from curator.core.errors import ConfigError, DataError
from curator.core.events import EventLog, is_written
from curator.core.files import CHECK_DISK, open_regular
from curator.core.folders import remove_folder
from curator.core.interpreters import module_command
from curator.workspace.job_log import EVENTS_NAME, LAUNCHED, Job, make_job_folder, write_launched

_OUTPUT_NAME = "output.txt"
_MOST_BYTES = 64 * 1024


def launch(folder: Path, arguments: Sequence[str], *, cwd: Path) -> str:
    """Start a curator command as a job that outlives this process.

    To resume a job, launch its arguments again.

    Args:
        folder: `.curator/runs` of the project that the command works on.
        arguments: The command line after `curator`. The command must work on a project, as `check` and `select` do.
            Other commands do not record how they ended.
        cwd: Working folder of the process. Relative paths in the arguments start from it.

    Returns:
        Id of the job.

    Raises:
        DataError: The process cannot be started, or the job's folder cannot be written.
    """
    try:
        path = make_job_folder(folder)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error}", hint=CHECK_DISK) from error
    try:
        process = _start(path, arguments, cwd)
    except (OSError, ValueError) as error:
        remove_folder(path)
        raise DataError(
            f"cannot start `curator {' '.join(arguments)}` in {cwd}: {error}",
            hint="Check the folder and the arguments.",
        ) from error
    # Reaps the process: without a wait, its id stays in the process table.
    threading.Thread(target=process.wait, name=f"job {path.name}", daemon=True).start()
    return path.name


def stop(folder: Path, job: Job) -> None:
    """Ask a job to stop. The job keeps its finished work and ends as `interrupted`.

    Args:
        folder: `.curator/runs`.
        job: A record that `read_jobs` returned.

    Raises:
        ConfigError: The job runs on another machine, or has ended.
        DataError: The system refuses to stop the process, for example because another user owns it.
    """
    if job.state == "running" and job.host not in ("", socket.gethostname()):
        raise ConfigError(f"job {job.id} runs on another machine: {job.host}", hint=f"Run `kill {job.pid}` there.")
    # The system reuses the id of an ended process. A lock on the event log proves that the job is alive.
    events = folder / job.id / EVENTS_NAME
    if job.state != "running" or job.pid <= 0 or not is_written(events) or not _has_open(job.pid, events):
        raise _ended(job)
    try:
        os.kill(job.pid, signal.SIGTERM)
    except ProcessLookupError:
        raise _ended(job) from None
    except OSError as error:
        raise DataError(
            f"cannot stop job {job.id} (process {job.pid}): {error}", hint="Stop it as the user who started it."
        ) from error


def _ended(job: Job) -> ConfigError:
    return ConfigError(f"job has already ended: {job.id}", hint="Run `curator status` to list the jobs.")


def _has_open(pid: int, path: Path) -> bool:
    """Return whether a process has a file open. The recorded process id may be reused or forged."""
    import psutil

    try:
        files = psutil.Process(pid).open_files()
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, OSError):
        # Another user's process: `os.kill` reports whether this user may stop it.
        return True
    return any(os.path.realpath(file.path) == os.path.realpath(path) for file in files)


def last_words(folder: Path, job_id: str, *, lines: int = 200) -> list[str]:
    """Return the last lines of a launched job's output. Empty if the job printed nothing or was not launched.

    Args:
        folder: `.curator/runs`.
        job_id: Id of the job.
        lines: Maximum number of lines, within the last 64 kB. The text is not cleaned for a terminal.
    """
    try:
        with open_regular(folder / job_id / _OUTPUT_NAME) as file:
            start = max(file.seek(0, os.SEEK_END) - _MOST_BYTES, 0)
            file.seek(start)
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    words = text.removesuffix("\n").split("\n") if text else []
    if start and len(words) > 1:
        # The first line is probably cut.
        del words[0]
    return words[-lines:] if lines > 0 else []


def _start(path: Path, arguments: Sequence[str], cwd: Path) -> "subprocess.Popen[bytes]":
    events = os.open(path / EVENTS_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    # The child's descriptor shares this lock, which holds until both processes close it.
    log = EventLog(path / EVENTS_NAME, descriptor=events)
    try:
        with (path / _OUTPUT_NAME).open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - starts this interpreter, from a list of words
                [*module_command("curator", *arguments)],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[events],
                env=os.environ | {LAUNCHED: f"{path.name}:{events}", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
            )
        # On a full disk, the process itself reports the error. Its folder must stay while it runs.
        with contextlib.suppress(OSError):
            write_launched(path, arguments, pid=process.pid, cwd=cwd.absolute())
        return process
    finally:
        log.close()
