"""What the Task screen does with examples: mark them, drop them, and say what that changes."""

import numpy as np
from textual import work
from textual.worker import get_current_worker

from curator.core.arrays import Mask
from curator.core.errors import CuratorError
from curator.core.figures import half_width
from curator.data.corpus import Task
from curator.estimate.target import TargetEstimates
from tui.screens.base import CuratorScreen
from tui.state.dropping import DropEffect, Named, drop_effect
from tui.state.messages import Failed
from tui.state.snapshot import About
from tui.widgets import numbers
from tui.widgets.example_list import SHOWN, ExampleList
from tui.widgets.lines import Line, Lines, Part
from tui.widgets.wrapped import wrapped

# Identity of an effect: key of the answers, revision of the session, and the examples of the task.
_Wanted = tuple[str, int, Named]
_ERRORS = (CuratorError, OSError, np.linalg.LinAlgError)
_NEEDS = 'needs method = "trajectory" under [estimate]'


class ExampleEdits(CuratorScreen):
    """Marks and drops examples of the task on the screen.

    A subclass returns the list (`rows`), the task (`shown`) and whether the task is an auxiliary one (`is_auxiliary`).
    """

    def __init__(self) -> None:
        super().__init__()
        self._effect: tuple[_Wanted, DropEffect] | None = None
        self._effect_of: _Wanted | None = None
        self.asks_to_drop = False
        """Whether to ask how many examples to drop as soon as the influences are known."""

    @property
    def rows(self) -> ExampleList:
        """Return the list of examples."""
        raise NotImplementedError

    @property
    def shown(self) -> Task | None:
        """Return the task; None before the project is read."""
        raise NotImplementedError

    @property
    def is_auxiliary(self) -> bool:
        """Return whether the task is an auxiliary task, not a target."""
        raise NotImplementedError

    def show_example(self) -> None:
        """Show the example under the cursor."""
        raise NotImplementedError

    def show_titles(self) -> None:
        """Draw the lines above the list and the text."""
        raise NotImplementedError

    # -- marks --------------------------------------------------------------------------------------------------------

    def action_mark_row(self) -> None:
        """Mark the example under the cursor or the range, or remove the mark."""
        self.rows.mark()
        self._marked()

    def action_range_rows(self) -> None:
        """Start a range of examples, or mark it."""
        self.rows.start_or_mark_range()
        self._marked()

    def clear_marks(self) -> bool:
        """Remove the range, or all marks. Return whether there was something to remove."""
        cleared = self.rows.clear_marks()
        if cleared:
            self._marked()
        return cleared

    def _marked(self) -> None:
        self.show_titles()
        self.show_effect()

    def action_show_rows(self) -> None:
        """Show all examples, those that harm, those that are marked, or those that are dropped."""
        rows = self.rows
        rows.shown_by = SHOWN[(SHOWN.index(rows.shown_by) + 1) % len(SHOWN)]
        if rows.put_in_order(keep=True):
            self.show_example()
        self.show_titles()

    # -- dropping -----------------------------------------------------------------------------------------------------

    def take_dropped(self) -> None:
        """Let the list show which examples are dropped."""
        task, session = self.shown, self.app.session
        hashes = (
            session.dropped.get(task.name, frozenset()) if task is not None and session is not None else frozenset()
        )
        index = task.version.index.hashes if task is not None and hashes else []
        self.rows.dropped = {number for number, digest in enumerate(index) if digest in hashes}

    def action_drop_rows(self) -> None:
        """Drop the marked examples or the one under the cursor. Dropped ones are restored."""
        self._drop(self.rows.chosen())

    def action_drop_harmful(self) -> None:
        """Ask how many of the most harmful examples to drop."""
        from tui.dialogs.drop import DropDialog

        count = len(self._harmful())
        if not self.is_auxiliary or not self.can_drop:
            self._drop([])
        elif self.app.snapshot is None or self.app.snapshot.answers is None:
            self.app.flash(self.app.missing(), "warn")
        elif self.rows.values is None:
            self.asks_to_drop = True
            self.app.flash("estimating the influence of the examples …")
        elif not count:
            self.app.flash("no example harms", "warn")
        else:
            self.app.push_screen(DropDialog(count), self._drop_worst)

    def influences_known(self) -> None:
        """Open the dialog that waited for the influences, if this screen is still on top."""
        asks, self.asks_to_drop = self.asks_to_drop, False
        if asks and self.is_current and self.rows.values is not None:
            self.app.flash("")
            self.action_drop_harmful()

    def offers(self, action: str) -> bool:
        """Return whether an action makes sense here: the target drops no examples."""
        if action in ("drop_rows", "drop_harmful") and not self.can_drop:
            return False
        return self.is_auxiliary or action not in ("drop_rows", "drop_harmful", "pin", "toggle_this")

    @property
    def can_drop(self) -> bool:
        """Return whether the estimator of the project can estimate tasks without some of their examples."""
        return self.app.snapshot is None or self.app.snapshot.project.config.captures

    def _harmful(self) -> list[int]:
        """Return the numbers of the examples that harm and are not dropped, the worst first."""
        rows = self.rows
        if rows.values is None:
            return []
        order = np.argsort(rows.values, kind="stable")
        return [int(number) for number in order if rows.values[number] < 0 and int(number) not in rows.dropped]

    def _drop_worst(self, count: int | None) -> None:
        if count:
            self._drop(self._harmful()[:count])

    def _drop(self, numbers_: list[int]) -> None:
        session, task = self.app.session, self.shown
        if session is None or task is None:
            return
        if not self.is_auxiliary:
            self.app.flash("the target trains on all of its examples", "warn")
            return
        if not self.can_drop and not (numbers_ and self.rows.dropped.issuperset(numbers_)):
            # Examples that an earlier estimator dropped can still be restored.
            self.app.flash(f"dropping examples {_NEEDS}", "warn")
            return
        if not numbers_:
            self.app.flash("training omits this example already", "warn")
            return
        hashes = task.version.index.hashes
        edit = session.drop(task.name, {hashes[number] for number in numbers_})
        self.rows.clear_marks(whole=True)
        self.app.edited(edit.label if edit else "")

    # -- notes --------------------------------------------------------------------------------------------------------

    def note_about(self) -> About | None:
        """Return the example under the cursor, or the task without examples."""
        task, number = self.shown, self.rows.number
        if task is None:
            return None
        return ("task", task.name, "") if number is None else ("example", task.name, task.version.index.hashes[number])

    def action_note_task(self) -> None:
        """Write a note on the task."""
        if self.shown is not None:
            self.write_note(("task", self.shown.name, ""))

    def note_parts(self) -> list[Part]:
        """Return the notes on the example under the cursor and on its task, for the reader."""
        task, number, snapshot = self.shown, self.rows.number, self.app.snapshot
        if task is None or snapshot is None or number is None:
            return []
        example: About = ("example", task.name, task.version.index.hashes[number])
        whole: About = ("task", task.name, "")
        both = (("note", example), ("note on the task", whole))
        kept = [(words, snapshot.notes[about]) for words, about in both if about in snapshot.notes]
        return [part for words, text in kept for part in ((f"{words}: {text}", "warn"), "\n")]

    # -- the effect ---------------------------------------------------------------------------------------------------

    def _own(self) -> Named:
        """Return the examples of the task that are dropped or marked."""
        task, session = self.shown, self.app.session
        if task is None or session is None or not self.is_auxiliary:
            return ()
        hashes = task.version.index.hashes
        marked = {hashes[number] for number in self.rows.chosen(cursor=False)}
        return tuple((task.name, digest) for digest in sorted(session.dropped.get(task.name, frozenset()) | marked))

    def show_effect(self) -> None:
        """Show what the dropped and marked examples change. Request the estimate if it is not known."""
        if not self.is_attached:
            return
        snapshot, session, own = self.app.snapshot, self.app.session, self._own()
        line = self.query_one("#drop-line", Lines)
        line.display = bool(own)
        if not own or snapshot is None or snapshot.answers is None or session is None or self.shown is None:
            return
        wanted = snapshot.answers.key, session.revision, own
        known = self._effect[1] if self._effect is not None and self._effect[0] == wanted else None
        width = self.app.size.width
        line.show(wrapped([self._effect_line(known, width)], width))
        if known is None and self._effect_of != wanted and self.can_drop:
            self._effect_of = wanted
            name = self.shown.name
            others = tuple((t, d) for t, ds in sorted(session.dropped.items()) if t != name for d in sorted(ds))
            self._estimate_effect(snapshot.answers, wanted, session.mask, others)

    def _effect_line(self, effect: DropEffect | None, width: int) -> Line:
        session, task = self.app.session, self.shown
        assert session is not None
        assert task is not None
        marked, count = bool(self.rows.chosen(cursor=False)), len(self._own())
        rows = f"{count:,} {'marked' if marked else 'dropped'} row{'s' if count > 1 else ''}"
        if not bool(session.mask[session.names.index(task.name)]):
            return [(f" Without {rows}: no change, because the task is out.", "dim")]
        if not self.can_drop:
            return [(f" Without {rows}: the estimate {_NEEDS}", "warn")]
        if effect is None:
            return [f" Without {rows}: ", ("…", "dim")]
        change = effect.change
        style = "dim" if change.is_noise else "good" if change.value < 0 else "bad"
        words = "within noise" if change.is_noise else "not noise"
        if width >= 100:
            words = "within the noise" if change.is_noise else "more than the noise"
        return [
            f" Without {rows}: {numbers.loss(effect.before.loss)} → ",
            (numbers.loss(effect.after.loss), "strong"),
            f" {numbers.half_width(effect.after.low, effect.after.high)} ",
            (f" {numbers.signed(change.value)} {half_width(change.noise)}, {words}", style),
        ]

    @work(thread=True, exclusive=True, group="effect", exit_on_error=False)
    def _estimate_effect(self, answers: TargetEstimates, wanted: _Wanted, mask: Mask, others: Named) -> None:
        worker = get_current_worker()
        try:
            effect = drop_effect(answers, mask, others, wanted[2])
        except _ERRORS as error:
            if not worker.is_cancelled:
                self.app.post_message(Failed("estimate without examples", error))
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._have_effect, wanted, effect)

    def _have_effect(self, wanted: _Wanted, effect: DropEffect) -> None:
        if self.is_attached and self._effect_of == wanted:
            self._effect = wanted, effect
            self.show_effect()
