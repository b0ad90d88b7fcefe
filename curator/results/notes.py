"""The report of `note`."""

from dataclasses import dataclass
from typing import ClassVar

from curator.results.base import Report
from curator.results.display import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteEntry:
    """A note on a task, an example or a selection."""

    kind: str
    """`task`, `example` or `selection`."""
    name: str
    """Name of the task or of the selection. For an example, name of its task."""
    sha256: str
    """Hash of the example's content. Empty for a task or a selection."""
    text: str
    made: str
    """Time in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesReport(Report, Shown):
    """Notes of a project."""

    _table: ClassVar[str] = "notes"

    notes: tuple[NoteEntry, ...]
