"""The screen of a program on a pseudo-terminal, from the bytes that the program writes."""

import codecs
import re

from rich.cells import split_graphemes

_SEQUENCE = re.compile(
    r"\x1b\[[?>=!]?([\d;]*)[ $]?([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1bP[^\x1b]*\x1b\\|\x1b[^\[\]P]"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[^@-~]*|\][^\x07\x1b]*|P[^\x1b]*)?$")


class ScreenText:
    """The text of a screen. It knows the sequences that Textual and curator write.

    Args:
        width: Columns.
        height: Rows.
    """

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._cells = [[" "] * width for _ in range(height)]
        self._x = self._y = 0
        self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def lines(self) -> list[str]:
        """Return the rows of the screen."""
        return ["".join(row) for row in self._cells]

    def feed(self, data: bytes) -> None:
        """Apply output of the program."""
        text = self._rest + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text)
        self._rest = text[unfinished.start() :] if unfinished else ""
        text = text[: unfinished.start()] if unfinished else text
        place = 0
        for found in _SEQUENCE.finditer(text):
            self._write(text[place : found.start()])
            place = found.end()
            if found[2]:
                self._control(found[2], [int(number or 0) for number in found[1].split(";")])
        self._write(text[place:])

    def _write(self, text: str) -> None:
        for piece in re.split(r"([\r\n])", text):
            if piece == "\n":
                self._y = min(self._y + 1, self._height - 1)
            elif piece == "\r":
                self._x = 0
            else:
                for start, end, cells in split_graphemes(piece)[0]:
                    for further in range(cells):
                        if self._x < self._width:
                            self._cells[self._y][self._x] = "" if further else piece[start:end]
                        self._x += 1

    def _control(self, kind: str, numbers: list[int]) -> None:
        count = max(numbers[0], 1)
        if kind in "Hf":
            row, column = (*numbers, 1, 1)[:2] if len(numbers) > 1 else (count, 1)
            self._y, self._x = min(max(row, 1), self._height) - 1, min(max(column, 1), self._width) - 1
        elif kind == "G":
            self._x = min(count, self._width) - 1
        elif kind == "C":
            self._x = min(self._x + count, self._width - 1)
        elif kind == "K":
            first, last = {0: (self._x, self._width), 1: (0, self._x + 1), 2: (0, self._width)}[numbers[0]]
            self._cells[self._y][first:last] = [" "] * (last - first)
        elif kind == "J":
            self._cells = [[" "] * self._width for _ in range(self._height)]
