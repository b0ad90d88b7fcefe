"""Start a stage as a job."""

import shlex
from collections.abc import Iterable

from textual import on, work
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input
from textual.worker import get_current_worker

from curator.core.config import VerifySection
from curator.core.errors import CuratorError
from tui.dialogs.base import Choices, Dialog
from tui.state.costs import cost_of_runs, cost_of_select
from tui.widgets.cycle import Cycle
from tui.widgets.lines import Line, Lines
from tui.widgets.rows import Rows
from tui.widgets.wrapped import Wrapped

_STAGES = (
    ("check", "check", "read configuration and data, train nothing"),
    ("train", "train", "meta-train: LoRA on all tasks together"),
    ("gradients", "gradients", "projected gradients, meta-training if missing"),
    ("select", "select", "all missing stages, affinities, then a selection"),
    ("verify", "verify", "fine-tune on some subsets to calibrate estimates"),
    ("race", "select by runs", "fine-tune on promising subsets, select the best"),
    ("apply", "apply", "fine-tune an adapter on curator-manifest.json"),
    ("train --fresh", "train again", "meta-train on all tasks, even if cached"),
    ("select --fresh", "all again", "recompute every stage"),
)
_FIRST = "select"
_METHODS = ("as configured", "forward", "backward", "exchange", "ensemble", "mixture")
# Fields of each stage.
_FIELDS = {
    "select": ("method", "max-tokens", "max-tasks"),
    "select --fresh": ("method", "max-tokens", "max-tasks"),
    "race": ("subsets", "max-tokens", "max-tasks"),
    "verify": ("subsets",),
}


class RunDialog(Dialog[list[str]]):
    """Asks for a stage. The value is the list of arguments of `curator`.

    Args:
        stage: Stage under the cursor at first.
    """

    title_text = "run a stage"
    keys = (("enter", "start"), ("tab", "next"), ("←→", "method"))

    def __init__(self, stage: str = _FIRST) -> None:
        super().__init__()
        self._begin_with = stage
        self._cost: Line = []

    def content(self) -> Iterable[Widget]:
        """Return stages, their settings, and the command."""
        return [
            Choices(_STAGES, classes="first-focus"),
            Horizontal(Lines([[("method       ", "title")]]), Cycle(_METHODS, id="method"), classes="field"),
            self._field("runs", "subsets", str(self._settings.runs)),
            self._field("max tokens", "max-tokens", ""),
            self._field("max tasks", "max-tasks", ""),
            Wrapped([[], [], [], []], id="command"),
        ]

    @staticmethod
    def _field(words: str, id: str, value: str) -> Horizontal:
        return Horizontal(
            Lines([[(f"{words:<13}", "title")]]),
            Input(value, id=id, type="integer", placeholder="" if value else "no limit"),
            classes="field",
        )

    def on_mount(self) -> None:
        """Put the cursor on the first stage."""
        choices = self.query_one(Choices)
        choices.cursor = [value for value, _, _ in _STAGES].index(self._begin_with)
        self._show_command()

    # -- values -------------------------------------------------------------------------------------------------------

    @property
    def _stage(self) -> str:
        return self.query_one(Choices).value

    @property
    def _method(self) -> str:
        """Return the method of `select`; "" for the configured one, and for stages without a method."""
        method = self.query_one(Cycle).value
        return method if "method" in _FIELDS.get(self._stage, ()) and method != _METHODS[0] else ""

    @property
    def _fields(self) -> tuple[str, ...]:
        """Return the fields of the stage. Mixture weights have a budget of tokens only."""
        fields = _FIELDS.get(self._stage, ())
        return tuple(field for field in fields if field != "max-tasks" or self._method != "mixture")

    def _number(self, field: str) -> int:
        """Return the number in a field; 0 if the field is empty, is not a number, or does not count."""
        text = self.query_one(f"#{field}", Input).value.strip()
        return int(text) if field in self._fields and text.isdecimal() else 0

    @property
    def _settings(self) -> VerifySection:
        """Return the settings of `curator verify`: those of the project, or the defaults before it is read."""
        snapshot = self.app.snapshot
        return VerifySection() if snapshot is None else snapshot.project.config.verify

    @property
    def _is_whole(self) -> bool:
        return "subsets" not in self._fields or self._number("subsets") > 0

    def arguments(self) -> list[str]:
        """Return the arguments of `curator`, without the project."""
        words = ["select"] if self._stage == "race" else self._stage.split()
        if self._method:
            words += ["--method", self._method]
        for field, option in (("subsets", "--runs"), ("max-tokens", "--max-tokens"), ("max-tasks", "--k")):
            if number := self._number(field):
                words += [option, str(number)]
        return [*words, "--name", "race"] if self._stage == "race" else words

    # -- showing ------------------------------------------------------------------------------------------------------

    @on(Rows.Moved)
    @on(Input.Changed)
    @on(Cycle.Changed)
    def _show_command(self) -> None:
        fields = self._fields
        for field in ("method", "subsets", "max-tokens", "max-tasks"):
            row = self.query_one(f"#{field}").parent
            assert isinstance(row, Horizontal)
            row.display = field in fields
        self._cost = self._first_words()
        self._draw()
        snapshot = self.app.snapshot
        if snapshot is not None and snapshot.corpus is not None and self._is_whole:
            self._count(self._stage, self._runs)

    def _draw(self) -> None:
        command = shlex.join(["curator", *self.arguments(), "-p", str(self.app.root)]) if self._is_whole else "…"
        self.query_one("#command", Lines).show(
            [
                self._cost,
                [],
                [("same as  ", "dim"), command],
                [("The job continues when you quit. Stop the job with x on Jobs.", "dim")],
            ]
        )

    @property
    def _runs(self) -> int:
        """Return the number of fine-tuning runs, at most; 0 for stages without runs."""
        count = self._number("subsets")
        if self._stage == "verify":
            return count * self._settings.seeds + self._settings.second_runs(count) if count else 0
        return count

    def _first_words(self) -> Line:
        """Return what the stage does, before its time is known."""
        if not self._is_whole:
            return [("enter a number of runs, at least 1", "warn")]
        if self._stage == "verify":
            return [(f"{self._number('subsets')} subsets: {self._runs} fine-tuning runs", "dim")]
        return [(f"at most {self._runs} fine-tuning runs", "dim")] if self._stage == "race" else []

    @work(thread=True, exclusive=True, group="cost", exit_on_error=False)
    def _count(self, stage: str, runs: int) -> None:
        """Find the time of the stage, if the cost model covers it."""
        worker, snapshot = get_current_worker(), self.app.snapshot
        assert snapshot is not None
        try:
            if runs:
                words = f", {cost_of_runs(snapshot, runs).words} on this machine"
            elif stage == "select" and snapshot.answers is None:
                words = f"{cost_of_select(snapshot).words} on this machine"
            else:
                return
        except CuratorError:
            # The stage itself reports what is wrong.
            return
        if not worker.is_cancelled:
            self.app.call_from_thread(self._counted, stage, runs, words)

    def _counted(self, stage: str, runs: int, words: str) -> None:
        if self.is_attached and stage == self._stage and runs == self._runs:
            self._cost = [*self._first_words(), (words, "dim")]
            self._draw()

    @on(Rows.Opened)
    @on(Input.Submitted)
    @on(Cycle.Submitted)
    def _start(self) -> None:
        if self._is_whole:
            self.dismiss(self.arguments())
