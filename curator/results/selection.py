"""The report of `select`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curator.core.errors import DataError
from curator.core.interval import Interval
from curator.results.base import Estimated, Report
from curator.results.display import Shown

if TYPE_CHECKING:
    from datasets import DatasetDict


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
class RaceResult:
    """Result of a race: a selection by fine-tuning on promising subsets."""

    runs: int
    """Fine-tuning runs of the race, in this call and in earlier ones."""
    winner: tuple[str, ...]
    """The measured subset with the lowest posterior mean."""
    runner_up: tuple[str, ...] | None
    """The candidate that is the best most often, apart from the winner. None with one candidate."""
    probability_best: float
    """Probability that no other candidate has a lower loss than the winner."""
    regret: float
    """Measured loss of the winner minus the lowest measured loss of all subsets within the limits, nats."""
    measured_loss: float
    """Measured loss of the winner: the mean over its runs."""
    metric: str = "loss"
    """What decided: the configured metric, or the loss. The loss also decides while few subsets have a metric."""
    measured_metric: float | None = None
    """Metric of the winner: the mean over its runs. None if the loss decided."""
    metric_regret: float | None = None
    """Distance of this metric to the best measured metric of all subsets within the limits."""


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
        "interval_accounts_for_selection",
        "calibrated",
        "measured_loss",
        "reference",
        "indistinguishable",
        "tasks",
        "steps",
        "dropped_examples",
        "manifest",
        "cached",
        "race",
    )

    project: str
    name: str
    target: tuple[str, ...]
    method: str
    tasks: tuple[SelectedTask, ...]
    estimate: Interval
    """Estimated loss. Its interval accounts for the choice of the subset by estimates."""
    interval_accounts_for_selection: bool
    """False for a selection that an older version made."""
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
    race: RaceResult | None = None
    """Result of the race. None without `runs`."""
    _sets: Callable[[], Any] | None = field(default=None, compare=False)

    @property
    def selected(self) -> list[str]:
        """Names of the selected tasks."""
        return [task.name for task in self.tasks if task.selected]

    @property
    def excluded(self) -> list[str]:
        """Names of the other auxiliary tasks."""
        return [task.name for task in self.tasks if not task.selected]

    def to_datasets(self) -> "DatasetDict":
        """Return the examples to train on: the splits `train` and `validation`.

        Rows have the columns `task`, `input_ids` and `labels`, so that a trainer sees curator's tokens and loss.
        The weight of a task is the number of times that `train` holds each of its examples.

            >>> data = project.select().to_datasets()
            >>> SFTTrainer(model, train_dataset=data["train"], eval_dataset=data["validation"])

        Raises:
            DataError: Files of the project have changed and cannot be read, or the result comes from no project.
        """
        if self._sets is None:
            raise DataError("the selection comes from no project", hint="Call `Project.select`.")
        return self._sets()
