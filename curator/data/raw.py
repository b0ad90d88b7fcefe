"""Types of what readers yield: the rows of a file as they stand there, and notes about the file."""

from dataclasses import dataclass
from typing import Any

from curator.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Note:
    """Say what curator assumed about a file that does not state it, such as the delimiter of its cells."""

    text: str
    """One sentence without the name of the file."""


RawRow = tuple[int, dict[str, Any] | DataError | Note]
"""Line in the file from 1 (0 if rows are not lines), and the fields of the row, the error of the row, or a note."""
