"""Walk folders and match globs. The time grows with the number of files, and not with the depth of folders.

The walks of `pathlib` and `os` call themselves for each level. They end with a `RecursionError` in a folder of another
person that is 1,000 levels deep. A glob of `pathlib` visits a folder again for each `**`. It also leaves out a folder
that the user may not read.
"""

import contextlib
import fnmatch
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

_MOST_FOLDERS = 100_000
_MOST_ENTRIES = 1_000_000


def entries_below(folder: Path) -> Iterator[Path]:
    """Yield all files and links in a folder and in the folders below. Links are not followed.

    Args:
        folder: The folder.

    Raises:
        OSError: A folder cannot be read, or a path is too long for the system.
    """
    waiting = [folder]
    while waiting:
        for entry in _entries(waiting.pop()):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                yield Path(entry.path)


def matching(pattern: str, folder: Path) -> list[Path]:
    """Return what a glob covers, sorted. Like in the shell, a wildcard matches no name that starts with a dot.

    Args:
        pattern: `*`, `?` and `[…]` match within a name, and `**` matches any number of folders. `**` follows no links.
        folder: Folder that a relative pattern refers to.

    Raises:
        ValueError: The pattern is empty, contains a null character, or has `**` as a part of a name. Or the pattern
            covers too many entries, which a few links in a circle can cause.
        OSError: A folder cannot be read, or a path is too long for the system.
    """
    parts = PurePath(pattern).parts
    if not parts:
        raise ValueError("empty pattern")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("`**` is part of a name")
    found = [folder]
    for part in parts[:-1]:
        found = _at_most(_MOST_FOLDERS, (path for path in _matched(part, found) if path.is_dir()))
    return sorted(_at_most(_MOST_ENTRIES, _matched(parts[-1], found)))


def remove_folder(folder: Path) -> None:
    """Remove a folder with everything in it, if the folder exists. What cannot be removed stays."""
    # `shutil` calls itself for each level, too.
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)


def _at_most(most: int, paths: Iterable[Path]) -> list[Path]:
    found = list(itertools.islice(paths, most + 1))
    if len(found) > most:
        raise ValueError(f"it covers over {most:,} entries, perhaps by links in a circle")
    return found


def _matched(part: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Yield what one part of a pattern covers in each of the folders."""
    if part == "**":
        yield from _with_folders_below(folders)
    elif not any(sign in part for sign in "*?["):
        yield from (path for folder in folders if _exists(path := folder / part))
    else:
        name, hidden = re.compile(fnmatch.translate(part)), part.startswith(".")
        for folder in folders:
            for entry in _entries(folder):
                if name.match(entry.name) and (hidden or not entry.name.startswith(".")):
                    yield Path(entry.path)


def _with_folders_below(folders: Sequence[Path]) -> Iterator[Path]:
    waiting, found = list(folders), set[Path]()
    while waiting:
        if (folder := waiting.pop()) not in found:
            found.add(folder)
            yield folder
            inner = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
            waiting += [Path(entry.path) for entry in inner if entry.is_dir(follow_symlinks=False)]


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return list(entries)


def _exists(path: Path) -> bool:
    """Return whether there is such an entry, also a broken link. `os.path.lexists` hides a folder that is closed."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
