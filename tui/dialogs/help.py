"""Help: all keys of the screen, filter words and signs."""

from collections.abc import Iterable

from textual.widget import Widget

from tui.actions import ACTIONS, key_name
from tui.dialogs.base import Dialog
from tui.widgets.lines import Line
from tui.widgets.rows import Rows

_FILTER: tuple[tuple[str, str], ...] = (
    ("words", "letters of the name in order (-word: not, a | b: either)"),
    ("tag:x src:x", "tag or source contains x"),
    ("in:yes in:no", "selected or not, also pin:in pin:out pin:any pin:no"),
    ("aff>0 n<500", "numbers: aff, flip, n, tokens, with > < >= <= ="),
)
_SIGNS: tuple[tuple[str, str], ...] = (
    ("● ○", "in the selection, out of the selection"),
    ("◆ ◇", "pinned in, pinned out (automatic methods keep pins)"),
    ("★", "selection that this session started from"),
    ("≈", "first-order estimate (without ≈: full estimate)"),
    ("~noise, ~", "within the noise of validation choice and past errors"),
    ("Δflip", "change of the loss if you toggle the task (− is better)"),
    ("affin", "affinity: mean loss without minus with the task (+ helps)"),
    ("◎", "measured by fine-tuning (V)"),
    ("uncalibrated, ?", "estimate not checked against measured losses"),
    ("calibrated·14", "estimate calibrated by 14 measured subsets"),
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
    """Return all actions of a place, of lists and of all screens, then filter words and signs."""
    lines: list[Line] = []
    for title, where in (("this screen", place), ("in lists", "list"), ("all screens", "any")):
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
    """Shows all keys of a screen.

    Args:
        place: Place of the screen in `tui.actions`.
    """

    title_text = "help"

    def __init__(self, place: str) -> None:
        super().__init__()
        self._place = place

    def content(self) -> Iterable[Widget]:
        """Return a list that scrolls."""
        return [_Help(help_lines(self._place), classes="first-focus tall")]
