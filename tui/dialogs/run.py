"""Start a stage as a job."""

import shlex
from collections.abc import Iterable

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input

from curator.core.config import VerifySection
from curator.core.figures import duration
from tui.dialogs.base import Choices, Dialog
from tui.widgets.lines import Line, Lines
from tui.widgets.rows import Rows
from tui.widgets.wrapped import Wrapped

_STAGES = (
    ("check", "check", "read configuration and data, train nothing"),
    ("train", "train", "meta-train: LoRA on all tasks together"),
    ("gradients", "gradients", "projected gradients, meta-training if missing"),
    ("select", "select", "all missing stages, affinities, then a selection"),
    ("verify", "verify", "fine-tune on some subsets to calibrate estimates"),
    ("apply", "apply", "fine-tune an adapter on curator-manifest.json"),
    ("train --fresh", "train again", "meta-train on all tasks, even if cached"),
    ("select --fresh", "all again", "recompute every stage"),
)
_FIRST = "select"
# Settings of `curator verify` without a configuration.
_DEFAULT = VerifySection()


class RunDialog(Dialog[list[str]]):
    """Asks for a stage. The value is the list of arguments of `curator`.

    Args:
        stage: Stage under the cursor at first.
    """

    title_text = "run a stage"
    keys = (("enter", "start"), ("tab", "next"))

    def __init__(self, stage: str = _FIRST) -> None:
        super().__init__()
        self._begin_with = stage

    def content(self) -> Iterable[Widget]:
        """Return stages, the number of subsets to measure, and the command."""
        return [
            Choices(_STAGES, classes="first-focus"),
            Horizontal(
                Lines([[("subsets      ", "title")]]),
                Input(str(_DEFAULT.runs), id="subsets", type="integer"),
                classes="field",
            ),
            Wrapped([[], [], [], []], id="command"),
        ]

    def on_mount(self) -> None:
        """Put the cursor on the first stage."""
        choices = self.query_one(Choices)
        choices.cursor = [value for value, _, _ in _STAGES].index(self._begin_with)
        self._show_command()

    @property
    def _verifies(self) -> bool:
        return self.query_one(Choices).value == "verify"

    @property
    def _subsets(self) -> int:
        """Return the number of subsets; 0 if the field is not a number."""
        text = self.query_one("#subsets", Input).value.strip()
        return int(text) if text.isdecimal() else 0

    def arguments(self) -> list[str]:
        """Return the arguments of `curator`, without the project."""
        more = ["--runs", str(self._subsets)] if self._verifies else []
        return [*self.query_one(Choices).value.split(), *more]

    @on(Rows.Moved)
    @on(Input.Changed, "#subsets")
    def _show_command(self) -> None:
        self.query_one(".field", Horizontal).display = self._verifies
        is_whole = self._subsets > 0 or not self._verifies
        command = shlex.join(["curator", *self.arguments(), "-p", str(self.app.root)]) if is_whole else "…"
        self.query_one("#command", Lines).show(
            [
                self._cost() if self._verifies else [],
                [],
                [("same as  ", "dim"), command],
                [("The job continues when you quit. Stop the job with x on Jobs.", "dim")],
            ]
        )

    def _cost(self) -> Line:
        """Return the size of the verification, and its duration if runs are known."""
        if not self._subsets:
            return [("enter a number of subsets, at least 1", "warn")]
        runs = self._subsets * _DEFAULT.seeds + _DEFAULT.second_runs(self._subsets)
        words = f"{self._subsets} subsets: {runs} fine-tuning runs"
        known = self.app.snapshot.measured.values() if self.app.snapshot is not None else ()
        seconds = [run.seconds for found in known for run in found.runs]
        if seconds:
            words += f", about {duration(runs * sum(seconds) / len(seconds))}"
        return [(words, "dim")]

    @on(Rows.Opened)
    @on(Input.Submitted, "#subsets")
    def _start(self) -> None:
        if not self._verifies or self._subsets:
            self.dismiss(self.arguments())
