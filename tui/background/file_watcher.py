"""Tells when the configuration or a task file has changed on disk. The screens then say what is stale."""

from pathlib import Path
from typing import TYPE_CHECKING

from curator.core.files import CONFIG_NAME

if TYPE_CHECKING:
    from tui.state.snapshot import Snapshot

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

    def has_changed(self, snapshot: "Snapshot | None") -> bool:
        """Return whether a file has changed since the last look. The first look at other files finds no change.

        Args:
            snapshot: The project as it was read last. It names the task files.
        """
        files = {self._root / CONFIG_NAME}
        if snapshot is not None and snapshot.corpus is not None:
            found = {self._root / path for task in snapshot.corpus.tasks for path, _, _ in task.version.files}
            # The time of a folder changes when a file is added or removed.
            files |= found | {path.parent for path in found}
        self._looks += 1
        if len(files) > _MANY and self._looks % _SELDOM:
            return False
        now = frozenset(files), hash(tuple(_time(path) for path in sorted(files)))
        before, self._known = self._known, now
        return before is not None and before[0] == now[0] and before[1] != now[1]


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
