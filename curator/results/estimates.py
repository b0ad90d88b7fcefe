"""Reports of the estimates: subsets, examples, budgets."""

from dataclasses import dataclass
from typing import ClassVar

from curator.core.interval import Interval
from curator.results.base import Estimated, Report
from curator.results.display import Shown


class _Calibrated:
    """Report whether estimates are calibrated, from a field `calibrated_on`."""

    __slots__ = ()
    calibrated_on: int

    @property
    def calibrated(self) -> bool:
        """Whether measured subsets correct the estimates."""
        return self.calibrated_on > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateResult(Estimated, Shown):
    """Estimated target loss of one subset, in nats per target token, with a 90 % interval."""

    subset: tuple[str, ...]
    estimate: Interval
    measured_loss: float | None
    """Mean over the seeds with which the subset was really fine-tuned on; None where it was not."""
    as_good_as_best: bool
    """Whether it cannot be told apart from the best of the subsets asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatesReport(_Calibrated, Report, Shown):
    """Estimates of several subsets."""

    _table: ClassVar[str] = "estimates"
    _document: ClassVar[tuple[str, ...]] = ("target", "calibrated", "estimates")

    target: tuple[str, ...]
    calibrated_on: int
    """Subsets that were really fine-tuned on and correct the estimates; 0: they are not calibrated."""
    estimates: tuple[EstimateResult, ...]
    ridge: tuple[float, ...]
    """Ridge at each point of meta-training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleInfluence:
    """What one training example does to the target's estimated loss."""

    row: int
    """Number of the row in its task, from 1."""
    file: str
    line: int
    """Line in the file, from 1; 0 where rows are not lines."""
    gain: float
    """Nats by which it lowers the target's loss, to first order around the current selection; < 0 where it harms."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplesReport(_Calibrated, Report, Shown):
    """The examples of a task, by what they do to the target's estimated loss."""

    _table: ClassVar[str] = "examples"
    _document: ClassVar[tuple[str, ...]] = (
        "task",
        "target",
        "selection",
        "calibrated_on",
        "examples",
        "calibrated",
    )

    task: str
    target: tuple[str, ...]
    selection: tuple[str, ...]
    """The tasks around which influence is taken."""
    calibrated_on: int
    examples: tuple[ExampleInfluence, ...]
    """Of most help first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPoint(Estimated):
    """One subset of a budget curve."""

    subset: tuple[str, ...]
    tokens: int
    """Training tokens of its tasks, without the target's."""
    estimate: Interval
    measured_loss: float | None
    on_front: bool
    """Whether no other subset of the curve is estimated lower at no more tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveReport(_Calibrated, Report, Shown):
    """What a budget of training tokens buys."""

    _table: ClassVar[str] = "points"
    _document: ClassVar[tuple[str, ...]] = ("target", "calibrated", "points")

    target: tuple[str, ...]
    calibrated_on: int
    """Subsets that were really fine-tuned on and correct the estimates; 0: they are not calibrated."""
    points: tuple[BudgetPoint, ...]
    """By tokens."""

    @property
    def front(self) -> list[BudgetPoint]:
        """The subsets that no other one beats: each costs more than the one before, and is estimated lower."""
        return [point for point in self.points if point.on_front]
