"""Being asked to stop by Ctrl-C, SIGTERM or a lost connection: it is done within five seconds, cleanly if it can be."""

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType

from curator.errors import ExitCode

WORDS = "interrupted: what is done is kept; run the same command again to go on"
# Then it goes without tidying up, which loses no more than `kill -9` does.
_PATIENCE = 4.0
# A second request within this time is the first one, sent twice: to the process, and to its group.
_SAME = 0.5


class Interrupt:
    """Turns signals that ask a process to stop into KeyboardInterrupt, and sees to it that it does."""

    def __init__(self) -> None:
        self.asked = False
        """Whether this process was asked to stop."""
        self._since = 0.0

    def watch(self) -> None:
        """Begin; what was told to be ignored (by nohup, say) still is."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        # Python hears of a signal when a library's long computation is over; this thread hears of it at once.
        threading.Thread(target=self._insist, args=(wake,), name="interrupt", daemon=True).start()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            if time.monotonic() - self._since > _SAME:
                _leave()
            return
        self.asked, self._since = True, time.monotonic()
        raise KeyboardInterrupt

    def _insist(self, wake: int) -> None:
        asking = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        while not asking.intersection(os.read(wake, 64)):
            pass
        time.sleep(_PATIENCE)
        _leave()


def _leave() -> None:
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{show_cursor}{WORDS}\n".encode())
    os._exit(ExitCode.INTERRUPTED)
