"""Continue another session of edits, or begin a new one."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual import on, work
from textual.widget import Widget

from curator.core.errors import CuratorError
from tui.dialogs.base import Choices, Dialog
from tui.state.messages import Failed
from tui.state.resume import Begun, continue_session, edits_words, new_session, take_lock
from tui.widgets.lines import Lines
from tui.widgets.rows import Rows
from tui.widgets.wrapped import Wrapped

if TYPE_CHECKING:
    from curator.workspace.store.records import StoredSession

_NEW = "new"


class SessionsDialog(Dialog[Begun]):
    """Asks for a session. The value is the session, locked for this window."""

    title_text = "sessions of edits, the newest first"
    keys = (("enter", "continue"),)

    def __init__(self) -> None:
        super().__init__()
        self._sessions: dict[str, StoredSession] = {}

    def content(self) -> Iterable[Widget]:
        """Return the list, and a line for warnings."""
        return [
            Choices([(_NEW, "a new session", "starts from what is saved")], classes="first-focus"),
            Wrapped([[("reading …", "dim")]], id="sessions-note"),
        ]

    def on_mount(self) -> None:
        """Read the sessions."""
        self._read()

    @work(thread=True, exclusive=True, group="sessions", exit_on_error=False)
    def _read(self) -> None:
        snapshot = self.app.snapshot
        assert snapshot is not None
        try:
            found = snapshot.project.store.sessions(snapshot.target)
        except CuratorError as error:
            self.app.post_message(Failed("read the sessions", error))
        else:
            self.app.call_from_thread(self._show, found)

    def _show(self, found: "list[StoredSession]") -> None:
        if not self.is_attached:
            return
        self._sessions = {session.id: session for session in found}
        choices = self.query_one(Choices)
        choices.choices = [*((s.id, *self._words(s)) for s in found), choices.choices[-1]]
        choices.fit_height()
        self.query_one("#sessions-note", Lines).show([[("A session belongs to one window at a time.", "dim")]])

    def _words(self, stored: "StoredSession") -> tuple[str, str]:
        snapshot = self.app.snapshot
        assert snapshot is not None
        time = f"{stored.edits[-1].made.astimezone():%d %b %H:%M}"
        found = continue_session(snapshot, stored, None)
        if found is None:
            return time, f"{len(stored.edits)} edits, damaged"
        session = found.session
        count = session.changed_count
        state = f"{count} changed from {session.base or 'all tasks'}" if session.is_changed else f"saved {session.base}"
        here = ", this window" if stored.id == self.app.session_id else ""
        return time, f"{edits_words(session)}, {state}{here}"

    @on(Rows.Opened)
    def _continue(self) -> None:
        snapshot, value = self.app.snapshot, self.query_one(Choices).value
        assert snapshot is not None
        if value == self.app.session_id:
            self.dismiss(None)
            return
        if value == _NEW:
            self.dismiss(new_session(snapshot, snapshot.project.folder, "a new session, from what is saved"))
            return
        lock = take_lock(snapshot.project.folder, value)
        found = continue_session(snapshot, self._sessions[value], lock) if lock is not None else None
        if found is None:
            words = "this session is damaged" if lock is not None else "another window has this session"
            if lock is not None:
                lock.release()
            self.query_one("#sessions-note", Lines).show([[(words, "warn")]])
            return
        self.dismiss(found)
