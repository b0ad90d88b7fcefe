"""Hold the rows of an export in a temporary file, between reading and writing.

curator reads and encodes each row once. The last row decides on the form of all rows, so the rows wait in a file.
"""

import json
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

from curator.core.errors import DataError
from curator.data.rows import Content, Row
from curator.data.tokens import Encoded

_HINT = "Check free disk space and write permissions."


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledRow:
    """Hold one row that may be trained on.

    Attributes:
        place: File and line of the row, for messages.
        content: The row in one of the known formats.
        encoded: Tokens and labels of the row. None without a tokenizer.
    """

    place: str
    content: Content
    encoded: Encoded | None


class Spool:
    """Hold the rows of all tasks of an export in one temporary file.

    The file has no name, so that a killed process leaves no file. `close` frees the space.

    Args:
        folder: Folder of the export. The file lies on the disk of this folder if that is possible.

    Raises:
        DataError: The file cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = _open_near(folder)
        self._close = weakref.finalize(self, _close, self._file)
        self._starts: dict[str, int] = {}
        self._counts: dict[str, int] = {}

    def add(self, task: str, rows: Iterable[tuple[Row, Encoded | None]]) -> None:
        """Add the rows of one task.

        Args:
            task: Name of the task.
            rows: Rows of the task, each with its tokens, or with None if there is no tokenizer.

        Raises:
            DataError: The file cannot be written.
        """
        self._starts[task], self._counts[task] = self._file.tell(), 0
        for row, encoded in rows:
            # JSON in ASCII keeps halves of surrogate pairs, which UTF-8 cannot hold.
            line = json.dumps([row.place, row.content, None if encoded is None else _packed(encoded)])
            with self._reporting_full_disk():
                self._file.write(line.encode("ascii") + b"\n")
            self._counts[task] += 1
        with self._reporting_full_disk():
            self._file.flush()

    def read(self, task: str) -> Iterator[SpooledRow]:
        """Yield the rows of one task in their order. Read one task at a time.

        Raises:
            DataError: The spool is closed.
            OSError: The file cannot be read.
        """
        if self._file.closed:
            raise DataError("cannot write an export twice", hint="Export again.")
        self._file.seek(self._starts[task])
        for _ in range(self._counts[task]):
            place, content, packed = json.loads(self._file.readline())
            yield SpooledRow(place=place, content=content, encoded=None if packed is None else _unpacked(packed))

    @property
    def closed(self) -> bool:
        """Whether the file is removed."""
        return self._file.closed

    def close(self) -> None:
        """Remove the file. A closed spool may be closed again."""
        self._close()

    @contextmanager
    def _reporting_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"cannot write a temporary file for {self._folder}: {error}", hint=_HINT) from error


def _open_near(folder: Path) -> IO[bytes]:
    """Open a temporary file in the first existing folder above an export, else in the system's temporary folder.

    The system's temporary folder may lie in memory.
    """
    near = next(parent for parent in folder.parents if parent.is_dir())
    try:
        return tempfile.TemporaryFile(dir=near)
    except OSError:
        pass
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise DataError(f"cannot create a temporary file for {folder}: {error}", hint=_HINT) from error


def _close(file: IO[bytes]) -> None:
    # On a full disk, `close` fails to write its buffer, and closes the file all the same.
    with suppress(OSError):
        file.close()


def _packed(encoded: Encoded) -> list[Any]:
    """Return the fields of an encoded row in their order."""
    return [getattr(encoded, field.name) for field in fields(encoded)]


def _unpacked(values: list[Any]) -> Encoded:
    """Restore an encoded row from `_packed`. JSON has turned tuples into lists."""
    restored: list[Any] = [tuple(value) if isinstance(value, list) else value for value in values]
    return Encoded(**dict(zip((field.name for field in fields(Encoded)), restored, strict=True)))
