"""`Frame` writes only what changes, and the terminal always shows the last update."""

import re
from io import StringIO

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import split_graphemes
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tui.frames import Frame

WIDTH, HEIGHT = 12, 3
STYLES = [
    Style(),
    *map(Style.parse, ("bold red on #101010", "bold dim", "dim", "#336699", "reverse", "bold reverse", "underline")),
    *map(Style.parse, ("bold italic #336699", "strike on #101010", "underline2 bold")),
]
SEEN = {"4", "7", "9", "21"}
ENDS = {"22": ("1", "2"), "23": ("3",), "24": ("4", "21"), "27": ("7",), "29": ("9",)}
LETTERS = ["a", "b", " ", "│", "界", "👨\u200d👩\u200d👧", "é", "❤\ufe0f"]
CONSOLE = Console(file=StringIO(), color_system="truecolor", force_terminal=True)


class Terminal:
    """Cells of a terminal that understands the sequences that `Frame` writes. Its graphemes are those of Rich."""

    def __init__(self) -> None:
        self.cells = [[("?", "?")] * WIDTH for _ in range(HEIGHT)]
        self.x = self.y = 0
        self.look = {"attributes": "", "front": "", "back": ""}

    def write(self, text: str) -> None:
        for sequence, letters in re.findall(r"(\x1b\[[\d;]*[A-Za-z])|([^\x1b]+)", text):
            if sequence:
                self._control(sequence[-1], sequence[2:-1])
                continue
            for start, end, cells in split_graphemes(letters)[0]:
                look = ";".join(self.look.values())
                self.cells[self.y][self.x] = (letters[start:end], look)
                for further in range(1, cells):
                    self.cells[self.y][self.x + further] = ("", look)
                self.x += cells

    def _control(self, kind: str, numbers: str) -> None:
        if kind == "H":
            self.y, self.x = (int(number) - 1 for number in numbers.split(";"))
        elif kind == "G":
            self.x = int(numbers) - 1
        elif kind == "C":
            self.x += int(numbers)
        elif kind == "K":
            self.cells[self.y] = [(" ", f";;{self.look['back']}")] * WIDTH
        else:
            assert kind == "m"
            self._paint(numbers.split(";"))

    def _paint(self, codes: list[str]) -> None:
        while codes:
            code = codes.pop(0)
            if code == "0":
                self.look = {"attributes": "", "front": "", "back": ""}
            elif code in ("38", "48"):
                rest = [codes.pop(0) for _ in range(4 if codes[0] == "2" else 2)]
                self.look["front" if code == "38" else "back"] = ";".join([code, *rest])
            elif code in ("39", "49"):
                self.look["front" if code == "39" else "back"] = ""
            elif len(code) == 2 and code[0] in "34":
                self.look["front" if code[0] == "3" else "back"] = code
            elif code in ENDS:
                left = [kept for kept in self.look["attributes"].split() if kept not in ENDS[code]]
                self.look["attributes"] = " ".join(left)
            else:
                self.look["attributes"] = " ".join(sorted({*self.look["attributes"].split(), code}))

    def shown(self) -> list[list[tuple[str, str]]]:
        """Return the cells. A space shows its foreground and attributes only if it is reversed or has a line."""
        return [[(text, _seen(look) if text == " " else look) for text, look in row] for row in self.cells]


def _seen(look: str) -> str:
    attributes, _, back = re.fullmatch(r"([\d ]*);((?:3[\d;]*)?);(.*)", look).groups()  # type: ignore[union-attr]
    return look if SEEN & set(attributes.split()) else back


segments = st.lists(
    st.builds(lambda letters, style: Segment("".join(letters), style), st.lists(st.sampled_from(LETTERS), max_size=6),
              st.sampled_from(STYLES)),
    max_size=6,
)  # fmt: skip
frames = st.lists(st.lists(segments, min_size=HEIGHT, max_size=HEIGHT), min_size=1, max_size=6)


def _update(rows: list[list[Segment]]) -> LayoutUpdate:
    strips = [[Strip(row).adjust_cell_length(WIDTH, Style())] for row in rows]
    return LayoutUpdate(strips, Region(0, 0, WIDTH, HEIGHT))  # type: ignore[arg-type]


@given(frames)
def test_frame_any_updates_leave_the_last_one_on_the_terminal(updates: list[list[list[Segment]]]) -> None:
    frame, terminal = Frame(WIDTH, HEIGHT), Terminal()
    for rows in updates:
        terminal.write(frame.update(_update(rows), CONSOLE))
    # Rich writes each segment with its whole style.
    whole = Terminal()
    for y, line in enumerate(_update(updates[-1]).strips):
        whole.write(f"\x1b[{y + 1};1H")
        for segment in (segment for strip in line for segment in strip):
            whole.write((segment.style or Style()).render(segment.text, color_system=ColorSystem.TRUECOLOR))
    assert terminal.shown() == whole.shown()
    plain = ["".join(segment.text for strip in line for segment in strip) for line in _update(updates[-1]).strips]
    assert ["".join(text for text, _ in row) for row in terminal.cells] == plain


def test_frame_same_update_again_writes_nothing() -> None:
    rows = [[Segment("a│界 👨\u200d👩\u200d👧", STYLES[1])], [Segment("text", STYLES[2])], []]
    frame = Frame(WIDTH, HEIGHT)
    assert frame.update(_update(rows), CONSOLE)
    assert frame.update(_update(rows), CONSOLE) == ""


def test_frame_one_changed_cell_writes_one_cell() -> None:
    frame = Frame(WIDTH, HEIGHT)
    frame.update(_update([[Segment("abcdef")], [], []]), CONSOLE)
    assert frame.update(_update([[Segment("abXdef")], [], []]), CONSOLE) == "\x1b[1;3H\x1b[0mX"


def test_frame_row_with_cluster_is_written_whole_by_column() -> None:
    frame = Frame(WIDTH, HEIGHT)
    frame.update(_update([[Segment("❤\ufe0fab")], [], []]), CONSOLE)
    text = frame.update(_update([[Segment("❤\ufe0faX")], [], []]), CONSOLE)
    assert "\x1b[2K" in text
    assert "❤\ufe0f\x1b[3G" in text, "terminals disagree about the width of the cluster"
