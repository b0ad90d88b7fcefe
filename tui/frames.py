"""What the terminal shows, cell by cell. Only cells that change are written.

Textual writes every cell of a widget that draws itself. On a slow link, most of these bytes repeat what is already
there. `Frame` compares an update with the cells on the terminal, and returns the shortest text that changes them.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from rich.cells import cell_len, split_graphemes
from rich.color import ColorSystem
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate

from tui.colors import downgraded

# Attributes, foreground and background, as numbers of the escape sequence that sets them.
_Look = tuple[str, str, str]
# The text of a cell and its look. The second cell of a wide character has no text.
_Cell = tuple[str, _Look]

_PLAIN: _Look = ("", "", "")
# Cells that did not change between two that did: to write them costs fewer bytes than to move the cursor.
_SHORT_GAP = 3
# A space shows attributes only with these numbers: underline, reverse, strike, double underline, overline.
_SEEN_ON_SPACE = frozenset({"4", "7", "9", "21", "53"})
# The number that ends an attribute. Bold and dim have one end.
_ENDS = {"1": "22", "2": "22", "3": "23", "4": "24", "7": "27", "9": "29"}


class Frame:
    """The cells of a terminal, as far as they are known.

    Args:
        width: Columns of the terminal.
        height: Rows of the terminal.
    """

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self._rows: list[list[_Cell | None]] = [[None] * width for _ in range(height)]

    def update(self, update: CompositorUpdate, console: Console) -> str:
        """Return the text that brings an update to the terminal; "" if the terminal shows it already.

        Args:
            update: An update of a region, or of parts of lines.
            console: Names the color system.
        """
        width, height = self.size
        colors = console._color_system or ColorSystem.TRUECOLOR
        new: dict[int, list[_Cell | None]] = {}
        for y, x, segments in _pieces(update):
            if not 0 <= y < height:
                continue
            row = new.setdefault(y, list(self._rows[y]))
            for cell in _cells(segments, colors):
                if 0 <= x < width:
                    row[x] = cell
                x += 1
        parts: list[str] = []
        pen = _Pen(parts)
        for y, row in sorted(new.items()):
            before, self._rows[y] = self._rows[y], row
            if before != row:
                _write_row(pen, y, before, row)
        pen.finish()
        return "".join(parts)


class FrameUpdate(CompositorUpdate):
    """An update whose text is known.

    Args:
        text: Text for the terminal.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def render_segments(self, console: Console) -> str:
        """Return the text."""
        return self._text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the text, as Rich asks for it."""
        yield Segment(self._text)


class _Pen:
    """Writes cells with as few escape sequences as possible."""

    def __init__(self, parts: list[str]) -> None:
        self._parts = parts
        self._look: _Look | None = None

    def move(self, x: int, y: int) -> None:
        self._parts.append(f"\x1b[{y + 1};{x + 1}H")

    def skip(self, cells: int) -> None:
        self._parts.append(f"\x1b[{cells}C")

    def column(self, x: int) -> None:
        self._parts.append(f"\x1b[{x + 1}G")

    def clear_line(self, look: _Look) -> None:
        self._take(("", "", look[2]))
        self._parts.append("\x1b[2K")

    def write(self, cell: _Cell) -> None:
        text, look = cell
        if text == " " and self._look is not None and _is_blank(look) and _is_blank(self._look):
            # The foreground of a space is not visible.
            look = (self._look[0], self._look[1], look[2])
        self._take(look)
        self._parts.append(text)

    def _take(self, look: _Look) -> None:
        now = self._look
        if look == now:
            return
        codes = ";".join(["0", *filter(None, look)])
        if now is not None and (attributes := _attribute_codes(now[0], look[0])) is not None:
            pairs = ((look[1], now[1], "39"), (look[2], now[2], "49"))
            colors = [code or default for code, before, default in pairs if code != before]
            codes = min(codes, ";".join([*attributes, *colors]), key=len)
        self._parts.append(f"\x1b[{codes}m")
        self._look = look

    def finish(self) -> None:
        if self._look is not None and self._look != _PLAIN:
            self._parts.append("\x1b[0m")


def _attribute_codes(before: str, after: str) -> list[str] | None:
    """Return the numbers that change attributes; None if one of them has no known end."""
    old, new = set(filter(None, before.split(";"))), set(filter(None, after.split(";")))
    if not old - new <= _ENDS.keys():
        return None
    ends = {_ENDS[code] for code in old - new}
    # The end of bold also ends dim.
    return sorted(ends) + sorted(code for code in new if code not in old or _ENDS.get(code) in ends)


def _is_blank(look: _Look) -> bool:
    return not look[0] or _SEEN_ON_SPACE.isdisjoint(look[0].split(";"))


def _same(one: _Cell | None, other: _Cell | None) -> bool:
    if one == other:
        return True
    if one is None or other is None or one[0] != " " or other[0] != " ":
        return False
    return _is_blank(one[1]) and _is_blank(other[1]) and one[1][2] == other[1][2]


def _write_row(pen: _Pen, y: int, before: list[_Cell | None], row: list[_Cell | None]) -> None:
    if any(cell is not None and len(cell[0]) > 1 for cells in (before, row) for cell in cells):
        _write_whole(pen, y, row)
        return
    place = -1
    for x, cell in enumerate(row):
        if cell is None or (not cell[0]) or (_same(before[x], cell) and not _covers(row, before, x)):
            continue
        gap = x - place
        if place < 0:
            pen.move(x, y)
        elif 0 < gap <= _SHORT_GAP and all(c is not None and c[0] for c in row[place:x]):
            for between in row[place:x]:
                if between is not None:
                    pen.write(between)
        elif gap > 0:
            pen.skip(gap)
        pen.write(cell)
        place = x + (2 if x + 1 < len(row) and row[x + 1] is not None and not (row[x + 1] or ("",))[0] else 1)


def _covers(row: list[_Cell | None], before: list[_Cell | None], x: int) -> bool:
    """Return whether a wide character stays, but its second cell was another one before."""
    return x + 1 < len(row) and row[x + 1] is not None and row[x + 1] != before[x + 1] and not (row[x + 1] or ("",))[0]


def _write_whole(pen: _Pen, y: int, row: list[_Cell | None]) -> None:
    """Write a row with characters whose width differs between terminals, each at its own column."""
    pen.move(0, y)
    if all(cell is not None for cell in row):
        pen.clear_line(next(cell[1] for cell in row if cell is not None))
    jump = True
    for x, cell in enumerate(row):
        if cell is None or not cell[0]:
            jump = True
            continue
        if jump:
            pen.column(x)
        pen.write(cell)
        jump = len(cell[0]) > 1


def _pieces(update: CompositorUpdate) -> Iterator[tuple[int, int, Iterable[Segment]]]:
    """Yield row, column and segments of each piece of an update."""
    if isinstance(update, LayoutUpdate):
        for y, line in enumerate(update.strips, update.region.y):
            yield y, update.region.x, [segment for strip in line for segment in strip]
    elif isinstance(update, ChopsUpdate):
        for y, x1, x2 in update.spans:
            for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
                if strip is not None and x <= x2 and end > x1:
                    yield y, x, strip if end <= x2 else strip.crop(0, min(end, x2) - x)


def _cells(segments: Iterable[Segment], colors: ColorSystem) -> Iterator[_Cell]:
    """Yield the cells of segments."""
    for text, style, control in segments:
        if control:
            continue
        look = _look(style, colors) if style is not None else _PLAIN
        if cell_len(text) == len(text) and text.isascii():
            for letter in text:
                yield letter, look
            continue
        for start, end, width in split_graphemes(text)[0]:
            if width:
                yield text[start:end], look
                for _ in range(width - 1):
                    yield "", look


@lru_cache(maxsize=4096)
def _look(style: Style, colors: ColorSystem) -> _Look:
    front = downgraded(style.color, colors).get_ansi_codes() if style.color is not None else ()
    back = downgraded(style.bgcolor, colors).get_ansi_codes(foreground=False) if style.bgcolor is not None else ()
    attributes = style.without_color._make_ansi_codes(colors)
    # The codes of the default colors are those of no color.
    return attributes, _unless(";".join(front), "39"), _unless(";".join(back), "49")


def _unless(codes: str, default: str) -> str:
    return "" if codes == default else codes
