"""Stop within five seconds on Ctrl-C, SIGTERM or a lost connection, and clean up where possible."""

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import ClassVar

from curator.core.errors import ExitCode

WORDS = "interrupted: finished work is kept; run the same command again to resume"
# Afterwards the process ends without cleaning up. That loses no more than `kill -9`.
_PATIENCE = 4.0
# A second signal within this time is a copy of the first: one to the process, one to its group.
_SAME = 0.5


_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """Turn signals that ask a process to stop into KeyboardInterrupt, and end the process if it does not stop.

    Active within a `with` block. After a signal it stays active until the process ends, because the exit may be slow.
    """

    _active: ClassVar["Interrupt | None"] = None

    def __init__(self) -> None:
        self.asked = False
        """Whether a signal asked this process to stop."""
        self._since = 0.0

    def __enter__(self) -> "Interrupt":
        """Install the handlers. Signals that are ignored already (by nohup, for example) stay ignored."""
        Interrupt._active = self
        self._before = {number: signal.getsignal(number) for number in _ASKING}
        for number, before in self._before.items():
            if before is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        self._woken_before = signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        # Python runs handlers only after a long call into C has returned. This thread sees the signal at once.
        threading.Thread(target=self._insist, args=(wake,), name="interrupt", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handlers."""
        if self.asked:
            return
        Interrupt._active = None
        signal.set_wakeup_fd(self._woken_before)
        for number, before in self._before.items():
            if before is not None:
                signal.signal(number, before)
        os.close(self._woken)

    @classmethod
    def is_asked(cls) -> bool:
        """Return whether a signal asked this process to stop."""
        return cls._active is not None and cls._active.asked

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            if time.monotonic() - self._since > _SAME:
                _leave()
            return
        self.asked, self._since = True, time.monotonic()
        raise KeyboardInterrupt

    def _insist(self, wake: int) -> None:
        while numbers := os.read(wake, 64):
            if not set(_ASKING).isdisjoint(numbers):
                time.sleep(_PATIENCE)
                _leave()
        os.close(wake)


def leave_at_once() -> None:
    """End this process after its work is cleaned up. The interpreter would free all memory first, for seconds."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(ExitCode.INTERRUPTED)


def _leave() -> None:
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{show_cursor}{WORDS}\n".encode())
    os._exit(ExitCode.INTERRUPTED)
