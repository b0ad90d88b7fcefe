"""Lines of text on the screen. This module cleans every text before it is drawn.

A part is a text, or a text with the name of a style from `STYLES`. A line is a sequence of parts. No text is read as
markup.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.cells import cell_len, set_cell_size, split_graphemes
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

from curator.core.text import clean

Part = str | tuple[str, str]
Line = Sequence[Part]

# Below this number of cells, the ends of a name are too short to read.
_LEAST_ENDS = 8

_SIGNS = ("good", "bad", "harm")

STYLES = ("dim", "good", "bad", "harm", "warn", "pin", "accent", "strong", "cursor", "range", "title")


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Clean a text, and cut or pad the text to exactly `width` cells. An ellipsis marks a cut."""
    safe = clean(text)
    length = cell_len(safe)
    if length > width:
        return set_cell_size(set_cell_size(safe, max(width - 1, 0)) + "…", max(width, 0))
    return " " * (width - length) + safe if right else safe + " " * (width - length)


def fit_name(name: str, width: int) -> str:
    """Clean a name, and cut its middle or pad the name to exactly `width` cells. Its ends tell similar names apart."""
    safe = clean(name)
    if cell_len(safe) <= width or width < _LEAST_ENDS:
        return fit(safe, width)
    spans, _ = split_graphemes(safe)
    left, right = width // 2, width - width // 2 - 1
    start, room = 0, left
    for _, end, cells in spans:
        if cells > room:
            break
        start, room = end, room - cells
    stop, room = len(safe), right
    for begin, _, cells in reversed(spans):
        if cells > room:
            break
        stop, room = begin, room - cells
    return fit(f"{safe[:start]}…{safe[stop:]}", width)


def wrap_name(name: str, width: int) -> list[str]:
    """Clean a name, and break it into lines of at most `width` cells."""
    lines, room = [""], max(width, 2)
    for start, end, cells in split_graphemes(clean(name))[0]:
        if cells > room:
            lines.append("")
            room = max(width, 2)
        lines[-1] += clean(name)[start:end]
        room -= cells
    return lines


def width_of(line: Line) -> int:
    """Return the number of cells of a line."""
    return sum(cell_len(part if isinstance(part, str) else part[0]) for part in line)


def spread(left: Line, right: Line, width: int) -> Line:
    """Return a line with texts at both ends. The left text is cut if space is short."""
    room = width - width_of(right)
    kept: list[Part] = []
    for part in left:
        text, style = (part, "") if isinstance(part, str) else part
        size = cell_len(clean(text))
        if size > room:
            kept.append((fit(text, room), style))
            room = 0
            break
        kept.append(part)
        room -= size
    return [*kept, " " * max(room, 0), *right]


class Drawn(Widget):
    """A widget that draws lines of parts."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"line--{style}" for style in STYLES}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._styles: dict[str, Style] = {}
        self._laid: dict[tuple[str, str], Style] = {}

    def notify_style_update(self) -> None:
        """Discard the styles of the previous theme."""
        self._styles, self._laid = {}, {}
        super().notify_style_update()

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            # Cache the style of the widget too, because reading the style is slower than drawing a row.
            style = Style() if name else self.rich_style
            for part in name.split():
                own = self.get_component_rich_style(f"line--{part}", partial=True)
                # A color with transparency depends on the background.
                whole = self.get_component_rich_style(f"line--{part}")
                style += own + Style(
                    color=whole.color if own.color else None, bgcolor=whole.bgcolor if own.bgcolor else None
                )
            self._styles[name] = style
        return self._styles[name]

    def strip(self, line: Line, width: int, *, over: str = "") -> Strip:
        """Draw one line.

        Args:
            line: Parts of the line.
            width: Cells of the result.
            over: Style on top of the whole line.
        """
        segments = []
        for part in line:
            text, style = (part, "") if isinstance(part, str) else part
            segments.append(Segment(clean(text), self._layers(style, over)))
        # Give every cell a style. Textual's filter for NO_COLOR fails on cells without a style.
        return Strip(segments).adjust_cell_length(width, self._layers("", over))

    def _layers(self, style: str, over: str) -> Style:
        """Return the style of the widget, of a part and of the line together. The sum is cached, because it is slow."""
        if (style, over) not in self._laid:
            part = self._style(style) if style else Style()
            whole = self._style("") + part + (self._style(over) if over else Style())
            if style in _SIGNS and part.color is not None:
                # A row of the cursor with its own color keeps the colors that mean help and harm.
                whole += Style(color=part.color)
            self._laid[style, over] = whole
        return self._laid[style, over]


class Lines(Drawn):
    """A block of lines without cursor.

    Args:
        lines: The lines.
    """

    def __init__(self, lines: Sequence[Line] = (), **options: Any) -> None:
        super().__init__(**options)
        self._lines: list[Line] = list(lines)

    def show(self, lines: Sequence[Line]) -> None:
        """Show other lines."""
        before, self._lines = self._lines, list(lines)
        if before == self._lines:
            return
        grown = len(before) != len(self._lines)
        self.refresh(layout=grown)

    @property
    def lines(self) -> Sequence[Line]:
        """Return the lines."""
        return self._lines

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the number of lines."""
        return len(self._lines)

    def get_content_width(self, container: Size, viewport: Size) -> int:
        """Return the width of the widest line."""
        return max((width_of(line) for line in self._lines), default=0)

    def render_line(self, y: int) -> Strip:
        """Draw one row."""
        line = self._lines[y] if y < len(self._lines) else ()
        return self.strip(line, self.content_size.width)

    @property
    def text(self) -> str:
        """Return the text of all lines without styles."""
        return "\n".join("".join(p if isinstance(p, str) else p[0] for p in line) for line in self._lines)
