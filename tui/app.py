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

from curator.core.allocation import return_large_blocks
from curator.core.errors import CuratorError
from curator.workspace import jobs
from tui.app_base import AppBase
from tui.background.run_watcher import JobWatcher, name_of
from tui.screens.base import CuratorScreen
from tui.screens.home import HomeScreen
from tui.screens.tasks import TasksScreen
from tui.settings import Settings
from tui.state.messages import Failed, JobsRead
from tui.state.place import Place
from tui.state.session import Rows
from tui.themes import THEMES, fitting_theme

if TYPE_CHECKING:
    from textual.command import Provider

    from tui.state.snapshot import About, Draft, Snapshot

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
        self._watching = self._then_measure = False
        self._store_time = 0
        self._watcher = JobWatcher(root / ".curator" / "runs")

    # -- beginning and end ------------------------------------------------------------------------------------------

    async def on_mount(self) -> None:
        """Show the first screen. Reading starts after its first frame."""
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = (
            self.settings.theme
            if self.settings.theme in self.available_themes
            else fitting_theme(self.console.color_system)
        )
        if not self.settings.motion or os.environ.get("SSH_CONNECTION"):
            self.animation_level = "none"
        if self.settings.keys:
            self.set_keymap(self.settings.keys)
        await self.switch_mode(self.place.mode if self.place.mode in self.MODES else "home")
        self.screen.call_after_refresh(self._begin)

    def _begin(self) -> None:
        """Start reading, after the first frame."""
        self.read_snapshot()
        self.set_interval(_KEEP_SECONDS, self._keep)
        self.set_interval(_WATCH_SECONDS, self._watch)

    async def leave(self) -> None:
        """Store the edits and exit. Jobs continue."""
        if self.estimator_thread is not None:
            self.estimator_thread.stop()
        if self.session is not None and self.snapshot is not None and (entries := self.session.take_unsaved()):
            try:
                self.snapshot.project.store.put_edits(self.session_id, self.snapshot.target, entries)
            except CuratorError:
                self.session.put_back(entries)
                self.flash(f"cannot store {len(entries)} edits: the store is busy. Try again.", "bad")
                return
        if self.session_lock is not None:
            self.session_lock.release()
        self._remember()
        self.exit()

    async def action_leave(self) -> None:
        """Store the edits and exit."""
        await self.leave()

    async def action_quit(self) -> None:
        """Store the edits and exit."""
        await self.leave()

    def _remember(self) -> None:
        self.place.mode = self.current_mode
        if self.place_path.parent.is_dir():
            self.place.write(self.place_path)

    def go(self, mode: str) -> None:
        """Show one of the main screens. On that screen, close the screen above it."""
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

    def ask_note(self, about: "About") -> None:
        """Ask for the note on a task, an example or a selection, and keep it."""
        from tui.dialogs.note import NoteDialog

        if self.snapshot is None:
            return
        kind, name, digest = about
        words = f"{kind} {digest[:8]} of {name}" if digest else f"{kind} {name}"
        text = self.snapshot.notes.get(about, "")
        self.push_screen(NoteDialog(words, text), lambda found: self.keep_note(about, found))

    def ask_name(self, name: str) -> None:
        """Ask for another name of a saved selection, and rename it."""
        from tui.dialogs.rename import RenameDialog

        self.push_screen(RenameDialog(name), lambda found: self.rename_selection(name, found))

    def measure(self, name: str | None = None) -> None:
        """Open the dialog that measures a selection by fine-tuning. A changed selection is saved first.

        Args:
            name: Name of a saved selection, or "" for all tasks. None is the selection in hand.
        """
        from tui.dialogs.measure import MeasureDialog
        from tui.dialogs.save import SaveDialog

        snapshot, session = self.snapshot, self.session
        if snapshot is None or session is None or not self.can_estimate():
            return
        if name is None and session.is_changed:
            self.flash("the selection is saved first, then measured")
            self._then_measure = True
            self.push_screen(SaveDialog(), self._save_to_measure)
            return
        name = session.base if name is None else name
        saved = snapshot.selection(name)
        if name and saved is None:
            return
        if saved is not None and saved.is_weighted:
            self.flash(f"{name} has weights: load it and start `verify` (R) instead", "warn")
        elif "," in name:
            self.flash("the command separates names by commas: rename the selection first", "warn")
        else:
            self.push_screen(MeasureDialog(name or "all", saved.manifest.started_from if saved else ""), self.launch)

    def _save_to_measure(self, name: str | None) -> None:
        self._then_measure = bool(name)
        self.save(name)

    def export(self, name: str = "") -> None:
        """Open the export of a saved selection. A changed selection must be saved first.

        Args:
            name: Name of the selection. The empty name is the selection that the session started from.
        """
        from tui.dialogs.export import ExportDialog

        if self.snapshot is None or self.session is None:
            return
        name = name or self.session.base
        if self.snapshot.selection(name) is None or (name == self.session.base and self.session.is_changed):
            self.flash("save the selection first (w): only saved selections can be exported", "warn")
            return
        self.push_screen(ExportDialog(name))

    # -- saving -----------------------------------------------------------------------------------------------------

    def save(self, name: str | None) -> None:
        """Save the selection under a name. None saves nothing."""
        if not name or self.snapshot is None or self.session is None or not self.can_estimate():
            return
        from tui.state.snapshot import Draft

        self.flash(f"saving {name} …")
        self._saving = name
        self._save(Draft.of(name, self.session, self.snapshot), self.snapshot, self.session.revision)

    @work(thread=True, group="save", exit_on_error=False)
    def _save(self, draft: "Draft", snapshot: "Snapshot", revision: int) -> None:
        from tui.state.snapshot import load_snapshot

        try:
            draft.save(snapshot)
            # Read before the message appears, so that the user can export the selection at once.
            found = load_snapshot(self.root, snapshot, snapshot.project.reporter)
        except (CuratorError, OSError) as error:
            self.post_message(Failed(f"save {draft.name}", error))
        else:
            self.call_from_thread(self._saved, draft.name, found, revision)

    def _saved(self, name: str, found: "Snapshot", revision: int) -> None:
        self._take_over(found)
        self._saving = None
        if self.session is not None and self.session.revision == revision:
            self.session.saved_as(name)
            self.edited(f"saved as {name}")
        else:
            self.flash(f"saved as {name}, without later edits", "warn")
        self.notify_screens("snapshot")
        if self._then_measure:
            self._then_measure = False
            self.measure(name)

    # -- jobs -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Read the jobs and the time of the store, in a thread."""
        if not self._watching:
            self._watching = True
            self.place.mode = self.current_mode
            self._read_jobs(replace(self.place))

    @work(thread=True, group="watch", exit_on_error=False)
    def _read_jobs(self, place: Place) -> None:
        if place != self._remembered and self.place_path.parent.is_dir():
            # Write at once. A broken connection ends this process without warning.
            place.write(self.place_path)
            self._remembered = place
        try:
            jobs, stamps = self._watcher.read(self.watched), self._new_stamps()
            self.post_message(JobsRead(jobs, stamps, files=self.files.has_changed()))
        except OSError as error:
            self.post_message(Failed("read the jobs", error))
        finally:
            self._watching = False

    def _new_stamps(self) -> tuple[str, str] | None:
        """Return the stamps of the store; None if the store has not changed, or is busy."""
        changed = self._store_changed()
        if changed == self._store_time or self.snapshot is None:
            return None
        try:
            stamps = self.snapshot.project.store.stamps()
        except CuratorError:
            return None
        self._store_time = changed
        return stamps

    def on_jobs_read(self, message: JobsRead) -> None:
        """Show the jobs. Read the project again if a job has ended, or if another process changed the store."""
        before = {view.job.id for view in self.jobs if view.job.state == "running"}
        unchanged, self.jobs, self.jobs_known = self.jobs_known and self.jobs == message.jobs, message.jobs, True
        for view in self.jobs:
            if view.job.id in before and view.job.state != "running":
                ok = view.job.state == "done"
                self.flash(f"{name_of(view)}: {view.job.state}", "good" if ok else "bad")
        ended = before - {view.job.id for view in self.jobs if view.job.state == "running"}
        running = any(view.job.state == "running" for view in self.jobs)
        if ended or message.files or (message.stamps is not None and self._has_news(message.stamps, running=running)):
            self.read_snapshot()
        if not unchanged:
            self.notify_screens("jobs")

    def _has_news(self, stamps: tuple[str, str], *, running: bool) -> bool:
        """Return whether the store holds something that the snapshot does not. A job may store results all the time."""
        if self.snapshot is None:
            return False
        return stamps[0] != self.snapshot.stamps[0] or (not running and stamps[1] != self.snapshot.stamps[1])

    def _store_changed(self) -> int:
        """Return the time of the last change of the store, in nanoseconds; 0 without a store."""
        try:
            return (self.root / ".curator" / "store.duckdb").stat().st_mtime_ns
        except OSError:
            return 0

    def look_at_jobs(self) -> None:
        """Read the jobs now, and the whole log of the watched job."""
        self._watch()

    def launch(self, arguments: list[str] | None, cwd: Path | None = None) -> None:
        """Start a command as a job that survives the end of this process.

        Args:
            arguments: Arguments of `curator`. None or an empty list starts nothing.
            cwd: Working folder, if the arguments name the project. None is the folder of this project.
        """
        if arguments:
            self._launch(arguments if cwd else [*arguments, "-p", str(self.root)], cwd or self.root)

    @work(thread=True, group="launch", exit_on_error=False)
    def _launch(self, arguments: list[str], cwd: Path) -> None:
        try:
            job = jobs.launch(self.root / ".curator" / "runs", arguments, cwd=cwd)
        except (CuratorError, OSError) as error:
            self.post_message(Failed("start the job", error))
        else:
            self.call_from_thread(self._launched, job)

    def _launched(self, job: str) -> None:
        self.watched = job
        self.flash("job started. It continues when you quit.")
        self._watch()
        self.go("runs")


def run(root: Path, *, mouse: bool | None = None) -> int:
    """Open a project in the terminal.

    Args:
        root: Folder of the project.
        mouse: Whether to use the pointer. None uses the preference of the user.

    Returns:
        The exit code. It is not 0 after an error, which Textual has shown.
    """
    settings = Settings.read(Settings.place())
    app = CuratorApp(root, settings)
    return_large_blocks()
    # A thread that computes yields sooner to the thread that draws.
    sys.setswitchinterval(0.001)
    try:
        app.run(mouse=settings.mouse if mouse is None else mouse)
    finally:
        if app.estimator_thread is not None:
            # DuckDB prints errors if a thread outlives the interpreter.
            app.estimator_thread.stop()
            app.estimator_thread.join(_JOIN_SECONDS)
    return app.return_code or 0
