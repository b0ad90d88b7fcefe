"""The Task screen: effect of one task on the target and on other tasks, and its examples."""

from collections.abc import Iterable
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from textual import on, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import get_current_worker

from curator.core.arrays import Floats, Mask
from curator.core.errors import CuratorError
from curator.data.corpus import Task
from curator.estimate.target import TargetEstimates
from curator.estimate.whatif import LossDifference, difference, estimate_selections
from tui.actions import bindings_of
from tui.screens.example_edits import ExampleEdits
from tui.state.dropping import Named, lacking_estimator
from tui.state.examples import Examples, read_examples
from tui.state.influence import Influence, influence_of
from tui.state.messages import Failed
from tui.state.neighbours import TaskWays
from tui.state.session import Rows as RowNumbers
from tui.state.session import named
from tui.widgets.example_list import ExampleList
from tui.widgets.example_reader import Reader, reader_title
from tui.widgets.lines import Line, Lines, Part
from tui.widgets.reading import marked
from tui.widgets.rows import Rows
from tui.widgets.task_boxes import TaskBoxes
from tui.widgets.tokens import token_parts, vocabulary_of

# In bytes. Terminals accept at most this length through OSC 52.
_CLIPBOARD = 75_000
_KEPT = 4
# Identity of influences: key of the answers, revision of the session, and number of the task.
_Wanted = tuple[str, int, int]
_ERRORS = (CuratorError, OSError, np.linalg.LinAlgError)

# The transfer between tasks does not depend on the selection.
_transfers: WeakKeyDictionary[TargetEstimates, Floats] = WeakKeyDictionary()


class TaskScreen(ExampleEdits):
    """Shows one task and its examples.

    Args:
        task: Number of the task. Target tasks follow the auxiliary tasks.
        view: Auxiliary tasks in the order of the list, for the next and previous task.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("task")
    place = "task"

    def __init__(self, task: int, view: RowNumbers) -> None:
        super().__init__()
        self._ways = TaskWays(task, view)
        self._kept: dict[str, Examples] = {}
        self._gains: tuple[_Wanted, Floats] | None = None
        self._requested: _Wanted | None = None
        self._own_effect: LossDifference | None = None
        self._unknown: tuple[_Wanted, str] | None = None
        """Why the influences are not known."""
        self._influence: tuple[Task, Floats, Influence | None] | None = None
        self._tokens = False
        self._reading = self._requested_transfer = self._trouble = ""

    def body(self) -> Iterable[Widget]:
        """Return boxes about the task, the list of examples, and the text of one example."""
        return [
            TaskBoxes(),
            Lines([()], id="drop-line"),
            Horizontal(
                Vertical(
                    Lines([()], id="list-title"),
                    Input(id="search", placeholder="search the examples"),
                    ExampleList(id="examples", classes="first-focus"),
                    id="list-pane",
                    classes="zooms",
                ),
                Vertical(Lines([()], id="reader-title"), Reader(id="reader"), id="reader-pane", classes="zooms"),
                id="panes",
            ),
        ]

    @property
    def rows(self) -> ExampleList:
        """Return the list of examples."""
        return self.query_one(ExampleList)

    @property
    def reader(self) -> Reader:
        """Return the text of the example under the cursor."""
        return self.query_one(Reader)

    # -- the task ---------------------------------------------------------------------------------------------------

    def switch(self, task: int, view: RowNumbers) -> None:
        """Show another task."""
        self._ways.view = np.asarray(view)
        self._go(task)

    def _go(self, task: int) -> None:
        self._ways.number, self._trouble, self._reading = task, "", ""
        self.asks_to_drop = False
        self.rows.take(None, None)
        if self.rows.words:
            self._close_search(forget=True)
        if self.app.snapshot is not None and self.is_auxiliary:
            self.app.place.task = self.app.snapshot.names[task]
        self._arrange(keep=False)
        self._show_change("all")

    @property
    def shown(self) -> Task | None:
        """Return the task; None before the project is read."""
        return self._ways.task(self.app.snapshot)

    @property
    def is_auxiliary(self) -> bool:
        """Return whether the task is an auxiliary task, not a target."""
        return self._ways.is_auxiliary(self.app.snapshot)

    def _leave(self) -> None:
        if self.is_current and len(self.app.screen_stack) > 1:
            self.app.pop_screen()

    def trail(self) -> str:
        """Return position and name of the task."""
        return self._ways.trail(self.app.snapshot)

    # -- showing ----------------------------------------------------------------------------------------------------

    def show(self, topic: str) -> None:
        """Draw a change."""
        if topic == "jobs":
            if self.app.snapshot is not None and self.app.snapshot.answers is None:
                self._show_task()
            return
        if topic == "snapshot":
            self.show_example()
        if topic in ("snapshot", "all") and (removed := self._ways.follow(self.app.snapshot)):
            self.app.flash(f"task was removed: {removed}", "warn")
            self.call_after_refresh(self._leave)
        self._request()
        self.take_dropped()
        self.rows.weigh(self.influence)
        self._show_task()
        self.show_titles()
        self.show_effect()
        self.rows.refresh()

    def _show_task(self) -> None:
        if self.is_attached:
            answers = self.app.snapshot.answers if self.app.snapshot is not None else None
            transfer = _transfers.get(answers) if answers is not None else None
            # The effect belongs to the same revision and task as the influence.
            influence = self.influence
            effect = self._own_effect if influence is not None else None
            trouble = self._unknown[1] if self._unknown is not None and self._unknown[0] == self._requested else ""
            self.query_one(TaskBoxes).show(self.shown, self._ways.number, influence, transfer, effect, trouble)

    def show_titles(self) -> None:
        """Draw the lines above the list and the text."""
        if not self.is_attached:
            return
        rows, whole = self.rows, self.app.size.width
        width = self.query_one("#list-pane").size.width or whole
        self.query_one("#list-title", Lines).show([rows.title(width, self._trouble)])
        width = self.query_one("#reader-pane").size.width or whole
        line: Line = [("─" * width, "dim")]
        if rows.examples is not None and rows.number is not None:
            line = reader_title(rows.examples, rows.number, "tokens" if self._tokens else "text", width)
        self.query_one("#reader-title", Lines).show([line])

    # -- examples ---------------------------------------------------------------------------------------------------

    def _request(self) -> None:
        """Request missing examples and estimates."""
        task, app, examples = self.shown, self.app, self.rows.examples
        if task is None or app.snapshot is None:
            return
        key = task.version.key
        if examples is None or examples.key != key or examples.split != task.split:
            if key in self._kept and self._kept[key].split == task.split:
                self._take_examples(self._kept[key])
            elif self._reading != key and not self._trouble:
                self._reading = key
                self._read(task)
        answers = app.snapshot.answers
        if answers is None or app.session is None:
            return
        wanted = answers.key, app.session.revision, self._ways.number
        if self._requested != wanted:
            self._requested = wanted
            self._weigh(answers, wanted, app.session.mask, named(app.session.dropped))
        if answers not in _transfers and self._requested_transfer != answers.key:
            self._requested_transfer = answers.key
            self._transfer(answers)

    @work(thread=True, exclusive=True, group="examples", exit_on_error=False)
    def _read(self, task: Task) -> None:
        worker, snapshot = get_current_worker(), self.app.snapshot
        assert snapshot is not None
        try:
            examples = read_examples(snapshot.project.store, task)
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
            self.show_titles()

    def _have_read(self, examples: Examples) -> None:
        self._kept[examples.key] = examples
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        task = self.shown
        if self.is_attached and task is not None and task.version.key == examples.key:
            self._reading = ""
            self._take_examples(examples)
            self._show_task()

    def _take_examples(self, examples: Examples) -> None:
        self.rows.take(examples, self.influence)
        self._arrange(keep=False)
        if self.rows.words:
            self._search(examples, self.rows.words)

    def _arrange(self, *, keep: bool) -> None:
        """Sort the examples.

        Args:
            keep: Whether the cursor stays on its example, if the example is still in the list.
        """
        if self.rows.put_in_order(keep=keep):
            self.show_example()
        self.show_titles()

    # -- influence --------------------------------------------------------------------------------------------------

    @work(thread=True, exclusive=True, group="influence", exit_on_error=False)
    def _weigh(self, answers: TargetEstimates, wanted: _Wanted, mask: Mask, dropped: Named) -> None:
        worker = get_current_worker()
        try:
            # The estimator has one target, after the auxiliary tasks.
            estimator, _ = lacking_estimator(answers, dropped) if dropped else (answers.estimator, 0.0)
            gains = estimator.gains_of(min(wanted[2], len(mask)), mask)
            effect = None
            if wanted[2] < len(mask):
                ways = np.stack([mask, mask])
                ways[:, wanted[2]] = (True, False)
                inside, outside = estimate_selections(estimator, ways)
                effect = difference(estimator, inside, outside)
        except _ERRORS as error:
            if not worker.is_cancelled:
                self.app.post_message(Failed("estimate the influence of examples", error))
                self.app.call_from_thread(self._have_no_influence, wanted, str(error))
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._have_influence, wanted, gains, effect)

    def _have_no_influence(self, wanted: _Wanted, words: str) -> None:
        self._unknown = wanted, words
        if self.is_attached:
            self._show_task()

    def _have_influence(self, wanted: _Wanted, gains: Floats, effect: LossDifference | None) -> None:
        if self.is_attached and self._requested == wanted:
            self._gains, self._own_effect = (wanted, gains), effect
            self.rows.weigh(self.influence)
            self._arrange(keep=True)
            self._show_task()
            self.influences_known()

    @work(thread=True, exclusive=True, group="transfer", exit_on_error=False)
    def _transfer(self, answers: TargetEstimates) -> None:
        worker = get_current_worker()
        try:
            _transfers[answers] = answers.estimator.transfer()
        except _ERRORS as error:
            if not worker.is_cancelled:
                self.app.post_message(Failed("estimate the transfer between tasks", error))
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._show_task)

    @property
    def influence(self) -> Influence | None:
        """Return the influence of the examples around the current selection; None until known."""
        snapshot, session, task = self.app.snapshot, self.app.session, self.shown
        if self._gains is None or task is None or snapshot is None or snapshot.answers is None or session is None:
            return None
        known, gains = self._gains
        # Ignore influences of another revision or task.
        if known != (snapshot.answers.key, session.revision, self._ways.number):
            return None
        if self._influence is None or self._influence[0] is not task or self._influence[1] is not gains:
            # Gains of another selection of examples are another array.
            dropped = session.dropped.get(task.name, frozenset())
            self._influence = task, gains, influence_of(snapshot, self._ways.number, gains, dropped)
        return self._influence[2]

    # -- the example ------------------------------------------------------------------------------------------------

    def show_example(self) -> None:
        """Show the example under the cursor."""
        if not self.is_attached:
            return
        examples, number = self.rows.examples, self.rows.number
        self.workers.cancel_group(self, "tokens")
        if examples is None or number is None:
            self.reader.read([])
        elif self._tokens:
            self.reader.read([("…", "dim")])
            self._read_tokens(examples.key, number)
        else:
            self.reader.read([*self.note_parts(), *marked(examples.text(number), examples.spans_of(number))])

    @work(thread=True, exclusive=True, group="tokens", exit_on_error=False)
    def _read_tokens(self, key: str, number: int) -> None:
        worker, snapshot = get_current_worker(), self.app.snapshot
        assert snapshot is not None
        assert snapshot.corpus is not None
        try:
            vocabulary = vocabulary_of(snapshot.corpus.model.folder)
            parts = token_parts(*snapshot.project.store.tokens_of(key, number), vocabulary)
        except _ERRORS as error:
            if not worker.is_cancelled:
                self.app.post_message(Failed("read the tokens", error))
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._have_tokens, key, number, parts)

    def _have_tokens(self, key: str, number: int, parts: list[Part]) -> None:
        if not self.is_attached or not self._tokens:
            return
        examples = self.rows.examples
        if examples is not None and (examples.key, self.rows.number) == (key, number):
            self.reader.read(parts)

    @on(Rows.Moved, "#examples")
    def _moved(self) -> None:
        self.show_example()
        self.show_effect()
        self.show_titles()

    @on(Rows.Opened, "#examples")
    def _opened(self) -> None:
        self.reader.focus()

    # -- search -----------------------------------------------------------------------------------------------------

    def action_find(self) -> None:
        """Open the field of the search."""
        self.add_class("-searching")
        self.query_one("#search", Input).focus()

    @on(Input.Changed, "#search")
    def _typed(self, event: Input.Changed) -> None:
        if event.value == self.rows.words:
            return
        self.rows.words = event.value
        if self.rows.examples is not None:
            self._search(self.rows.examples, event.value)
        self.show_titles()

    @on(Input.Submitted, "#search")
    def _entered(self) -> None:
        self._close_search()

    def _close_search(self, *, forget: bool = False) -> None:
        if forget:
            self.rows.words, self.rows.found = "", None
            self.workers.cancel_group(self, "search")
            self.query_one("#search", Input).value = ""
            self._arrange(keep=True)
        if self.has_class("-searching"):
            self.remove_class("-searching")
            self.rows.focus()

    @work(thread=True, exclusive=True, group="search", exit_on_error=False)
    def _search(self, examples: Examples, words: str) -> None:
        worker = get_current_worker()
        found = examples.search(words)
        if not worker.is_cancelled:
            self.app.call_from_thread(self._found, examples, words, found)

    def _found(self, examples: Examples, words: str, found: Mask) -> None:
        if self.is_attached and self.rows.examples is examples and self.rows.words == words:
            self.rows.found = found if words else None
            self._arrange(keep=True)

    # -- actions ----------------------------------------------------------------------------------------------------

    def action_back(self) -> None:
        """Clear the search, or move to the list, or close the screen."""
        if self.has_class("-searching") or self.rows.words:
            self._close_search(forget=True)
        elif self.reader.has_focus:
            self.rows.focus()
        elif self.clear_marks():
            return
        else:
            super().action_back()

    def action_sort(self) -> None:
        """Switch to the next order."""
        self.rows.next_order()
        self._arrange(keep=False)

    def action_reverse(self) -> None:
        """Reverse the order."""
        self.rows.reverse()
        self._arrange(keep=False)

    def action_toggle_this(self) -> None:
        """Toggle the task."""
        self._edit("toggle")

    def action_pin(self) -> None:
        """Pin in, pin out, or unpin."""
        self._edit("pin")

    def _edit(self, kind: str) -> None:
        session = self.app.session
        if session is None or self.shown is None:
            return
        if not self.is_auxiliary:
            self.app.flash("the target is always in", "warn")
            return
        row = np.array([self._ways.number])
        edit = session.toggle(row) if kind == "toggle" else session.pin(row)
        self.app.edited(edit.label if edit else "")

    def action_next_task(self) -> None:
        """Open the next task."""
        self._step(1)

    def action_previous_task(self) -> None:
        """Open the previous task."""
        self._step(-1)

    def _step(self, step: int) -> None:
        task = self._ways.neighbour(self.app.snapshot, step)
        if task is not None:
            self._go(task)

    def action_next_pane(self) -> None:
        """Move between list and text."""
        (self.rows if self.reader.has_focus else self.reader).focus()

    def action_tokens(self) -> None:
        """Switch between text and tokens."""
        self._tokens = not self._tokens
        self.show_example()
        self.show_titles()

    def action_copy(self) -> None:
        """Copy the text of the example."""
        examples, number = self.rows.examples, self.rows.number
        if examples is None or number is None:
            return
        data = examples.text(number).encode("utf-8", "replace")
        kept = data[:_CLIPBOARD].decode("utf-8", "ignore")
        self.app.copy_to_clipboard(kept)
        whole = "" if len(data) <= _CLIPBOARD else f"the first {_CLIPBOARD // 1000} kB of "
        self.app.flash(f"sent to the terminal: {whole}{examples.place(number)}")
