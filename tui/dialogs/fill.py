"""Fill up the selection with an automatic method that keeps the pins."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from textual import on, work
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import get_current_worker

from curator.core.errors import CuratorError
from curator.select.search import (
    Constraints,
    Step,
    select_backward,
    select_ensemble,
    select_exchange,
    select_forward,
)
from tui.dialogs.base import Choices, Dialog
from tui.state.dropping import lacking_estimator
from tui.state.session import State, named
from tui.widgets import numbers
from tui.widgets.lines import Lines
from tui.widgets.rows import Rows
from tui.widgets.wrapped import Wrapped

Found = tuple[npt.NDArray[np.bool_], str]

_METHODS = (
    ("forward", "forward", "keep the selection, add the best task each step"),
    ("exchange", "exchange", "add, drop and swap tasks, keep the pins"),
    ("backward", "backward", "start from all tasks: drop tasks, keep the pins"),
    ("ensemble", "ensemble", "take the tasks of positive affinity, keep the pins"),
    ("mixture", "mixture", "weigh tasks within max tokens, as a job"),
)


class _Stopped(Exception):
    """The dialog was closed."""


class FillDialog(Dialog[Found]):
    """Asks for a method and limits, and runs the method. The value is membership (t,) and a label."""

    title_text = "fill up the selection"
    keys = (("enter", "run"), ("tab", "limits"))

    def content(self) -> Iterable[Widget]:
        """Return methods, limits and progress."""
        return [
            Choices(_METHODS, classes="first-focus", id="methods"),
            Wrapped([[], [("limits (optional)", "title")]]),
            Horizontal(Lines([["max tasks   "]]), Input(id="most-tasks", type="integer"), classes="field"),
            Horizontal(Lines([["max tokens  "]]), Input(id="most-tokens", type="integer"), classes="field"),
            Horizontal(Lines([["max examples"]]), Input(id="most-examples", type="integer"), classes="field"),
            Wrapped([[], [self._pins()], []], id="progress"),
        ]

    def _pins(self) -> tuple[str, str]:
        session = self.app.session
        assert session is not None
        inside, outside = len(session.pinned(State.PINNED_IN)), len(session.pinned(State.PINNED_OUT))
        return f"pins are kept: ◆ {inside} pinned in, ◇ {outside} pinned out", "dim"

    @on(Rows.Opened, "#methods")
    @on(Input.Submitted)
    def _begin(self) -> None:
        snapshot, session = self.app.snapshot, self.app.session
        assert snapshot is not None
        assert session is not None
        method = self.query_one("#methods", Choices).value
        if method == "mixture":
            self._weigh()
            return
        kept = session.mask if method == "forward" else np.asarray(session.states == State.PINNED_IN)
        constraints = Constraints(
            tokens=self.app.sizes()[1].astype(np.int64),
            examples=self.app.sizes()[0].astype(np.int64),
            include=frozenset(int(row) for row in np.flatnonzero(kept)),
            exclude=frozenset(int(row) for row in np.flatnonzero(session.states == State.PINNED_OUT)),
            k=self._limit("#most-tasks"),
            max_tokens=self._limit("#most-tokens"),
            max_examples=self._limit("#most-examples"),
        )
        if not constraints.allows(constraints.start(full=False)):
            self._show_note("the tasks that must stay exceed the limits", "bad")
            return
        self._show_note("running …", "dim")
        self._fill(method, constraints)

    def _weigh(self) -> None:
        """Start a job: the session holds tasks in and out, and no weights."""
        session = self.app.session
        assert session is not None
        words = ["select", "--method", "mixture", "--name", "mixture"]
        for state, option in ((State.PINNED_IN, "--include"), (State.PINNED_OUT, "--exclude")):
            words += [word for task in session.pinned(state) for word in (option, task)]
        if tokens := self._limit("#most-tokens"):
            words += ["--max-tokens", str(tokens)]
        if self._limit("#most-tasks") or self._limit("#most-examples"):
            self._show_note("a mixture takes max tokens only: empty the other limits", "bad")
            return
        self.dismiss(None)
        self.app.launch(words)

    def _limit(self, field: str) -> int | None:
        text = self.query_one(field, Input).value.strip()
        return int(text) if text.isdigit() else None

    def _show_note(self, words: str, style: str) -> None:
        self.query_one("#progress", Lines).show([[], [(words, style)], []])

    @work(thread=True, exclusive=True, group="fill", exit_on_error=False)
    def _fill(self, method: str, constraints: Constraints) -> None:
        worker, snapshot, session = get_current_worker(), self.app.snapshot, self.app.session
        assert snapshot is not None
        assert snapshot.answers is not None
        assert session is not None
        names, trust, steps = snapshot.names, snapshot.trust, 0

        def follow(step: Step) -> None:
            nonlocal steps
            if worker.is_cancelled:
                raise _Stopped
            steps += 1
            changed = ", ".join(names[t] for t in step.tasks)
            words = f"{steps}: {numbers.loss(step.loss)} {trust}  {step.change} {changed}"
            self.app.call_from_thread(self._show_note, words, "dim")

        methods: dict[str, Any] = {"forward": select_forward, "exchange": select_exchange, "backward": select_backward}
        answers = snapshot.answers
        try:
            # The sizes in the limits and the losses are of the same examples.
            estimator, _ = lacking_estimator(answers, named(session.dropped))
            if method == "ensemble":
                found = select_ensemble(estimator, constraints, answers.affinities(), follow)
            else:
                found = methods[method](estimator, constraints, follow)
        except _Stopped:
            return
        except (CuratorError, OSError) as error:
            self.app.call_from_thread(self._show_note, f"✗ {error}", "bad")
            return
        self.app.call_from_thread(self._done, (found.mask, f"filled by {method}, {steps} steps"))

    def _done(self, found: Found) -> None:
        if self.is_attached:
            self.dismiss(found)
