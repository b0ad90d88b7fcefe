"""Lock a file for one writer or many readers, in order of arrival.

With `flock` alone, overlapping readers block a writer forever. Every process therefore first locks a second file, the
turn, and releases the turn when it holds the lock. A writer that waits for the lock keeps the turn, so that later
processes wait behind it.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curator.core.errors import DataError, StoreBusy
from curator.core.files import CHECK_DISK, NO_LOCKS, has_no_locks

# Longest wait while the same process holds the lock, and while processes take turns. A busy machine makes turns slow.
_LOCK_SECONDS, _QUEUE_SECONDS = 10.0, 60.0
_PAUSE, _LONGEST_PAUSE = 0.002, 0.02
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class FileLock:
    """Lock a file through two files next to it.

    Args:
        path: The file to lock. The lock files have the same stem and the suffixes `.lock` and `.turn`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock, self._turn = path.with_suffix(".lock"), path.with_suffix(".turn")

    @contextmanager
    def held(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the lock within a `with` block.

        Args:
            exclusive: True for a writer, which excludes all others. False for a reader, which excludes writers.

        Raises:
            StoreBusy: A process held the lock for ten seconds, or others took turns for a minute.
            DataError: The lock files cannot be created, or the file system has no locks.
        """
        began = time.monotonic()
        turn, lock = _open(self._turn, needed=exclusive), -1
        try:
            lock = _open(self._lock, needed=exclusive)
            # Without permission to create these files, no process can write the store, and reading is safe.
            if turn >= 0 and lock >= 0:
                mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
                self._wait_for(turn, mode, began, lock)
                self._wait_for(lock, mode, began, lock)
                _sign(lock)
            if turn >= 0:
                os.close(turn)
                turn = -1
            yield
        finally:
            for descriptor in (turn, lock):
                if descriptor >= 0:
                    os.close(descriptor)

    def _wait_for(self, descriptor: int, mode: int, began: float, lock: int) -> None:
        pause, last, changed = _PAUSE, _signature(lock), time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                now = time.monotonic()
                if (found := _signature(lock)) != last:
                    last, changed = found, now
                if now - changed > _LOCK_SECONDS or now - began > _QUEUE_SECONDS:
                    raise StoreBusy(
                        f"{self._path} is locked for over {now - began:.0f} seconds by process"
                        f" {found.partition(' ')[0] or '(unknown)'}",
                        hint="Wait for that process, or stop it. Then run the command again.",
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except OSError as error:
                if not has_no_locks(error):
                    raise
                raise DataError(f"the file system of {self._path} has no locks: {error}", hint=NO_LOCKS) from error


def _open(path: Path, *, needed: bool) -> int:
    """Return a descriptor of a lock file, or −1 if the file is unavailable and not needed."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if needed or error.errno not in (*_READ_ONLY, errno.ENOSPC):
            raise DataError(f"cannot open {path}: {error}", hint=CHECK_DISK) from error
    try:
        # Without the flag, the call waits for a writer of a pipe.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return -1


def _sign(descriptor: int) -> None:
    # A waiting process reports the last holder, and sees that the holder changes. A full disk must not prevent reading.
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {time.monotonic_ns()}".encode(), 0)
    except OSError:
        pass


def _signature(descriptor: int) -> str:
    """Return the number of the last holder, and the time at which it took the lock."""
    return os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
