"""A widget for line plots."""

from collections.abc import Sequence
from itertools import groupby

from rich.errors import StyleSyntaxError
from rich.segment import Segment
from rich.style import Style
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from curator.results.text_plot import AXIS, MARKER, Picture, Series, draw


class LinePlot(Widget):
    """Draws lines, with axes if they fit."""

    DEFAULT_CSS = """
    LinePlot {
        width: 1fr;
        height: 1fr;
    }
    """
    ALLOW_SELECT = False

    log_y: reactive[bool] = reactive(False)
    """Whether the y axis is logarithmic. A logarithmic axis omits values that are not positive."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._series: tuple[Series, ...] = ()
        self._x_label = ""
        self._marker: tuple[float, float] | None = None
        self._picture: tuple[tuple[int, int, bool], Picture] | None = None

    def show(self, series: Sequence[Series], *, x_label: str = "", marker: tuple[float, float] | None = None) -> None:
        """Show other data.

        Args:
            series: The lines. Later lines are drawn on top of earlier lines.
            x_label: Unit of the x axis.
            marker: A marked point, always in view.
        """
        self._series, self._x_label, self._marker = tuple(series), x_label, marker
        self._picture = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw one row of the plot."""
        width, height = self.size
        picture = self._draw(width, height)
        # Textual fails on segments without a style if NO_COLOR is set.
        base = self.rich_style
        if y >= len(picture.lines):
            return Strip.blank(width, base)
        cells = groupby(zip(picture.lines[y], picture.owners[y], strict=True), key=lambda cell: cell[1])
        segments = [
            Segment("".join(character for character, _ in group), base + self._style_of(owner))
            for owner, group in cells
        ]
        return Strip(segments, width)

    def _draw(self, width: int, height: int) -> Picture:
        key = (width, height, self.log_y)
        if self._picture is None or self._picture[0] != key:
            picture = draw(self._series, width, height, log_y=self.log_y, x_label=self._x_label, marker=self._marker)
            self._picture = (key, picture)
        return self._picture[1]

    def _style_of(self, owner: int) -> Style:
        if owner < 0:
            return Style(bold=True) if owner == MARKER else Style(dim=owner == AXIS)
        try:
            return Style.parse(self._series[owner].style)
        except StyleSyntaxError:
            return Style()
