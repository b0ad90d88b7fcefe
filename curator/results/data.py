"""The reports of `check` and `check --store`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from curator.results.base import Report
from curator.results.display import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTask:
    """One task in the report of `curator check`."""

    name: str
    target: bool
    rows: int
    """Rows read."""
    examples: int
    """Training examples."""
    validation: int
    """Held-out examples."""
    tokens: int
    """Tokens of the training examples."""
    longest: int
    """Tokens of the longest training example."""
    truncated: int
    left_out: dict[str, int]
    """Rows without a training example, by reason."""
    formats: dict[str, int]
    """Rows by recognised format, most frequent format first."""
    bad_rows: dict[str, int] = field(default_factory=dict)
    """Rows that cannot be used, by reason."""
    problem: str = ""
    """Why the task cannot be used at all. Empty if it can."""
    notes: tuple[str, ...] = ()
    """What curator assumed about the task's files, and which parts of them it leaves out."""
    test: int = 0
    """Examples of the test part, which play no part in any choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Two tasks with many nearly equal examples."""

    task: str
    other: str
    share: float
    """Share of the examples of `task` that have a nearly equal example in `other`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateTasks:
    """Two tasks with nearly equal examples, or one task with nearly equal examples of its own."""

    task: str
    """Name of the task. `validation of NAME` are the held-out examples of a target."""
    other: str
    pairs: int
    """Pairs of nearly equal examples. A large group of copies counts only some of its pairs."""
    examples: int
    """Examples of `task` in these pairs."""
    other_examples: int
    """Examples of `other` in these pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport(Report, Shown):
    """Tasks, sizes and problems of a project's data."""

    _table: ClassVar[str] = "tasks"

    project: str
    target: tuple[str, ...]
    model: str
    tasks: tuple[CheckedTask, ...]
    problems: tuple[str, ...]
    overlaps: tuple[Overlap, ...]
    duplicates: tuple[DuplicateTasks, ...] = ()
    """All pairs of tasks with nearly equal examples, the most pairs of examples first."""
    near_duplicates: tuple[tuple[str, int, str, int], ...]
    """(task, row, other task, row) of nearly equal examples. Rows count from 1. At most a thousand pairs."""
    notes: tuple[str, ...] = ()
    """The problems that the counts of the tasks do not show. Tasks with the same problem share a line."""
    error: str = ""
    """Why the project cannot be used. Empty if it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTable:
    """Readable and lost rows of one table of the store."""

    name: str
    rows: int
    """Rows that can be read."""
    lost: tuple[tuple[int, int | None], ...] = ()
    """First and last number of each range of unreadable rows, from 0. None stands for an unknown last number."""
    words: str = ""
    """DuckDB's error for the first unreadable row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport(Report, Shown):
    """State of the store."""

    _table: ClassVar[str] = "tables"

    store: Path
    sound: bool
    """Whether the store has no problem."""
    tables: tuple[StoreTable, ...]
    problems: tuple[str, ...]
    """One message for each problem."""
    backups: tuple[tuple[Path, int], ...] = ()
    """Copies that upgrades made, and their size in bytes."""

    def to_json(self) -> dict[str, Any]:
        """Return the document that `curator check --store --json` prints."""
        return Report.to_json(self) | {"backups": [{"path": str(path), "bytes": size} for path, size in self.backups]}
