"""Values of a metric, the rows that it measures, and what every metric can do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from curator.data.corpus import Task, TaskVersion
from curator.data.tokens import TokenizedExample
from curator.training.model import TunedModel

Part = Literal["validation", "test"]
"""Held-out rows that selections may depend on, or those that they never depend on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """Value of a metric for one model.

    Attributes:
        value: The value. A proportion is between 0 and 1.
        standard_error: Standard error over the measured rows. None if the metric does not say.
        examples: Number of measured rows. 0 if the metric does not say.
    """

    value: float
    standard_error: float | None
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """Held-out rows of one target.

    Attributes:
        task: The target.
        part: Part that the rows belong to.
        share: Share of the target among all targets, from 0 to 1.
        version: Version of the files that hold the rows.
        numbers: Number of each row in the version (n).
        examples: Tokens of each row (n).
    """

    task: Task
    part: Part
    share: float
    version: TaskVersion
    numbers: Sequence[int]
    examples: Sequence[TokenizedExample]

    def is_truncated(self, position: int) -> bool:
        """Return whether `max_length` cuts off the row at a position from 0."""
        return self.version.index.truncated[self.numbers[position]]


class Metric(Protocol):
    """Way to judge a fine-tuned model.

    Attributes:
        name: Name as in `[verify] metric`.
        version: Number that increases when equal models and rows give other values.
        reads_rows: Whether the value depends on the held-out rows. If not, the test part has no value of its own.
        in_process: Whether the model's passes run in this process.
        bounds: Lowest and highest value that the metric can have. Infinite if it does not say.
    """

    name: str
    version: int
    reads_rows: bool
    in_process: bool
    bounds: tuple[float, float]

    @property
    def settings(self) -> str:
        """Return a hash of all else that decides a value, besides the model and the held-out rows."""

    @property
    def higher_is_better(self) -> bool:
        """Return whether a higher value is better."""

    def check(self, rows: Sequence[HeldOut]) -> None:
        """Check that the metric can measure these rows, before anything is trained.

        Args:
            rows: Held-out rows of every target, of one part.

        Raises:
            ConfigError: A package or a program is missing, or the metric does not suit the rows.
            DataError: Rows cannot be read.
        """

    def measure(self, tuned: TunedModel, rows: Sequence[HeldOut]) -> MetricValue:
        """Measure a model.

        Args:
            tuned: The model with the adapter to measure. The adapter stays unchanged.
            rows: Held-out rows of every target, of one part.

        Raises:
            DataError: Rows cannot be read, or a command fails.
            NumericalError: The value is not finite.
        """


def mean_of(values: Sequence[float]) -> MetricValue:
    """Return the mean of values of rows, and its standard error from their spread. Needs at least one value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return MetricValue(value=mean, standard_error=None, examples=len(values))
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return MetricValue(value=mean, standard_error=math.sqrt(variance / len(values)), examples=len(values))


def proportion(hits: Sequence[bool]) -> MetricValue:
    """Return the proportion of hits among at least one row, and its binomial standard error.

    Without a hit, or without a miss, that error is 0, although other rows may differ. Then the error is that of the
    same rows with one more hit and one more miss.
    """
    found, count = sum(hits), len(hits)
    share = found / count
    rest, of = (share, count) if 0 < found < count else ((found + 1) / (count + 2), count + 2)
    return MetricValue(value=share, standard_error=math.sqrt(rest * (1 - rest) / of), examples=count)


def weighted(values: Sequence[tuple[float, MetricValue]]) -> MetricValue:
    """Combine the values of several targets.

    Args:
        values: Share of each target, and its value. The shares add up to 1.

    Returns:
        The weighted mean. Its standard error treats the targets as independent.
    """
    errors = [(share, v.standard_error) for share, v in values]
    known = [share * error for share, error in errors if error is not None]
    return MetricValue(
        value=math.fsum(share * v.value for share, v in values),
        standard_error=math.hypot(*known) if len(known) == len(errors) else None,
        examples=sum(v.examples for _, v in values),
    )
