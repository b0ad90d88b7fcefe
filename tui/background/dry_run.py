"""The expected time of a first selection, from a dry run of the command in its own process."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from curator.core.interpreters import module_command

_LOOK_SECONDS = 0.2
_PRIORITY = 10


def seconds_of_select(root: Path, stop: Callable[[], bool]) -> float | None:
    """Return the time that `curator select` needs by the cost model, in seconds. Train nothing.

    The dry run reads new files, as `check` does. It measures a step if no time is known on this machine, and stores the
    time of the step. Later, the store alone tells the time.

    Args:
        root: Folder of the project.
        stop: Returns whether to end the dry run.

    Returns:
        The time. None if the dry run was stopped or cannot plan, for example because a file is bad.
    """
    process = subprocess.Popen(  # noqa: S603 - starts this interpreter, from a list of words
        [*module_command("curator", "select", "--dry-run", "--json", "-q", "-p", str(root))],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
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
        return float(sum(stage["seconds"] for stage in json.loads(text)["stages"]))
    except (ValueError, KeyError, TypeError, ProcessLookupError):
        return None
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
