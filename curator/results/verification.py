"""The report of `verify`."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from curator.core.interval import Interval
from curator.results.base import Estimated, Report, rounded_if_known
from curator.results.display import Shown
from curator.results.metrics import MetricReport


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRun(Estimated):
    """One fine-tuning run, with the estimate of a calibration that excludes its subset."""

    subset: tuple[str, ...]
    seed: int
    estimate: Interval
    measured_loss: float
    metric: float | None = None
    """The metric on the validation part. None if this run did not measure it."""
    metric_error: float | None = None
    """Standard error of the metric over the rows. None if it is not known."""
    metric_estimate: float | None = None
    """Metric of the subset, estimated from all others. None with too few subsets, or if the metric is the loss."""
    test_loss: float | None = None
    """Loss on the test part. None without a test part."""
    test_metric: float | None = None
    """The metric on the test part."""
    estimated_before: float | None = None
    """Estimate that was made before the run. None for runs of `apply` and of older versions."""
    estimated_before_low: float | None = None
    """Lower end of the 90 % interval of this estimate."""
    estimated_before_high: float | None = None
    """Upper end of the 90 % interval of this estimate."""
    calibrated_on_before: int | None = None
    """Number of measured subsets that calibrated this estimate."""
    loss_quarter: float | None = None
    """Measured loss after 25 % of the steps."""
    loss_half: float | None = None
    """Measured loss after 50 % of the steps."""
    tokens: int | None = None
    """Tokens that the run trained on, over all epochs."""
    seconds: float | None = None
    """Training time."""
    peak_bytes: int | None = None
    """Largest memory of the process during the run. On a GPU, the largest memory of the GPU."""
    machine: str = ""
    """Processor or GPU of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Comparison of the estimates from before the runs with the measured losses."""

    runs: int
    """Number of runs with an estimate from before."""
    relative_error: float
    """Mean of |estimated before − measured| / measured."""
    spearman: float | None
    """Rank correlation of these estimates with the measured losses. None if either is constant."""
    interval_coverage: float
    """Share of the runs with a measured loss inside the interval from before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenTask:
    """Change of the loss on rows of one task by one run."""

    subset: tuple[str, ...]
    seed: int
    task: str
    before: float
    """Loss of the base model on the rows, nats per token."""
    after: float
    """Loss after the run."""
    trained: bool
    """Whether the run trained on the task."""
    held_out: bool
    """Whether the run trained on none of the rows."""


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
    metric: float | None = None
    """Mean of the metric over the seeds. None if no run measured it."""
    test_loss: float | None = None
    """Mean loss on the test part. None without a test part."""
    test_metric: float | None = None
    """Mean of the metric on the test part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSelection:
    """One of several selections that are compared by runs with the same seeds."""

    name: str
    selected: tuple[str, ...]
    tokens: int
    """Training tokens of the selected tasks, in one epoch."""
    epochs: float
    """Epochs of the runs. Equal tokens change them."""
    tokens_trained: int
    """Tokens that a run trains on, with the target's, over all epochs."""
    seeds: tuple[int, ...]
    """Seeds of the runs, sorted."""
    measured_losses: tuple[float, ...]
    """Loss of each seed."""
    measured_loss: float
    """Mean over the seeds."""
    measured_low: float | None
    """Lower end of Student's 90 % interval of the mean over seeds. None with one seed."""
    measured_high: float | None
    """Upper end of this interval."""
    metrics: tuple[float, ...] = ()
    """Metric of each seed. Empty if the metric is the loss."""
    metric: float | None = None
    """Mean over the seeds. None if the metric is the loss."""
    metric_low: float | None = None
    """Lower end of Student's 90 % interval of the mean over seeds."""
    metric_high: float | None = None
    """Upper end of this interval."""
    metric_error: float | None = None
    """Standard error of the metric over the held-out rows, the mean over the seeds."""
    test_loss: float | None = None
    """Mean loss on the test part. None without a test part."""
    test_metric: float | None = None
    """Mean of the metric on the test part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """Difference between the measured losses of two selections, seed by seed."""

    first: str
    second: str
    seeds: int
    """Number of common seeds."""
    difference: float
    """Mean of the first selection's losses minus the second's, nats. Negative if the first is better."""
    difference_low: float | None
    """Lower end of the 90 % interval. None with fewer than two common seeds."""
    difference_high: float | None
    """Upper end of the 90 % interval."""
    metric_difference: float | None = None
    """Mean of the first selection's metric minus the second's. None if the metric is the loss."""
    metric_difference_low: float | None = None
    """Lower end of its 90 % interval. None with fewer than two common seeds."""
    metric_difference_high: float | None = None
    """Upper end of its 90 % interval."""


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
    metric: float | None = None
    """Mean of the metric without the dropped examples. None if the metric is the loss, or not measured."""
    metric_with_dropped: float | None = None
    """Mean of the metric with all examples."""


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
    relative_error: float | None
    """Mean of |estimated − measured| / measured. None without a run on whole tasks."""
    constant_relative_error: float | None
    """Relative error of the constant estimate: the mean measured loss. None without a run on whole tasks."""
    seed_noise: float | None
    """Standard deviation between seeds of one subset, relative to the loss. None with one seed each."""
    spearman: float | None
    """Rank correlation of estimated and measured losses. None if either is constant."""
    interval_coverage: float | None
    """Share of the subsets with a measured loss inside their interval. None without a run on whole tasks."""
    seconds_estimating: float | None
    """Time of meta-training, gradients and estimates. None if an older version of curator made one of them."""
    seconds_fine_tuning: float
    """Time of all fine-tuning runs in the report."""
    subsets_estimated: int
    """Number of different random subsets that the affinities compare."""
    speedup: float | None
    """Time to fine-tune on `subsets_estimated` subsets, divided by the time to estimate them."""
    speedup_100: float | None
    """The same ratio for 100 subsets."""
    predictions: Predictions | None = None
    """Accuracy of the estimates from before the runs. None without such estimates."""
    forgetting: tuple[ForgottenTask, ...] | None = None
    """Losses on rows of every task, run by run. None if no run measured them."""
    comparison: tuple[ComparedMethod, ...] | None = None
    """All methods, the current selection's first. None without `compare`."""
    dropping: DroppingReport | None = None
    """Measured effect of the examples that the last selection drops. None if it drops none."""
    selections: tuple[ComparedSelection, ...] | None = None
    """Selections that are compared by name. None without `selections`."""
    differences: tuple[PairedDifference, ...] | None = None
    """Difference of each pair of these selections."""
    metric: MetricReport | None = None
    """The metric over all subsets."""

    def mean_of(self, name: str, subset: Collection[str]) -> float | None:
        """Return the mean of a value over the runs on a subset. None if no run measured the value.

        Args:
            name: `metric`, `test_loss` or `test_metric`.
            subset: Names of the auxiliary tasks.
        """
        runs = [run for run in self.runs if frozenset(run.subset) == frozenset(subset)]
        known = [value for run in runs if (value := getattr(run, name)) is not None]
        return rounded_if_known(sum(known) / len(known) if known else None)

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
