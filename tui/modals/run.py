"""Start a stage as a process of its own."""

import shlex
from collections.abc import Iterable

from textual import on
from textual.widget import Widget

from tui.modals.base import Choices, Dialog
from tui.widgets.lines import Lines
from tui.widgets.rows import Rows

_STAGES = (
    ("check", "check", "read config and data; trains nothing"),
    ("train", "train", "meta-training: LoRA on all tasks together"),
    ("gradients", "gradients", "projected gradients; meta-training first if need be"),
    ("select", "select", "all that is missing, then affinities and a selection"),
    ("train --fresh", "train anew", "meta-training on all tasks, though it is there"),
    ("select --fresh", "all anew", "every stage again"),
)


class RunDialog(Dialog[list[str]]):
    """Stages to choose from; the answer is the command's arguments."""

    title_text = "run a stage"
    keys = (("enter", "start"),)

    def content(self) -> Iterable[Widget]:
        """Stages, and the command that will run."""
        return [Choices(_STAGES, classes="first-focus"), Lines([[], []], id="command")]

    def on_mount(self) -> None:
        """Say where the pipeline stands."""
        choices = self.query_one(Choices)
        choices.cursor = 3
        self._say()

    @on(Rows.Moved)
    def _say(self) -> None:
        command = f"curator {self.query_one(Choices).value} -p {shlex.quote(str(self.app.root))}"
        self.query_one("#command", Lines).show(
            [[], [("same as  ", "dim"), command], [("goes on when you leave; stop it with x on Runs", "dim")]]
        )

    @on(Rows.Opened)
    def _start(self) -> None:
        self.dismiss(self.query_one(Choices).value.split())
