"""Write numbers, times and lists for people: one form for the commands, the reports and the terminal interface.

A value that rounds to zero has no sign. JSON documents hold the numbers themselves.
"""

import math
from collections.abc import Sequence


def fixed(value: float, digits: int = 4) -> str:
    """Write a number, such as a loss in nats per token, with a fixed number of digits after the point."""
    return f"{value:z.{digits}f}"


def signed(value: float, digits: int = 4) -> str:
    """Write a difference with its sign. Zero has no sign, and neither has a value that rounds to zero."""
    text = f"{value:+z.{digits}f}"
    return text if any(letter in text for letter in "123456789naif") else text[1:]


def is_zero(value: float, digits: int = 4) -> bool:
    """Return whether a value is written as zero with a number of digits after the point."""
    return fixed(value, digits) == fixed(0.0, digits)


def margin(value: float, digits: int = 4) -> str:
    """Write half of the width of an interval, a standard error or another error that is never negative.

    A value that would be written as zero claims certainty, so it is written as a bound: `<0.0001`.
    """
    least = 10.0**-digits
    return f"<{fixed(least, digits)}" if value < least / 2 else fixed(value, digits)


def half_width(value: float, digits: int = 4) -> str:
    """Write half of the width of an interval with its sign: `±0.0123` or `±<0.0001`."""
    return f"±{margin(value, digits)}"


def signed_percent(share: float, digits: int = 1) -> str:
    """Write a relative difference as a percentage with its sign, as `signed` does."""
    return signed(100 * share, digits) + "%"


def percent(share: float, digits: int = 0) -> str:
    """Write a share as a percentage. Only the whole is written as 100 %, and only nothing as 0 %."""
    text, least = f"{share:.{digits}%}", 10.0 ** -(digits + 2)
    if 0 < share < 1 and text in (f"{0:.{digits}%}", f"{1:.{digits}%}"):
        return f"<{least:.{digits}%}" if share < 0.5 else f">{1 - least:.{digits}%}"
    return text


def correlation(value: float | None) -> str:
    """Write a rank correlation, or a dash for an unknown one."""
    return "-" if value is None else fixed(value, 3)


def chance(share: float) -> str:
    """Write a probability as a whole percentage. A probability from few draws is never written as 0 % or 100 %."""
    percent = round(100 * share)
    return ">99%" if percent >= 100 else "<1%" if percent <= 0 else f"{percent}%"


def short(count: float) -> str:
    """Write a count in at most five cells: 999, 12.3k, 4.5M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit * (10 if unit == "k" else 1):
            return f"{count / limit:.1f}{unit}"
    return f"{count:,.0f}"


def duration(seconds: float) -> str:
    """Write a duration with at most two units, for example `1 min 15 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def span(seconds: float) -> str:
    """Write a duration in at most six cells, for tables: 9.5s, 2m10s, 14h02m, 3d04h."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    for unit, small, part, name in ((86400, 3600, "h", "d"), (3600, 60, "m", "h"), (60, 1, "s", "m")):
        if seconds >= unit:
            whole, rest = divmod(int(seconds), unit)
            return f"{whole}{name}{rest // small:02}{part}"
    return f"{int(seconds)}s"


def first_of(words: Sequence[object], most: int, *, joint: str = ", ") -> str:
    """Join the first words of a list, and say how many more there are.

    Args:
        words: Names or parts of a message. They are not cleaned.
        most: Number of words to show.
        joint: Text between two words.
    """
    shown = joint.join(map(str, words[:most]))
    return f"{shown}{joint if joint != ', ' else ' '}and {len(words) - most:,} more" if len(words) > most else shown
