"""Matrix: which task helps which, and what two tasks do to the target together."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from textual import events, on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.reactive import reactive
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import get_current_worker

from curator.errors import CuratorError
from curator.whatif import Difference, Judgement, difference, judge_each
from tui import numbers, view
from tui.actions import bindings_of
from tui.arrange import Arrangement, arrange, full_scale, group_names
from tui.messages import Failed
from tui.screens.base import CuratorScreen
from tui.session import GLYPHS, Mask, State
from tui.session import Rows as RowNumbers
from tui.widgets.lines import Line, Lines, Part, fit, spread
from tui.widgets.rows import Rows

if TYPE_CHECKING:
    from curator.answers import Answers
    from curator.estimate import TargetEstimator

Floats = npt.NDArray[np.float64]

MOST_SHOWN = 1500
ARRANGEMENTS = ("cluster", "affinity", "name")
_REST_SECONDS = 0.15
_NARROW_CELLS, _GLYPH_CELLS, _NUMBER_CELLS = 2, 3, 8
# Cells that the affinity takes at the right: a line, a glyph, a number.
_TARGET_CELLS = 11
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Shades help, lines hurt: sign and size are seen without colour. Shares of full scale at which each begins.
_HELPS = ((0.875, "█"), (0.625, "▓"), (0.375, "▒"), (0.125, "░"))
_HURTS = ((0.875, "━"), (0.5, "╍"), (0.125, "╌"))


def glyph(value: float, scale: float) -> str:
    """A value as one cell: a shade where it helps, a line where it hurts, nothing near 0.

    Args:
        value: In nats; > 0 helps.
        scale: The size of a full one, in nats.
    """
    if math.isnan(value):
        return "?"
    share = abs(value) / scale if scale > 0 else 0.0
    return next((sign for least, sign in (_HELPS if value > 0 else _HURTS) if share >= least), " ")


def label(number: int, count: int) -> str:
    """Letters for one of several rows: A, B, … z; of more than 52, two letters each."""
    if count <= len(_LETTERS):
        return _LETTERS[number]
    first, second = divmod(number, len(_LETTERS))
    return _LETTERS[first % len(_LETTERS)] + _LETTERS[second]


def _short(value: float, cells: int) -> str:
    """A number in few cells, right-justified: +.0123, +1.234, +123."""
    if math.isnan(value):
        return "?".rjust(cells)
    for digits in range(cells - 3, -1, -1):
        text = f"{value:+.{digits}f}".replace("-", "−")
        text = text[0] + text[2:] if text[1:3] == "0." else text
        if len(text) < cells:
            return text.rjust(cells)
    return f"{value:+.0e}".replace("-", "−").rjust(cells)


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """Who helps whom, as far as answers of one key say.

    Attributes:
        key: Of the answers.
        values: What each task, by row, does for each, by column (t, t), in nats.
        scale: Full scale of the glyphs, in nats.
        arrangement: Of the tasks.
    """

    key: str
    values: Floats
    scale: float
    arrangement: Arrangement


@dataclass(frozen=True, slots=True)
class Cell:
    """A pair of tasks, and the selection around which it is looked at."""

    key: str
    revision: int
    giver: int
    taker: int


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Estimated target losses with both of two tasks, one or neither beside the rest of a selection, in nats."""

    cell: Cell
    both: Judgement
    giver: Judgement
    taker: Judgement
    neither: Judgement
    synergy: Difference
    """What both change beyond the sum of what each changes alone; negative where they go well together."""


def together(estimator: "TargetEstimator", mask: Mask, cell: Cell) -> Together:
    """Estimate what two tasks do to the target together.

    Args:
        estimator: Of the target's loss.
        mask: The selection (t,) whose other tasks stay as they are.
        cell: The tasks.
    """
    masks = np.repeat(mask[None], 4, axis=0)
    masks[:, cell.giver] = (True, True, False, False)
    masks[:, cell.taker] = (True, False, True, False)
    both, giver, taker, neither = judge_each(estimator, masks)
    synergy = difference(
        estimator, replace(both, each=both.each + neither.each), replace(giver, each=giver.each + taker.each)
    )
    return Together(cell, both, giver, taker, neither, synergy)


class Matrix(Rows):
    """Tasks by tasks; only the cells on the screen are drawn."""

    column: reactive[int] = reactive(0, repaint=False)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.tasks: RowNumbers = np.zeros(0, dtype=np.intp)
        self.values: Floats = np.zeros((0, 0))
        """By the numbers of all tasks, whichever are shown."""
        self.scale = 0.0
        self.transposed = False
        self.zoomed = False
        self.left = 0

    @property
    def count(self) -> int:
        """Tasks that are shown."""
        return len(self.tasks)

    @property
    def cell(self) -> tuple[int, int] | None:
        """The tasks of the cell under the cursor: who helps, and who is helped."""
        if not self.count:
            return None
        row, column = int(self.tasks[self.cursor]), int(self.tasks[min(self.column, self.count - 1)])
        return (column, row) if self.transposed else (row, column)

    @property
    def row_task(self) -> int | None:
        """The task of the cursor's row."""
        return int(self.tasks[self.cursor]) if self.count else None

    def value(self, row: int, column: int) -> float:
        """What is shown in a cell, in nats."""
        if self.transposed:
            row, column = column, row
        return float(self.values[self.tasks[row], self.tasks[column]])

    # -- places -------------------------------------------------------------------------------------------------------

    @property
    def cells(self) -> int:
        """Width of a cell, the gap before it included; wider where all columns have room."""
        if self.zoomed:
            return _NUMBER_CELLS
        return _GLYPH_CELLS if self.count * _GLYPH_CELLS <= self._room else _NARROW_CELLS

    @property
    def _room(self) -> int:
        """Cells between the names and the affinities."""
        return self.size.width - self.head - _TARGET_CELLS - 1

    @property
    def letters(self) -> int:
        """Letters of a label."""
        return len(label(0, max(self.count, 1)))

    @property
    def head(self) -> int:
        """Cells before the first column: cursor, label, state, name."""
        name = 30 if self.size.width >= 110 else 24 if self.size.width >= 90 else 18
        return self.letters + 5 + name

    @property
    def shown_columns(self) -> range:
        """Columns that are on the screen."""
        room = max(self._room // self.cells, 1)
        first = max(0, min(self.left, self.count - room))
        return range(first, min(first + room, self.count))

    def follow(self) -> None:
        """Scroll sideways until the cursor is on the screen."""
        shown = self.shown_columns
        if self.column < shown.start:
            self.left = self.column
        elif self.column >= shown.stop:
            self.left = shown.start + self.column - shown.stop + 1
        else:
            self.left = shown.start
        self.refresh()

    def validate_column(self, column: int) -> int:
        """The cursor stays in the matrix."""
        return max(0, min(column, self.count - 1))

    def watch_column(self) -> None:
        """Follow the cursor."""
        self.follow()
        self.post_message(self.Moved(self))

    def changed(self) -> None:
        """Draw again after other tasks are shown."""
        super().changed()
        self.column = self.validate_column(self.column)
        self.follow()

    def on_resize(self) -> None:
        """Keep the cursor on the screen."""
        super().on_resize()
        self.call_after_refresh(self.follow)

    def clicked(self, row: int, x: int) -> None:
        """Put the cursor on a cell; the glyph of a task is for toggling it."""
        shown = self.shown_columns
        column = shown.start + (x - self.head) // self.cells
        if x >= self.head and column in shown:
            self.column = column

    def on_mouse_scroll_right(self, event: events.MouseScrollRight) -> None:
        """Go right."""
        self.column += 3

    def on_mouse_scroll_left(self, event: events.MouseScrollLeft) -> None:
        """Go left."""
        self.column -= 3

    # -- drawing ------------------------------------------------------------------------------------------------------

    def titles(self) -> list[Line]:
        """The lines above the matrix: labels of the columns; with numbers, names too."""
        shown, cells = self.shown_columns, self.cells
        style = ["accent" if column == self.column else "title" for column in range(shown.start, shown.stop)]
        texts = [label(column, self.count) for column in shown]
        lines: list[Line] = []
        if self.zoomed:
            workspace = self.app.workspace  # type: ignore[attr-defined]
            names = [fit(workspace.names[self.tasks[column]], cells - 1) for column in shown]
            lines.append([" " * self.head, *((" " + name, s) for name, s in zip(names, style, strict=True))])
            lines.append([" " * self.head, *((text.rjust(cells), s) for text, s in zip(texts, style, strict=True))])
        else:
            for letter in range(self.letters):
                parts = [(text[letter].rjust(cells), s) for text, s in zip(texts, style, strict=True)]
                lines.append([" " * self.head, *parts])
        lines[-1] = [*lines[-1], (" │ → target", "title")]
        return lines

    def line(self, row: int, width: int) -> Line:
        """One task, and what it does to each."""
        app = self.app
        workspace, session = app.workspace, app.session  # type: ignore[attr-defined]
        task = int(self.tasks[row])
        if session is None or len(self.values) != len(session.names):
            # Tasks came or went, and the screen has not been told yet.
            return ()
        state = session.state(task)
        style = {State.IN: "good", State.OUT: "dim"}.get(state, "pin")
        here = row == self.cursor
        name = self.head - self.letters - 5
        parts: list[Part] = [
            (label(row, self.count), "accent" if here else "title"),
            " ",
            (GLYPHS[state], style),
            " ",
            (fit(workspace.names[task], name), "strong" if here or state.selected else ""),
        ]
        columns = np.array(self.shown_columns, dtype=np.intp)
        others = self.tasks[columns]
        values = self.values[others, task] if self.transposed else self.values[task, others]
        gap, cells = " ", self.cells
        for column, value in zip(columns.tolist(), values.tolist(), strict=True):
            text, style = self._cell(value, cells, itself=row == column)
            if here and column == self.column:
                parts += [("[", "accent"), (text, style)]
                gap = "]"
            elif gap == "]":
                parts += [(gap, "accent"), (text, style)]
                gap = " "
            else:
                parts.append((gap + text, style))
        affinity = float(workspace.affinity[task])
        shown = "good" if affinity > 0 else "bad"
        parts += [(gap, "accent"), ("│", "dim"), (glyph(affinity, self.target_scale()), shown)]
        parts.append((f" {numbers.signed(affinity):>7}", shown))
        return parts

    def _cell(self, value: float, cells: int, *, itself: bool) -> tuple[str, str]:
        style = "dim" if itself or math.isnan(value) else "good" if value > 0 else "bad"
        if self.zoomed:
            return _short(value, cells - 1), style
        return ("·" if itself else glyph(value, self.scale)) * (cells - 1), style

    def target_scale(self) -> float:
        """Full scale of the affinities, in nats."""
        affinity = self.app.workspace.affinity  # type: ignore[attr-defined]
        known = np.abs(affinity[~np.isnan(affinity)])
        return float(np.quantile(known, 0.95)) if known.size else 0.0


class MatrixScreen(CuratorScreen):
    """The matrix, the cell under the cursor, and groups of tasks that are alike."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("matrix")
    place = "matrix"

    class Computed(Message):
        """It is known who helps whom."""

        def __init__(self, transfer: Transfer) -> None:
            super().__init__()
            self.transfer = transfer

    class Estimated(Message):
        """It is known what two tasks do together."""

        def __init__(self, together: Together) -> None:
            super().__init__()
            self.together = together

    def __init__(self) -> None:
        super().__init__()
        self.transfer: Transfer | None = None
        self.together: Together | None = None
        self._names: list[str] = []
        self._wanted = ""
        self._arrangement = ARRANGEMENTS[0]
        self._filter_error = ""
        self._passed = 0
        self._rest: Timer | None = None

    def body(self) -> Iterable[Widget]:
        """Matrix, legend and cell; on wide screens the cell beside the matrix, with groups and legend."""
        return [
            Horizontal(
                Vertical(
                    Horizontal(
                        Lines([()], id="matrix-title"),
                        Input(id="filter", placeholder="filter: words  tag:  aff>0  in:no  -not  a | b"),
                    ),
                    Lines([()], id="matrix-head"),
                    Matrix(id="matrix", classes="first-focus"),
                    Lines([()], id="matrix-note"),
                    Lines([(), (), ()], id="cell-below", classes="box"),
                    id="matrix-main",
                ),
                Vertical(
                    Lines(id="cell-beside", classes="box"),
                    Lines(id="groups", classes="box"),
                    Lines(id="legend", classes="box"),
                    id="matrix-side",
                ),
            )
        ]

    @property
    def matrix(self) -> Matrix:
        """The matrix."""
        return self.query_one(Matrix)

    # -- showing ------------------------------------------------------------------------------------------------------

    def show(self, topic: str) -> None:
        """Show what changed."""
        if topic in ("runs", "outlook"):
            return
        self._ask_transfer()
        if topic in ("workspace", "all"):
            self._view()
        self.matrix.refresh()
        self._around()
        self._ask_together()

    @property
    def _known(self) -> Transfer | None:
        """The transfer that belongs to what is shown."""
        workspace, transfer = self.app.workspace, self.transfer
        if workspace is None or workspace.answers is None or self.app.session is None or transfer is None:
            return None
        return transfer if transfer.key == workspace.answers.key else None

    def _around(self) -> None:
        """Everything but the matrix."""
        width = self.query_one("#matrix-main").size.width or self.app.size.width
        self.query_one("#matrix-title", Lines).show([self._title(width)])
        head = self.query_one("#matrix-head", Lines)
        known = self._known
        if known is None or not self.matrix.count:
            head.show([self._nothing()])
        else:
            head.show(self.matrix.titles())
        legend = self._legend_line()
        self.query_one("#matrix-note", Lines).show([legend])
        below, beside = self.query_one("#cell-below", Lines), self.query_one("#cell-beside", Lines)
        box = beside if self.is_wide else below
        inner = 39 if self.is_wide else max(width - 4, 20)
        cell = self._cell(inner)
        box.border_title = self._cell_title()
        box.show(cell if self.is_wide else cell[:3])
        if self.is_wide:
            groups, boxed = self._groups(inner), self.query_one("#groups", Lines)
            boxed.border_title = "tasks that are alike"
            boxed.display = bool(groups)
            boxed.show(groups)
            legend_box = self.query_one("#legend", Lines)
            legend_box.border_title = "legend"
            legend_box.show(self._legend(inner))

    def _nothing(self) -> Line:
        app = self.app
        if app.workspace is None or app.workspace.answers is None:
            return [("" if app.trouble is not None else f" {app.missing()}", "warn")]
        if not app.workspace.names:
            return [(" there are no auxiliary tasks", "dim")]
        if self._known is None:
            return [(" ◌ reading gradients, and what each task does for each other …", "dim")]
        return [(" no task passes the filter", "dim")]

    def _title(self, width: int) -> Line:
        app = self.app
        arrow = "column → row" if self.matrix.transposed else "row → column"
        left: list[Part] = [("─ ", "dim")]
        if self._filter_error:
            left += [(f"✗ {self._filter_error}", "bad")]
        elif app.place.filter:
            left += [("/ ", "accent"), app.place.filter, (f" · {arrow}", "dim")]
        else:
            left += [("who helps whom · ", "dim"), arrow]
        total = len(app.workspace.names) if app.workspace is not None else 0
        count = f"{self.matrix.count} of {total}"
        if self._passed > self.matrix.count:
            count = f"the first {self.matrix.count:,} of {self._passed:,}"
        return spread([*left, " "], [(f" order: {self._arrangement} · {count} ", "dim")], width)

    def _legend_line(self) -> Line:
        known = self._known
        if known is None:
            return ()
        full = f"{known.scale:.2g}"
        if self.is_wide:
            return [(" [ ] cursor · ● in ○ out ◆ ◇ pinned · numbers at the right: affinity to the target", "dim")]
        return [
            (f" ━ −{full}", "bad"),
            (" ╍ ╌ ", "bad"),
            ("0", "dim"),
            (" ░ ▒ ▓ ", "good"),
            (f"█ +{full}", "good"),
            (" nats of the column's loss" if not self.matrix.transposed else " nats of the row's loss", "dim"),
            (" · 5 % are beyond", "dim"),
        ]

    def _legend(self, width: int) -> list[Line]:
        known = self._known
        if known is None:
            return []
        scale, target = known.scale, self.matrix.target_scale()
        lines: list[Line] = [[("glyph    from      for the target from", "dim")]]
        for signs, sign, style in ((_HELPS, "+", "good"), (_HURTS[::-1], "−", "bad")):
            for least, shade in signs:
                other = f"{sign}{least * target:.4f}" if target else ""
                lines.append([(f"  {shade}    {sign}{least * scale:.4f}    ", style), (other, style)])
        helped = "row" if self.matrix.transposed else "column"
        return [
            *lines,
            [("  ·    the task itself; blank: near 0", "dim")],
            [(f"nats of the {helped}'s training loss, to", "dim")],
            [("first order, around all tasks; full", "dim")],
            [(f"scale {scale:.2g}: 95 % of pairs are below", "dim")],
        ]

    def _groups(self, width: int) -> list[Line]:
        known, app = self._known, self.app
        if known is None or app.session is None or app.workspace is None or not self.matrix.count:
            return []
        mask, tasks = app.session.mask, self.matrix.tasks
        groups, named = known.arrangement.groups, self._names
        places = {int(task): number for number, task in enumerate(tasks)}
        lines: list[Line] = []
        cell = self.matrix.cell
        for group, name in enumerate(named):
            inside = [places[int(t)] for t in np.flatnonzero(groups == group) if int(t) in places]
            if not inside:
                continue
            here = cell is not None and groups[self.matrix.row_task] == group
            chosen = int(mask[tasks[inside]].sum())
            first, last = label(min(inside), self.matrix.count), label(max(inside), self.matrix.count)
            whole = max(inside) - min(inside) + 1 == len(inside)
            span = f"{first}–{last}" if whole and len(inside) > 1 else first if whole else ""
            right: list[Part] = [f" {span:>5}", (f"  in {chosen}/{len(inside)}", "good" if chosen else "dim")]
            left: list[Part] = [(f"{group + 1} ", "accent" if here else "dim"), (name, "strong" if here else "")]
            lines.append(spread(left, right, width))
        return lines

    # -- the cell -----------------------------------------------------------------------------------------------------

    def _cell_title(self) -> str:
        matrix = self.matrix
        if self._known is None or not matrix.count:
            return "cell"
        row, column = label(matrix.cursor, matrix.count), label(matrix.column, matrix.count)
        return f"cell {column}→{row}" if matrix.transposed else f"cell {row}→{column}"

    def _cell(self, width: int) -> list[Line]:
        """The pair under the cursor; three lines on narrow screens."""
        known, workspace, session = self._known, self.app.workspace, self.app.session
        cell = self.matrix.cell
        if known is None or workspace is None or session is None or cell is None:
            return [[], [], []]
        giver, taker = cell
        value = float(known.values[giver, taker])
        amount: Part = (numbers.signed(value), "good" if value > 0 else "bad")
        row = known.values[giver].copy()
        row[giver] = -np.inf
        rank = f"rank {int((row > value).sum()) + 1} of {len(row) - 1}"
        names = workspace.names
        first, second = (numbers.signed(float(workspace.affinity[task])) or "unknown" for task in cell)
        if giver == taker:
            words = "what its own examples do for itself"
            if self.is_wide:
                return [
                    [(fit(names[giver], width), "strong")],
                    [amount],
                    [(words, "dim")],
                    [f"affinity to the target {first}"],
                ]
            return [
                spread([(names[giver], "strong"), " ", (words, "dim")], ["  ", amount], width),
                [f"affinity to the target {first}"],
                [],
            ]
        pair = self._together_lines(giver, taker, width)
        if not self.is_wide:
            half = max((width - 26) // 2, 6)
            heading: list[Part] = [
                (fit(names[giver], half).rstrip(), "strong"),
                " → ",
                (fit(names[taker], half).rstrip(), "strong"),
            ]
            return [
                spread(heading, ["  ", amount, (f"  {rank}", "dim")], width),
                spread([("affinity ", "dim"), f"{first}, {second}"], pair[-1], width),
                pair[0],
            ]
        return [
            [(fit(names[giver], width), "strong")],
            ["→ ", (fit(names[taker], width - 2), "strong")],
            [amount, (f" nats · {rank}", "dim")],
            [("affinity to the target", "dim")],
            [f"  {first}, {second}"],
            [("loss of the target with", "dim")],
            *pair,
        ]

    def _together_lines(self, giver: int, taker: int, width: int) -> list[Line]:
        """The four losses, and last what both do together."""
        session, known = self.app.session, self.together
        assert session is not None
        wide = self.is_wide
        transposed = self.matrix.transposed
        words = [("both", True, True), ("row", not transposed, transposed), ("column", transposed, not transposed)]
        words.append(("neither", False, False))
        if known is None or known.cell != self._wanted_cell():
            waiting: Part = ("◌ estimating …", "dim")
            return [[waiting], [], [], [], []] if wide else [[waiting], [("together …", "dim")]]
        by_side = {
            (True, True): known.both,
            (True, False): known.giver,
            (False, True): known.taker,
            (False, False): known.neither,
        }
        now = bool(session.mask[giver]), bool(session.mask[taker])
        lines: list[Line] = []
        short: list[Part] = [("loss ", "dim")]
        for word, with_giver, with_taker in words:
            judged = by_side[with_giver, with_taker]
            here = now == (with_giver, with_taker)
            change = judged.loss - known.neither.loss
            more = "" if word == "neither" else numbers.signed(change)
            only = f"{word} only" if word in ("row", "column") else word
            lines.append(
                [
                    ("▸ " if here else "  ", "accent"),
                    f"{only:<12}{numbers.loss(judged.loss)}  ",
                    (more, "good" if change < 0 else "bad"),
                    ("  now", "dim") if here else "",
                ]
            )
            short += [("▸" if here else "", "accent"), f"{word} {numbers.loss(judged.loss)}  "]
        noise = " ~noise" if known.synergy.is_noise else ""
        style = "dim" if noise else "good" if known.synergy.value < 0 else "bad"
        meaning = noise or (" better together" if known.synergy.value < 0 else " worse together")
        synergy: list[Part] = [("synergy ", "dim"), (numbers.signed(known.synergy.value) + meaning, style)]
        return [*lines, ["  ", *synergy]] if wide else [short, synergy]

    def _wanted_cell(self) -> Cell | None:
        workspace, session, cell = self.app.workspace, self.app.session, self.matrix.cell
        if workspace is None or workspace.answers is None or session is None or cell is None or self._known is None:
            return None
        return Cell(workspace.answers.key, session.revision, *cell)

    def _ask_together(self) -> None:
        """Ask once the cursor has rested."""
        if self._rest is not None:
            self._rest.stop()
            self._rest = None
        wanted = self._wanted_cell()
        if wanted is None or wanted.giver == wanted.taker:
            return
        if self.together is None or self.together.cell != wanted:
            self._rest = self.set_timer(_REST_SECONDS, self._rested)

    def _rested(self) -> None:
        wanted, workspace, session = self._wanted_cell(), self.app.workspace, self.app.session
        if wanted is not None and workspace is not None and workspace.answers is not None and session is not None:
            self._estimate(workspace.answers, session.mask, wanted)

    @work(thread=True, exclusive=True, group="together", exit_on_error=False)
    def _estimate(self, answers: "Answers", mask: Mask, cell: Cell) -> None:
        worker = get_current_worker()
        try:
            found = together(answers.estimator, mask, cell)
        except (CuratorError, OSError) as error:
            self.app.post_message(Failed("estimate the two tasks", error))
        else:
            if not worker.is_cancelled:
                self.post_message(self.Estimated(found))

    @on(Estimated)
    def _estimated(self, message: Estimated) -> None:
        if message.together.cell == self._wanted_cell():
            self.together = message.together
            self._around()

    # -- transfer -----------------------------------------------------------------------------------------------------

    def _ask_transfer(self) -> None:
        workspace = self.app.workspace
        if workspace is None or workspace.answers is None or workspace.answers.key == self._wanted:
            return
        self._wanted = workspace.answers.key
        self._compute(workspace.answers)

    @work(thread=True, exclusive=True, group="transfer", exit_on_error=False)
    def _compute(self, answers: "Answers") -> None:
        try:
            values = answers.estimator.transfer()
        except (CuratorError, OSError) as error:
            self.app.post_message(Failed("compute who helps whom", error))
        else:
            self.post_message(self.Computed(Transfer(answers.key, values, full_scale(values), arrange(values))))

    @on(Computed)
    def _computed(self, message: Computed) -> None:
        if message.transfer.key != self._wanted:
            return
        self.transfer = message.transfer
        workspace = self.app.workspace
        if workspace is not None:
            self._names = group_names(self.transfer.arrangement, workspace.names, workspace.tags)
        self._view()
        self._around()
        self._ask_together()

    # -- which tasks, in which order ----------------------------------------------------------------------------------

    def _view(self) -> None:
        """Filter and order again; the cursor stays on its tasks where they are still there."""
        app, matrix, known = self.app, self.matrix, self._known
        if known is None or app.workspace is None or len(known.values) != len(app.workspace.names):
            matrix.tasks, matrix.values = np.zeros(0, dtype=np.intp), np.zeros((0, 0))
            matrix.changed()
            return
        first = not matrix.count
        row, column = matrix.row_task, int(matrix.tasks[matrix.column]) if matrix.count else -1
        columns = app.columns()
        try:
            passed = view.filter_rows(app.place.filter, columns)
            self._filter_error = ""
        except view.FilterError as error:
            self._filter_error = str(error)
            passed = np.isin(np.arange(len(columns.names)), matrix.tasks)
        if self._arrangement == "cluster":
            order = known.arrangement.order
        else:
            by = "task" if self._arrangement == "name" else "affinity"
            every = np.arange(len(columns.names))
            order = view.sort_rows(every, by, descending=by == "affinity", columns=columns)
        matrix.values, matrix.scale = known.values, known.scale
        shown = order[passed[order]]
        self._passed = len(shown)
        matrix.tasks = shown[:MOST_SHOWN]
        if app.place.task in app.workspace.names:
            row = app.workspace.names.index(app.place.task)
        matrix.changed()
        there = np.flatnonzero(matrix.tasks == row)
        matrix.cursor = int(there[0]) if len(there) else 0
        there = np.flatnonzero(matrix.tasks == column)
        # At first the pair, rather than a task and itself.
        start = min(1, matrix.count - 1) if matrix.cursor == 0 else 0
        matrix.column = int(there[0]) if len(there) else start if first else 0

    @on(Rows.Moved)
    def _moved(self) -> None:
        app, matrix = self.app, self.matrix
        if matrix.row_task is not None and app.workspace is not None:
            app.place.task = app.workspace.names[matrix.row_task]
        self._around()
        self._ask_together()

    @on(Rows.Opened)
    def _opened(self) -> None:
        if self.matrix.row_task is not None:
            self.app.open_task(self.matrix.row_task, self.matrix.tasks)

    def action_left(self) -> None:
        """Column before."""
        self.matrix.column -= 1

    def action_right(self) -> None:
        """Next column."""
        self.matrix.column += 1

    def action_zoom(self) -> None:
        """Numbers."""
        self._zoom(True)

    def action_unzoom(self) -> None:
        """Glyphs."""
        self._zoom(False)

    def _zoom(self, zoomed: bool) -> None:
        self.matrix.zoomed = zoomed
        self.matrix.follow()
        self._around()

    def action_arrange(self) -> None:
        """Next order."""
        place = ARRANGEMENTS.index(self._arrangement)
        self._arrangement = ARRANGEMENTS[(place + 1) % len(ARRANGEMENTS)]
        self._view()
        self._around()

    def action_transpose(self) -> None:
        """Turn rows and columns round; the cursor stays on its pair."""
        matrix = self.matrix
        matrix.transposed = not matrix.transposed
        matrix.cursor, matrix.column = matrix.column, matrix.cursor
        matrix.refresh()
        self._around()

    def action_toggle_task(self) -> None:
        """Put the row's task in, or take it out."""
        if self.app.session is not None and self.matrix.row_task is not None:
            edit = self.app.session.toggle(np.array([self.matrix.row_task]))
            self.app.edited(edit.label if edit else "")

    # -- filter -------------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Type a filter."""
        field = self.query_one("#filter", Input)
        field.value = self.app.place.filter
        self.add_class("-filtering")
        field.focus()

    @on(Input.Changed, "#filter")
    def _typed(self, event: Input.Changed) -> None:
        if self.has_class("-filtering"):
            self.app.place.filter = event.value
            self._view()
            self._around()

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self._close_filter()

    def _close_filter(self) -> None:
        self.remove_class("-filtering")
        self.matrix.focus()
        self._around()

    def action_back(self) -> None:
        """Close the filter, or clear it."""
        if self.has_class("-filtering"):
            self._close_filter()
        elif self.app.place.filter:
            self.app.place.filter = ""
            self._view()
            self._around()


__all__ = ["ARRANGEMENTS", "MOST_SHOWN", "Matrix", "MatrixScreen", "Transfer", "glyph", "label", "together"]
