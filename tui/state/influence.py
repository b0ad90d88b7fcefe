"""What the examples of a task do to the target's loss: the numbers, and a unit to read them in. No Textual."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats
from tui.state.snapshot import Snapshot

Ints = npt.NDArray[np.int64]

_SMALLEST_UNIT = 1e-9


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit in which numbers of one size can be read.

    Attributes:
        factor: How many of it are one nat.
        name: Its name.
        decimals: Digits after the point.
    """

    factor: float
    name: str
    decimals: int

    def __call__(self, value: float) -> str:
        """A value in nats, with its sign; nothing where it is not known."""
        if np.isnan(value):
            return ""
        return f"{value * self.factor:+.{self.decimals}f}".replace("-", "−")


def unit_for(largest: float) -> Unit:
    """The unit for numbers up to a size in nats, so that the largest has about three digits."""
    size = max(largest, _SMALLEST_UNIT) if np.isfinite(largest) else 1.0
    units = ((1.0, "nat"), (1e3, "mnat"), (1e6, "µnat"), (1e9, "nnat"))
    factor, name = next((unit for unit in units if size * unit[0] >= 1), units[-1])
    return Unit(factor, name, 2 if size * factor < 10 else 1 if size * factor < 1000 else 0)


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What the examples of a task do together, in nats.

    Attributes:
        low: The most harmful one's influence.
        high: The most helpful one's.
        helping: Share of the examples that help.
        total: Sum: what the task does, to first order.
        half: How many of the most helpful ones are needed for half of all help; 0 where nothing helps.
        thirds: Mean influence of the short, the middle and the long third; empty for fewer than three examples.
    """

    low: float
    high: float
    helping: float
    total: float
    half: int
    thirds: tuple[float, ...]


def summarise(gains: Floats, lengths: Ints) -> Summary | None:
    """Sum influences up; None where there are none.

    Args:
        gains: Of each training example (m,), in nats.
        lengths: Tokens of each (m,).
    """
    if not len(gains):
        return None
    helping = np.sort(gains[gains > 0])[::-1]
    half = int(np.searchsorted(np.cumsum(helping), helping.sum() / 2)) + 1 if len(helping) else 0
    thirds: tuple[float, ...] = ()
    if len(gains) >= 3:
        by_length = np.array_split(gains[np.argsort(lengths, kind="stable")], 3)
        thirds = tuple(float(part.mean()) for part in by_length)
    return Summary(float(gains.min()), float(gains.max()), len(helping) / len(gains), float(gains.sum()), half, thirds)


def histogram(gains: Floats, bins: int) -> list[int]:
    """How many influences lie in each of so many equal stretches from the least to the greatest."""
    return [int(count) for count in np.histogram(gains, bins=max(bins, 1))[0]] if len(gains) else []


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """What is known of the influence of one task's examples.

    Attributes:
        gains: Of each training example (m,), in nats.
        unit: In which all of them can be read.
        summary: What they do together; None where there are none.
    """

    gains: Floats
    unit: Unit
    summary: Summary | None


def influence_of(snapshot: Snapshot, task: int, gains: Floats) -> Influence | None:
    """What the examples of one task do; None where its rows are not the estimator's any more.

    Args:
        snapshot: The project, with its corpus and answers.
        task: Number of the task; those of the targets follow on the auxiliary ones.
        gains: Influence of its training examples, as the estimator gives them; of those of all targets for one of them.
    """
    assert snapshot.corpus is not None
    count, targets = len(snapshot.names), snapshot.corpus.target_tasks
    shown, own = [*snapshot.corpus.auxiliary, *targets][task], gains
    if task >= count:
        # The estimator knows one target; several are its parts, one after the other.
        start = sum(len(target.split.train) for target in targets[: task - count])
        own = own[start : start + len(shown.split.train)]
    if len(own) != len(shown.split.train):
        return None
    lengths = np.asarray(shown.version.index.lengths, dtype=np.int64)[list(shown.split.train)]
    return Influence(own, unit_for(float(np.abs(own).max()) if len(own) else 0.0), summarise(own, lengths))
