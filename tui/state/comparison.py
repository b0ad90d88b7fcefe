"""The compared selections and their estimates. This module imports no Textual."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.core.interval import Interval
from curator.estimate.whatif import LossDifference, SelectionEstimate, difference, estimate_selections, flips
from tui.background.estimator_thread import SOLVED_IN_FULL
from tui.state.session import Rows, named

if TYPE_CHECKING:
    from curator.estimate.loss_estimator import LossEstimator
    from tui.state.session import Session
    from tui.state.snapshot import Snapshot

Token = tuple[str, bytes]

# No selection can have these names: neither a command line nor an input field accepts a NUL.
NOW, ALL, NONE = "\0now", "\0all", "\0none"
LETTERS = "ABCD"
SORTS = ("Δ", "affinity", "name")
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A compared selection.

    Attributes:
        key: `NOW`, `ALL`, `NONE`, or the name of a saved selection.
        title: Name for display.
        mask: Membership (t,).
        measured: Measured loss in nats per target token; None if the loss is not measured.
        dropped: Task and content hash of each dropped example, sorted.
        interval: Interval of a selection that a method chose. None if the plain interval holds.
    """

    key: str
    title: str
    mask: Mask
    measured: float | None = None
    dropped: tuple[tuple[str, str], ...] = ()
    interval: Interval | None = None


def picked(wanted: Sequence[object], snapshot: "Snapshot", session: "Session") -> list[str]:
    """Return the keys of the compared selections: the picked ones that still exist, at most four.

    Without picked selections, compare the current selection, its base, and all tasks.
    """
    there = {NOW, ALL, NONE} | {saved.name for saved in snapshot.selections}
    found = list(dict.fromkeys(pick for pick in wanted if isinstance(pick, str) and pick in there))
    base = [session.base] if snapshot.selection(session.base) is not None else []
    return (found or [NOW, *base, ALL])[: len(LETTERS)]


def choice(key: str, snapshot: "Snapshot", session: "Session") -> Chosen:
    """Return the selection of a key that `picked` returned."""
    if key == NOW:
        changed = session.changed_count
        title = f"now ({changed} changed)" if changed else "now"
        measured = snapshot.measured_loss(session.mask, session.dropped)
        return Chosen(NOW, title, session.mask, measured, named(session.dropped))
    saved = snapshot.selection(key)
    if saved is None:
        title, mask = "all tasks" if key == ALL else "target only", np.full(len(snapshot.names), key == ALL)
        return Chosen(key, title, mask, snapshot.measured_loss(mask))
    mask = saved.mask(snapshot.names)
    if saved.is_weighted:
        # Estimates count each task once, and so must the measured loss next to them.
        return Chosen(
            key, saved.unweighted_name, mask, snapshot.measured_loss(mask, saved.dropped), named(saved.dropped)
        )
    return Chosen(key, key, mask, snapshot.measured_of(saved), named(saved.dropped))


def which_rows(masks: Mask, which: str) -> Rows:
    """Return the rows of the tasks in a part of the comparison.

    Args:
        masks: Membership by selection (s, t).
        which: `all`, `different`, `only A` (in A, but not in B) or `only B`.
    """
    if which == "all" or not len(masks):
        return np.arange(masks.shape[1])
    if which == "different":
        return np.flatnonzero(masks.any(axis=0) & ~masks.all(axis=0))
    first, second = masks[0], masks[1] if len(masks) > 1 else masks[0]
    return np.flatnonzero(first & ~second if which == "only A" else second & ~first)


def sorted_rows(rows: Rows, by: str, snapshot: "Snapshot", changes: Floats, *, descending: bool) -> Rows:
    """Sort tasks.

    Args:
        rows: Rows of the tasks.
        by: One of `SORTS`.
        snapshot: Names and affinities of all tasks.
        changes: Change of the loss if a task is toggled (t,), in nats.
        descending: Whether the largest value is first. Names start at A, because descending is the first direction.
    """
    named = np.array(sorted(rows.tolist(), key=lambda row: snapshot.names[row].casefold()), dtype=np.intp)
    if by == "name":
        return named if descending else named[::-1]
    values = np.abs(changes[named]) if by == "Δ" else snapshot.affinity[named]
    return named[np.argsort(-values if descending else values, kind="stable")]


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """Estimates of the compared selections.

    Attributes:
        token: Identity of the comparison: key of the answers, and the masks.
        target_losses: Estimated target loss of each selection.
        versus_first: Difference of each selection to the first selection.
        versus_all: Difference of each selection to all tasks.
        changes: Change of the loss if a task of the first selection is toggled (t,); NaN if not known yet.
        solved: Whether a change is solved in full, not only to first order (t,).
        is_complete: Whether no better estimates follow.
    """

    token: Token
    target_losses: list[SelectionEstimate]
    versus_first: list[LossDifference]
    versus_all: list[LossDifference]
    changes: Floats
    solved: Mask
    is_complete: bool


def estimates(
    estimator: "LossEstimator",
    masks: Mask,
    token: Token,
    lacking: Sequence[tuple["LossEstimator", float]] = (),
) -> Iterator[Estimates]:
    """Estimate selections, and yield better and better estimates of the effect of each task.

    The first estimates are of first order. Later estimates are solved in full.

    Args:
        estimator: Estimator of the target loss.
        masks: Membership by selection (s, t).
        token: Identity of the comparison.
        lacking: Estimator of each selection without its dropped examples, and their shares of tasks. Empty if no
            selection drops examples.
    """
    *target_losses, every = estimate_selections(estimator, np.concatenate([masks, np.ones_like(masks[:1])]))
    shares = [share for _, share in lacking] or [0.0] * len(masks)
    if lacking:
        target_losses = [estimate_selections(own, mask[None])[0] for (own, _), mask in zip(lacking, masks, strict=True)]
        estimator = lacking[0][0]
    both = list(zip(target_losses, shares, strict=True))
    first = [difference(estimator, loss, target_losses[0], dropped=abs(s - shares[0])) for loss, s in both]
    above_all = [difference(estimator, loss, every, dropped=share) for loss, share in both]
    mask, count = masks[0], masks.shape[1]
    gains = estimator.task_gains(mask) if count else np.zeros(0)
    changes, solved = np.where(mask, gains, -gains), np.zeros(count, dtype=bool)
    # Users look first at the tasks in which the selections differ.
    different = which_rows(masks, "different")
    wanted = np.concatenate([different, np.setdiff1d(np.arange(count), different)])[:SOLVED_IN_FULL]
    done = 0
    while True:
        yield Estimates(token, target_losses, first, above_all, changes.copy(), solved.copy(), done >= len(wanted))
        if done >= len(wanted):
            return
        part = wanted[done : done + _AT_ONCE]
        changes[part], solved[part] = flips(estimator, target_losses[0], part), True
        done += _AT_ONCE
