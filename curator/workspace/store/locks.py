"""One writer or many readers, in the order in which they came.

`flock` alone lets readers that overlap keep a writer out for ever. So each takes its turn first, on a second file, and
gives it back when it has the lock: a writer that waits for the lock lets nobody past, readers let each other.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curator.core.errors import DataError, StoreBusy
from curator.core.files import NO_LOCKS, has_no_locks

_LOCK_SECONDS = 10.0
_PAUSE, _LONGEST_PAUSE = 0.002, 0.02
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class FileLock:
    """A lock that is kept in two files beside what it is for.

    Args:
        path: What the lock is for; the files are named after it, with the endings `.lock` and `.turn`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock, self._turn = path.with_suffix(".lock"), path.with_suffix(".turn")

    @contextmanager
    def held(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the lock: alone, or beside others who do not change anything.

        Raises:
            StoreBusy: Others held it for ten seconds.
            DataError: The files cannot be made, or the file system has no locks.
        """
        deadline = time.monotonic() + _LOCK_SECONDS
        turn, lock = _open(self._turn, needed=exclusive), -1
        try:
            lock = _open(self._lock, needed=exclusive)
            # Where nobody can make these files, nobody can write either, and reading is safe.
            if turn >= 0 and lock >= 0:
                mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
                self._wait_for(turn, mode, deadline, lock)
                self._wait_for(lock, mode, deadline, lock)
                _sign(lock)
            if turn >= 0:
                os.close(turn)
                turn = -1
            yield
        finally:
            for descriptor in (turn, lock):
                if descriptor >= 0:
                    os.close(descriptor)

    def _wait_for(self, descriptor: int, mode: int, deadline: float, lock: int) -> None:
        pause = _PAUSE
        while True:
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
                    raise StoreBusy(
                        f"{self._path}: held by process {holder or 'unknown'} for over {_LOCK_SECONDS:.0f} seconds",
                        hint="Wait for that process, or stop it, and run the command again.",
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except OSError as error:
                if not has_no_locks(error):
                    raise
                raise DataError(f"{self._path}: its file system has no locks: {error}", hint=NO_LOCKS) from error


def _open(path: Path, *, needed: bool) -> int:
    """Descriptor of a lock's file; −1 where it is neither needed nor to be had."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if needed or error.errno not in (*_READ_ONLY, errno.ENOSPC):
            raise DataError(
                f"{path}: cannot be opened: {error}", hint="Is the disk full or read-only, or the folder not yours?"
            ) from error
    try:
        return os.open(path, os.O_RDONLY)
    except OSError:
        return -1


def _sign(descriptor: int) -> None:
    # Whoever waits names the last one in; a full disk must not keep people from reading.
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError:
        pass
