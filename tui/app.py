"""The application: its screens, its jobs, and the start and end of the terminal interface.

`tui.app_base.AppBase` holds the state. This module opens screens and dialogs, so no screen imports it.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from textual import work
from textual.binding import Binding, BindingType

from curator.core.errors import CuratorError
from curator.workspace import jobs
from tui.app_base import AppBase
from tui.background.run_watcher import RunWatcher, name_of
from tui.screens.base import CuratorScreen
from tui.screens.home import HomeScreen
from tui.screens.tasks import TasksScreen
from tui.settings import Settings
from tui.state.messages import Failed, RunsRead
from tui.state.place import Place
from tui.state.session import Rows
from tui.themes import THEMES, fitting_theme

if TYPE_CHECKING:
    from textual.command import Provider

    from tui.state.snapshot import Draft, Workspace

_KEEP_SECONDS = 0.3
_WATCH_SECONDS = 1.0
_JOIN_SECONDS = 5.0


# The first frame must not wait for these imports.
def _matrix() -> CuratorScreen:
    from tui.screens.matrix import MatrixScreen

    return MatrixScreen()


def _runs() -> CuratorScreen:
    from tui.screens.runs import RunsScreen

    return RunsScreen()


def _commands() -> "type[Provider]":
    from tui.commands import CuratorCommands

    return CuratorCommands


def _compare() -> CuratorScreen:
    from tui.screens.compare import CompareScreen

    return CompareScreen()


class CuratorApp(AppBase):
    """The terminal interface of curator.

    Args:
        root: Folder of the project.
        settings: Preferences of the user. None reads them from their file.
    """

    TITLE = "curator"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = True
    COMMANDS: ClassVar[set[Any]] = {_commands}
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+q", "leave", "quit", show=False, priority=True, id="leave")]
    MODES: ClassVar[dict[str, Any]] = {
        "home": HomeScreen,
        "tasks": TasksScreen,
        "matrix": _matrix,
        "runs": _runs,
        "compare": _compare,
    }
    PAUSE_GC_ON_SCROLL = True

    def __init__(self, root: Path, settings: Settings | None = None) -> None:
        self.place_path = root / ".curator" / "tui.json"
        super().__init__(root, Place.read(self.place_path))
        self.settings = settings or Settings.read(Settings.place())
        self._remembered = replace(self.place)
        self._watching = False
        self._watcher = RunWatcher(root / ".curator" / "runs")

    # -- beginning and end ------------------------------------------------------------------------------------------

    async def on_mount(self) -> None:
        """Show the first screen, then begin to read."""
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = (
            self.settings.theme
            if self.settings.theme in self.available_themes
            else fitting_theme(self.console.color_system, self.available_themes)
        )
        if not self.settings.motion or os.environ.get("SSH_CONNECTION"):
            self.animation_level = "none"
        if self.settings.keys:
            self.set_keymap(self.settings.keys)
        await self.switch_mode(self.place.mode if self.place.mode in self.MODES else "home")
        self.screen.call_after_refresh(self._begin)

    def _begin(self) -> None:
        """Read, once the first frame is on the screen."""
        self.read_workspace()
        self.set_interval(_KEEP_SECONDS, self._keep)
        self.set_interval(_WATCH_SECONDS, self._watch)

    async def leave(self) -> None:
        """Keep what is not kept yet, and end; runs go on."""
        if self.thinker is not None:
            self.thinker.stop()
        if self.session is not None and self.workspace is not None and (entries := self.session.take_unsaved()):
            try:
                self.workspace.project.store.put_edits(self.session_id, self.workspace.target, entries)
            except CuratorError:
                self.session.put_back(entries)
                self.flash(f"{len(entries)} edits cannot be stored yet: the store is busy; try again", "bad")
                return
        self._remember()
        self.exit()

    async def action_leave(self) -> None:
        """Leave."""
        await self.leave()

    async def action_quit(self) -> None:
        """Leave."""
        await self.leave()

    def _remember(self) -> None:
        self.place.mode = self.current_mode
        if self.place_path.parent.is_dir():
            self.place.write(self.place_path)

    def go(self, mode: str) -> None:
        """Show one of the main screens."""
        if mode not in self.MODES:
            return
        if self.current_mode != mode:
            self.switch_mode(mode)
        elif len(self.screen_stack) > 1:
            self.pop_screen()

    # -- screens and dialogs ----------------------------------------------------------------------------------------

    def visible_tasks(self) -> Rows:
        """Return the numbers of the tasks in the visible part of the task list."""
        for screen in self.screen_stack[::-1]:
            if isinstance(screen, TasksScreen) and screen.is_mounted:
                table = screen.table
                return np.asarray(table.view[table.visible_rows.start : table.visible_rows.stop])
        return np.zeros(0, dtype=np.intp)

    def show_flash(self) -> None:
        """Draw the flash line on every open screen."""
        for screen in self.screen_stack:
            if isinstance(screen, CuratorScreen) and screen.is_mounted:
                screen.show_flash()

    def open_task(self, task: int, view: Rows) -> None:
        """Show one task and its examples.

        Args:
            task: Number of the task. Target tasks follow the auxiliary tasks.
            view: Auxiliary tasks in the order of the list.
        """
        from tui.screens.task import TaskScreen

        if isinstance(self.screen, TaskScreen):
            self.screen.switch(task, view)
        else:
            self.push_screen(TaskScreen(task, view))

    def open_settings(self) -> None:
        """Open the dialog of the settings."""
        from tui.dialogs.settings import SettingsDialog

        self.push_screen(SettingsDialog(self.settings))

    def export(self, name: str = "") -> None:
        """Open the export of a saved selection; one that was changed is saved first."""
        from tui.dialogs.export import ExportDialog

        if self.workspace is None or self.session is None:
            return
        name = name or self.session.base
        if self.workspace.selection(name) is None or (name == self.session.base and self.session.is_changed):
            self.flash("save the selection first (w): an export is of a saved one", "warn")
            return
        self.push_screen(ExportDialog(name))

    # -- saving -----------------------------------------------------------------------------------------------------

    def save(self, name: str | None) -> None:
        """Save the selection under a name."""
        if not name or self.workspace is None or self.session is None:
            return
        from tui.state.snapshot import Draft

        self.flash(f"saving {name} …")
        self._save(Draft.of(name, self.session, self.workspace), self.workspace, self.session.revision)

    @work(thread=True, group="save", exit_on_error=False)
    def _save(self, draft: "Draft", workspace: "Workspace", revision: int) -> None:
        from tui.state.snapshot import load_workspace

        try:
            draft.save(workspace)
            # What is said to be saved can be exported at once.
            found = load_workspace(self.root, workspace)
        except (CuratorError, OSError) as error:
            self.post_message(Failed(f"save {draft.name}", error))
        else:
            self.call_from_thread(self._saved, draft.name, found, revision)

    def _saved(self, name: str, found: "Workspace", revision: int) -> None:
        self._take_over(found)
        if self.session is not None and self.session.revision == revision:
            self.session.saved_as(name)
            self.edited(f"saved as {name}")
        else:
            self.flash(f"saved as {name}, without the edits since", "warn")
        self.tell("workspace")

    # -- runs -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look at the runs and at the store, in a thread."""
        if not self._watching:
            self._watching = True
            self.place.mode = self.current_mode
            self._read_runs(replace(self.place))

    @work(thread=True, group="watch", exit_on_error=False)
    def _read_runs(self, place: Place) -> None:
        if place != self._remembered and self.place_path.parent.is_dir():
            # Now, not at the end: a connection that breaks takes this process with it.
            place.write(self.place_path)
            self._remembered = place
        try:
            self.post_message(RunsRead(self._watcher.read(self.watched)))
        except OSError as error:
            self.post_message(Failed("read the runs", error))
        finally:
            self._watching = False

    def on_runs_read(self, message: RunsRead) -> None:
        """Show the runs; a run that has ended may have changed what is there."""
        before = {run.run.id for run in self.runs if run.run.state == "running"}
        self.runs = message.runs
        for view in self.runs:
            if view.run.id in before and view.run.state != "running":
                ok = view.run.state == "done"
                self.flash(f"{name_of(view)}: {view.run.state}", "good" if ok else "bad")
        ended = before - {run.run.id for run in self.runs if run.run.state == "running"}
        if ended or (self.workspace is not None and self._store_changed() != self._store_time and not before):
            self._store_time = self._store_changed()
            self.read_workspace()
        self.tell("runs")

    def look_at_runs(self) -> None:
        """Read the runs now, and the whole log of the one that is watched."""
        self._watch()

    def launch(self, arguments: list[str] | None, cwd: Path | None = None) -> None:
        """Start a command as a process that outlives this one.

        Args:
            arguments: What follows `curator`; nothing is started without.
            cwd: Its working folder, where the arguments say by themselves which project they are about; None is this
                project.
        """
        if arguments:
            self._launch(arguments if cwd else [*arguments, "-p", str(self.root)], cwd or self.root)

    @work(thread=True, group="launch", exit_on_error=False)
    def _launch(self, arguments: list[str], cwd: Path) -> None:
        try:
            run = jobs.launch(self.root / ".curator" / "runs", arguments, cwd=cwd)
        except (CuratorError, OSError) as error:
            self.post_message(Failed("start the run", error))
        else:
            self.call_from_thread(self._launched, run)

    def _launched(self, run: str) -> None:
        self.watched = run
        self.flash("started; it goes on when you leave")
        self._watch()
        self.go("runs")


def run(root: Path, *, mouse: bool | None = None) -> int:
    """Open a project in the terminal.

    Args:
        root: Its folder.
        mouse: Whether to use the pointer; None leaves it to the settings.

    Returns:
        The exit code: not 0 where it failed, which Textual itself has shown.
    """
    settings = Settings.read(Settings.place())
    app = CuratorApp(root, settings)
    # A thread that computes hands over sooner to the one that draws.
    sys.setswitchinterval(0.001)
    try:
        app.run(mouse=settings.mouse if mouse is None else mouse)
    finally:
        if app.thinker is not None:
            # A thread that outlives the interpreter makes DuckDB's module complain on the terminal.
            app.thinker.stop()
            app.thinker.join(_JOIN_SECONDS)
    return app.return_code or 0
