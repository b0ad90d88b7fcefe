"""What `verify` and `apply` report about a metric."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricReading:
    """Loss and metric of one model, on the validation part and on the test part."""

    loss: float | None
    """Validation loss in nats per target token. None if it is not measured."""
    value: float | None
    """The metric on the validation part."""
    standard_error: float | None
    """Standard error of the metric. None if it is not known."""
    examples: int
    """Rows that the metric measured. 0 if it does not say."""
    runs: int
    """Number of fine-tuning runs whose means these are. 0 for the model before training."""
    test_loss: float | None = None
    """Loss on the test part. None without a test part."""
    test_value: float | None = None
    """The metric on the test part."""
    test_standard_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestPart:
    """How much the choice by validation rows flatters, by the rows that play no part in it."""

    chosen: tuple[str, ...]
    """Measured subset of the lowest validation loss."""
    validation_loss: float
    test_loss: float
    """Losses of the chosen subset."""
    flattery: float
    """Test loss minus validation loss of the chosen subset, less the mean of that difference over all subsets."""
    standard_error: float | None
    """Standard error of the flattery, from that difference over the other subsets. None below 3 subsets."""
    subsets: int
    """Number of subsets with a test loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricReport:
    """The metric over the measured subsets, and how well the loss stands for it."""

    name: str
    higher_is_better: bool
    rank_correlation_with_loss: float | None
    """Spearman's over subsets. 1 if the loss orders them as the metric does. None for the loss or too few subsets."""
    low: float | None
    """Lower end of the 90 % interval: Fisher's transformation with the variance of Bonett and Wright (2000)."""
    high: float | None
    subsets: int
    """Number of subsets with a value of the metric."""
    seed_noise: float | None
    """Standard deviation between seeds of one subset, in units of the metric. None with one seed each."""
    spread: float | None
    """Standard deviation between subsets without the noise between seeds. None with one subset."""
    can_rank: bool | None
    """Whether the spread exceeds the noise of a subset's mean. None if the noise is not known."""
    slope: float | None = None
    """Change of the metric for a change of the estimated loss by one nat. None with too few subsets."""
    estimates_spearman: float | None = None
    """Rank correlation of estimated and measured metric, each subset estimated from the others."""
    error: float | None = None
    """Mean absolute error of these estimates."""
    constant_error: float | None = None
    """Mean absolute error of a constant guess: the mean of the other subsets."""
    before: MetricReading | None = None
    """The model before training."""
    all_tasks: MetricReading | None = None
    target_only: MetricReading | None = None
    test: TestPart | None = None
    """None without a test part."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedMetric:
    """The metric of an applied selection, next to that of other models."""

    name: str
    higher_is_better: bool
    applied: MetricReading
    before: MetricReading | None
    """The model before training."""
    all_tasks: MetricReading | None
    """Runs on all tasks. None if `verify` has not measured them."""
    target_only: MetricReading | None
    """Runs on the target alone. None if `verify` has not measured them."""
