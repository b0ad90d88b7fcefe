"""Tells when the configuration or a task file has changed on disk. The screens then say what is stale."""

from collections.abc import Iterable
from pathlib import Path

from curator.core.files import CONFIG_NAME

# A look at many files takes longer. It then happens less often.
_MANY, _SELDOM = 500, 10


class FileWatcher:
    """Looks at the times of the files of a project.

    Args:
        root: Folder of the project.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: tuple[frozenset[Path], int] | None = None
        self._looks = 0

    def start(self, names: Iterable[str]) -> None:
        """Remember the files as they are, if they are others than before.

        Args:
            names: Paths of the task files, absolute or relative to the project.
        """
        files = self._files(names)
        if self._known is None or self._known[0] != files:
            self._known = files, _times(files)

    def has_changed(self, names: Iterable[str]) -> bool:
        """Return whether a file has changed since the last look. The first look at other files finds no change.

        Args:
            names: As for `start`.
        """
        files = self._files(names)
        self._looks += 1
        if len(files) > _MANY and self._looks % _SELDOM:
            return False
        now = files, _times(files)
        before, self._known = self._known, now
        return before is not None and before[0] == now[0] and before[1] != now[1]

    def _files(self, names: Iterable[str]) -> frozenset[Path]:
        found = {self._root / name for name in names}
        # The time of a folder changes when a file is added or removed.
        return frozenset({self._root / CONFIG_NAME} | found | {path.parent for path in found})


def _times(files: frozenset[Path]) -> int:
    return hash(tuple(_time(path) for path in sorted(files)))


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
