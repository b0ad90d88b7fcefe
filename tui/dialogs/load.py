"""Load a saved selection."""

from collections.abc import Iterable

from textual import on
from textual.widget import Widget

from tui.dialogs.base import Choices, Dialog
from tui.widgets import numbers
from tui.widgets.rows import Rows


class LoadDialog(Dialog[str]):
    """Saved selections to choose from; "" is all tasks."""

    title_text = "load selection"
    keys = (("enter", "load (u undoes it)"),)

    def content(self) -> Iterable[Widget]:
        """A list."""
        saved = self.app.snapshot.selections if self.app.snapshot is not None else ()
        choices = [
            (
                s.name,
                s.name,
                f"loss {numbers.loss(s.manifest.estimated_loss)} {'calibrated' if s.is_calibrated else 'uncalibrated'},"
                f" {sum(t.selected for t in s.manifest.tasks)} in, {s.method}, {len(s.manifest.edits)} edits",
            )
            for s in saved
        ]
        return [Choices([*choices, ("", "all tasks", "everything in")], classes="first-focus")]

    @on(Rows.Opened)
    def _load(self) -> None:
        self.dismiss(self.query_one(Choices).value)
