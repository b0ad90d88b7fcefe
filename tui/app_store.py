"""What the application stores: edits, notes, saved selections, reports and preferences. Threads write."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual import work

from curator.core.errors import ConfigError, CuratorError
from tui.app_state import AppState
from tui.settings import Settings
from tui.state.messages import Failed

if TYPE_CHECKING:
    from curator.workspace.store.records import StoredEdit
    from tui.state.session import Edit
    from tui.state.snapshot import About, Snapshot


class AppStore(AppState):
    """The methods of the application that write to the store and to files."""

    # -- saved selections ---------------------------------------------------------------------------------------------

    def rename_selection(self, before: str, after: str | None) -> None:
        """Rename a saved selection. None, or the same name, changes nothing."""
        if self._waits(lambda: self.rename_selection(before, after)):
            return
        if after and after != before and self.snapshot is not None:
            self._begin_rename(before, before, after, "")

    def delete_selection(self, name: str) -> None:
        """Delete a saved selection. Undo restores it."""
        if self._waits(lambda: self.delete_selection(name)):
            return
        if self.snapshot is not None:
            self._begin_rename(name, name, "", "")

    def undo(self) -> None:
        """Undo the last edit."""
        if self._waits(self.undo):
            return
        if self.session is None or not self.session.done:
            return
        last = self.session.done[-1]
        if last.selection:
            self._step_back(last, "undo")
        elif edit := self.session.undo():
            self.edited(f"undone: {edit.label}")

    def redo(self) -> None:
        """Redo the last undone edit."""
        if self._waits(self.redo):
            return
        if self.session is None or not self.session.undone:
            return
        last = self.session.undone[-1]
        if last.selection:
            self._step_back(last, "redo")
        elif edit := self.session.redo():
            self.edited(f"redone: {edit.label}")

    def _step_back(self, edit: "Edit", way: str) -> None:
        """Undo or redo the renaming or deletion of a saved selection, first in the store."""
        before, after = edit.selection if way == "redo" else edit.selection[::-1]
        self._begin_rename(edit.selection[0], before, after, way)

    def _waits(self, action: Callable[[], None]) -> bool:
        """Return whether an action waits for a renaming in progress, which changes what the action is about."""
        if self._is_renaming:
            self._after_renaming.append(action)
        return self._is_renaming

    def _begin_rename(self, saving: str, before: str, after: str, way: str) -> None:
        self._saving, self._is_renaming = saving, True
        self._rename(before, after, way)

    def _end_rename(self) -> None:
        """Run the next action that waited, and those after it if it renames nothing."""
        self._is_renaming = False
        while self._after_renaming and not self._is_renaming:
            self._after_renaming.pop(0)()

    @work(thread=True, group="save", exit_on_error=False)
    def _rename(self, before: str, after: str, way: str) -> None:
        """Rename, delete or restore a selection: the empty name stands for a deleted one.

        Args:
            before: Name before.
            after: Name after.
            way: `undo` or `redo` of the last edit, or "" for a new edit.
        """
        from tui.state.snapshot import load_snapshot

        assert self.snapshot is not None
        project = self.snapshot.project
        try:
            if not after:
                project.delete_selection(before)
            elif not before:
                project.restore_selection(after)
            else:
                project.rename_selection(before, after)
            found = load_snapshot(self.root, self.snapshot, project.reporter)
        except (CuratorError, OSError) as error:
            verb = "rename" if before and after else "restore" if after else "delete"
            self.post_message(Failed(f"{verb} {before or after}", error))
            if way and isinstance(error, ConfigError):
                # Another process changed the names. The edits before this one can be undone all the same.
                self.call_from_thread(self._pass_over, way)
        else:
            self.call_from_thread(self._renamed, before, after, way, found)
        finally:
            self.call_from_thread(self._end_rename)

    def _renamed(self, before: str, after: str, way: str, found: "Snapshot") -> None:
        words = ""
        if self.session is not None:
            # After an edit meanwhile, the next undo finds the store as it should be, and passes over the renaming.
            stack = self.session.done if way == "undo" else self.session.undone
            is_next = bool(stack and stack[-1].selection)
            if way == "undo" and is_next and (edit := self.session.undo()):
                words = f"undone: {edit.label}"
            elif way == "redo" and is_next and (edit := self.session.redo()):
                words = f"redone: {edit.label}"
            elif not way:
                words = f"{self.session.renamed(before, after).label}. u undoes it."
        self._take_over(found)
        self._saving = None
        self.edited(words)
        self.notify_screens("snapshot")

    def _pass_over(self, way: str) -> None:
        if self.session is not None:
            _ = self.session.undo() if way == "undo" else self.session.redo()

    # -- notes and reports --------------------------------------------------------------------------------------------

    def keep_note(self, about: "About", text: str | None) -> None:
        """Store a note. An empty text removes the note, and None changes nothing."""
        if text is not None and self.snapshot is not None:
            self._write_note(about, text)

    @work(thread=True, group="note", exit_on_error=False)
    def _write_note(self, about: "About", text: str) -> None:
        assert self.snapshot is not None
        try:
            self.snapshot.project.store.put_note(*about, text)
        except (CuratorError, OSError) as error:
            self.post_message(Failed("keep the note", error))
        else:
            self.call_from_thread(self._noted, text)

    def _noted(self, text: str) -> None:
        self.flash("note kept" if text else "note removed", "good")
        self.read_snapshot()

    def write_report(self) -> None:
        """Write a report of the selection that the session started from, in the folder of the project."""
        name = self.session.base if self.session is not None else ""
        if self.snapshot is None or self.snapshot.selection(name) is None:
            self.flash("save the selection first (w): a report describes a saved selection", "warn")
            return
        is_changed = self.session is not None and self.session.is_changed
        self._write_report(name, " as saved, without the edits since" if is_changed else "")

    @work(thread=True, group="report", exclusive=True, exit_on_error=False)
    def _write_report(self, name: str, without: str) -> None:
        assert self.snapshot is not None
        try:
            path = self.snapshot.project.report(name)
        except (CuratorError, OSError) as error:
            self.post_message(Failed("write the report", error))
        else:
            self.call_from_thread(self.flash, f"report of {name}{without}: {path}", "good")

    # -- preferences --------------------------------------------------------------------------------------------------

    def use_theme(self, name: str) -> None:
        """Show a theme now, and in every later window."""
        self.theme = self.settings.theme = name
        self.settings.write(Settings.place())

    # -- edits --------------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Store new edits in a thread."""
        if self._keeping or self.session is None or self.snapshot is None:
            return
        entries = self.session.take_unsaved()
        if entries:
            self._keeping = True
            self._write_edits(entries, self.session_id)

    @work(thread=True, group="keep", exit_on_error=False)
    def _write_edits(self, entries: "list[StoredEdit]", session: str) -> None:
        assert self.snapshot is not None
        try:
            self.snapshot.project.store.put_edits(session, self.snapshot.target, entries)
        except (CuratorError, OSError) as error:
            self.call_from_thread(self._not_kept, entries, session, error)
        else:
            self.call_from_thread(self._kept)

    def _kept(self) -> None:
        self._keeping = False

    def _not_kept(self, entries: "list[StoredEdit]", session: str, error: Exception) -> None:
        if self.session is not None and session == self.session_id:
            self.session.put_back(entries)
        self._keeping = False
        self.flash(f"{len(entries)} edits are not stored yet: {error}", "bad")
