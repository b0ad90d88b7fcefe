"""Files: written whole, known by what is in them, named as seen from a folder."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from curator.core.errors import ConfigError, DataError
from curator.core.remote import RemoteFile, is_remote

CONFIG_NAME = "curator.toml"
# Windows opens devices by these names, whatever their ending.
_RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10)}
# In bytes: what a small file may hold.
_SMALL = 1_000_000

File = Path | RemoteFile
"""A file here or elsewhere."""


NO_LOCKS = "Several processes must not write at once, so locks are needed: move the project to a local disk."


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half written.

    Raises:
        OSError: It cannot be written, or is a device or a pipe, which a file must not take the place of.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    remove_left_over(path.parent, path.name)
    partial = path.with_name(partial_name(path.name))
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def partial_name(name: str, *, what: str = "") -> str:
    """What a file or folder is called while this process writes it, so that others know when it is left over."""
    return f".{name}.{os.getpid()}{what}.partial"


def remove_left_over(folder: Path, name: str) -> None:
    """Remove what a process that was killed had begun to write, as `partial_name` called it."""
    for path in folder.glob(f".{glob.escape(name)}.*.partial"):
        found = re.fullmatch(r"(\d+)(\.old)?\.partial", path.name[len(name) + 2 :])
        if found and int(found[1]) != os.getpid() and not _is_alive(int(found[1])):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def take_lock(descriptor: int, path: Path) -> bool:
    """Take a lock on an open file at once; whether nobody else has it.

    Raises:
        DataError: The file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if not has_no_locks(error):
            raise
        raise DataError(f"{path}: its file system has no locks: {error}", hint=NO_LOCKS) from error
    return True


def has_no_locks(error: OSError) -> bool:
    """Whether an error says that a file system does not know locks."""
    return error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` once it is filled; until then an earlier one stays whole.

    Raises:
        OSError: It cannot be made or put in place.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    short = folder.name[:50]
    partial, old = (folder.with_name(partial_name(short, what=what)) for what in ("", ".old"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(folder.parent, short)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            folder.replace(old)
        try:
            partial.replace(folder)
        except OSError:
            if old.exists():
                old.replace(folder)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)


def sha256_of(path: File) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        DataError: It cannot be read.
    """
    if isinstance(path, RemoteFile):
        return path.sha256()
    refuse_endless(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def refuse_endless(path: Path) -> None:
    """Make sure that reading a path comes to an end, which of a pipe or a device it may not.

    Raises:
        DataError: It is there, and no regular file; or its name is longer than the system allows.
    """
    try:
        endless = _is_endless(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}", hint="Name a file.") from error
    if endless:
        raise DataError(f"{path}: no regular file", hint="Name a file.")


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading bytes, if it is one: to read a pipe or a device may take forever.

    Raises:
        OSError: It is not there, cannot be read, or is no regular file.
    """
    if _is_endless(path):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return path.open("rb")


def read_small_json(path: Path) -> Any:
    """What a JSON file of at most 1 MB holds.

    Raises:
        OSError: It cannot be read, or is no regular file.
        ValueError: It is no JSON, too long or too deep.
    """
    with open_regular(path) as file:
        content = file.read(_SMALL + 1)
    if len(content) > _SMALL:
        raise ValueError(f"{path}: more than {_SMALL} bytes")
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deeply") from error


def _is_endless(path: Path) -> bool:
    return path.exists() and not path.is_file()


def located(path: str, folder: Path) -> File:
    """The file that a path stands for as seen from a folder: the inverse of `relative_to`."""
    return RemoteFile(path) if is_remote(path) else Path(os.path.normpath(folder / path))


def relative_to(path: str, folder: Path) -> str:
    """A path as seen from a folder, where both are on one drive; else absolute. An address stays what it is."""
    if is_remote(path):
        return path
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return str(path)


def umask() -> int:
    """The permissions that new files do not get; `mkdtemp` and safetensors give fewer than they do."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def refuse_links(folder: Path) -> None:
    """Make sure that nothing that is written in `.curator/` is written elsewhere.

    What is read of earlier runs is not looked at: nothing is written there any more.

    Args:
        folder: `.curator/`, which need not be there.

    Raises:
        DataError: It is a symbolic link, or holds one.
    """
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if path.is_symlink():
            raise DataError(
                f"{path}: a symbolic link, through which curator does not write",
                hint=f"Remove it if it is not yours. To keep results on another disk, mount that at {folder}.",
            )
        if path.is_dir() and path.parent != folder / "runs":
            waiting += path.iterdir()


def file_names(names: Sequence[str], *, allowed: str = "-_. ", taken: Collection[str] = ()) -> list[str]:
    """A file name without an ending for each of several names: its own where that is a valid one.

    Args:
        names: Of any kind.
        allowed: What may stand in one beside letters and digits.
        taken: Names that are not to be had.

    Returns:
        Names that are valid and different on every system, never empty or hidden.
    """
    found, there = [], {folded(name) for name in taken}
    joint = "-" if "-" in allowed else "_"
    for name in names:
        plain = "".join(c if c.isalnum() or c in allowed else "_" for c in name)
        # A file name has room for 255 bytes; this leaves some for the number and the ending.
        plain = plain.encode()[:200].decode(errors="ignore").strip(". ") or "unnamed"
        if plain.partition(".")[0].rstrip().upper() in _RESERVED:
            plain = f"_{plain}"
        file, number = plain, 2
        while folded(file) in there:
            file, number = f"{plain}{joint}{number}", number + 1
        there.add(folded(file))
        found.append(file)
    return found


def folded(name: str) -> str:
    """What file systems that tell no case, or no spelling of an accent, take a name for."""
    return unicodedata.normalize("NFKC", name).casefold()


def find_project(path: Path | str | None = None) -> Path:
    """The folder of a project, whose configuration is not read yet.

    Args:
        path: The folder; None looks for `curator.toml` here and in the folders above.

    Raises:
        ConfigError: There is no `curator.toml`.
    """
    if path is not None:
        root = Path(path).absolute()
        if not (root / CONFIG_NAME).is_file():
            raise ConfigError(f"no {CONFIG_NAME} in {root}", hint=f"Run `curator init {path}` to make a project there.")
        return root
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return folder
    raise ConfigError(
        f"no {CONFIG_NAME} in {here} or above it",
        hint="Run `curator init DIR` to make a project, or pass -p/--project DIR.",
    )
