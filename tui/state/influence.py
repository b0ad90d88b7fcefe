"""Influence of the examples of a task on the target loss, with a readable unit. This module imports no Textual."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats
from curator.core.figures import signed
from tui.state.snapshot import Snapshot

Ints = npt.NDArray[np.int64]

_SMALLEST_UNIT = 1e-9


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit for numbers of one magnitude.

    Attributes:
        factor: Number of units in one nat.
        name: Name of the unit.
        decimals: Digits after the point.
    """

    factor: float
    name: str
    decimals: int

    def __call__(self, value: float) -> str:
        """Format a value in nats with its sign. NaN gives the empty text."""
        if np.isnan(value):
            return ""
        return signed(value * self.factor, self.decimals).replace("-", "−")


def unit_for(largest: float) -> Unit:
    """Choose the unit in which the largest value, in nats, has about three digits."""
    size = max(largest, _SMALLEST_UNIT) if np.isfinite(largest) else 1.0
    units = ((1.0, "nats"), (1e3, "×0.001"), (1e6, "×10⁻⁶"), (1e9, "×10⁻⁹"))
    factor, name = next((unit for unit in units if size * unit[0] >= 1), units[-1])
    return Unit(factor, name, 2 if size * factor < 10 else 1 if size * factor < 1000 else 0)


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """Summary of the influences of the examples of a task, in nats.

    Attributes:
        low: Influence of the most harmful example.
        high: Influence of the most helpful example.
        count: Number of the examples.
        helping: Number of the examples that help.
        total: Sum of the influences: the effect of the task to first order.
        half: Number of most helpful examples that give half of all help; 0 if no example helps.
        thirds: Mean influence of the short, middle and long third. Empty for fewer than three examples.
    """

    low: float
    high: float
    count: int
    helping: int
    total: float
    half: int
    thirds: tuple[float, ...]


def summarise(gains: Floats, lengths: Ints) -> Summary | None:
    """Summarise influences; None without influences.

    Args:
        gains: Influence of each training example (m,), in nats.
        lengths: Tokens of each training example (m,).
    """
    if not len(gains):
        return None
    helping = np.sort(gains[gains > 0])[::-1]
    half = int(np.searchsorted(np.cumsum(helping), helping.sum() / 2)) + 1 if len(helping) else 0
    thirds: tuple[float, ...] = ()
    if len(gains) >= 3:
        by_length = np.array_split(gains[np.argsort(lengths, kind="stable")], 3)
        thirds = tuple(float(part.mean()) for part in by_length)
    return Summary(
        low=float(gains.min()),
        high=float(gains.max()),
        count=len(gains),
        helping=len(helping),
        total=float(gains.sum()),
        half=half,
        thirds=thirds,
    )


def histogram(gains: Floats, bins: int) -> list[int]:
    """Count the influences in bins of equal width, from the smallest to the largest influence."""
    return [int(count) for count in np.histogram(gains, bins=max(bins, 1))[0]] if len(gains) else []


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """The influence of the examples of one task.

    Attributes:
        gains: Influence of each training example (m,), in nats. It includes the dropped examples.
        kept: Influence of each example that the selection does not drop, in nats.
        unit: Unit for display.
        summary: Summary of `kept`; None if it is empty.
    """

    gains: Floats
    kept: Floats
    unit: Unit
    summary: Summary | None


def influence_of(snapshot: Snapshot, task: int, gains: Floats, dropped: Collection[str] = ()) -> Influence | None:
    """Return the influence of the examples of one task; None if the estimator has other rows.

    Args:
        snapshot: The project, with its corpus and answers.
        task: Number of the task. Target tasks follow the auxiliary tasks.
        gains: Influence of the training examples from the estimator. For a target task, of all targets together.
        dropped: Content hashes of the examples that the selection drops.
    """
    assert snapshot.corpus is not None
    count, targets = len(snapshot.names), snapshot.corpus.target_tasks
    shown, own = [*snapshot.corpus.auxiliary, *targets][task], gains
    if task >= count:
        # The estimator concatenates all target tasks into one.
        start = sum(len(target.split.train) for target in targets[: task - count])
        own = own[start : start + len(shown.split.train)]
    if len(own) != len(shown.split.train):
        return None
    index, rows = shown.version.index, list(shown.split.train)
    lengths = np.asarray(index.lengths, dtype=np.int64)[rows]
    stays = np.array([index.hashes[row] not in dropped for row in rows], dtype=bool)
    unit = unit_for(float(np.abs(own).max()) if len(own) else 0.0)
    return Influence(own, own[stays], unit, summarise(own[stays], lengths[stays]))
