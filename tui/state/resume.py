"""Begin a session for this window: continue a session that no other window has, or start from what is saved.

A session belongs to one window at a time. The window holds a lock on a file with the name of the session.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tui.state.session import Session

if TYPE_CHECKING:
    from curator.workspace.store.records import StoredSession
    from tui.state.snapshot import Snapshot


class SessionLock:
    """The lock of a window on a session. The end of the process releases it, too.

    Args:
        path: File of the lock.
        descriptor: Open descriptor that holds the lock.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def release(self) -> None:
        """Remove the file, and release the lock. Calling it again does nothing."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def take_lock(folder: Path, session: str) -> SessionLock | None:
    """Lock a session for this window.

    Args:
        folder: `.curator`.
        session: Identity of the session in the store.

    Returns:
        The lock. None if another window has the session, or the folder is read-only.
    """
    path = folder / "sessions" / f"{_plain(session)}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another window may have removed the file between `open` and `flock`. Its lock would then hold nothing.
        if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
            return SessionLock(path, descriptor)
    except OSError:
        pass
    os.close(descriptor)
    return None


def _plain(session: str) -> str:
    """Return the identity as the name of a file. A store from elsewhere may hold any text."""
    return session if session.isalnum() and session.isascii() and len(session) <= 64 else session.encode().hex()[:64]


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """The session of this window.

    Attributes:
        session: The session.
        id: Identity of the session in the store.
        lock: Lock on the session; None if the folder is read-only.
        words: Message for the user, which may be empty.
        is_warning: Whether the message is a warning.
    """

    session: Session
    id: str
    lock: SessionLock | None
    words: str = ""
    is_warning: bool = False


def begin_session(snapshot: "Snapshot", folder: Path) -> Begun:
    """Continue the session that was changed last, or begin a new session if another window has that session.

    Args:
        snapshot: The project, with its sessions.
        folder: `.curator`.
    """
    if not snapshot.sessions:
        return new_session(snapshot, folder)
    last, *others = snapshot.sessions
    lock = take_lock(folder, last.id)
    if lock is None:
        words = "another window is open on this project: this one starts from what is saved"
        return new_session(snapshot, folder, words, is_warning=True)
    found = continue_session(snapshot, last, lock)
    if found is None:
        lock.release()
        return new_session(snapshot, folder, "cannot continue the last session: it is damaged", is_warning=True)
    waiting = sum(is_unsaved(snapshot, other) for other in others)
    if waiting:
        more = f"{waiting} other session{'s have' if waiting > 1 else ' has'} unsaved changes: ctrl+o"
        return Begun(found.session, found.id, lock, f"resumed {edits_words(found.session)} · {more}", is_warning=True)
    return found


def new_session(snapshot: "Snapshot", folder: Path, words: str = "", *, is_warning: bool = False) -> Begun:
    """Begin a session from the selection that was saved last, or from all tasks without saved selections."""
    session, identity = Session(snapshot.names), os.urandom(8).hex()
    session.saved_masks, session.saved_drops = snapshot.saved_masks(), snapshot.saved_drops()
    if snapshot.selections:
        newest = snapshot.selections[0]
        options = newest.manifest.options
        session.begin_from(
            newest.name,
            newest.mask(snapshot.names),
            options.get("include", ()),
            options.get("exclude", ()),
            newest.dropped,
        )
    return Begun(session, identity, take_lock(folder, identity), words, is_warning)


def continue_session(snapshot: "Snapshot", stored: "StoredSession", lock: SessionLock | None) -> Begun | None:
    """Continue a stored session; None if its history is damaged."""
    try:
        session = Session.replay(snapshot.names, stored.edits)
    except ValueError:
        return None
    session.saved_masks, session.saved_drops = snapshot.saved_masks(), snapshot.saved_drops()
    return Begun(session, stored.id, lock, f"resumed: {edits_words(session)}, undo reaches the first")


def edits_words(session: Session) -> str:
    """Return the number of edits that undo can take back. The screens show the same number."""
    return f"{len(session.done)} edit{'' if len(session.done) == 1 else 's'}"


def is_unsaved(snapshot: "Snapshot", stored: "StoredSession") -> bool:
    """Return whether a stored session ends with a selection that is not saved under the name of its base."""
    found = continue_session(snapshot, stored, None)
    return found is not None and found.session.is_changed
