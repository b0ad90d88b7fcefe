"""Text plots: correct dots, labels and exact sizes."""

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult

from curator.results.text_plot import Series, decimate, sparkline
from curator.results.text_plot import draw as draw_whole
from tui.widgets.plot import LinePlot

# Bits of a braille character by row and column, from the Unicode chart: dots 1-8.
DOTS = {(0, 0): 0, (1, 0): 1, (2, 0): 2, (0, 1): 3, (1, 1): 4, (2, 1): 5, (3, 0): 6, (3, 1): 7}


def draw(series: list[Series], width: int, height: int, **options: Any) -> list[str]:
    return list(draw_whole(series, width, height, **options).lines)


def dots(lines: list[str]) -> np.ndarray:
    """Return the dots of a picture's braille characters. Ignore other characters."""
    found = np.zeros((4 * len(lines), 2 * len(lines[0])), dtype=bool)
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            code = ord(character) - 0x2800
            if 0 <= code < 256:
                for (y, x), bit in DOTS.items():
                    found[4 * row + y, 2 * column + x] = bool(code >> bit & 1)
    return found


def area(lines: list[str]) -> np.ndarray:
    """Return the dots of a picture without its two axes."""
    left = lines[-2].index("└") + 1
    return dots([line[left:] for line in lines[:-2]])


def test_draw_straight_line_reaches_both_corners() -> None:
    found = area(draw([Series([(0.0, 0.0), (1.0, 1.0)])], 50, 14))
    height, width = found.shape
    for column in range(width):
        (rows,) = np.nonzero(found[:, column])
        assert len(rows) > 0
        assert rows == pytest.approx((height - 1) * (1 - column / (width - 1)), abs=1)


@pytest.mark.parametrize(("width", "height"), [(50, 14), (23, 9), (140, 40)])
def test_draw_symmetric_points_gives_symmetric_picture(width: int, height: int) -> None:
    x = np.linspace(-1, 1, 401)
    found = area(draw([Series(np.column_stack([x, x**2]))], width, height))
    for left, right in zip(found.T, found.T[::-1], strict=True):
        assert np.flatnonzero(left).min() == pytest.approx(np.flatnonzero(right).min(), abs=1)


def test_draw_powers_on_logarithmic_axis_gives_straight_line() -> None:
    drawn = draw([Series([(float(x), 10.0**x) for x in range(1, 7)])], 40, 10, log_y=True)
    found = area(drawn)
    height, width = found.shape
    for column in range(width):
        (rows,) = np.nonzero(found[:, column])
        assert rows == pytest.approx((height - 1) * (1 - column / (width - 1)), abs=1)


def test_draw_axes_label_their_range() -> None:
    lines = draw([Series([(0.0, 0.0), (1000.0, 2.0)])], 60, 13, x_label="steps")
    assert lines[-1].endswith("steps")
    ticks = [float(word) for word in lines[-1].split()[:-1]]
    assert len(ticks) > 2
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])
    assert ticks[0] == 0
    assert ticks[-1] <= 1000
    labels = [float(line.partition("┤")[0]) for line in lines if "┤" in line]
    assert labels == sorted(labels, reverse=True)
    assert (labels[0], labels[-1]) == (2.0, 0.0)


@pytest.mark.parametrize(("last", "labels"), [(1, ["1"]), (3, ["1", "2", "3"]), (5, ["1", "2", "3", "4", "5"])])
def test_draw_whole_numbers_across_have_whole_labels(last: int, labels: list[str]) -> None:
    points = [(float(number), 0.5 * number) for number in range(1, last + 1)]
    assert draw([Series(points)], 50, 9, x_label="edit")[-1].split() == [*labels, "edit"]


def test_draw_close_ticks_have_different_labels() -> None:
    lines = draw([Series([(0.0, 1000.0), (1.0, 1000.01)])], 60, 13)
    labels = [line.partition("┤")[0].strip() for line in lines if "┤" in line]
    assert len(labels) > 1
    assert len(set(labels)) == len(labels)


def test_decimate_many_points_keeps_spike() -> None:
    y = np.zeros(100_000)
    y[54_321] = 1.0
    points = np.column_stack([np.arange(len(y), dtype=float), y])
    kept = decimate(points, 80)
    assert len(kept) <= 160
    assert kept[:, 1].max() == 1.0
    assert (np.diff(kept[:, 0]) > 0).all()
    assert area(draw([Series(points)], 80, 12))[0].any()


def test_draw_empty_or_tiny_picture_has_requested_size() -> None:
    nothing = [" " * 20] * 6
    assert draw([], 20, 6) == nothing
    assert draw([Series([])], 20, 6) == nothing
    assert draw([Series([(math.nan, 1.0), (1.0, math.inf)])], 20, 6) == nothing
    assert draw([Series([(1.0, -1.0), (2.0, 0.0)])], 20, 6, log_y=True) == nothing
    assert area(draw([Series([(3.0, 4.0)])], 40, 10)).sum() == 1
    flat = area(draw([Series([(0.0, 4.0), (9.0, 4.0)])], 40, 10))
    assert flat.any(axis=1).sum() == 1
    assert flat.any(axis=0).all()


def test_draw_marker_outside_points_is_in_view() -> None:
    lines = draw([Series([(0.0, 0.0), (1.0, 1.0)])], 40, 10, marker=(2.0, 3.0))
    assert lines[0].endswith("●")
    assert "●" not in "".join(draw([Series([(0.0, 0.0)])], 40, 10, marker=(math.nan, 1.0)))


numbers = st.floats() | st.integers(-1000, 1000).map(float)
pairs = st.lists(st.tuples(numbers, numbers), max_size=30)


@given(
    st.lists(pairs, max_size=3), st.integers(0, 150), st.integers(0, 50), st.booleans(), st.text(max_size=9), numbers
)
@example([[(0.0, -1.7e308), (1.0, 1.7e308)]], 80, 20, False, "界", 5e-324)
@example([[(0.0, 0.0), (5e-324, 5e-324)]], 80, 20, True, "e\u0301", 1.0)
@example([[(1e300, 1e300), (1.0000000000001e300, 1e-320)]], 80, 20, True, "\x1b[1m", 1.0)
def test_draw_any_input_gives_lines_of_exact_width(
    lines: list[list[tuple[float, float]]], width: int, height: int, log_y: bool, x_label: str, mark: float
) -> None:
    series = [Series(points) for points in lines]
    drawn = draw(series, width, height, log_y=log_y, x_label=x_label, marker=(mark, mark))
    assert len(drawn) == height
    assert all(cell_len(line) == len(line) == width for line in drawn)
    assert "\x1b" not in "".join(drawn)


@given(st.lists(numbers, max_size=50), st.integers(-1, 20))
def test_sparkline_any_values_fit_width(values: list[float], width: int) -> None:
    drawn = sparkline(values, width)
    finite = [value for value in values if math.isfinite(value)]
    assert len(drawn) == max(min(len(finite), width), 0)


def test_sparkline_known_values_give_expected_bars() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 100, 300], 3, low=0, high=100) == "▁██"
    assert sparkline([], 8) == ""
    assert len(set(sparkline([5, 5, 5], 8))) == 1


class PlotApp(App[None]):
    def compose(self) -> ComposeResult:
        yield LinePlot(id="plot")


def grid(app: App[Any]) -> list[str]:
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


@pytest.mark.parametrize("no_color", [False, True])
def test_plot_widget_with_and_without_color_shows_lines(monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    series = [Series([(1.0, 1.0), (2.0, 10.0)], "green"), Series(np.array([[1.0, 5.0], [2.0, 5.0]]), "no such style")]

    async def main() -> None:
        app = PlotApp()
        async with app.run_test(size=(60, 20)) as pilot:
            plot = app.query_one(LinePlot)
            assert grid(app) == [" " * 60] * 20
            plot.show(series, x_label="steps", marker=(1.5, 2.0))
            await pilot.pause()
            expected = draw(series, 60, 20, x_label="steps", marker=(1.5, 2.0))
            assert grid(app) == expected
            plot.log_y = True
            await pilot.pause()
            assert grid(app) == draw(series, 60, 20, log_y=True, x_label="steps", marker=(1.5, 2.0))
            for width, height in [(1, 1), (5, 3), (13, 5), (140, 40)]:
                await pilot.resize_terminal(width, height)
                await pilot.pause()
                lines = grid(app)
                assert [len(line) for line in lines] == [width] * height
            plot.show([])
            await pilot.pause()
            assert set("".join(grid(app))) == {" "}

    asyncio.run(main())
