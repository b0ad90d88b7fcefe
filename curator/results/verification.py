"""The report of `verify`."""

from dataclasses import dataclass
from typing import ClassVar

from curator.core.interval import Interval
from curator.results.base import Estimated, Report
from curator.results.display import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRun(Estimated):
    """One fine-tuning run, with the estimate of a calibration that excludes its subset."""

    subset: tuple[str, ...]
    seed: int
    estimate: Interval
    measured_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSubset(Estimated):
    """One measured subset, with all its runs."""

    subset: tuple[str, ...]
    estimate: Interval
    measured_loss: float
    """Mean over the seeds."""
    lowest_measured: float
    highest_measured: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMethod:
    """Selection of one method within the token budget of the current selection, and its measured loss."""

    method: str
    selected: tuple[str, ...]
    tokens: int
    """Training tokens of the selected tasks."""
    tokens_left: int | None
    """Tokens that the budget leaves. None without a budget, because the current selection is empty."""
    estimated_loss: float
    """Estimate of a calibration that excludes this subset."""
    measured_losses: tuple[float, ...]
    """Loss of each seed."""
    measured_loss: float
    as_good_as_best: bool | None
    """Whether seeds alone can explain the distance to the lowest measured loss. None with one seed each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppingReport(Estimated):
    """The last selection with and without the examples that it drops. A negative difference is better without them."""

    subset: tuple[str, ...]
    dropped_examples: int
    """Number of dropped rows."""
    estimate: Interval
    """Estimate without the dropped examples."""
    estimated_difference: float
    estimated_noise: float
    """Half of the 90 % interval of the estimated difference."""
    measured_losses: tuple[float, ...]
    """Loss of each seed without the dropped examples."""
    measured_losses_with_dropped: tuple[float, ...]
    """Loss of each seed with all examples."""
    measured_difference: float
    """Difference of the means."""
    measured_noise: float | None
    """Half of the 90 % interval if only seeds differ. None with one seed each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport(Report, Shown):
    """Comparison of estimated with measured losses of one target.

    A subset's measured loss is the mean over its seeds. Its estimate is that of a calibration on all other subsets.
    """

    _table: ClassVar[str] = "runs"

    target: tuple[str, ...]
    calibrated: bool
    """False with too few subsets. The estimates are then uncalibrated."""
    runs: tuple[VerifiedRun, ...]
    subsets: int
    """Number of different measured subsets."""
    relative_error: float
    """Mean of |estimated − measured| / measured."""
    constant_relative_error: float
    """Relative error of the constant estimate: the mean measured loss."""
    seed_noise: float | None
    """Standard deviation between seeds of one subset, relative to the loss. None with one seed each."""
    spearman: float | None
    """Rank correlation of estimated and measured losses. None if either is constant."""
    interval_coverage: float
    """Share of the subsets with a measured loss inside their interval."""
    seconds_estimating: float | None
    """Time of meta-training, gradients and estimates. None if an older version of curator made one of them."""
    seconds_fine_tuning: float
    """Time of all fine-tuning runs in the report."""
    subsets_estimated: int
    speedup: float | None
    """Time to fine-tune on `subsets_estimated` subsets, divided by the time to estimate them."""
    speedup_100: float | None
    """The same ratio for 100 subsets."""
    comparison: tuple[ComparedMethod, ...] | None = None
    """All methods, the current selection's first. None without `compare`."""
    dropping: DroppingReport | None = None
    """Measured effect of the examples that the last selection drops. None if it drops none."""

    def points(self) -> list[VerifiedSubset]:
        """Return the subsets, in the order of their first runs."""
        runs: dict[tuple[str, ...], list[VerifiedRun]] = {}
        for run in self.runs:
            runs.setdefault(run.subset, []).append(run)
        return [
            VerifiedSubset(
                subset=subset,
                estimate=of[0].estimate,
                measured_loss=sum(run.measured_loss for run in of) / len(of),
                lowest_measured=min(run.measured_loss for run in of),
                highest_measured=max(run.measured_loss for run in of),
            )
            for subset, of in runs.items()
        ]
