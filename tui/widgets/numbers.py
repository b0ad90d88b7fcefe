"""Numbers as people read them: fixed width, true minus sign, no more digits than mean something."""

import math

EIGHTHS = " ▏▎▍▌▋▊▉█"


def signed(value: float, digits: int = 4) -> str:
    """A difference, with its sign; nothing where it is not known."""
    if math.isnan(value):
        return ""
    return f"{value:+.{digits}f}".replace("-", "−")


def loss(value: float) -> str:
    """A loss in nats per token."""
    return f"{value:.4f}"


def half_width(low: float, high: float) -> str:
    """An interval as ± half of its width."""
    return f"±{(high - low) / 2:.4f}"


def short(count: float) -> str:
    """A count in at most five cells: 999, 12.3k, 4.5M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit * (10 if unit == "k" else 1):
            return f"{count / limit:.1f}{unit}"
    return f"{count:,.0f}"


def bar(value: float, scale: float, width: int) -> str:
    """A bar to either side of a middle line, of a whole odd width.

    Args:
        value: Where it ends; NaN draws the line only.
        scale: The value at either end.
        width: Cells, the middle line among them.
    """
    half = (width - 1) // 2
    share = 0.0 if math.isnan(value) or scale <= 0 else max(-1.0, min(1.0, value / scale))
    eighths = round(abs(share) * half * 8)
    whole, rest = divmod(eighths, 8)
    if share >= 0:
        right = "█" * whole + (EIGHTHS[rest] if rest else "")
        return " " * half + "│" + right.ljust(half)
    # There are no blocks that grow from the right but the half.
    left = ("▐" if rest >= 4 and whole < half else "") + "█" * whole
    return left.rjust(half) + "│" + " " * half


def meter(share: float, width: int) -> str:
    """How much of a whole is done, as a bar of so many cells."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (EIGHTHS[rest] if rest else "")).ljust(width)
