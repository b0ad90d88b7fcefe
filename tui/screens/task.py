"""One task: what it does to the target and to other tasks, and its examples, most helpful first."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import get_current_worker

from curator.answers import Answers
from curator.corpus import Task
from curator.errors import CuratorError
from tui import numbers
from tui.actions import bindings_of
from tui.examples import (
    LONGEST,
    ORDERS,
    REASONS,
    Examples,
    Summary,
    Unit,
    Vocabulary,
    control_characters,
    histogram,
    lay_out,
    marked,
    preview,
    read_examples,
    read_tokens,
    summarise,
    token_parts,
    unit_for,
)
from tui.messages import Failed
from tui.screens.base import CuratorScreen
from tui.session import GLYPHS, State
from tui.session import Rows as RowNumbers
from tui.widgets.lines import Line, Lines, Part, fit, spread
from tui.widgets.plot import sparkline
from tui.widgets.rows import Rows

if TYPE_CHECKING:
    from tui.app import CuratorApp

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Longer texts are laid out in a thread.
_SHORT = 20_000
_INFLUENCE = 10
# Terminals take no more than that through OSC 52, in bytes.
_CLIPBOARD = 75_000
_KEPT = 4
_ERRORS = (CuratorError, OSError, np.linalg.LinAlgError)

_WORDS = {State.IN: "in", State.OUT: "out", State.PINNED_IN: "pinned in", State.PINNED_OUT: "pinned out"}

# What tasks do for each other is the same whatever is selected.
_transfers: WeakKeyDictionary[Answers, Floats] = WeakKeyDictionary()


@lru_cache(maxsize=1)
def _vocabulary(folder: Path, changed: int) -> Vocabulary:
    """The vocabulary of a model; `changed` is when its file was, so that another one is read again."""
    return Vocabulary(folder)


class ExampleList(Rows):
    """Rows of a task in the order of `order`: influence, beginning of the text, warnings."""

    app: "CuratorApp"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.order: RowNumbers = np.zeros(0, dtype=np.intp)

    @property
    def count(self) -> int:
        """Rows that are shown."""
        return len(self.order)

    @property
    def number(self) -> int | None:
        """The row under the cursor."""
        return int(self.order[self.cursor]) if self.count else None

    def line(self, row: int, width: int) -> Line:
        """One row of the task."""
        screen = self.screen
        assert isinstance(screen, TaskScreen)
        examples = screen.examples
        if examples is None or row >= len(self.order):
            return ()
        number = int(self.order[row])
        text = examples.text(number)
        warning = f" ⚠ {count} control" if (count := control_characters(text[:LONGEST])) else ""
        cut = " ✂" if examples.truncated[number] else ""
        room = max(width - _INFLUENCE - 1 - len(warning) - len(cut), 4)
        words = fit(preview(text, room, screen.words), room)
        style = "dim" if number in examples.reasons else ""
        return [screen.influence_part(number), " ", (words, style), (cut, "warn"), (warning, "warn")]


class Reader(Rows):
    """A text, laid out to the width, that scrolls."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"line--loss", "line--token"}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lines: list[Line] = []
        self._parts: Sequence[Part] = ()
        self._width = 0

    @property
    def count(self) -> int:
        """Lines of the text."""
        return len(self.lines)

    def render_line(self, y: int) -> Strip:
        """One row of the screen; while keys go elsewhere, there is no cursor to be seen."""
        if self.has_focus:
            return super().render_line(y)
        width = self.size.width
        return self.strip([" ", *self.line(self.scroll_offset.y + y, width - 1)], width)

    def line(self, row: int, width: int) -> Line:
        """One line."""
        return self.lines[row] if row < len(self.lines) else ()

    def read(self, parts: Sequence[Part]) -> None:
        """Show another text, from its beginning."""
        self._parts = parts
        self.lines = []
        self.cursor = 0
        self._lay_out()

    def on_resize(self) -> None:
        """Lay out anew for another width."""
        if self._room != self._width:
            self._lay_out()

    @property
    def _room(self) -> int:
        # The cursor's column, and the scrollbar's, whether it is there or not: else it could come and go for ever.
        return self.container_size.width - 2

    def _lay_out(self) -> None:
        self._width = self._room
        if sum(len(part if isinstance(part, str) else part[0]) for part in self._parts) <= _SHORT:
            self.workers.cancel_group(self, "lay out")
            self._take(self._parts, lay_out(self._parts, self._width))
        else:
            self._lay_out_slowly(self._parts, self._width)

    @work(thread=True, exclusive=True, group="lay out", exit_on_error=False)
    def _lay_out_slowly(self, parts: Sequence[Part], width: int) -> None:
        worker = get_current_worker()
        lines = lay_out(parts, width)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._take, parts, lines)

    def _take(self, parts: Sequence[Part], lines: list[Line]) -> None:
        if parts is self._parts and self.is_attached:
            self.lines = lines
            self.changed()


class TaskScreen(CuratorScreen):
    """One task and its examples.

    Args:
        task: Number of the task; those of the targets follow on the auxiliary ones.
        view: Auxiliary tasks in the order in which they were listed, for next and previous.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("task")
    place = "task"

    def __init__(self, task: int, view: RowNumbers) -> None:
        super().__init__()
        self._number, self._view = task, np.asarray(view)
        self._names: list[str] = []
        self.examples: Examples | None = None
        self.words = ""
        """What examples are searched for."""
        self._kept: dict[str, Examples] = {}
        self._order_by = 0
        self._shown: Mask | None = None
        self._gains: tuple[str, int, Floats] | None = None
        self._asked: tuple[str, int] | None = None
        self._by_row: tuple[tuple[str, int, str], tuple[Floats, Unit]] | None = None
        self._summary: tuple[tuple[str, int, str], Summary | None] | None = None
        self._tokens = False
        self._reading = self._asked_transfer = ""
        self._trouble = ""
        self._is_placed = False

    def body(self) -> Iterable[Widget]:
        """What the task does, its examples, and the one under the cursor."""
        return [
            Lines([()], id="task-line"),
            Horizontal(Lines(id="transfer", classes="box"), Lines(id="influence", classes="box"), id="task-boxes"),
            Horizontal(
                Vertical(
                    Lines([()], id="list-title"),
                    Input(id="search", placeholder="examples that hold this text"),
                    ExampleList(id="examples", classes="first-focus"),
                    id="list-pane",
                ),
                Vertical(Lines([()], id="reader-title"), Reader(id="reader"), id="reader-pane"),
                id="panes",
            ),
        ]

    @property
    def rows(self) -> ExampleList:
        """The examples."""
        return self.query_one(ExampleList)

    @property
    def reader(self) -> Reader:
        """The example under the cursor."""
        return self.query_one(Reader)

    # -- which task -------------------------------------------------------------------------------------------------

    def switch(self, task: int, view: RowNumbers) -> None:
        """Show another task."""
        self._view = np.asarray(view)
        self._go(task)

    def _go(self, task: int) -> None:
        self._number = task
        self.examples, self._shown, self._trouble, self._reading = None, None, "", ""
        if self.words:
            self._close_search(forget=True)
        workspace = self.app.workspace
        if workspace is not None and self.is_auxiliary:
            self.app.place.task = workspace.names[task]
        self._arrange(keep=False)
        self._told("all")

    @property
    def shown(self) -> Task | None:
        """The task that is shown."""
        workspace = self.app.workspace
        if workspace is None or workspace.corpus is None:
            return None
        tasks = [*workspace.corpus.auxiliary, *workspace.corpus.target_tasks]
        return tasks[self._number] if self._number < len(tasks) else None

    @property
    def is_auxiliary(self) -> bool:
        """Whether the task may be selected; else it is the target."""
        return self.app.workspace is not None and self._number < len(self.app.workspace.names)

    def _ways(self) -> list[int]:
        """All tasks, in the order in which they were listed; the target comes last."""
        workspace = self.app.workspace
        if workspace is None:
            return []
        count = len(workspace.names)
        listed = [int(row) for row in self._view if row < count]
        if self.is_auxiliary and self._number not in listed:
            listed = [self._number, *listed]
        return listed + [count + number for number in range(len(workspace.corpus.targets) if workspace.corpus else 0)]

    def _find_again(self) -> None:
        """Keep to the same task when tasks have come or gone; back where it is not there any more."""
        workspace = self.app.workspace
        if workspace is None or workspace.corpus is None:
            return
        names = [*workspace.names, *workspace.corpus.targets]
        if self._names and names != self._names and self._number < len(self._names):
            name, before = self._names[self._number], self._names
            view = [names.index(before[row]) for row in self._view if before[row] in names]
            self._view = np.array(view, dtype=np.intp)
            if name not in names:
                self._names = names
                self.app.flash(f"{name} is no task any more", "warn")
                self.call_after_refresh(self._leave)
                return
            self._number = names.index(name)
        self._names = names

    def _leave(self) -> None:
        if self.is_current and len(self.app.screen_stack) > 1:
            self.app.pop_screen()

    def trail(self) -> str:
        """Place among the tasks, and name."""
        task, ways = self.shown, self._ways()
        if task is None:
            return ""
        return f"{ways.index(self._number) + 1}/{len(ways)} {task.name}" if self._number in ways else task.name

    # -- showing ----------------------------------------------------------------------------------------------------

    def show(self, topic: str) -> None:
        """Show what changed."""
        if topic == "runs":
            return
        if topic in ("workspace", "all"):
            self._find_again()
        self._ask()
        self._show_task()
        self._show_list()
        self._show_reader_title()
        self.rows.refresh()

    def _ask(self) -> None:
        """Ask for all that is not known yet."""
        task, app = self.shown, self.app
        if task is None or app.workspace is None:
            return
        key = task.version.key
        if self.examples is None or self.examples.key != key or self.examples.split != task.split:
            if key in self._kept and self._kept[key].split == task.split:
                self._take_examples(self._kept[key])
            elif self._reading != key and not self._trouble:
                self._reading = key
                self._read(task)
        answers = app.workspace.answers
        if answers is None or app.session is None:
            return
        wanted = answers.key, app.session.revision
        if self._asked != wanted:
            self._asked = wanted
            self._influence(answers, wanted, app.session.mask)
        if answers not in _transfers and self._asked_transfer != answers.key:
            self._asked_transfer = answers.key
            self._transfer(answers)

    @work(thread=True, exclusive=True, group="examples", exit_on_error=False)
    def _read(self, task: Task) -> None:
        worker, workspace = get_current_worker(), self.app.workspace
        assert workspace is not None
        try:
            examples = read_examples(workspace.project.store, task)
        except _ERRORS as error:
            if not worker.is_cancelled:
                self.app.post_message(Failed(f"read the examples of {task.name}", error))
                self.app.call_from_thread(self._failed, task.version.key, str(error))
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._have_read, examples)

    def _failed(self, key: str, words: str) -> None:
        if self.is_attached and self._reading == key:
            self._reading, self._trouble = "", words
            self._show_list()

    def _have_read(self, examples: Examples) -> None:
        self._kept[examples.key] = examples
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        task = self.shown
        if self.is_attached and task is not None and task.version.key == examples.key:
            self._reading = ""
            self._take_examples(examples)
            self._show_task()
            self._show_list()

    def _take_examples(self, examples: Examples) -> None:
        self.examples, self._shown, self._by_row = examples, None, None
        self._arrange(keep=False)
        if self.words:
            self._search(examples, self.words)

    # -- influence --------------------------------------------------------------------------------------------------

    @work(thread=True, exclusive=True, group="influence", exit_on_error=False)
    def _influence(self, answers: Answers, wanted: tuple[str, int], mask: Mask) -> None:
        worker = get_current_worker()
        try:
            gains = answers.estimator.gains(mask)
        except _ERRORS as error:
            if not worker.is_cancelled:
                self.app.post_message(Failed("estimate the influence of examples", error))
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._have_influence, wanted, gains)

    def _have_influence(self, wanted: tuple[str, int], gains: Floats) -> None:
        if self.is_attached and self._asked == wanted:
            self._gains = (*wanted, gains)
            self._arrange(keep=True)
            self._show_task()
            self._show_list()
            self._show_reader_title()

    @work(thread=True, exclusive=True, group="transfer", exit_on_error=False)
    def _transfer(self, answers: Answers) -> None:
        worker = get_current_worker()
        try:
            _transfers[answers] = answers.estimator.transfer()
        except _ERRORS as error:
            if not worker.is_cancelled:
                self.app.post_message(Failed("estimate what tasks do for each other", error))
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._show_task)

    @property
    def gains(self) -> Floats | None:
        """Influence of each training example of the task (m,), around the selection as it is; None until known."""
        app, task = self.app, self.shown
        workspace, session = app.workspace, app.session
        if self._gains is None or task is None or workspace is None or workspace.answers is None or session is None:
            return None
        key, revision, gains = self._gains
        if (key, revision) != (workspace.answers.key, session.revision):
            return None
        estimator, count = workspace.answers.estimator, len(workspace.names)
        found = estimator.gains_of(min(self._number, count), gains)
        if not self.is_auxiliary and workspace.corpus is not None:
            # The estimator knows one target; several are its parts, one after the other.
            sizes = [len(target.split.train) for target in workspace.corpus.target_tasks]
            start = sum(sizes[: self._number - count])
            found = found[start : start + sizes[self._number - count]]
        return found if len(found) == len(task.split.train) else None

    def by_row(self) -> tuple[Floats, Unit] | None:
        """Influence of each row (n,), NaN for those that are not trained on, and its unit; None until known."""
        task, session, examples = self.shown, self.app.session, self.examples
        if self._gains is None or session is None or examples is None or task is None:
            return None
        # Told apart by revision: what was known before an edit is not shown after it.
        state = (self._gains[0], session.revision, examples.key)
        if self._by_row is not None and self._by_row[0] == state:
            return self._by_row[1]
        gains = self.gains
        if gains is None or len(gains) != len(examples.trained):
            return None
        unit = unit_for(float(np.abs(gains).max()) if len(gains) else 0.0)
        self._by_row = state, (examples.by_row(gains), unit)
        return self._by_row[1]

    def influence_part(self, number: int) -> Part:
        """Influence of one row, or why there is none, in ten cells."""
        assert self.examples is not None
        if number in self.examples.reasons:
            reason = self.examples.reasons[number]
            return (fit(f" {REASONS.get(reason, reason)}", _INFLUENCE), "dim")
        if self.app.workspace is None or self.app.workspace.answers is None:
            return " " * _INFLUENCE
        found = self.by_row()
        if found is None:
            return (fit("… ", _INFLUENCE, right=True), "dim")
        values, unit = found
        value = float(values[number])
        return (fit(f"{unit(value)} ", _INFLUENCE, right=True), "good" if value > 0 else "bad" if value < 0 else "dim")

    # -- the task's lines -------------------------------------------------------------------------------------------

    def _show_task(self) -> None:
        if not self.is_attached:
            return
        width = self.app.size.width
        half = max(width // 2 - 4, 20)
        self.query_one("#task-line", Lines).show([self._task_line(width)])
        rows = 6 if self.app.size.height >= 32 else 3
        transfer, influence = self.query_one("#transfer", Lines), self.query_one("#influence", Lines)
        transfer.border_title = "affinity to the target"
        if self.is_auxiliary:
            transfer.border_title = "transfer, nats" if width < 100 else "transfer: change in training loss, nats"
        influence.border_title = "influence of its examples" + (" on the target" if width >= 100 else "")
        transfer.show(_filled(self._transfer_lines(half, rows), rows))
        influence.show(_filled(self._influence_lines(half, rows), rows))

    def _task_line(self, width: int) -> Line:
        task, workspace, session, outlook = self.shown, self.app.workspace, self.app.session, self.app.outlook
        if task is None or workspace is None:
            return [(f" {self.app.missing()}", "warn")]
        sizes = f"{len(task.split.train):,} ex · {numbers.short(task.tokens)} tok "
        if not self.is_auxiliary or session is None:
            return spread([(" ◎ target", "pin"), "   always in"], [(sizes, "dim")], width)
        row = self._number
        state = session.state(row)
        style = {State.IN: "good", State.OUT: "dim"}.get(state, "pin")
        left: list[Part] = [(f" {GLYPHS[state]} {_WORDS[state]}", style)]
        affinity, error = float(workspace.affinity[row]), float(workspace.affinity_error[row])
        if not np.isnan(affinity):
            half = f" ±{1.645 * error:.4f}" if np.isfinite(error) else ""
            style = (
                "dim" if np.isfinite(error) and abs(affinity) <= 1.645 * error else "good" if affinity > 0 else "bad"
            )
            left += [("   affinity ", "dim"), (numbers.signed(affinity), style), (half, "dim")]
        if workspace.answers is not None:
            left.append(("   flip ", "dim"))
            if outlook is None or outlook.revision != session.revision or np.isnan(outlook.flips[row]):
                left.append(("…", "dim"))
            else:
                change = float(outlook.flips[row])
                sign = "" if outlook.solved[row] else "≈"
                left.append((sign + numbers.signed(change), "good" if change < 0 else "bad"))
                if width >= 110:
                    words = "without it" if state.selected else "with it"
                    left.append((f" → {numbers.loss(outlook.judgement.loss + change)} {words}", "dim"))
        if width >= 110:
            tags = f"{workspace.tags[row]} · " if workspace.tags[row] else ""
            sizes = f"{tags}{workspace.sources[row]} · {sizes}"
        return spread(left, [(fit(sizes, min(len(sizes), width // 3)), "dim")], width)

    def _transfer_lines(self, width: int, rows: int) -> list[Line]:
        workspace = self.app.workspace
        if workspace is None or workspace.answers is None:
            return [[(self.app.missing(), "warn")]]
        if not self.is_auxiliary:
            return self._helping_lines(width, rows)
        transfer = _transfers.get(workspace.answers)
        if transfer is None or transfer.shape != (len(workspace.names),) * 2:
            return [[("…", "dim")]]
        others = np.delete(np.arange(len(workspace.names)), self._number)
        if not len(others):
            return [[("there is no other task", "dim")]]
        gives, gets = transfer[self._number, others], transfer[others, self._number]
        best, worst = others[np.argsort(-gives, kind="stable")], others[np.argsort(gives, kind="stable")]
        helpers, harmers = others[np.argsort(-gets, kind="stable")], others[np.argsort(gets, kind="stable")]
        most = 2 if rows > 3 else 1
        wanted = [
            ("helps", best[:most], 1, True),
            ("hurts", worst[:1], -1, True),
            ("helped by", helpers[:most], 1, False),
        ]
        if rows > 3:
            wanted.append(("hurt by", harmers[:1], -1, False))
        lines: list[Line] = []
        for words, tasks, sign, is_row in wanted:
            for other in tasks:
                value = float(transfer[self._number, other] if is_row else transfer[other, self._number])
                if value * sign > 0:
                    lines.append(self._pair_line(words, int(other), value, width))
        return lines or [[("it neither helps nor hurts another task", "dim")]]

    def _helping_lines(self, width: int, rows: int) -> list[Line]:
        """Of the target: which tasks have the greatest affinity, and the least."""
        workspace = self.app.workspace
        assert workspace is not None
        known = np.flatnonzero(~np.isnan(workspace.affinity))
        if not len(known):
            return [[("no affinities yet", "dim")]]
        order = known[np.argsort(-workspace.affinity[known], kind="stable")]
        top = [("helped by", int(row)) for row in order[: rows - rows // 3] if workspace.affinity[row] > 0]
        bottom = [("hurt by", int(row)) for row in order[::-1][: rows // 3] if workspace.affinity[row] < 0]
        return [self._pair_line(words, row, float(workspace.affinity[row]), width) for words, row in top + bottom[::-1]]

    def _pair_line(self, words: str, other: int, value: float, width: int) -> Line:
        assert self.app.workspace is not None
        name = fit(self.app.workspace.names[other], max(width - 18, 4))
        return [
            (f"{words:<10}", "dim"),
            name,
            (fit(numbers.signed(value), 8, right=True), "good" if value > 0 else "bad"),
        ]

    def _influence_lines(self, width: int, rows: int) -> list[Line]:
        workspace, task = self.app.workspace, self.shown
        if workspace is None or task is None or workspace.answers is None:
            return [[("influence needs gradients", "dim")]]
        gains = self.gains
        if gains is None:
            return [[("…", "dim")]]
        summary = self._summarised(task, gains)
        if summary is None:
            return [[("no row is trained on", "warn")]]
        unit = unit_for(max(abs(summary.low), abs(summary.high)))
        ends = f" {unit(summary.low)} … {unit(summary.high)} {unit.name}"
        counts = histogram(gains, max(min(width - len(ends), 24), 4))
        bars = sparkline([float(count) for count in counts], len(counts), low=0)
        shape = "".join(bar if count else " " for bar, count in zip(bars, counts, strict=True))
        share = round(summary.helping * len(gains))
        lines: list[Line] = [
            [shape, (ends, "dim")],
            [(f"{summary.helping:.0%}", "good"), f" help: {share:,} of {len(gains):,}"],
            [
                ("sum ", "dim"),
                (f"{numbers.signed(summary.total)}", "good" if summary.total > 0 else "bad"),
                (" nats, to first order", "dim"),
            ],
        ]
        if rows > 3:
            if summary.low < 0 < summary.high:
                zero = int(len(counts) * -summary.low / (summary.high - summary.low))
                lines.insert(1, [(" " * zero + "↑ 0", "dim")])
            if summary.half:
                lines.append([("half of the help ", "dim"), f"comes from {summary.half:,} of them"])
            if summary.thirds:
                parts: list[Part] = [("mean by length ", "dim")]
                for words, value in zip(("short", "mid", "long"), summary.thirds, strict=True):
                    parts += [f" {words} ", (unit(value), "good" if value > 0 else "bad")]
                lines.append(parts)
        return lines

    def _summarised(self, task: Task, gains: Floats) -> Summary | None:
        assert self._gains is not None
        state = (*self._gains[:2], task.version.key)
        if self._summary is None or self._summary[0] != state:
            lengths = np.asarray(task.version.index.lengths, dtype=np.int64)[list(task.split.train)]
            self._summary = state, summarise(gains, lengths)
        return self._summary[1]

    # -- list and reader --------------------------------------------------------------------------------------------

    def _arrange(self, *, keep: bool) -> None:
        """Put the examples in order again; the cursor stays on its example where that is wanted and possible."""
        rows, examples = self.rows, self.examples
        before = rows.number
        if examples is None:
            rows.order = np.zeros(0, dtype=np.intp)
        else:
            by, descending, _ = ORDERS[self._order_by]
            found = self.by_row()
            shown = self._shown if self._shown is not None else np.ones(len(examples), dtype=bool)
            values = found[0] if found is not None else None
            rows.order = examples.arranged(by, descending=descending, influence=values, shown=shown)
        rows.changed()
        # Who has not moved yet is shown the first; once influences have put the list in order, the same one again.
        wanted = keep and before is not None and (rows.cursor > 0 or self._is_placed)
        there = np.flatnonzero(rows.order == before) if wanted else np.zeros(0, dtype=np.intp)
        rows.cursor = int(there[0]) if len(there) else 0
        self._is_placed = examples is not None and (self._is_placed or self.by_row() is not None)
        if rows.number != before or not keep:
            self._show_example()
        rows.refresh()

    def _show_list(self) -> None:
        if not self.is_attached:
            return
        rows, examples = self.rows, self.examples
        width = self.query_one("#list-pane").size.width or self.app.size.width
        left: list[Part] = [("─ ", "dim")]
        if self._trouble:
            left += [("✗ ", "bad"), (self._trouble, "bad")]
        elif examples is None:
            left.append((self.app.missing() or "reading examples …", "dim"))
        elif self.words:
            left += [("/ ", "accent"), self.words]
        else:
            left.append(("examples", "title"))
        right = ""
        if examples is not None:
            found = self.by_row()
            by, _, words = ORDERS[self._order_by]
            unit = f"{found[1].name} · " if found is not None else ""
            here = f"{rows.cursor + 1:,} of {rows.count:,}" if rows.count else "none"
            whole = f" of {len(examples):,}" if rows.count != len(examples) else ""
            right = (
                f" {unit}{words if by != 'influence' or self._can_influence else 'as in the file'} · {here}{whole} ─"
            )
        left.append(" ")
        self.query_one("#list-title", Lines).show([spread(left, [(right, "dim")], width)])

    @property
    def _can_influence(self) -> bool:
        return self.app.workspace is not None and self.app.workspace.answers is not None

    def _show_example(self) -> None:
        """Show the example under the cursor."""
        if not self.is_attached:
            return
        examples, number = self.examples, self.rows.number
        if examples is None or number is None:
            self.workers.cancel_group(self, "tokens")
            self.reader.read([])
        elif self._tokens:
            self.reader.read([("…", "dim")])
            self._read_tokens(examples, number)
        else:
            self.workers.cancel_group(self, "tokens")
            self.reader.read(marked(examples.text(number), examples.spans_of(number)))
        self._show_reader_title()
        self._show_list()

    def _show_reader_title(self) -> None:
        if not self.is_attached:
            return
        examples, number = self.examples, self.rows.number
        width = self.query_one("#reader-pane").size.width or self.app.size.width
        if examples is None or number is None:
            self.query_one("#reader-title", Lines).show([[("─" * width, "dim")]])
            return
        left: list[Part] = [("─ ", "dim"), (f"{examples.place(number)} ", "title")]
        flags: list[Part] = []
        if number in examples.reasons:
            flags.append((f" not trained on: {examples.reasons[number]} ", "warn"))
        if examples.truncated[number]:
            flags.append((" ✂ truncated ", "warn"))
        if count := control_characters(examples.text(number)[:LONGEST]):
            flags.append((f" ⚠ {count} control characters ", "warn"))
        tokens, loss = int(examples.lengths[number]), int(examples.completion_tokens[number])
        flags.append((f" {'tokens' if self._tokens else 'text'} · {tokens:,} tok, ▸ {loss:,} with loss ─", "dim"))
        self.query_one("#reader-title", Lines).show([spread(left, flags, width)])

    @work(thread=True, exclusive=True, group="tokens", exit_on_error=False)
    def _read_tokens(self, examples: Examples, number: int) -> None:
        worker, workspace = get_current_worker(), self.app.workspace
        assert workspace is not None
        assert workspace.corpus is not None
        folder = workspace.corpus.model.folder
        try:
            path = folder / "tokenizer.json"
            vocabulary = _vocabulary(folder, path.stat().st_mtime_ns if path.is_file() else 0)
            ids, labels = read_tokens(workspace.project.store, examples.key, number)
            parts = token_parts(ids, labels, vocabulary)
        except _ERRORS as error:
            if not worker.is_cancelled:
                self.app.post_message(Failed("read the tokens", error))
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._have_tokens, examples.key, number, parts)

    def _have_tokens(self, key: str, number: int, parts: list[Part]) -> None:
        here = self.is_attached and self._tokens and self.examples is not None and self.examples.key == key
        if here and self.rows.number == number:
            self.reader.read(parts)

    @on(Rows.Moved, "#examples")
    def _moved(self) -> None:
        self._show_example()

    @on(Rows.Opened, "#examples")
    def _opened(self) -> None:
        self.reader.focus()

    # -- search -----------------------------------------------------------------------------------------------------

    def action_find(self) -> None:
        """Type what to look for."""
        field = self.query_one("#search", Input)
        self.add_class("-searching")
        field.focus()

    @on(Input.Changed, "#search")
    def _typed(self, event: Input.Changed) -> None:
        if event.value == self.words:
            return
        self.words = event.value
        if self.examples is not None:
            self._search(self.examples, self.words)
        self._show_list()

    @on(Input.Submitted, "#search")
    def _entered(self) -> None:
        self._close_search()

    def _close_search(self, *, forget: bool = False) -> None:
        if forget:
            self.words, self._shown = "", None
            self.workers.cancel_group(self, "search")
            self.query_one("#search", Input).value = ""
            self._arrange(keep=True)
        if self.has_class("-searching"):
            self.remove_class("-searching")
            self.rows.focus()
        self._show_list()

    @work(thread=True, exclusive=True, group="search", exit_on_error=False)
    def _search(self, examples: Examples, words: str) -> None:
        worker = get_current_worker()
        shown = examples.search(words)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._found, examples, words, shown)

    def _found(self, examples: Examples, words: str, shown: Mask) -> None:
        if self.is_attached and self.examples is examples and self.words == words:
            self._shown = shown if words else None
            self._arrange(keep=True)
            self._show_list()

    # -- actions ----------------------------------------------------------------------------------------------------

    def action_back(self) -> None:
        """Clear the search, else leave the text, else the screen."""
        if self.has_class("-searching") or self.words:
            self._close_search(forget=True)
        elif self.reader.has_focus:
            self.rows.focus()
        else:
            super().action_back()

    def action_sort(self) -> None:
        """The next order."""
        self._sort((self._order_by + 1) % len(ORDERS))

    def action_reverse(self) -> None:
        """The same order the other way round."""
        by, descending, _ = ORDERS[self._order_by]
        self._sort([order[:2] for order in ORDERS].index((by, not descending)))

    def _sort(self, order: int) -> None:
        self._order_by = order
        self._arrange(keep=False)
        self._show_list()

    def action_toggle_task(self) -> None:
        """Put the task in or out."""
        self._edit("toggle")

    def action_pin(self) -> None:
        """Pin in, pin out, let go."""
        self._edit("pin")

    def _edit(self, kind: str) -> None:
        session = self.app.session
        if session is None or self.shown is None:
            return
        if not self.is_auxiliary:
            self.app.flash("the target is always in", "warn")
            return
        row = np.array([self._number])
        edit = session.toggle(row) if kind == "toggle" else session.pin(row)
        self.app.edited(edit.label if edit else "")

    def action_next_task(self) -> None:
        """Next task."""
        self._step(1)

    def action_previous_task(self) -> None:
        """Task before."""
        self._step(-1)

    def _step(self, step: int) -> None:
        ways = self._ways()
        if self._number in ways and len(ways) > 1:
            self._go(ways[(ways.index(self._number) + step) % len(ways)])

    def action_next_pane(self) -> None:
        """Between list and text."""
        (self.rows if self.reader.has_focus else self.reader).focus()

    def action_tokens(self) -> None:
        """Between text and tokens."""
        self._tokens = not self._tokens
        self._show_example()

    def action_copy(self) -> None:
        """Copy the example's text."""
        examples, number = self.examples, self.rows.number
        if examples is None or number is None:
            return
        data = examples.text(number).encode("utf-8", "replace")
        kept = data[:_CLIPBOARD].decode("utf-8", "ignore")
        self.app.copy_to_clipboard(kept)
        whole = "" if len(data) <= _CLIPBOARD else f"the first {_CLIPBOARD // 1000} kB of "
        self.app.flash(f"copied {whole}{examples.place(number)}", "good")


def _filled(lines: list[Line], count: int) -> list[Line]:
    """Exactly so many lines."""
    return [*lines[:count], *([[]] * (count - len(lines)))]
