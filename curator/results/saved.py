"""The report of `selections`."""

from dataclasses import dataclass
from typing import ClassVar

from curator.results.base import Report
from curator.results.display import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSelectionEntry:
    """A saved or deleted selection."""

    name: str
    target: str
    """Names of the targets, joined by `+`."""
    method: str
    tasks: int
    """Number of selected tasks."""
    estimated_loss: float
    """Estimated target loss when it was saved, nats per target token."""
    measured_loss: float | None
    """Measured loss that its manifest records, nats per target token. None if it records none."""
    note: str
    created: str
    """Time in UTC."""
    deleted: bool
    """Whether it is deleted, and can be restored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSelectionsReport(Report, Shown):
    """Selections of a project, newest first, then the deleted ones."""

    _table: ClassVar[str] = "selections"

    selections: tuple[SavedSelectionEntry, ...]
