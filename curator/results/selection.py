"""The report of `select`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from curator.results.base import SCHEMA_VERSION, one_or_list
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
class SelectionResult(Shown):
    """A selection."""

    _table: ClassVar[str] = "tasks"

    project: str
    name: str
    target: tuple[str, ...]
    method: str
    tasks: tuple[SelectedTask, ...]
    estimated_loss: float
    estimated_loss_low: float
    estimated_loss_high: float
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

    def to_json(self) -> dict[str, Any]:
        """As `curator select --json` prints it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "project": self.project,
            "name": self.name,
            "target": one_or_list(self.target),
            "method": self.method,
            "selected": self.selected,
            "excluded": self.excluded,
            "estimated_loss": self.estimated_loss,
            "estimated_loss_low": self.estimated_loss_low,
            "estimated_loss_high": self.estimated_loss_high,
            "calibrated": self.calibrated,
            "measured_loss": self.measured_loss,
            "reference": self.reference,
            "indistinguishable": list(self.indistinguishable),
            "tasks": [asdict(task) for task in self.tasks],
            "steps": list(self.steps),
            "manifest": None if self.manifest is None else str(self.manifest),
            "cached": self.cached,
        }
