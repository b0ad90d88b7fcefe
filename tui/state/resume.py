"""Resume the last session, if no other interface is open on the project."""

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tui.state.session import Session, State

if TYPE_CHECKING:
    from tui.state.snapshot import Snapshot


def take_lock(folder: Path) -> int | None:
    """Lock the project for this interface.

    Args:
        folder: `.curator`.

    Returns:
        An open descriptor that holds the lock. None if another interface has the lock, or the folder is read-only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "tui.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def begin_session(snapshot: "Snapshot", *, alone: bool) -> tuple[Session, str, str]:
    """Resume the last session, or begin a new session.

    Args:
        snapshot: The project.
        alone: Whether no other interface is open on the project. If not, the new session starts from the last one.

    Returns:
        The session, its identity in the store, and a message for the user, which may be empty.
    """
    new, identity, words = Session(snapshot.names), os.urandom(8).hex(), ""
    if snapshot.last_session is not None:
        last, entries = snapshot.last_session
        try:
            resumed = Session.replay(snapshot.names, entries)
        except ValueError as error:
            words = f"cannot resume the last session: {error}"
        else:
            if alone:
                return resumed, last, f"resumed: {len(entries)} edits, undo reaches the first"
            pins = resumed.pinned(State.PINNED_IN), resumed.pinned(State.PINNED_OUT)
            new.load(resumed.base, resumed.mask, *pins, resumed.dropped)
            return new, identity, "another curator tui is open on this project: this session is separate"
    if snapshot.selections:
        newest = snapshot.selections[0]
        new.load(newest.name, newest.mask(snapshot.names), dropped=newest.dropped)
    return new, identity, words
