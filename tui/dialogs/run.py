"""Start a stage as a process of its own."""

import shlex
from collections.abc import Iterable

from textual import on
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input

from curator.core.events import duration
from tui.dialogs.base import Choices, Dialog
from tui.widgets.lines import Line, Lines
from tui.widgets.rows import Rows

_STAGES = (
    ("check", "check", "read config and data; trains nothing"),
    ("train", "train", "meta-training: LoRA on all tasks together"),
    ("gradients", "gradients", "projected gradients; meta-training first if need be"),
    ("select", "select", "all that is missing, then affinities and a selection"),
    ("verify", "verify", "really fine-tune on some subsets; calibrates estimates"),
    ("apply", "apply", "fine-tune on curator-manifest.json; leaves an adapter"),
    ("train --fresh", "train anew", "meta-training on all tasks, though it is there"),
    ("select --fresh", "all anew", "every stage again"),
)
_FIRST = "select"
# What `curator verify` does by itself, where nothing is measured yet; its seeds.
_SUBSETS, _SEEDS = 12, 2


class RunDialog(Dialog[list[str]]):
    """Stages to choose from; the answer is the command's arguments.

    Args:
        stage: The one that the cursor is on at first.
    """

    title_text = "run a stage"
    keys = (("enter", "start"), ("tab", "next"))

    def __init__(self, stage: str = _FIRST) -> None:
        super().__init__()
        self._begin_with = stage

    def content(self) -> Iterable[Widget]:
        """Stages, how many subsets to verify on, and the command that will run."""
        return [
            Choices(_STAGES, classes="first-focus"),
            Horizontal(
                Lines([[("subsets      ", "title")]]),
                Input(str(_SUBSETS), id="subsets", type="integer"),
                classes="field",
            ),
            Lines([[], [], [], []], id="command"),
        ]

    def on_mount(self) -> None:
        """Begin on a stage."""
        choices = self.query_one(Choices)
        choices.cursor = [value for value, _, _ in _STAGES].index(self._begin_with)
        self._say()

    @property
    def _verifies(self) -> bool:
        return self.query_one(Choices).value == "verify"

    @property
    def _subsets(self) -> int:
        """How many subsets are wanted; 0 where that is no number."""
        text = self.query_one("#subsets", Input).value.strip()
        return int(text) if text.isdecimal() else 0

    def arguments(self) -> list[str]:
        """What follows `curator`, without the project."""
        more = ["--runs", str(self._subsets)] if self._verifies else []
        return [*self.query_one(Choices).value.split(), *more]

    @on(Rows.Moved)
    @on(Input.Changed, "#subsets")
    def _say(self) -> None:
        self.query_one(".field", Horizontal).display = self._verifies
        is_whole = self._subsets > 0 or not self._verifies
        command = shlex.join(["curator", *self.arguments(), "-p", str(self.app.root)]) if is_whole else "…"
        self.query_one("#command", Lines).show(
            [
                self._cost() if self._verifies else [],
                [],
                [("same as  ", "dim"), command],
                [("goes on when you leave; stop it with x on Runs", "dim")],
            ]
        )

    def _cost(self) -> Line:
        """What a verification will do, and how long that takes where it is known."""
        if not self._subsets:
            return [("name a number of subsets, at least 1", "warn")]
        runs = self._subsets * _SEEDS
        words = f"{self._subsets} subsets, {_SEEDS} seeds each: {runs} fine-tuning runs"
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
