"""The report of `verify`."""

from dataclasses import dataclass
from typing import ClassVar

from curator.core.interval import Interval
from curator.results.base import Estimated, Report
from curator.results.display import Shown


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRun(Estimated):
    """One fine-tuning run, and what a calibration that has not seen its subset estimates of it."""

    subset: tuple[str, ...]
    seed: int
    estimate: Interval
    measured_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSubset(Estimated):
    """One measured subset, over all its runs."""

    subset: tuple[str, ...]
    estimate: Interval
    measured_loss: float
    """Mean over its seeds."""
    lowest_measured: float
    highest_measured: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMethod:
    """What one method selected within the tokens of the current selection, and what came of fine-tuning on that."""

    method: str
    selected: tuple[str, ...]
    tokens: int
    """Training tokens of the selected tasks."""
    tokens_left: int | None
    """What the budget has left; None where there was none, because the current selection is empty."""
    estimated_loss: float
    """By a calibration that has not seen this subset."""
    measured_losses: tuple[float, ...]
    """Of each seed."""
    measured_loss: float
    as_good_as_best: bool | None
    """Whether its measured loss is above the lowest by no more than seeds alone may do; None with one seed each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport(Report, Shown):
    """How far the estimates of a target may be trusted.

    A subset's measured loss is the mean over its seeds; its estimate is that of a calibration on all other subsets.
    """

    _table: ClassVar[str] = "runs"

    target: tuple[str, ...]
    calibrated: bool
    """False with too few subsets: then the estimates are as they are without any run."""
    runs: tuple[VerifiedRun, ...]
    subsets: int
    """Different subsets that were measured."""
    relative_error: float
    """Mean of |estimated − measured| / measured."""
    constant_relative_error: float
    """The same of always answering the mean measured loss."""
    seed_noise: float | None
    """Standard deviation between seeds of one subset, relative to the loss; None with one seed each."""
    spearman: float | None
    """None where nothing varies."""
    interval_coverage: float
    """Share of the subsets whose measured loss is in their interval."""
    seconds_estimating: float | None
    """Time of meta-training, gradients and estimates; None where an older curator made them."""
    seconds_fine_tuning: float
    """Time of all runs here."""
    subsets_estimated: int
    speedup: float | None
    """Time to fine-tune on as many subsets as were estimated, over the time of estimating them."""
    speedup_100: float | None
    """The same for 100 subsets."""
    comparison: tuple[ComparedMethod, ...] | None = None
    """The methods side by side, the current selection's first; None where nobody asked."""

    def points(self) -> list[VerifiedSubset]:
        """The subsets, in the order of their first runs."""
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
