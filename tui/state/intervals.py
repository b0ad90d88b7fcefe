"""Intervals of the saved selections that a method chose, by the present estimates. This module imports no Textual."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from curator.core.interval import Interval
from tui.background.estimator_thread import selection_key
from tui.state.session import named

if TYPE_CHECKING:
    from tui.state.snapshot import Snapshot

Chosen = tuple[str, bytes]
"""Name of a saved selection, and its tasks and dropped examples."""


def chosen_intervals(snapshot: "Snapshot", stop: Callable[[], bool]) -> dict[Chosen, Interval]:
    """Return the interval of each saved selection that a method chose for its estimate.

    Args:
        snapshot: A project with estimates.
        stop: Returns whether to end early.
    """
    # This import is slow, and this function runs in a thread.
    from curator.select.saved_interval import saved_interval

    assert snapshot.answers is not None
    found: dict[Chosen, Interval] = {}
    for saved in snapshot.selections:
        if stop():
            break
        interval = saved_interval(snapshot.answers, saved.manifest)
        if interval is not None:
            found[saved.name, selection_key(saved.mask(snapshot.names), named(saved.dropped))] = interval
    return found
