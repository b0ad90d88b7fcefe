"""Measure one selection: fine-tune on it with some seeds, after showing the expected time."""

import shlex
from collections.abc import Iterable

from textual import on, work
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import get_current_worker

from curator.core.errors import CuratorError
from tui.dialogs.base import Choices, Dialog
from tui.state.costs import Expected, cost_of_selections
from tui.widgets.lines import Line, Lines
from tui.widgets.rows import Rows
from tui.widgets.wrapped import Wrapped

_OTHERS = (
    ("", "alone", "fine-tune on this selection only"),
    ("all", "with all tasks", "compare with all tasks by runs with the same seeds"),
    ("none", "with target alone", "compare with the target alone by runs with the same seeds"),
    ("all,none", "with both", "compare with all tasks and with the target alone"),
)
_MOST_SEEDS = 99


class MeasureDialog(Dialog[list[str]]):
    """Asks for seeds and comparisons. The value is the list of arguments of `curator`.

    Args:
        name: Name of a saved selection, or `all` for all tasks.
        base: What the selection started from: a saved selection, or words.
    """

    keys = (("enter", "start"), ("tab", "seeds"))

    def __init__(self, name: str, base: str = "") -> None:
        super().__init__()
        self._selection, self._base = name, base
        self._cost: Expected | None = None
        self.title_text = "measure all tasks" if name == "all" else f"measure {name}"

    def content(self) -> Iterable[Widget]:
        """Return comparisons, the number of seeds, the expected time, and the command."""
        others = [other for other in _OTHERS if self._selection != "all" or "all" not in other[0]]
        assert self.app.snapshot is not None
        base = self.app.snapshot.selection(self._base)
        if base is not None and self._base != self._selection and "," not in self._base and not base.is_weighted:
            words = "compare with it by runs with the same seeds"
            others.insert(1, (self._base, f"with {self._base}", words))
        return [
            Choices(others, classes="first-focus"),
            Horizontal(Lines([[("seeds        ", "title")]]), Input("1", id="seeds", type="integer"), classes="field"),
            Wrapped([[], [], [], []], id="command"),
        ]

    def on_mount(self) -> None:
        """Show the cost of the first choice."""
        self._ask()

    @property
    def _seeds(self) -> int:
        """Return the number of seeds; 0 if the field holds no such number."""
        text = self.query_one("#seeds", Input).value.strip()
        return int(text) if text.isdecimal() and int(text) <= _MOST_SEEDS else 0

    @property
    def _names(self) -> list[str]:
        others = self.query_one(Choices).value
        return [self._selection, *(others.split(",") if others else ())]

    def arguments(self) -> list[str]:
        """Return the arguments of `curator`, without the project."""
        return ["verify", "--selections", ",".join(self._names), "--seeds", str(self._seeds)]

    @on(Rows.Moved)
    @on(Input.Changed, "#seeds")
    def _ask(self) -> None:
        self._cost = None
        if not self._seeds:
            self._show([("enter a number of seeds, at least 1", "warn")])
            return
        self._show([("counting the runs …", "dim")])
        self._count(self._names, self._seeds)

    @work(thread=True, exclusive=True, group="cost", exit_on_error=False)
    def _count(self, names: list[str], seeds: int) -> None:
        worker, snapshot = get_current_worker(), self.app.snapshot
        assert snapshot is not None
        try:
            found: Expected | CuratorError = cost_of_selections(snapshot, names, seeds)
        except CuratorError as error:
            found = error
        if not worker.is_cancelled:
            self.app.call_from_thread(self._counted, found)

    def _counted(self, found: Expected | CuratorError) -> None:
        if not self.is_attached:
            return
        if isinstance(found, CuratorError):
            self._show([("✗ ", "bad"), (f"{found}. {found.hint}", "bad")])
            return
        self._cost = found
        if not found.runs:
            self._show([("these seeds are measured already: enter a larger number", "warn")])
            return
        more = "" if self._seeds > 1 else ". Two seeds or more also show the noise"
        self._show([f"{found.runs} run{'' if found.runs == 1 else 's'}, {found.words} on this machine{more}"])

    def _show(self, cost: Line) -> None:
        command = shlex.join(["curator", *self.arguments(), "-p", str(self.app.root)])
        self.query_one("#command", Lines).show(
            [
                cost,
                [],
                [("same as  ", "dim"), command],
                [("The job continues when you quit. Home shows the result.", "dim")],
            ]
        )

    @on(Rows.Opened)
    @on(Input.Submitted, "#seeds")
    def _start(self) -> None:
        if self._cost is not None and self._cost.runs:
            self.dismiss(self.arguments())
