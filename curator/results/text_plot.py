"""Draw plots as text: lines in braille, points, and sparklines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size

from curator.core.text import clean

_Points = NDArray[np.float64]
_BARS = "▁▂▃▄▅▆▇█"
_MARK = "●"
# Bit of each dot of a braille character: 4 rows of 2 dots.
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.int32)
# Beyond these limits, differences and their logarithms leave the range of a float.
_LARGEST, _SMALLEST = 1e300, 1e-300
# A span narrower than this share of its values is a rounding error.
_FLAT = 1e-12
AXIS, LABEL, MARKER = -1, -2, -3
"""Owners of cells that do not belong to a series."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot, or one kind of points.

    Args:
        points: Pairs of x and y, in any order. Pairs with NaN or infinity are left out.
        style: A Rich style.
        mark: A character to draw at each point. Empty draws a line through the points.
    """

    points: _Points | Sequence[tuple[float, float]]
    style: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot as characters.

    Args:
        lines: One string for each line of the plot. Each string is exactly as many cells wide as the plot.
        owners: Number of the series that drew last in each cell. Negative for all other cells.
    """

    lines: tuple[str, ...]
    owners: tuple[tuple[int, ...], ...]


def draw(
    series: Sequence[Series],
    width: int,
    height: int,
    *,
    log_y: bool = False,
    x_label: str = "",
    marker: tuple[float, float] | None = None,
) -> Picture:
    """Draw series as text.

    Args:
        series: Lines and points.
        width: Width of the picture, in cells.
        height: Height of the picture, in lines.
        log_y: Whether the y axis is logarithmic.
        x_label: Name of the x axis.
        marker: A point to mark. The axes always include it.

    Returns:
        `height` lines of exactly `width` cells.
    """
    sheet = _Sheet(max(width, 0), max(height, 0))
    lines = [_finite(one.points, log_y=log_y) for one in series]
    mark = _finite([] if marker is None else [marker], log_y=log_y)
    every = np.concatenate([*lines, mark]) if lines else mark
    if not len(every) or width < 1 or height < 1:
        return sheet.picture()
    across = every[:, 0]
    # Edits and steps are whole numbers.
    x_scale = _scale(across, whole=bool((across == np.rint(across)).all()))
    y_scale = _scale(every[:, 1], log=log_y)
    rows = height - 2 if height >= 5 and width >= 12 else height
    ticks = y_scale.ticks((rows + 1) // 2)
    left = max((len(label) for _, label in ticks), default=0) + 1
    if width - left < max(left, 8):
        left = 0
    columns = width - left
    drawn = [points if not one.mark else points[:0] for one, points in zip(series, lines, strict=True)]
    _draw_lines(sheet, drawn, decimate_to=columns, area=(0, left, rows, columns), scales=(x_scale, y_scale))
    for number, (one, points) in enumerate(zip(series, lines, strict=True)):
        if one.mark:
            right = np.rint(x_scale.places(points[:, 0]) * (columns - 1)).astype(int)
            down = np.rint((1 - y_scale.places(points[:, 1])) * (rows - 1)).astype(int)
            for row, column in zip(down.tolist(), right.tolist(), strict=True):
                sheet.write(row, left + column, one.mark, number)
    if len(mark):
        x, y = float(x_scale.places(mark[:, 0])[0]), float(y_scale.places(mark[:, 1])[0])
        sheet.write(round((1 - y) * (rows - 1)), left + round(x * (columns - 1)), _MARK, MARKER)
    if left:
        _draw_y_axis(sheet, ticks, rows, left)
    if rows < height:
        _draw_x_axis(sheet, x_scale, rows, left, x_label)
    return sheet.picture()


def decimate(points: _Points, buckets: int) -> _Points:
    """Keep the lowest and the highest point of each of several equal stretches of x.

    Args:
        points: (n, 2), sorted by x, finite.
        buckets: Number of stretches, at least 1.

    Returns:
        At most two points for each stretch, sorted by x. All points if there are no more than that.
    """
    if len(points) <= 2 * buckets:
        return points
    x, y = points[:, 0], points[:, 1]
    span = x[-1] - x[0]
    places = np.zeros(len(x)) if span <= 0 else (x - x[0]) / span * buckets
    bucket = np.clip(places.astype(np.int64), 0, buckets - 1)
    order = np.lexsort((y, bucket))
    starts = np.flatnonzero(np.diff(bucket[order], prepend=-1))
    ends = np.append(starts[1:], len(order)) - 1
    kept: _Points = points[np.unique(np.concatenate([order[starts], order[ends]]))]
    return kept


def sparkline(values: Sequence[float], width: int, *, low: float | None = None, high: float | None = None) -> str:
    """Draw values as a row of bars.

    Args:
        values: One value for each bar. More than `width` values are averaged. NaN and infinity are left out.
        width: Maximum number of bars.
        low: Value of the lowest bar [default: the lowest value].
        high: Value of the highest bar [default: the highest value].

    Returns:
        The bars. The empty string without values or room.
    """
    finite = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if width <= 0 or not len(finite):
        return ""
    finite = np.clip(finite, -_LARGEST, _LARGEST)
    if len(finite) > width:
        finite = np.array([part.mean() for part in np.array_split(finite, width)])
    bottom, top = float(finite.min() if low is None else low), float(finite.max() if high is None else high)
    if top - bottom < _SMALLEST:
        # All values are equal: draw bars of middle height.
        return _BARS[3] * len(finite)
    levels = np.clip((finite - bottom) / (top - bottom), 0, 1) * (len(_BARS) - 1)
    return "".join(_BARS[int(level)] for level in np.rint(levels))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Positions of values on an axis from `low` to `high`. On a logarithmic axis both are exponents of ten."""

    low: float
    high: float
    log: bool = False
    whole: bool = False
    """Whether all values are whole numbers, such as counts. The labels are whole numbers too."""

    def places(self, values: _Points) -> _Points:
        """Return positions as shares of the axis's length."""
        return (values - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Return at most `most` round values in the range, each as share of the length and label."""
        if most < 1:
            return []
        if self.log:
            first, last = math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9)
            if last - first >= 1:
                stride = math.ceil((last - first + 1) / most)
                exponents = np.arange(first, last + 1, stride, dtype=np.float64)
                labels = [f"{10.0**e:.0f}" if 0 <= e <= 4 else f"{10.0**e:.4g}" for e in exponents]
                return self._placed(exponents, labels)
            values, labels = _round_values(10.0**self.low, 10.0**self.high, most)
            return self._placed(np.log10(values), labels)
        values, labels = _round_values(self.low, self.high, most, whole=self.whole)
        return self._placed(values, labels)

    def _placed(self, values: _Points, labels: list[str]) -> list[tuple[float, str]]:
        places = np.clip(self.places(values), 0, 1)
        return list(zip(places.tolist(), labels, strict=True))


def _round_values(low: float, high: float, most: int, *, whole: bool = False) -> tuple[_Points, list[str]]:
    """Return at most `most` multiples of 1, 2 or 5 times a power of ten, and their labels."""
    exponent = math.floor(math.log10((high - low) / most))
    if whole:
        exponent = max(exponent, 0)
    for factor in (1, 2, 5, 10, 20, 50, 100):
        step = factor * 10.0**exponent
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            break
    values = np.arange(first, last + 1, dtype=np.float64) * step
    if not len(values):
        return values, []
    biggest = float(np.abs(values).max())
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if biggest < 1e7 and decimals <= 6:
        return values, [f"{value + 0.0:.{decimals}f}" for value in values.tolist()]
    # Four digits, or more if neighbours would look the same.
    digits = math.floor(math.log10(biggest)) - math.floor(math.log10(step) + 1e-9) + 1 if biggest > 0 else 1
    return values, [f"{value + 0.0:.{max(digits, 4)}g}" for value in values.tolist()]


def _scale(values: _Points, *, log: bool = False, whole: bool = False) -> _Scale:
    low, high = float(values.min()), float(values.max())
    if high - low < max(_SMALLEST, _FLAT * max(abs(low), abs(high))):
        margin = (0.05 if log else 0.05 * abs(low)) or 1.0
        margin = max(margin, _SMALLEST)
        return _Scale(low - margin, high + margin, log, whole)
    return _Scale(low, high, log, whole)


def _finite(points: _Points | Sequence[tuple[float, float]], *, log_y: bool) -> _Points:
    """Return the drawable points, sorted by x. On a logarithmic axis, y is an exponent of ten."""
    array = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    array = array[np.isfinite(array).all(axis=1)]
    if log_y:
        array = array[array[:, 1] > 0]
    array = np.clip(array, -_LARGEST, _LARGEST)
    if log_y:
        array = np.column_stack([array[:, 0], np.log10(np.maximum(array[:, 1], _SMALLEST))])
    return array[np.argsort(array[:, 0], kind="stable")]


class _Sheet:
    """A grid of characters with the owner of each cell."""

    def __init__(self, width: int, height: int) -> None:
        self.text = np.full((height, width), " ", dtype="<U1")
        self.owner = np.full((height, width), LABEL, dtype=np.int64)

    def write(self, row: int, column: int, text: str, owner: int) -> None:
        """Write text of one cell per character, cut at the right edge."""
        text = text[: self.text.shape[1] - column]
        end = column + len(text)
        self.text[row, column:end] = list(text)
        self.owner[row, column:end] = owner

    def picture(self) -> Picture:
        lines = tuple("".join(row) for row in self.text.tolist())
        return Picture(lines, tuple(tuple(row) for row in self.owner.tolist()))


def _draw_lines(
    sheet: _Sheet,
    lines: Sequence[_Points],
    *,
    decimate_to: int,
    area: tuple[int, int, int, int],
    scales: tuple[_Scale, _Scale],
) -> None:
    top, left, rows, columns = area
    bits = np.zeros((rows, columns), dtype=np.int32)
    owner = sheet.owner[top : top + rows, left : left + columns]
    for number, line in enumerate(lines):
        if not len(line):
            continue
        points = decimate(line, decimate_to)
        x = scales[0].places(points[:, 0]) * (2 * columns - 1)
        y = (1 - scales[1].places(points[:, 1])) * (4 * rows - 1)
        dots_x, dots_y = _dots(x, y)
        np.bitwise_or.at(bits, (dots_y // 4, dots_x // 2), _DOTS[dots_y % 4, dots_x % 2])
        owner[dots_y // 4, dots_x // 2] = number
    drawn = bits > 0
    sheet.text[top : top + rows, left : left + columns][drawn] = [chr(0x2800 + int(cell)) for cell in bits[drawn]]


def _dots(x: _Points, y: _Points) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every dot on the path through the points, without gaps."""
    x, y = np.rint(x), np.rint(y)
    parts_x, parts_y = [x[:1]], [y[:1]]
    for i in range(len(x) - 1):
        steps = int(max(abs(x[i + 1] - x[i]), abs(y[i + 1] - y[i])))
        parts_x.append(np.linspace(x[i], x[i + 1], steps + 1)[1:])
        parts_y.append(np.linspace(y[i], y[i + 1], steps + 1)[1:])
    return (
        np.rint(np.concatenate(parts_x)).astype(np.int64),
        np.rint(np.concatenate(parts_y)).astype(np.int64),
    )


def _draw_y_axis(sheet: _Sheet, ticks: list[tuple[float, str]], rows: int, left: int) -> None:
    for row in range(rows):
        sheet.write(row, left - 1, "│", AXIS)
    taken: set[int] = set()
    for place, label in ticks:
        row = round((1 - place) * (rows - 1))
        if row not in taken:
            sheet.write(row, 0, label.rjust(left - 1), LABEL)
            sheet.write(row, left - 1, "┤", AXIS)
            taken.add(row)


def _draw_x_axis(sheet: _Sheet, scale: _Scale, row: int, left: int, name: str) -> None:
    width = sheet.text.shape[1]
    columns = width - left
    name = clean(name)
    # Leave out a name with wide characters: it needs more cells than characters. A long name would hide the ticks.
    room = min(cell_len(name), columns // 3) if len(name) == cell_len(name) else 0
    name = set_cell_size(name, room) if room else ""
    sheet.write(row, max(left - 1, 0), ("└" if left else "") + "─" * columns, AXIS)
    end = width - (room + 1 if room else 0)
    for most in range(max(columns // 6, 2), 0, -1):
        spots = []
        for place, label in scale.ticks(most):
            column = left + round(place * (columns - 1))
            start = min(max(column - len(label) // 2, 0), max(end - len(label), 0))
            spots.append((column, start, label))
        fits = all(start + len(label) <= end for _, start, label in spots)
        apart = all(a[1] + len(a[2]) + 1 < b[1] for a, b in pairwise(spots))
        if fits and apart:
            break
    else:
        spots = []
    for column, start, label in spots:
        sheet.write(row, column, "┬", AXIS)
        sheet.write(row + 1, start, label, LABEL)
    if room:
        sheet.write(row + 1, width - room, name, LABEL)
