"""The report of `check`."""

from dataclasses import dataclass
from typing import ClassVar

from curator.results.base import Report
from curator.results.display import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTask:
    """One task as `curator check` shows it."""

    name: str
    target: bool
    rows: int
    """Rows read."""
    examples: int
    """Examples that are trained on."""
    validation: int
    """Examples that are held out."""
    tokens: int
    """Tokens of the training examples."""
    longest: int
    """Tokens of the longest training example."""
    truncated: int
    left_out: dict[str, int]
    """Rows that are not trained on, by reason."""
    formats: dict[str, int]
    """Rows by the format they were recognised in, the most frequent first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Two tasks of which the smaller one is largely in the other."""

    task: str
    other: str
    share: float
    """Of the task's examples, those that are nearly the same in the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport(Report, Shown):
    """What a project's data look like."""

    _table: ClassVar[str] = "tasks"

    project: str
    target: tuple[str, ...]
    model: str
    tasks: tuple[CheckedTask, ...]
    problems: tuple[str, ...]
    overlaps: tuple[Overlap, ...]
    near_duplicates: tuple[tuple[str, int, str, int], ...]
    """(task, row, other task, row) of examples that are nearly the same, rows counted from 1; the first thousand."""
