"""Texts in a line that react to the pointer."""

from tui.widgets.lines import Line, width_of


def part_at(line: Line, x: int) -> int | None:
    """Return the number of the part of a line at a column; None after its end."""
    end = 0
    for number, part in enumerate(line):
        end += width_of([part])
        if x < end:
            return number
    return None
