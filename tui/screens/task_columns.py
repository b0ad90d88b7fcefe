"""The part of the Tasks screen that chooses columns, and reads the first example of each task."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from textual import work

from curator.core.errors import CuratorError
from tui.screens.base import CuratorScreen
from tui.settings import Settings
from tui.state.messages import Failed
from tui.widgets.lines import Lines
from tui.widgets.reading import preview
from tui.widgets.task_table import TaskTable
from tui.widgets.wrapped import wrapped

if TYPE_CHECKING:
    from tui.state.snapshot import Snapshot

# Characters of an example that the screen reads.
_START = 2000


class TaskColumns(CuratorScreen):
    """Shows the first examples of tasks, and asks which columns to show."""

    _starts_of: "Snapshot | None" = None
    """The snapshot whose first examples were read or are being read."""

    @property
    def table(self) -> TaskTable:
        """Return the table."""
        return self.query_one(TaskTable)

    # -- first examples ---------------------------------------------------------------------------------------------

    def _read_starts_if_shown(self) -> None:
        """Read the first examples, if the screen has room to show one."""
        snapshot = self.app.snapshot
        shown = self.is_wide or any(name == "preview" for name, _ in self.table.columns(self.app.size.width))
        if shown and snapshot is not None and snapshot.corpus is not None and snapshot is not self._starts_of:
            self._starts_of = snapshot
            self._read_starts(snapshot)

    @work(thread=True, exclusive=True, group="starts", exit_on_error=False)
    def _read_starts(self, snapshot: "Snapshot") -> None:
        assert snapshot.corpus is not None
        keys = {task.name: task.version.key for task in snapshot.corpus.auxiliary}
        try:
            found = snapshot.project.store.example_starts(list(set(keys.values())), _START)
        except (CuratorError, OSError) as error:
            self.app.post_message(Failed("read the first examples", error))
        else:
            starts = {name: found[key] for name, key in keys.items() if key in found}
            self.app.call_from_thread(self._have_starts, starts)

    def _have_starts(self, starts: Mapping[str, str]) -> None:
        self.table.starts = starts
        self.table.refresh()
        if self.is_wide:
            self._show_example()

    def _show_example(self) -> None:
        """Show the first example of the task under the cursor, in the rows that the other boxes leave."""
        box, snapshot, row = self.query_one("#example-box", Lines), self.app.snapshot, self.table.task_row
        text = self.table.starts.get(snapshot.names[row], "") if snapshot is not None and row is not None else ""
        box.border_title = "first example"
        side = self.query_one("#side")
        used = sum(
            (len(child.lines) + 2 if isinstance(child, Lines) else child.outer_size.height)
            for child in side.children
            if child is not box and child.display
        )
        lines = wrapped([[preview(text, _START // 4)]], max(side.size.width - 4, 10))
        room = side.size.height - used - 2
        box.display = bool(text) and room > 0
        box.show(lines[: max(room, 0)])

    # -- columns ----------------------------------------------------------------------------------------------------

    def action_columns(self) -> None:
        """Ask which columns to show."""
        from tui.dialogs.columns import ColumnsDialog

        self.app.push_screen(ColumnsDialog(self.app.settings.columns), self._take_columns)

    def _take_columns(self, chosen: list[str] | None) -> None:
        if chosen is not None:
            self.app.settings.columns = chosen
            self.app.settings.write(Settings.place())
            self._read_starts_if_shown()
            self.show("all")
