"""Reports of `estimate`, `examples` and `curve`."""

from dataclasses import dataclass
from typing import ClassVar

from curator.core.interval import Interval
from curator.results.base import Estimated, Report
from curator.results.display import Shown


class _Calibrated:
    """Derive `calibrated` from the field `calibrated_on`."""

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
    """Mean over the seeds of the fine-tuning runs on the subset. None without a run."""
    as_good_as_best: bool
    """Whether the difference to the best subset of the call is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatesReport(_Calibrated, Report, Shown):
    """Estimates of several subsets."""

    _table: ClassVar[str] = "estimates"
    _document: ClassVar[tuple[str, ...]] = ("target", "calibrated", "estimates")

    target: tuple[str, ...]
    calibrated_on: int
    """Number of measured subsets that calibrate the estimates. 0 without calibration."""
    estimates: tuple[EstimateResult, ...]
    ridge: tuple[float, ...]
    """Ridge at each checkpoint of meta-training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleInfluence:
    """Effect of one training example on the target's estimated loss."""

    row: int
    """Number of the row in the task, from 1."""
    file: str
    line: int
    """Line in the file, from 1. 0 if rows are not lines."""
    sha256: str
    """Hash of the content. Equal examples have equal hashes."""
    gain: float
    """Decrease of the target's loss in nats, to first order around the selection. Negative if the example harms."""
    text: str
    dropped: bool = False
    """Whether the selection drops the example. It then tells what the example would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplesReport(_Calibrated, Report, Shown):
    """Examples of a task, by effect on the target's estimated loss."""

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
    """Selected tasks. Effects are to first order around this selection."""
    calibrated_on: int
    examples: tuple[ExampleInfluence, ...]
    """Most helpful example first."""

    def most_harmful(self, count: int) -> list[str]:
        """Return the hashes of the most harmful examples, the worst first. Copies of an example count together.

        Args:
            count: Maximum number of examples. Examples that help are never among them.
        """
        gains: dict[str, float] = {}
        for example in self.examples:
            gains[example.sha256] = gains.get(example.sha256, 0.0) + example.gain
        worst = sorted((gain, digest) for digest, gain in gains.items() if gain < 0)
        return [digest for _, digest in worst[:count]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPoint(Estimated):
    """One subset of a budget curve."""

    subset: tuple[str, ...]
    tokens: int
    """Training tokens of the auxiliary tasks in the subset."""
    estimate: Interval
    measured_loss: float | None
    on_front: bool
    """Whether every other subset with at most as many tokens has a higher or equal estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveReport(_Calibrated, Report, Shown):
    """Estimated loss against the budget of training tokens."""

    _table: ClassVar[str] = "points"
    _document: ClassVar[tuple[str, ...]] = ("target", "calibrated", "points")

    target: tuple[str, ...]
    calibrated_on: int
    """Number of measured subsets that calibrate the estimates. 0 without calibration."""
    points: tuple[BudgetPoint, ...]
    """Subsets in the order of their tokens."""

    @property
    def front(self) -> list[BudgetPoint]:
        """Pareto front: each subset has more tokens and a lower estimate than the one before."""
        return [point for point in self.points if point.on_front]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoPoint:
    """One subset, with the estimated loss of each target."""

    subset: tuple[str, ...]
    tokens: int
    """Training tokens of the auxiliary tasks in the subset."""
    losses: dict[str, float]
    """Estimated loss by target, nats per token."""
    estimated_loss: float
    """Estimated loss of all targets together, by their weights."""
    measured_loss: float | None
    """Measured loss of all targets together. None if it was not measured."""
    on_front: bool
    """Whether no other subset has a loss as low for every target, and lower for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoReport(_Calibrated, Report, Shown):
    """Estimated losses of several targets, subset by subset."""

    _table: ClassVar[str] = "points"
    _document: ClassVar[tuple[str, ...]] = ("target", "calibrated", "points")

    target: tuple[str, ...]
    calibrated_on: int
    """Number of measured subsets that calibrate the estimates. They move the losses of all targets alike."""
    points: tuple[ParetoPoint, ...]
    """Subsets in the order of the first target's loss."""

    @property
    def front(self) -> list[ParetoPoint]:
        """Pareto front: the subsets that no other subset beats for every target."""
        return [point for point in self.points if point.on_front]
