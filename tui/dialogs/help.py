"""Help: every key of the screen, from the registry."""

from collections.abc import Iterable

from textual.widget import Widget

from tui.actions import ACTIONS, key_name
from tui.dialogs.base import Dialog
from tui.widgets.lines import Line
from tui.widgets.rows import Rows

_FILTER: tuple[tuple[str, str], ...] = (
    ("words", "names that hold their letters in order; -word: not these; a | b: either"),
    ("tag:x src:x", "tag or source holds x"),
    ("in:yes in:no", "selected or not; pin:in pin:out pin:any pin:no"),
    ("aff>0 n<500", "numbers: aff flip n tokens, with > < >= <= ="),
)
_SIGNS: tuple[tuple[str, str], ...] = (
    ("● ○", "in, out"),
    ("◆ ◇", "pinned in, pinned out: automatic methods leave them"),
    ("★", "the selection that this session rests on"),
    ("≈", "to first order; without it, estimated in full"),
    ("~noise, ~", "indistinguishable: explained by the choice of validation examples, and by errors seen so far"),
    ("Δflip", "what turning the task round adds to the estimated loss; negative is better"),
    ("affin", "affinity: mean estimated loss without the task minus with it; positive helps"),
    ("◎", "measured by really fine-tuning (V)"),
    ("uncalibrated, ?", "the estimate's level is not checked against measured losses; calibrated·14: by 14 subsets"),
)


class _Help(Rows):
    def __init__(self, lines: list[Line], **options: object) -> None:
        super().__init__(**options)
        self.lines = lines

    @property
    def count(self) -> int:
        return len(self.lines)

    def line(self, row: int, width: int) -> Line:
        return self.lines[row]


def help_lines(place: str) -> list[Line]:
    """Every action of a place, of lists and of everywhere; the filter's words; the signs."""
    lines: list[Line] = []
    for title, where in ((f"on {place}", place), ("in lists", "list"), ("everywhere", "any")):
        lines.append([(title, "title")])
        for action in ACTIONS:
            if where in action.places:
                keys = " ".join(key_name(key) for key in action.keys)
                lines.append([(f"  {keys:<16}", "accent"), action.help])
        lines.append([])
    for title, rows in (("filter", _FILTER), ("signs", _SIGNS)):
        lines.append([(title, "title")])
        lines += [[(f"  {sign:<16}", "accent"), words] for sign, words in rows]
        lines.append([])
    return lines


class HelpDialog(Dialog[None]):
    """All keys.

    Args:
        place: The screen that asks.
    """

    title_text = "help"

    def __init__(self, place: str) -> None:
        super().__init__()
        self._place = place

    def content(self) -> Iterable[Widget]:
        """A list to scroll."""
        return [_Help(help_lines(self._place), classes="first-focus tall")]
