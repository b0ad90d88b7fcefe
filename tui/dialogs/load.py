"""Load a saved selection."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual import on
from textual.widget import Widget

from tui.dialogs.base import Choices, Dialog
from tui.widgets import numbers
from tui.widgets.rows import Rows

if TYPE_CHECKING:
    from tui.state.snapshot import SavedSelection


class LoadDialog(Dialog[str]):
    """Asks for a saved selection. The value is its name, and "" is all tasks."""

    title_text = "load selection"
    keys = (("enter", "load (undo with u)"),)

    def content(self) -> Iterable[Widget]:
        """Return the list of selections."""
        return [Choices(self._choices(), classes="first-focus")]

    def _choices(self) -> list[tuple[str, str, str]]:
        snapshot = self.app.snapshot
        saved = snapshot.selections if snapshot is not None else ()
        return [*((s.name, s.name, self._words(s)) for s in saved), ("", "all tasks", "every task in")]

    def on_mount(self) -> None:
        """Follow saves of other windows, and better estimates."""
        self.app.changed.subscribe(self, self._follow)

    def _follow(self, topic: str) -> None:
        if topic in ("snapshot", "estimate") and self.is_attached:
            choices = self.query_one(Choices)
            here = choices.value
            choices.choices = self._choices()
            choices.cursor = next((row for row, (name, _, _) in enumerate(choices.choices) if name == here), 0)
            choices.fit_height()

    def _words(self, saved: "SavedSelection") -> str:
        """Describe a selection. Its loss is that of the current estimator, if the loss is known."""
        snapshot, manifest = self.app.snapshot, saved.manifest
        assert snapshot is not None
        known = None if saved.is_weighted else self.app.known_loss(saved.mask(snapshot.names), saved.dropped)
        loss = f"loss {numbers.loss(known.loss)} {snapshot.trust}, " if known is not None else ""
        origin = f", from {manifest.started_from}" if manifest.started_from else ""
        return f"{loss}{sum(t.selected for t in manifest.tasks)} in, {saved.method}{origin}"

    @on(Rows.Opened)
    def _load(self) -> None:
        self.dismiss(self.query_one(Choices).value)
