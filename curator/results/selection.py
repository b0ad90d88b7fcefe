"""The report of `select`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from curator.core.interval import Interval
from curator.results.base import Estimated, Report
from curator.results.display import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedTask:
    """One auxiliary task of a selection."""

    name: str
    examples: int
    tokens: int
    affinity: float
    affinity_standard_error: float | None
    """None if all or none of the sampled subsets contain the task."""
    selected: bool
    weight: float
    """Weight of a selected task: 0.5 trains on half of its examples, 2 trains on all of them twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionResult(Report, Estimated, Shown):
    """A selection with its estimated loss."""

    _table: ClassVar[str] = "tasks"
    _document: ClassVar[tuple[str, ...]] = (
        "project",
        "name",
        "target",
        "method",
        "selected",
        "excluded",
        "estimated_loss",
        "estimated_loss_low",
        "estimated_loss_high",
        "calibrated",
        "measured_loss",
        "reference",
        "indistinguishable",
        "tasks",
        "steps",
        "dropped_examples",
        "manifest",
        "cached",
    )

    project: str
    name: str
    target: tuple[str, ...]
    method: str
    tasks: tuple[SelectedTask, ...]
    estimate: Interval
    calibrated: bool
    measured_loss: float | None
    """Loss after fine-tuning on the selection. None if it was not measured."""
    reference: dict[str, float]
    """Estimated loss of `all_tasks` and `target_only`. With dropped examples, also of the selection `with_dropped`."""
    indistinguishable: tuple[str, ...]
    """Names of the references whose difference to the selection is noise."""
    steps: tuple[dict[str, Any], ...]
    dropped_examples: tuple[dict[str, Any], ...]
    """Task, hash, number and place of each row that the selection drops."""
    manifest: Path | None
    cached: bool

    @property
    def selected(self) -> list[str]:
        """Names of the selected tasks."""
        return [task.name for task in self.tasks if task.selected]

    @property
    def excluded(self) -> list[str]:
        """Names of the other auxiliary tasks."""
        return [task.name for task in self.tasks if not task.selected]
