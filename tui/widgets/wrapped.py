"""Lines that break between words, so that no sentence is cut."""

from collections.abc import Sequence

from textual.geometry import Size
from textual.strip import Strip

from tui.widgets.lines import Line, Lines
from tui.widgets.reading import lay_out


def wrapped(lines: Sequence[Line], width: int) -> list[Line]:
    """Break lines into lines of at most `width` cells, at blanks if possible. An empty line stays."""
    return [part for line in lines for part in (lay_out(list(line), width) if line else [line])]


class Wrapped(Lines):
    """A block of lines that break between words."""

    def show(self, lines: Sequence[Line]) -> None:
        """Show other lines."""
        if self._lines != list(lines):
            self._lines = list(lines)
            # Broken lines may take another number of rows.
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the number of lines at a width."""
        return len(wrapped(self._lines, width))

    def render_line(self, y: int) -> Strip:
        """Draw one row."""
        lines = wrapped(self._lines, self.content_size.width)
        return self.strip(lines[y] if y < len(lines) else (), self.content_size.width)
