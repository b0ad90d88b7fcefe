"""Going on where somebody left: the last session, for whoever is alone on a project."""

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tui.state.session import Session, State

if TYPE_CHECKING:
    from tui.state.snapshot import Snapshot


def take_lock(folder: Path) -> int | None:
    """Make sure that this is the only interface on a project.

    Args:
        folder: `.curator`.

    Returns:
        A descriptor that holds the lock as long as it is open; None where another interface has it, or nothing can be
        written.
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
    """Resume the last session, or begin one.

    Args:
        snapshot: The project.
        alone: Whether no other interface is open on it; else the session goes on as one of its own.

    Returns:
        The session, its identity in the store, and a message for the user; "" for none.
    """
    new, identity, words = Session(snapshot.names), os.urandom(8).hex(), ""
    if snapshot.last_session is not None:
        last, entries = snapshot.last_session
        try:
            resumed = Session.replay(snapshot.names, entries)
        except ValueError as error:
            words = f"the last session cannot be resumed: {error}"
        else:
            if alone:
                return resumed, last, f"resumed: {len(entries)} edits, undo goes back to the first"
            pins = resumed.pinned(State.PINNED_IN), resumed.pinned(State.PINNED_OUT)
            new.load(resumed.base, resumed.mask, *pins)
            return new, identity, "another curator tui is open here: this is a session of its own"
    if snapshot.selections:
        newest = snapshot.selections[0]
        new.load(newest.name, newest.mask(snapshot.names))
    return new, identity, words
