"""The Compare screen: up to four selections side by side, and their different tasks."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from textual import on, work
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widget import Widget
from textual.worker import get_current_worker

from curator.core.arrays import Mask
from curator.core.errors import CuratorError
from curator.core.text import clean
from tui.actions import bindings_of
from tui.background.estimator_thread import selection_key
from tui.dialogs.pick import PickDialog
from tui.screens.base import CuratorScreen
from tui.state.comparison import (
    ALL,
    NONE,
    NOW,
    SORTS,
    Chosen,
    Estimates,
    Token,
    choice,
    estimates,
    picked,
    sorted_rows,
    which_rows,
)
from tui.state.messages import Failed
from tui.widgets.compare_table import table_lines, verdict
from tui.widgets.differences import Differences
from tui.widgets.lines import Line, Lines, Part, spread
from tui.widgets.rows import Rows

if TYPE_CHECKING:
    from curator.estimate.target import TargetEstimates
    from tui.state.dropping import Named
    from tui.state.snapshot import Snapshot


def _identity(chosen: Sequence[Chosen]) -> bytes:
    """Return the memberships and the dropped examples of selections as bytes."""
    dropped = repr([c.dropped for c in chosen]).encode()
    return np.stack([c.mask for c in chosen]).tobytes() + bytes([len(chosen)]) + dropped


class CompareScreen(CuratorScreen):
    """Shows selections side by side."""

    BINDINGS: ClassVar[list[BindingType]] = bindings_of("compare")
    place = "compare"

    class Estimated(Message):
        """Estimates are available, or better estimates."""

        def __init__(self, estimates: Estimates) -> None:
            super().__init__()
            self.estimates = estimates

        def can_replace(self, message: Message) -> bool:
            """Replace an older message, because only the newest estimates count."""
            return isinstance(message, CompareScreen.Estimated)

    def __init__(self) -> None:
        super().__init__()
        self.estimates: Estimates | None = None
        self._requested: Token | None = None
        self._which, self._sort, self._descending = "different", SORTS[0], True

    def body(self) -> Iterable[Widget]:
        """Return the table, the list of tasks, and the verdict."""
        return [
            Vertical(
                Lines([()] * 8, id="compared"),
                Lines([(), ()], id="differences-title"),
                Differences(id="differences", classes="first-focus"),
                Lines([()], id="verdict"),
            )
        ]

    @property
    def differences(self) -> Differences:
        """Return the list of tasks."""
        return self.query_one(Differences)

    # -- selections --------------------------------------------------------------------------------------------------

    def picks(self) -> list[str]:
        """Return the keys of the compared selections."""
        snapshot, session = self.app.snapshot, self.app.session
        if snapshot is None or session is None or not self.app.knows_tasks:
            return []
        return picked(self.app.place.compared, snapshot, session)

    def chosen(self) -> list[Chosen]:
        """Return the compared selections."""
        snapshot, session = self.app.snapshot, self.app.session
        if snapshot is None or session is None or not self.app.knows_tasks:
            return []
        found = [choice(key, snapshot, session) for key in self.picks()]
        known, hand = self.app.intervals, self.app.chosen_interval()
        return [
            replace(c, interval=hand if c.key == NOW else known.get((c.key, selection_key(c.mask, c.dropped))))
            for c in found
        ]

    # -- showing ------------------------------------------------------------------------------------------------------

    def show(self, topic: str) -> None:
        """Draw a change."""
        if topic == "jobs":
            return
        if topic == "estimate":
            # Only the intervals of chosen selections come with it.
            self._draw(sort=False)
            return
        self._draw()

    def _draw(self, *, sort: bool = True) -> None:
        app, rows, chosen = self.app, self.differences, self.chosen()
        self._request(chosen)
        known, width, missing = self._known(chosen), app.size.width, app.missing()
        table: list[Line] = [[("" if app.trouble is not None else f" {missing}", "warn")], *[()] * 7]
        words: Line = [(f" {missing}", "warn")] if chosen else ()
        if app.snapshot is None or not chosen:
            rows.clear()
        else:
            table = table_lines(chosen, known, app.snapshot, width)
            if app.snapshot.answers is not None:
                words = verdict(chosen, known, wide=self.is_wide)
            self._list(chosen, known, app.snapshot, sort=sort)
        self.query_one("#compared", Lines).show(table)
        self.query_one("#differences-title", Lines).show([self._list_title(width), rows.title(width)])
        self.query_one("#verdict", Lines).show([words])

    def _token(self, chosen: Sequence[Chosen]) -> Token | None:
        snapshot = self.app.snapshot
        if snapshot is None or snapshot.answers is None or not chosen:
            return None
        return snapshot.answers.key, _identity(chosen)

    def _known(self, chosen: Sequence[Chosen]) -> Estimates | None:
        """Return the estimates; None if they belong to other selections."""
        token = self._token(chosen)
        return self.estimates if self.estimates is not None and self.estimates.token == token else None

    def _list_title(self, width: int) -> Line:
        parts: list[Part] = [("─ ", "dim"), ("tasks  ", "title")]
        for which in self._kinds():
            here = which == self._which
            parts.append((f"[{which}]" if here else f" {which} ", "accent" if here else "dim"))
        arrow = "▼" if self._descending else "▲"
        right = f" {self.differences.count} task{'' if self.differences.count == 1 else 's'} · {self._sort} {arrow} "
        return spread(parts, [(right, "dim")], width)

    # -- the list -----------------------------------------------------------------------------------------------------

    def _kinds(self) -> list[str]:
        return ["all", "different", "only A", "only B"] if len(self.picks()) > 1 else ["all"]

    def _list(
        self, chosen: Sequence[Chosen], known: Estimates | None, snapshot: "Snapshot", *, sort: bool = True
    ) -> None:
        rows, count = self.differences, len(snapshot.names)
        rows.masks = np.stack([c.mask for c in chosen])
        rows.changes = known.changes if known is not None else np.full(count, np.nan)
        rows.solved = known.solved if known is not None else np.zeros(count, dtype=bool)
        view = rows.view
        if sort:
            view = which_rows(rows.masks, self._which if len(chosen) > 1 else "all")
            view = sorted_rows(view, self._sort, snapshot, rows.changes, descending=self._descending)
        rows.take(view)

    @on(Rows.Opened)
    def _opened(self) -> None:
        rows = self.differences
        if rows.task_row is not None:
            self.app.open_task(rows.task_row, rows.view)

    # -- estimates ----------------------------------------------------------------------------------------------------

    def _request(self, chosen: Sequence[Chosen]) -> None:
        snapshot, token = self.app.snapshot, self._token(chosen)
        if token is None or snapshot is None or snapshot.answers is None or token == self._requested:
            return
        self._requested = token
        dropped = [c.dropped for c in chosen]
        self._estimate(snapshot.answers, np.stack([c.mask for c in chosen]), token, dropped if any(dropped) else [])

    @work(thread=True, exclusive=True, group="compare", exit_on_error=False)
    def _estimate(self, answers: "TargetEstimates", masks: Mask, token: Token, dropped: "list[Named]") -> None:
        from tui.state.dropping import lacking_estimator

        worker = get_current_worker()
        try:
            lacking = [lacking_estimator(answers, named) for named in dropped]
            for found in estimates(answers.estimator, masks, token, lacking):
                if worker.is_cancelled:
                    return
                self.post_message(self.Estimated(found))
        except (CuratorError, OSError) as error:
            self.app.post_message(Failed("compare the selections", error))

    @on(Estimated)
    def _estimated(self, message: Estimated) -> None:
        chosen = self.chosen()
        if message.estimates.token != self._token(chosen):
            return
        before = self._known(chosen)
        self.estimates = message.estimates
        # Rows that move with every better estimate are hard to read.
        self._draw(sort=before is None or message.estimates.is_complete)

    # -- actions ------------------------------------------------------------------------------------------------------

    def action_pick(self) -> None:
        """Pick the selections to compare."""
        snapshot, session = self.app.snapshot, self.app.session
        if snapshot is None or session is None or not self.app.can_edit():
            return
        total = len(snapshot.names)
        choices = [
            (NOW, "now", f"{int(session.mask.sum())} in, the current selection"),
            *(
                (s.name, s.name, f"{sum(t.selected for t in s.manifest.tasks)} in, {s.method}")
                for s in snapshot.selections
            ),
            (ALL, "all tasks", f"{total} in"),
            (NONE, "target only", "0 in"),
        ]
        self.app.push_screen(PickDialog(choices, self.picks()), self._picked)

    def _picked(self, picked: list[str] | None) -> None:
        if picked:
            self.app.place.compared = list(picked)
            self._draw()

    def action_swap(self) -> None:
        """Swap A and B."""
        picks = self.picks()
        if len(picks) < 2:
            self.app.flash("cannot swap: pick another selection (p) first", "warn")
            return
        self._picked([picks[1], picks[0], *picks[2:]])

    def action_show_which(self) -> None:
        """Show all tasks, different tasks, tasks only in A, or tasks only in B."""
        kinds = self._kinds()
        place = kinds.index(self._which) if self._which in kinds else -1
        self._which = kinds[(place + 1) % len(kinds)]
        self._draw()

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self._descending = True
        self._draw()

    def action_reverse(self) -> None:
        """Reverse the sort order."""
        self._descending = not self._descending
        self._draw()

    def action_copy(self) -> None:
        """Copy the table and the list."""
        chosen, rows = self.chosen(), self.differences
        if self.app.snapshot is None or not chosen:
            return
        lines = table_lines(chosen, self._known(chosen), self.app.snapshot, 160)
        lines += [(), rows.title(100), *(rows.line(row, 99) for row in range(rows.count))]
        text = "\n".join("".join(clean(p if isinstance(p, str) else p[0]) for p in line).rstrip() for line in lines)
        self.app.copy_to_clipboard(text + "\n")
        self.app.flash(f"sent to the terminal: {len(chosen)} selections, {rows.count} tasks")

    def action_export(self) -> None:
        """Export A."""
        picks = self.picks()
        if picks and picks[0] in (ALL, NONE):
            self.app.flash("A is not a saved selection: save it (w) or swap (X) first", "warn")
        else:
            self.app.export(picks[0] if picks and picks[0] != NOW else "")
