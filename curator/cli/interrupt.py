"""Being asked to stop by Ctrl-C, SIGTERM or a lost connection: it is done within five seconds, cleanly if it can be."""

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType

from curator.core.errors import ExitCode

WORDS = "interrupted: what is done is kept; run the same command again to go on"
# Then it goes without tidying up, which loses no more than `kill -9` does.
_PATIENCE = 4.0
# A second request within this time is the first one, sent twice: to the process, and to its group.
_SAME = 0.5


_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """Turns signals that ask a process to stop into KeyboardInterrupt, and sees to it that it does.

    It holds within a `with` block, and on after it in a process that was asked: its way out may be long.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether this process was asked to stop."""
        self._since = 0.0

    def __enter__(self) -> "Interrupt":
        """Begin; what was told to be ignored (by nohup, say) still is."""
        self._before = {number: signal.getsignal(number) for number in _ASKING}
        for number, before in self._before.items():
            if before is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        self._woken_before = signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        # Python hears of a signal when a library's long computation is over; this thread hears of it at once.
        threading.Thread(target=self._insist, args=(wake,), name="interrupt", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave signals as they were found."""
        if self.asked:
            return
        signal.set_wakeup_fd(self._woken_before)
        for number, before in self._before.items():
            if before is not None:
                signal.signal(number, before)
        os.close(self._woken)

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


def _leave() -> None:
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{show_cursor}{WORDS}\n".encode())
    os._exit(ExitCode.INTERRUPTED)
