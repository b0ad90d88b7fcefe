"""The application: what is open, who works on it in the background, and who is told when something changes.

    threads ──▶ messages ──▶ handlers here ──▶ `told` ──▶ screens draw
    keys ──▶ actions of a screen ──▶ session ──▶ `edited` ──▶ `think` ──▶ the thinker's thread

Nothing here waits: files, store and estimates are read in threads, long work runs in processes of its own.
"""

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.signal import Signal

from curator.core.errors import CuratorError
from curator.workspace import jobs
from tui.background.estimator_thread import SOLVED_IN_FULL, Outlook, Question, Thinker
from tui.background.run_watcher import RunView, RunWatcher, name_of
from tui.screens.home import HomeScreen
from tui.screens.tasks import TasksScreen
from tui.settings import Settings
from tui.state.filters import Columns
from tui.state.messages import Failed, RunsRead, Thought, WorkspaceRead
from tui.state.place import Place
from tui.state.session import Rows as RowNumbers
from tui.state.session import Session, State
from tui.themes import THEMES, fitting_theme
from tui.widgets.lines import Line

if TYPE_CHECKING:
    from textual.command import Provider

    from curator.workspace.store.records import StoredEdit
    from tui.screens.base import CuratorScreen
    from tui.state.snapshot import Draft, Workspace

_FLASH_SECONDS = 8.0
_KEEP_SECONDS = 0.3
_WATCH_SECONDS = 1.0
_JOIN_SECONDS = 5.0
# In seconds: less than anybody notices, and more than most estimates take.
_PATIENCE = 0.025


# Imported when they are looked at, so that the first frame waits for none of them.
def _matrix() -> "CuratorScreen":
    from tui.screens.matrix import MatrixScreen

    return MatrixScreen()


def _runs() -> "CuratorScreen":
    from tui.screens.runs import RunsScreen

    return RunsScreen()


def _commands() -> "type[Provider]":
    from tui.commands import CuratorCommands

    return CuratorCommands


def _compare() -> "CuratorScreen":
    from tui.screens.compare import CompareScreen

    return CompareScreen()


class CuratorApp(App[None]):
    """curator in a terminal.

    Args:
        root: The project's folder.
        settings: What the person likes.
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
        super().__init__()
        self.root = root
        self.settings = settings or Settings.read(Settings.place())
        self.place_path = root / ".curator" / "tui.json"
        self.place = Place.read(self.place_path)
        self._remembered = replace(self.place)
        self.told: Signal[str] = Signal(self, "told")
        self.workspace: Workspace | None = None
        self.trouble: Exception | None = None
        self.session: Session | None = None
        self.session_id = ""
        self.outlook: Outlook | None = None
        self.runs: tuple[RunView, ...] = ()
        self.watched: str | None = None
        self.flash_line: Line = ()
        self.thinker: Thinker | None = None
        self._thinker_key = ""
        self._lock: int | None = None
        self._flash_count = 0
        self._keeping = self._reading = self._read_again = self._watching = False
        self._store_time = 0
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

    # -- reading ----------------------------------------------------------------------------------------------------

    def read_workspace(self) -> None:
        """Read the project, in a thread; again, if it is being read: what is asked for may have come later."""
        self._read_again = self._reading
        if not self._reading:
            self._reading = True
            self._read()

    def _has_read(self) -> None:
        self._reading = False
        if self._read_again:
            self.read_workspace()

    @work(thread=True, group="read", exit_on_error=False)
    def _read(self) -> None:
        # The engine is imported here, when the first frame is on the screen.
        from tui.state.snapshot import load_workspace

        try:
            self.post_message(WorkspaceRead(load_workspace(self.root, self.workspace)))
        except (CuratorError, OSError) as error:
            self.post_message(Failed("read the project", error))

    def on_workspace_read(self, message: WorkspaceRead) -> None:
        """Take the project over; the session goes on where it was."""
        self.trouble = None
        self._take_over(message.workspace)
        self._has_read()
        self.tell("workspace")
        if self.outlook is None or self.session is None or self.outlook.revision != self.session.revision:
            self.think()

    def _take_over(self, workspace: "Workspace") -> None:
        before, self.workspace = self.workspace, workspace
        self._store_time = self._store_changed()
        if self.session is None or before is None or before.names != workspace.names:
            self._begin_session(workspace)
        if (workspace.answers.key if workspace.answers is not None else "") != self._thinker_key:
            self._begin_thinking(workspace)

    def _begin_session(self, workspace: "Workspace") -> None:
        from tui.state.resume import begin_session, take_lock

        if workspace.corpus is None:
            return
        if self.session is not None:
            # Tasks came or went: the same history, on the tasks of today.
            self.session = Session.replay(workspace.names, [edit.stored() for edit in self.session.history])
            return
        self._lock = take_lock(workspace.project.folder)
        self.session, self.session_id, words = begin_session(workspace, alone=self._lock is not None)
        if words:
            self.flash(words, "dim" if words.startswith("resumed") else "warn")

    def on_failed(self, message: Failed) -> None:
        """Say what could not be done."""
        if message.what == "read the project":
            self.trouble = message.error
            self._has_read()
            self.tell("workspace")
        hint = getattr(message.error, "hint", "")
        self.flash(f"cannot {message.what}: {message.error}" + (f" · {hint}" if hint else ""), "bad")

    # -- estimates --------------------------------------------------------------------------------------------------

    def _begin_thinking(self, workspace: "Workspace") -> None:
        """Think about other gradients, or about none: what was thought of is about other tasks."""
        if self.thinker is not None:
            self.thinker.stop()
        self.thinker, self.outlook, self._thinker_key = None, None, ""
        if workspace.answers is None:
            return
        answers = workspace.answers
        key = answers.key

        def answered(answer: Outlook | Exception) -> None:
            self.post_message(Failed("estimate", answer) if isinstance(answer, Exception) else Thought(answer, key))

        self.thinker, self._thinker_key = Thinker(lambda: answers.estimator, answered), key
        self.thinker.start()

    def think(self) -> None:
        """Ask for the estimate of the selection as it is."""
        if self.thinker is None or self.session is None:
            return
        self.thinker.ask(Question(self.session.revision, self.session.mask, self.session.saved, self._visible()))

    def think_about_visible(self) -> None:
        """Ask again where only what is on the screen is solved in full, and something else is on it now."""
        if self.session is not None and len(self.session.names) > SOLVED_IN_FULL:
            self.think()

    def _visible(self) -> RowNumbers:
        for screen in self.screen_stack[::-1]:
            if isinstance(screen, TasksScreen) and screen.is_mounted:
                table = screen.table
                return np.asarray(table.view[table.visible_rows.start : table.visible_rows.stop])
        return np.zeros(0, dtype=np.intp)

    def on_thought(self, message: Thought) -> None:
        """Show an estimate, if it is still about the selection as it is."""
        if self.session is None or message.outlook.revision != self.session.revision:
            return
        if message.key != self._thinker_key:
            # Of the same selection, but from before the estimates were calibrated, or made anew.
            return
        if message.outlook is self.outlook or len(message.outlook.flips) != len(self.session.names):
            return
        self.outlook = message.outlook
        self.session.judged(message.outlook.judgement.loss)
        self.tell("outlook")

    def can_estimate(self) -> bool:
        """Whether estimates can be made; says why not."""
        if self.workspace is None or self.workspace.answers is None or self.session is None or self.outlook is None:
            self.flash(self.missing() or "estimates are not ready yet", "warn")
            return False
        return True

    def missing(self) -> str:
        """What is missing before estimates can be made, and what to do about it."""
        return "the project is being read" if self.workspace is None else self.workspace.missing

    def columns(self) -> Columns:
        """What tasks are filtered and sorted by."""
        workspace, session = self.workspace, self.session
        assert workspace is not None
        assert session is not None
        current = self.outlook is not None and len(self.outlook.flips) == len(workspace.names)
        return Columns(
            names=workspace.names,
            tags=workspace.tags,
            sources=workspace.sources,
            examples=workspace.examples,
            tokens=workspace.tokens,
            affinity=workspace.affinity,
            flip=self.outlook.flips if current and self.outlook else np.full(len(workspace.names), np.nan),
            selected=session.mask,
            pinned=np.asarray(session.states >= State.PINNED_OUT),
        )

    # -- the session ------------------------------------------------------------------------------------------------

    def edited(self, words: str) -> None:
        """After an edit: estimate it, say it, show it."""
        self.think()
        if self.thinker is not None and self.session is not None:
            first = self.thinker.first_answer(self.session.revision, _PATIENCE)
            if first is not None:
                self.outlook = first
                self.session.judged(first.judgement.loss)
        if words:
            self._say(words)
        self.tell("session")

    def _keep(self) -> None:
        """Write edits to the store, soon after they were made."""
        if self._keeping or self.session is None or self.workspace is None:
            return
        entries = self.session.take_unsaved()
        if entries:
            self._keeping = True
            self._write_edits(entries)

    @work(thread=True, group="keep", exit_on_error=False)
    def _write_edits(self, entries: "list[StoredEdit]") -> None:
        assert self.workspace is not None
        try:
            self.workspace.project.store.put_edits(self.session_id, self.workspace.target, entries)
        except (CuratorError, OSError) as error:
            self.call_from_thread(self._not_kept, entries, error)
        else:
            self.call_from_thread(self._kept)

    def _kept(self) -> None:
        self._keeping, self._store_time = False, self._store_changed()

    def _not_kept(self, entries: "list[StoredEdit]", error: Exception) -> None:
        if self.session is not None:
            self.session.put_back(entries)
        self._keeping = False
        self.flash(f"{len(entries)} edits wait to be stored: {error}", "bad")

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

    def load(self, name: str | None) -> None:
        """Begin from a saved selection; "" is all tasks."""
        if name is None or self.workspace is None or self.session is None:
            return
        chosen = self.workspace.selection(name)
        if chosen is None:
            edit = self.session.load("", np.ones(len(self.session.names), dtype=bool))
        else:
            options = chosen.manifest.options
            edit = self.session.load(
                name, chosen.mask(self.session.names), options.get("include", ()), options.get("exclude", ())
            )
        self.edited(edit.label)

    def fill(self, found: tuple[Any, str] | None) -> None:
        """Take over what a method selected."""
        if found is not None and self.session is not None:
            mask, label = found
            edit = self.session.fill(mask, label)
            self.edited(edit.label if edit else f"{label}: nothing to change")

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

    def _store_changed(self) -> int:
        try:
            return (self.root / ".curator" / "store.duckdb").stat().st_mtime_ns
        except OSError:
            return 0

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

    # -- export -----------------------------------------------------------------------------------------------------

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

    # -- telling ----------------------------------------------------------------------------------------------------

    def tell(self, topic: str) -> None:
        """Let the screens draw what changed."""
        self.told.publish(topic)

    def flash(self, words: str, style: str = "dim") -> None:
        """Say something in the flash line for a while; trouble stays longer."""
        self._say(words, style)
        self._show_flash()

    def _say(self, words: str, style: str = "dim") -> None:
        """Words for the flash line, which screens show with the rest: one frame is drawn sooner than two."""
        mark = {"bad": "✗ ", "warn": "! ", "good": "✓ "}.get(style, "  ")
        self.flash_line = [(mark, style), (words, style)]
        self._flash_count += 1
        self.set_timer(_FLASH_SECONDS * (3 if style == "bad" else 1), partial(self._end_flash, self._flash_count))

    def _end_flash(self, count: int) -> None:
        if count == self._flash_count:
            self.flash_line = ()
            self._show_flash()

    def _show_flash(self) -> None:
        from tui.screens.base import CuratorScreen

        for screen in self.screen_stack:
            if isinstance(screen, CuratorScreen) and screen.is_mounted:
                screen.show_flash()

    def open_task(self, task: int, view: RowNumbers) -> None:
        """Show one task and its examples.

        Args:
            task: Number of the task; those of the targets follow on the auxiliary ones.
            view: Tasks in the order in which they are listed.
        """
        from tui.screens.task import TaskScreen

        if isinstance(self.screen, TaskScreen):
            self.screen.switch(task, view)
        else:
            self.push_screen(TaskScreen(task, view))


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
