"""Write files atomically, hash and lock files, resolve paths and make valid file names."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import socket
import stat
import time
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from curator.core.errors import ConfigError, DataError
from curator.core.folders import remove_folder
from curator.core.remote import RemoteFile, is_remote

CONFIG_NAME = "curator.toml"
# Windows opens devices by these names, with any suffix.
_RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10)}
# Seconds after which a temporary file of another machine counts as left over.
_ABANDONED = 7 * 24 * 3600
# Maximum size in bytes for `read_small_json`.
_SMALL = 1_000_000
_CHECK_FILE = "Check the path and the read permissions of the file."

LARGEST_TEXT = 2**30
"""Most bytes of a text that is read as a whole, such as a manifest."""

File = Path | RemoteFile
"""A local or a remote file."""

CHECK_DISK = "Check free disk space and write permissions."
"""Hint for a file or folder that cannot be written."""
NO_LOCKS = "Move the project to a local disk. curator needs file locks."
"""Hint for a file system without locks."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old content or the new content, never a part.

    Raises:
        OSError: The file cannot be written, or the path is a device or a pipe, which must not be replaced.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
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


def partial_name(name: str, *, suffix: str = "") -> str:
    """Return a temporary name for a file or folder. Machine and process in it show whether the writer is alive."""
    return f".{name}.{_machine()}-{os.getpid()}{suffix}.partial"


def remove_left_over(folder: Path, name: str) -> None:
    """Remove temporary files and folders of killed processes. `partial_name` gave them their names.

    Processes of other machines cannot be seen. Their files are removed after a week without a change.
    """
    for path in folder.glob(f".{glob.escape(name)}.*.partial"):
        found = re.fullmatch(r"(?:([0-9a-f]{8})-)?(\d+)(\.old)?\.partial", path.name[len(name) + 2 :])
        if found and _is_left_over(path, found[1] or _machine(), int(found[2])):
            remove_folder(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_left_over(path: Path, machine: str, pid: int) -> bool:
    if machine == _machine():
        return pid != os.getpid() and not is_alive(pid)
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED
    except OSError:
        return False


def _machine() -> str:
    """Return eight digits that differ between machines, most likely."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        # The name of a file can hold a number that no process has.
        return False
    except OSError:
        pass
    return True


def take_lock(descriptor: int, path: Path) -> bool:
    """Take an exclusive lock on an open file without waiting. Returns False if another process holds the lock.

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
        raise DataError(f"the file system of {path} has no locks: {error}", hint=NO_LOCKS) from error
    return True


def has_no_locks(error: OSError) -> bool:
    """Return whether an error means that the file system has no locks."""
    return error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` at the end of the `with` block.

    An error in the block leaves an earlier `folder` unchanged.

    Raises:
        OSError: The temporary folder cannot be created, or cannot replace `folder`.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    short = folder.name[:50]
    partial, old = (folder.with_name(partial_name(short, suffix=suffix)) for suffix in ("", ".old"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(folder.parent, short)
    remove_folder(partial)
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
        remove_folder(old)
        remove_folder(partial)


def sha256_of(path: File) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        DataError: The file cannot be read.
    """
    if isinstance(path, RemoteFile):
        return path.sha256()
    refuse_endless(path)
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}", hint=_CHECK_FILE) from error


def refuse_endless(path: Path) -> None:
    """Raise an error for a pipe or a device: reading it may never end. A missing path is accepted.

    Raises:
        DataError: The path exists and is not a regular file, or its name is longer than the system allows.
    """
    try:
        endless = _is_endless(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}", hint=_CHECK_FILE) from error
    if endless:
        raise DataError(f"not a regular file: {path}", hint="Use the path of a regular file.")


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading bytes. Pipes and devices are refused: reading them may never end.

    Raises:
        OSError: The file does not exist, cannot be read, or is not a regular file.
    """
    # Without the flag, the call waits for a writer of a pipe. The flag has no effect on a regular file.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Looks at the open file: another process may replace the path at any time.
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_whole_text(path: Path, *, most: int = LARGEST_TEXT, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Read a regular file of text, of limited size.

    Args:
        path: The file.
        most: Largest size in bytes.
        encoding: Encoding of the text.
        errors: Treatment of invalid bytes, as in `bytes.decode`.

    Raises:
        OSError: The file cannot be read, is not a regular file, or is larger.
        UnicodeDecodeError: The text is not valid.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Python reserves memory for all bytes that a call asks for.
        content = file.read(size + 1) if size <= most else b""
        if len(content) > size:
            # The file grows.
            content += file.read(max(most + 1 - len(content), 0))
    if size > most or len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes", str(path))
    return content.decode(encoding, errors)


def read_small_json(path: Path) -> Any:
    """Read a JSON file of at most 1 MB.

    Raises:
        OSError: The file cannot be read, is not a regular file, or is larger than 1 MB.
        ValueError: The file is not valid JSON, or is nested too deeply.
    """
    try:
        return json.loads(read_whole_text(path, most=_SMALL))
    except RecursionError as error:
        raise ValueError(f"JSON is nested too deeply: {path}") from error


def _is_endless(path: Path) -> bool:
    return path.exists() and not path.is_file()


def located(path: str, folder: Path) -> File:
    """Return the file of a path that is relative to a folder. Inverse of `relative_to`."""
    return RemoteFile(path) if is_remote(path) else Path(os.path.normpath(folder / path))


def relative_to(path: str, folder: Path) -> str:
    """Return a path relative to a folder. Paths on another drive and remote addresses stay unchanged."""
    if is_remote(path):
        return path
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return str(path)


def umask() -> int:
    """Return the file mode mask of this process. `mkdtemp` and safetensors ignore the mask and restrict more."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def check_results_folder(folder: Path) -> None:
    """Raise an error for symbolic links, pipes, sockets and devices in `.curator/`.

    So curator writes nowhere else, and waits for no other program.
    Folders of earlier jobs are not checked: curator reads regular files there, and writes nothing.

    Args:
        folder: `.curator/`. The folder need not exist.

    Raises:
        DataError: The folder is or contains such an entry, or cannot be read.
    """
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise DataError(
                    f"symbolic link in the results folder: {path}",
                    hint=f"Remove the link. To store results on another disk, mount the disk at {folder}.",
                )
            if stat.S_ISDIR(mode):
                waiting += path.iterdir() if path.parent != folder / "runs" else ()
            elif not stat.S_ISREG(mode):
                raise DataError(
                    f"not a regular file in the results folder: {path}",
                    hint="Remove the pipe, socket or device. curator did not create it.",
                )
        except (FileNotFoundError, NotADirectoryError):
            # Another process of curator has removed it.
            continue
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}", hint=_CHECK_FILE) from error


def file_names(names: Sequence[str], *, allowed: str = "-_. ", taken: Collection[str] = ()) -> list[str]:
    """Make valid, distinct file names without suffix. Names that are already valid stay unchanged.

    Args:
        names: Any texts, for example names of tasks.
        allowed: Characters that a file name may contain besides letters and digits.
        taken: File names that must not be used.

    Returns:
        One file name for each name, valid and distinct on every system, never empty or hidden.
    """
    found, there = [], {folded(name) for name in taken}
    joint = "-" if "-" in allowed else "_"
    for name in names:
        plain = "".join(c if c.isalnum() or c in allowed else "_" for c in name)
        # File systems allow 255 bytes. The rest is for the number and the suffix.
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
    """Normalize a name as file systems do that ignore case or the encoding of accents."""
    return unicodedata.normalize("NFKC", name).casefold()


def find_project(path: Path | str | None = None) -> Path:
    """Find the folder of a project, without reading its configuration.

    Args:
        path: The folder. None searches the current folder and its parents for `curator.toml`.

    Raises:
        ConfigError: `curator.toml` is missing, or not a file.
    """
    if path is not None:
        root = Path(path).absolute()
        if not _is_project(root):
            raise ConfigError(f"no {CONFIG_NAME} in {root}", hint=f"Run `curator init {path}` to create a project.")
        return root
    here = Path.cwd()
    for folder in (here, *here.parents):
        if _is_project(folder):
            return folder
    raise ConfigError(
        f"no {CONFIG_NAME} in {here} or its parents",
        hint="Run `curator init DIR` to create a project, or pass -p/--project DIR.",
    )


def _is_project(folder: Path) -> bool:
    path = folder / CONFIG_NAME
    if os.path.lexists(path) and not path.is_file():
        raise ConfigError(f"not a file, or a broken link: {path}", hint="Replace it by a configuration.")
    return path.is_file()
