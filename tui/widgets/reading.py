"""Layout of the text of an example: parts with loss are marked, and lines fit. This module imports no Textual."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate

from rich.cells import cell_len

from curator.core.text import clean
from tui.widgets.lines import Line, Part

# Maximum number of shown characters. This is longer than common context windows.
LONGEST = 200_000
_TAB = 4
# Characters of the marks of a few turns, which the preview replaces.
_MARKS = 120
_ROLE = re.compile(
    r"<\|im_start\|>(\w+)\r?\n?"
    r"|<\|start_header_id\|>(\w+)<\|end_header_id\|>\s*"
    r"|<start_of_turn>(\w+)\r?\n?"
    r"|<\|(system|user|assistant|tool|model)\|>\r?\n?"
)
_END = re.compile(r"<\|(?:im_end|eot_id|end|endoftext)\|>\s*|<end_of_turn>\s*")


def pieces(text: str, spans: Sequence[int]) -> Iterator[tuple[str, bool]]:
    """Split a text into parts with loss and parts without loss.

    Args:
        text: The text.
        spans: Start and end of each part that carries loss, in characters.

    Yields:
        Each part, and whether the part carries loss. The parts add up to the text.
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
    """Mark the parts of a text that carry loss: `▸` before each part, and a style."""
    parts: list[Part] = []
    cut = list(pieces(text[:LONGEST], [min(place, LONGEST) for place in spans]))
    for (piece, carries), (following, _) in zip(cut, [*cut[1:], ("", False)], strict=False):
        # A boundary may split a line break of two characters. Count one break.
        shown = piece.removesuffix("\r") if following.startswith("\n") else piece
        parts += [("▸", "accent"), (shown, "loss")] if carries else [shown]
    if len(text) > LONGEST:
        parts += [(f"\n… {len(text) - LONGEST:,} more characters", "dim")]
    return parts


def lay_out(parts: Sequence[Part], width: int) -> list[Line]:
    """Break parts into lines of at most `width` cells, at blanks if possible.

    Line breaks are kept. Tabs extend to the next multiple of four cells. Other characters that move the cursor of the
    terminal are replaced. Only a blank at the end of a line may exceed the width.
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
    """Return the positions at which the lines begin."""
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
        # The first character that does not fit. Characters without width stay with the previous character.
        stop = max(bisect_right(ends, ends[start] + width) - 1, start + 1)
        blank = text.rfind(" ", start + 1, stop + 1)
        wide = _cells(text[stop - 1]) == 2
        cuts.append(blank + 1 if blank > 0 and not wide else stop)
    return cuts[:-1] if cuts[-1] == len(text) and len(cuts) > 1 else cuts


@lru_cache(maxsize=10_000)
def _cells(character: str) -> int:
    # A variation selector may widen the previous character. Count a cell, so that no character is cut off.
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
    """Count the characters that cleaning replaces, except line breaks and tabs."""
    text = text.replace("\r\n", "").replace("\n", "").replace("\t", "")
    # Check each distinct character once, because a long text has few distinct characters.
    return (
        0
        if text.isprintable()
        else sum(text.count(character) for character in set(text) if clean(character) != character)
    )


def preview(text: str, cells: int, words: str = "") -> str:
    """Return the start of a text on one line, or the place of the searched words.

    Line breaks and tabs are shown as signs. The marks of turns in common chat templates become the names of the roles.
    """
    start = 0
    if words:
        found = text[:LONGEST].casefold().find(words.casefold())
        if found > max(cells - len(words) - 2, 0):
            start = max(found - 12, 0)
    shown = text[start : start + 4 * max(cells, 1) + _MARKS]
    shown = _ROLE.sub(lambda found: f"{next(filter(None, found.groups()))}: ", shown)
    shown = _END.sub(" ", shown).strip("\r\n\t ")
    shown = shown.replace("\r\n", "\n").replace("\n", " ↵ ").replace("\t", " ⇥ ")
    return ("…" if start else "") + re.sub(" +", " ", shown)
