"""`Interval`: a number with its 90 % interval."""

from dataclasses import dataclass

NORMAL_90 = 1.6448536269514722
"""Half of the width of a 90 % interval of a normal distribution, in standard deviations."""


def is_clear(value: float, standard_error: float | None) -> bool:
    """Return whether the 90 % interval of a value excludes 0. Without a standard error, the value counts as clear."""
    return standard_error is None or not abs(value) <= NORMAL_90 * standard_error


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with the two ends of its 90 % interval. For losses, all three are in nats per target token."""

    value: float
    """The estimate itself."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""

    @classmethod
    def around(cls, loss: float, half_width: float) -> "Interval":
        """Return an estimated loss with an interval of equal width on both sides.

        A loss is not negative, so the lower end stops at 0. If the estimate is below 0, it is its own lower end.

        Args:
            loss: Estimated loss, nats.
            half_width: Distance from the loss to each end, nats.
        """
        return cls(loss, max(loss - half_width, min(loss, 0.0)), loss + half_width)
