"""The expected time of a first selection, or what prevents it, from a dry run of the command."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curator.core.interpreters import module_command

_LOOK_SECONDS = 0.2
_PRIORITY = 10
_MOST_BYTES = 4000


@dataclass(frozen=True, slots=True)
class FirstSelection:
    """What a dry run of the first selection found.

    Attributes:
        seconds: Expected time; None if the command cannot run.
        trouble: The error and, in the next lines, its hint; "" without an error.
    """

    seconds: float | None
    trouble: str = ""


def first_selection(root: Path, stop: Callable[[], bool]) -> FirstSelection | None:
    """Return the time that `curator select` needs by the cost model, or why it cannot run. Train nothing.

    The dry run reads new files, as `check` does. It measures a step if no time is known on this machine, and stores the
    time of the step. Later, the store alone tells the time.

    Args:
        root: Folder of the project.
        stop: Returns whether to end the dry run.

    Returns:
        What the dry run found. None if it was stopped, or failed for no reason that the user can change.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - starts this interpreter, from a list of words
            [*module_command("curator", "select", "--dry-run", "--json", "-q", "-p", str(root))],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env=os.environ | {"NO_COLOR": "1"},
        )
        try:
            # The user can press keys meanwhile, so this process leaves the processors to others.
            os.setpriority(os.PRIO_PROCESS, process.pid, _PRIORITY)
            while process.poll() is None:
                if stop():
                    return None
                time.sleep(_LOOK_SECONDS)
            # The document is far smaller than the buffer of a pipe.
            text = process.stdout.read() if process.stdout is not None else b""
            if process.returncode in (2, 3, 4):
                errors.seek(0)
                words = errors.read(_MOST_BYTES).decode("utf-8", "replace")
                return FirstSelection(None, words.rpartition("error: ")[2].strip())
            return FirstSelection(float(sum(stage["seconds"] for stage in json.loads(text)["stages"])))
        except (ValueError, KeyError, TypeError, ProcessLookupError):
            return None
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
