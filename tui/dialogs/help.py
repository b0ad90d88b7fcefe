"""Help: all keys of the screen, filter words and signs. It filters its lines, and runs the action under the cursor."""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

from tui.actions import ACTIONS, key_name
from tui.dialogs.base import Dialog
from tui.widgets.lines import Line
from tui.widgets.rows import Rows

_FILTER: tuple[tuple[str, str], ...] = (
    ("words", "letters of the name in order (-word: not, a | b: either)"),
    ("tag:x src:x", "tag or source contains x"),
    ("in:yes in:no", "selected or not, also pin:in pin:out pin:any pin:no"),
    ("aff>0 n<500", "numbers: aff, flip, n, tokens, with > < >= <= ="),
    ("a b", "both a and b"),
)
_SIGNS: tuple[tuple[str, str], ...] = (
    ("● ○", "in the selection, out of the selection"),
    ("◆ ◇", "pinned in, pinned out (automatic methods keep pins)"),
    ("*", "marked, to change several tasks at once"),
    ("▌", "row under the cursor"),
    ("▼ ▲", "column of the order: largest first, smallest first"),
    ("★", "selection that this session started from"),
    ("✗ 117", "size of a task without its dropped examples"),
    ("≈", "first-order estimate (without ≈: full estimate)"),
    ("±", "half of the 90 % interval"),
    ("~noise, ~", "within the noise of validation choice and past errors"),
    ("same", "the same tasks and examples: no difference"),
    ("helps by", "affinity: mean loss without minus with the task (+ helps)"),
    ("if flipped", "change of the loss if you toggle the task (− is better)"),
    ("×0.001", "thousandths of a nat"),
    ("◎", "measured by fine-tuning (V); target on the screen of a task"),
    ("uncalibrated, ?", "estimate not checked against measured losses"),
    ("calibrated·14", "estimate calibrated by 14 measured subsets"),
    ("◌ …", "computing"),
    ("✓ saved", "the selection is saved under the name of its base"),
    ("● 2 changed", "two tasks or rows differ from the base, or from all tasks"),
    ("not saved", "no saved selection is the base of this one"),
    ("✓ ~ ◐ · ▶", "stage: done, stale, partial, missing, running"),
    ("✗ ! ·", "error, warning, note"),
    ("▸", "start of a part that has loss"),
    ("✂", "the end of the example is cut off"),
    ("⚠", "control characters, replaced by �"),
    ("↵ ⇥", "line break and tab in a list"),
    ("█ ▓ ▒ ░", "matrix: helps, from strong to weak"),
    ("▇ ▄ ▂", "matrix: hurts, from strong to weak"),
)


class _Row(NamedTuple):
    """One line: the name of the action that it runs, or "", its keys or sign, and its words. A title has no words."""

    action: str
    sign: str
    words: str


class _Help(Rows):
    def __init__(self, rows: list[_Row], **options: object) -> None:
        super().__init__(**options)
        self.rows = self._all = rows

    @property
    def count(self) -> int:
        return len(self.rows)

    def line(self, row: int, width: int) -> Line:
        return _line(self.rows[row])

    def on_mount(self) -> None:
        self.changed()

    def filter(self, words: str) -> None:
        """Show the lines that contain all words."""
        wanted = words.casefold().split()
        matching = [row for row in self._all if row.words and _contains(row, wanted)]
        self.rows = matching if wanted else self._all
        self.cursor = 0
        self.changed()


def _contains(row: _Row, words: list[str]) -> bool:
    text = f"{row.sign} {row.words} {row.action}".casefold()
    return all(word in text for word in words)


def _line(row: _Row) -> Line:
    if not row.words:
        return [(row.sign, "title")] if row.sign else []
    return [(f"  {row.sign:<15} ", "accent"), row.words]


def _rows(place: str) -> list[_Row]:
    rows: list[_Row] = []
    for title, where in (("this screen", place), ("in lists", "list"), ("all screens", "any")):
        rows.append(_Row("", title, ""))
        for action in ACTIONS:
            if where in action.places:
                keys = " ".join(key_name(key) for key in action.keys)
                rows.append(_Row(action.id if where != "list" else "", keys, action.help))
        rows.append(_Row("", "", ""))
    for title, signs in (("filter", _FILTER), ("signs", _SIGNS)):
        rows.append(_Row("", title, ""))
        rows += [_Row("", sign, words) for sign, words in signs]
        rows.append(_Row("", "", ""))
    return rows[:-1]


def help_lines(place: str) -> list[Line]:
    """Return all actions of a place, of lists and of all screens, then filter words and signs."""
    return [_line(row) for row in _rows(place)]


class HelpDialog(Dialog[str]):
    """Shows all keys of a screen. The value is the name of an action to run.

    Args:
        place: Place of the screen in `tui.actions`.
    """

    title_text = "help"
    keys = (("↑↓", "scroll"), ("/", "filter"), ("enter", "run"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("slash", "filter", "filter", show=False)]

    def __init__(self, place: str) -> None:
        super().__init__()
        self._place = place

    def content(self) -> Iterable[Widget]:
        """Return a field for the filter, and a list that scrolls."""
        return [
            Input(id="help-filter", placeholder="/ filters these lines"),
            _Help(_rows(self._place), classes="first-focus tall"),
        ]

    def action_filter(self) -> None:
        """Move to the field of the filter."""
        self.query_one("#help-filter", Input).focus()

    def action_cancel(self) -> None:
        """Clear the filter, or close the dialog."""
        field = self.query_one("#help-filter", Input)
        if field.value or field.has_focus:
            field.value = ""
            self.query_one(_Help).focus()
        else:
            self.dismiss(None)

    @on(Input.Changed, "#help-filter")
    def _typed(self, event: Input.Changed) -> None:
        self.query_one(_Help).filter(event.value)

    @on(Input.Submitted, "#help-filter")
    def _entered(self) -> None:
        self.query_one(_Help).focus()

    @on(Rows.Opened)
    def _run(self) -> None:
        rows = self.query_one(_Help)
        if action := rows.rows[rows.cursor].action:
            self.dismiss(action)
