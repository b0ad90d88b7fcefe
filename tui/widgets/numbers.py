"""Numbers for display: fixed width, a true minus sign, and only significant digits."""

import math

from curator.core import figures
from curator.core.figures import short

__all__ = ["EIGHTHS", "bar", "half_width", "loss", "meter", "short", "signed", "style"]

EIGHTHS = " ▏▎▍▌▋▊▉█"


def signed(value: float, digits: int = 4) -> str:
    """Format a difference with its sign. NaN gives the empty text."""
    if math.isnan(value):
        return ""
    return figures.signed(value, digits).replace("-", "−")


def style(value: float, digits: int = 4, *, worse: str = "harm") -> str:
    """Return the style of an amount of help: `good`, or `worse` if it is negative. Zero as written and NaN are `dim`.

    Args:
        value: Positive if it helps, such as an affinity or a decrease of the loss.
        digits: Digits after the point with which the value is written.
        worse: Style of a negative value.
    """
    if math.isnan(value) or figures.is_zero(value, digits):
        return "dim"
    return "good" if value > 0 else worse


def loss(value: float) -> str:
    """Format a loss in nats per token."""
    return figures.fixed(value)


def half_width(low: float, high: float) -> str:
    """Format an interval as ± half of its width."""
    return figures.half_width((high - low) / 2)


def bar(value: float, scale: float, width: int) -> str:
    """Draw a bar to the left or the right of a middle line.

    Args:
        value: Value of the bar. NaN draws only the middle line.
        scale: Value at either end.
        width: Odd number of cells, middle line included.
    """
    half = (width - 1) // 2
    share = 0.0 if math.isnan(value) or scale <= 0 else max(-1.0, min(1.0, value / scale))
    eighths = round(abs(share) * half * 8)
    whole, rest = divmod(eighths, 8)
    if share >= 0:
        right = "█" * whole + (EIGHTHS[rest] if rest else "")
        return " " * half + "│" + right.ljust(half)
    # Unicode has only one block that grows from the right: the half block.
    left = ("▐" if rest >= 4 and whole < half else "") + "█" * whole
    return left.rjust(half) + "│" + " " * half


def meter(share: float, width: int) -> str:
    """Draw a share from 0 to 1 as a bar of `width` cells."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (EIGHTHS[rest] if rest else "")).ljust(width)
