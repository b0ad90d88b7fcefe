"""Text on the screen. All of it is made of parts, and every part is cleaned here: foreign text has no other way in.

A part is a text, or a text with a style name from `STYLES`; a line is a sequence of parts. Nothing is ever read as
markup.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

from curator.core.text import clean

Part = str | tuple[str, str]
Line = Sequence[Part]

STYLES = ("dim", "good", "bad", "warn", "pin", "accent", "strong", "cursor", "range", "title")


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Foreign text, cleaned and brought to exactly so many cells; what is cut is marked by an ellipsis."""
    safe = clean(text)
    length = cell_len(safe)
    if length > width:
        return set_cell_size(set_cell_size(safe, max(width - 1, 0)) + "…", max(width, 0))
    return " " * (width - length) + safe if right else safe + " " * (width - length)


def width_of(line: Line) -> int:
    """Cells that a line takes."""
    return sum(cell_len(part if isinstance(part, str) else part[0]) for part in line)


def spread(left: Line, right: Line, width: int) -> Line:
    """A line with one part at each end; the left is cut where they meet."""
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
        """Forget the styles of the theme before."""
        self._styles, self._laid = {}, {}
        super().notify_style_update()

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            # What lies under all parts is asked for once, too: it takes longer than to draw a row.
            style = Style() if name else self.rich_style
            for part in name.split():
                said = self.get_component_rich_style(f"line--{part}", partial=True)
                # A colour that depends on what is behind it is known only with that.
                whole = self.get_component_rich_style(f"line--{part}")
                style += said + Style(
                    color=whole.color if said.color else None, bgcolor=whole.bgcolor if said.bgcolor else None
                )
            self._styles[name] = style
        return self._styles[name]

    def strip(self, line: Line, width: int, *, over: str = "") -> Strip:
        """Draw one line.

        Args:
            line: Its parts.
            width: Cells of the result.
            over: Style that lies over the whole line.
        """
        segments = []
        for part in line:
            text, style = (part, "") if isinstance(part, str) else part
            segments.append(Segment(clean(text), self._layers(style, over)))
        # A style on every cell: where there is none, Textual's filter for NO_COLOR fails.
        return Strip(segments).adjust_cell_length(width, self._layers("", over))

    def _layers(self, style: str, over: str) -> Style:
        """The widget's own style, a part's, and what lies over the line; kept, because adding styles is slow."""
        if (style, over) not in self._laid:
            part = self._style(style) if style else Style()
            self._laid[style, over] = self._style("") + part + (self._style(over) if over else Style())
        return self._laid[style, over]


class Lines(Drawn):
    """A block of lines that stands still.

    Args:
        lines: What to show.
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

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many rows as there are lines."""
        return len(self._lines)

    def get_content_width(self, container: Size, viewport: Size) -> int:
        """As wide as the widest line."""
        return max((width_of(line) for line in self._lines), default=0)

    def render_line(self, y: int) -> Strip:
        """Draw one row."""
        line = self._lines[y] if y < len(self._lines) else ()
        return self.strip(line, self.content_size.width)

    @property
    def text(self) -> str:
        """What is shown, without styles."""
        return "\n".join("".join(p if isinstance(p, str) else p[0] for p in line) for line in self._lines)
