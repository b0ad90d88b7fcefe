"""Files: written whole, known by what is in them, named as seen from a folder."""

import errno
import fcntl
import glob
import hashlib
import os
import re
import shutil
from pathlib import Path

from curator.errors import ConfigError, DataError

CONFIG_NAME = "curator.toml"


NO_LOCKS = (
    "Several processes must not write at once, so locks are needed: move `.curator` to a local disk and put a symbolic"
    " link in its place."
)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half written."""
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


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def relative_to(path: str, folder: Path) -> str:
    """A path as seen from a folder, where both are on one drive; else absolute."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return str(path)


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
