"""Tells when the configuration or a task file has changed on disk. The screens then say what is stale."""

from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from curator.core.files import CONFIG_NAME

# A look at many files takes longer. It then happens less often.
_MANY, _SELDOM = 500, 10


class FileWatcher:
    """Looks at the times of the files of a project. Without other files it looks at the configuration.

    Args:
        root: Folder of the project.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._looks = 0
        # One thread reads the project, and another looks at the files.
        self._lock = Lock()
        self._times = self._times_of(())

    def watch(self, names: Iterable[str]) -> None:
        """Look at these files from now on. The time of a file that was watched before stays as it was.

        Args:
            names: Paths of the task files, absolute or relative to the project.
        """
        now = self._times_of(names)
        with self._lock:
            self._times = {path: self._times.get(path, time) for path, time in now.items()}

    def has_changed(self) -> bool:
        """Return whether a file has changed since the last look, or since `watch` named it."""
        with self._lock:
            self._looks += 1
            if len(self._times) > _MANY and self._looks % _SELDOM:
                return False
            before, self._times = self._times, {path: _time(path) for path in self._times}
            return before != self._times

    def _times_of(self, names: Iterable[str]) -> dict[Path, int]:
        files = {self._root / name for name in names}
        # The time of a folder changes when a file is added or removed.
        return {path: _time(path) for path in {self._root / CONFIG_NAME} | files | {path.parent for path in files}}


def _time(path: Path) -> int:
    """Return the time of the last change of a file, in nanoseconds; 0 without the file."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
