"""An example's text, laid out to be read: what carries loss is marked, lines fit, all is safe. No Textual."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate

from rich.cells import cell_len

from curator.core.text import clean
from tui.widgets.lines import Line, Part

# An example is shown as far as that, in characters: longer than any context window that people train with.
LONGEST = 200_000
_TAB = 4


def pieces(text: str, spans: Sequence[int]) -> Iterator[tuple[str, bool]]:
    """Cut a text where loss begins and ends.

    Args:
        text: The text.
        spans: Start and end of each part that carries loss, in characters.

    Yields:
        Each part and whether it carries loss; together they are the text.
    """
    here = 0
    for start, end in zip(spans[::2], spans[1::2], strict=True):
        if start > here:
            yield text[here:start], False
        if end > start:
            yield text[start:end], True
        here = max(end, here)
    if here < len(text):
        yield text[here:], False


def marked(text: str, spans: Sequence[int]) -> list[Part]:
    """A text to be read: `▸` before each part that carries loss, and a style on it."""
    parts: list[Part] = []
    cut = list(pieces(text[:LONGEST], [min(place, LONGEST) for place in spans]))
    for (piece, carries), (following, _) in zip(cut, [*cut[1:], ("", False)], strict=False):
        # A line break of two characters may lie across a boundary; it is one break all the same.
        shown = piece.removesuffix("\r") if following.startswith("\n") else piece
        parts += [("▸", "accent"), (shown, "loss")] if carries else [shown]
    if len(text) > LONGEST:
        parts += [(f"\n… {len(text) - LONGEST:,} more characters", "dim")]
    return parts


def lay_out(parts: Sequence[Part], width: int) -> list[Line]:
    """Break parts into lines of at most `width` cells, at blanks where there are any.

    Line breaks are kept, tabs are brought to the next multiple of four cells, all else that would move the terminal's
    cursor is replaced. Only a blank at the end of a line may stand beyond its edge.
    """
    width = max(width, 2)
    lines: list[Line] = []
    for runs in _logical_lines(parts):
        text = "".join(run for run, _ in runs)
        cuts = _cuts(text, width)
        for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
            lines.append(_slice(runs, start, end))
    return lines


def _logical_lines(parts: Sequence[Part]) -> Iterator[list[tuple[str, str]]]:
    line: list[tuple[str, str]] = []
    column = 0
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        text = text.replace("\r\n", "\n")
        for number, row in enumerate(text.split("\n")):
            if number:
                yield line
                line, column = [], 0
            for place, cell in enumerate(row.split("\t")):
                if place:
                    blanks = _TAB - column % _TAB
                    line.append((" " * blanks, style))
                    column += blanks
                if cell:
                    safe = clean(cell)
                    line.append((safe, style))
                    column += cell_len(safe)
    yield line


def _cuts(text: str, width: int) -> list[int]:
    """Where the lines begin."""
    cuts = [0]
    if text.isascii():
        while len(text) - cuts[-1] > width:
            start = cuts[-1]
            blank = text.rfind(" ", start + 1, start + width + 1)
            cuts.append(blank + 1 if blank > 0 else start + width)
        return cuts[:-1] if cuts[-1] == len(text) and len(cuts) > 1 else cuts
    ends = [0, *accumulate(_cells(character) for character in text)]
    while ends[-1] - ends[cuts[-1]] > width:
        start = cuts[-1]
        # The first character that does not fit; those of no width stay with the one before.
        stop = max(bisect_right(ends, ends[start] + width) - 1, start + 1)
        blank = text.rfind(" ", start + 1, stop + 1)
        wide = _cells(text[stop - 1]) == 2
        cuts.append(blank + 1 if blank > 0 and not wide else stop)
    return cuts[:-1] if cuts[-1] == len(text) and len(cuts) > 1 else cuts


@lru_cache(maxsize=10_000)
def _cells(character: str) -> int:
    # A variation selector may widen what stands before it: a cell too many is better than one that is cut off.
    return 1 if character == "\ufe0f" else cell_len(character)


def _slice(runs: list[tuple[str, str]], start: int, end: int) -> Line:
    parts: list[Part] = []
    here = 0
    for text, style in runs:
        piece = text[max(start - here, 0) : max(end - here, 0)]
        if piece:
            parts.append((piece, style) if style else piece)
        here += len(text)
        if here >= end:
            break
    return parts


def control_characters(text: str) -> int:
    """How many characters cleaning replaces, line breaks and tabs aside."""
    text = text.replace("\r\n", "").replace("\n", "").replace("\t", "")
    # Category by category, not character by character: a text of a megabyte has few different ones.
    return (
        0
        if text.isprintable()
        else sum(text.count(character) for character in set(text) if clean(character) != character)
    )


def preview(text: str, cells: int, words: str = "") -> str:
    """The beginning of a text on one line, or where some words stand in it if that is further on."""
    start = 0
    if words:
        found = text[:LONGEST].casefold().find(words.casefold())
        if found > max(cells - len(words) - 2, 0):
            start = max(found - 12, 0)
    return ("…" if start else "") + " ".join(text[start : start + 4 * max(cells, 1)].split())
