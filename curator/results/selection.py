"""The report of `select`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from curator.core.interval import Interval
from curator.results.base import Estimated, Report
from curator.results.display import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedTask:
    """One auxiliary task and what the selection made of it."""

    name: str
    examples: int
    tokens: int
    affinity: float
    affinity_standard_error: float | None
    """None where the task was in all or in none of the sampled subsets."""
    selected: bool
    weight: float
    """How much it counts where it is selected: 0.5 for half of its examples, 2 for all of them twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionResult(Report, Estimated, Shown):
    """A selection."""

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
    """After really fine-tuning on the selection, if that was done."""
    reference: dict[str, float]
    """Estimated loss of `all_tasks` and `target_only`."""
    indistinguishable: tuple[str, ...]
    """Which of these the selection cannot be told apart from."""
    steps: tuple[dict[str, Any], ...]
    manifest: Path | None
    cached: bool

    @property
    def selected(self) -> list[str]:
        """Names of the selected tasks."""
        return [task.name for task in self.tasks if task.selected]

    @property
    def excluded(self) -> list[str]:
        """Names of the others."""
        return [task.name for task in self.tasks if not task.selected]
