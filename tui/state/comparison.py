"""What is compared, and what it is estimated to come to. No Textual."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.estimate.whatif import Difference, Judgement, difference, flips, judge_each
from tui.background.estimator_thread import SOLVED_IN_FULL
from tui.state.session import Rows

if TYPE_CHECKING:
    from curator.estimate.estimator import TargetEstimator
    from tui.state.session import Session
    from tui.state.snapshot import Snapshot

Token = tuple[str, bytes]

# A command line cannot hold a NUL, nor can the name of a selection that was typed.
NOW, ALL, NONE = "\0now", "\0all", "\0none"
LETTERS = "ABCD"
SORTS = ("Δ", "affinity", "name")
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """One of the selections that are compared.

    Attributes:
        key: `NOW`, `ALL`, `NONE`, or the name of a saved one.
        title: As it is called.
        mask: Membership (t,).
        measured: Measured loss, if there is one.
    """

    key: str
    title: str
    mask: Mask
    measured: float | None = None


def picked(wanted: Sequence[object], snapshot: "Snapshot", session: "Session") -> list[str]:
    """Keys of what is compared: what was picked and is still there, else now, its base, and all tasks."""
    there = {NOW, ALL, NONE} | {saved.name for saved in snapshot.selections}
    found = list(dict.fromkeys(pick for pick in wanted if isinstance(pick, str) and pick in there))
    base = [session.base] if snapshot.selection(session.base) is not None else []
    return (found or [NOW, *base, ALL])[: len(LETTERS)]


def choice(key: str, snapshot: "Snapshot", session: "Session") -> Chosen:
    """The selection of a key that `picked` gave."""
    if key == NOW:
        changed = int((session.mask != session.saved).sum())
        title = f"now ({changed} changed)" if changed else "now"
        return Chosen(NOW, title, session.mask, snapshot.measured_loss(session.mask))
    saved = snapshot.selection(key)
    if saved is None:
        title, mask = "all tasks" if key == ALL else "target only", np.full(len(snapshot.names), key == ALL)
        return Chosen(key, title, mask, snapshot.measured_loss(mask))
    mask = saved.mask(snapshot.names)
    measured = snapshot.measured_loss(mask)
    return Chosen(key, key, mask, saved.manifest.measured_loss if measured is None else measured)


def which_rows(masks: Mask, which: str) -> Rows:
    """The tasks that a list shows.

    Args:
        masks: Membership by selection (s, t).
        which: `all`, `different`, `only A` (of A and B), `only B`.
    """
    if which == "all" or not len(masks):
        return np.arange(masks.shape[1])
    if which == "different":
        return np.flatnonzero(masks.any(axis=0) & ~masks.all(axis=0))
    first, second = masks[0], masks[1] if len(masks) > 1 else masks[0]
    return np.flatnonzero(first & ~second if which == "only A" else second & ~first)


def sorted_rows(rows: Rows, by: str, snapshot: "Snapshot", changes: Floats, *, descending: bool) -> Rows:
    """Put tasks in order.

    Args:
        rows: The tasks.
        by: One of `SORTS`.
        snapshot: Names and affinities of all tasks.
        changes: What turning each task round adds to the loss (t,).
        descending: From the largest; of names, from A, as descending is the first direction of all columns.
    """
    named = np.array(sorted(rows.tolist(), key=lambda row: snapshot.names[row].casefold()), dtype=np.intp)
    if by == "name":
        return named if descending else named[::-1]
    values = np.abs(changes[named]) if by == "Δ" else snapshot.affinity[named]
    return named[np.argsort(-values if descending else values, kind="stable")]


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What selections are estimated to come to.

    Attributes:
        token: What they belong to: key of the answers, and the selections themselves.
        target_losses: Of each selection.
        versus_first: Difference of each to the first.
        versus_all: Difference of each to all tasks.
        changes: What turning each task round in the first adds to the loss (t,); NaN where it is not known yet.
        solved: Whether that is estimated in full, rather than to first order (t,).
        is_complete: Whether no better ones follow.
    """

    token: Token
    target_losses: list[Judgement]
    versus_first: list[Difference]
    versus_all: list[Difference]
    changes: Floats
    solved: Mask
    is_complete: bool


def estimates(estimator: "TargetEstimator", masks: Mask, token: Token) -> Iterator[Estimates]:
    """Estimate selections: what each task changes at first to first order, then better and better.

    Args:
        estimator: Of the target's loss.
        masks: Membership by selection (s, t).
        token: What the estimates belong to.
    """
    *target_losses, every = judge_each(estimator, np.concatenate([masks, np.ones_like(masks[:1])]))
    first = [difference(estimator, loss, target_losses[0]) for loss in target_losses]
    above_all = [difference(estimator, loss, every) for loss in target_losses]
    mask, count = masks[0], masks.shape[1]
    gains = estimator.task_gains(mask) if count else np.zeros(0)
    changes, solved = np.where(mask, gains, -gains), np.zeros(count, dtype=bool)
    # Those in which the selections differ are looked at first.
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
