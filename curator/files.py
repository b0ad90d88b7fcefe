"""Files: written whole, known by what is in them, named as seen from a folder."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curator.errors import ConfigError, DataError
from curator.remote import RemoteFile, is_remote

CONFIG_NAME = "curator.toml"

File = Path | RemoteFile
"""A file here or elsewhere."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` once it is filled; until then an earlier one stays whole.

    Raises:
        OSError: It cannot be made or put in place.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    stem = f".{folder.name[:50]}.{os.getpid()}"
    partial, old = folder.with_name(f"{stem}.partial"), folder.with_name(f"{stem}.old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
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
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


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


def plain_name(name: str) -> str:
    """A name of any kind as that of a file or folder: letters, digits, dashes and dots, never empty or hidden."""
    plain = "".join(c if c.isalnum() or c in "-_.+ " else "_" for c in name)
    return plain.encode()[:200].decode(errors="ignore").strip(". ") or "unnamed"


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
