"""Effects of tasks on each other, and of two tasks on the target. This module imports no Textual."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.estimate.whatif import LossDifference, SelectionEstimate, difference, estimate_selections
from tui.state.arrangement import Arrangement, arrange, full_scale, group_names, share_beyond

if TYPE_CHECKING:
    from curator.estimate.loss_estimator import LossEstimator
    from curator.estimate.target import TargetEstimates
    from tui.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """Effects of tasks on each other.

    Attributes:
        key: Key of the answers.
        values: Effect of each task, by row, on each task, by column (t, t), in nats.
        scale: Full scale of the glyphs, in nats.
        beyond: Share of the pairs whose effect is larger than the full scale, from 0 to 1.
        arrangement: Order and groups of the tasks.
        groups: Name of each group of the arrangement.
    """

    key: str
    values: Floats
    scale: float
    beyond: float
    arrangement: Arrangement
    groups: list[str]


def transfer_of(answers: "TargetEstimates", snapshot: "Snapshot") -> Transfer:
    """Estimate the effects of tasks on each other. Reads gradients on the first call.

    Args:
        answers: Estimates of the snapshot.
        snapshot: Snapshot with names and tags of the tasks.
    """
    values = answers.estimator.transfer()
    arrangement = arrange(values)
    groups = group_names(arrangement, snapshot.names, snapshot.tags)
    scale = full_scale(values)
    return Transfer(answers.key, values, scale, share_beyond(values, scale), arrangement, groups)


@dataclass(frozen=True, slots=True)
class Cell:
    """A pair of tasks, and the selection that the pair belongs to."""

    key: str
    revision: int
    giver: int
    taker: int


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Estimated target losses of a selection with both of two tasks, with one task, and with neither, in nats."""

    cell: Cell
    both: SelectionEstimate
    giver: SelectionEstimate
    taker: SelectionEstimate
    neither: SelectionEstimate
    synergy: LossDifference
    """Change by both tasks minus the sum of the changes by each task. Negative means better together."""


def together(estimator: "LossEstimator", mask: Mask, cell: Cell) -> Together:
    """Estimate the effect of two tasks on the target, together and alone.

    Args:
        estimator: Estimator of the target loss.
        mask: The selection (t,). Its other tasks are unchanged.
        cell: The two tasks.
    """
    masks = np.repeat(mask[None], 4, axis=0)
    masks[:, cell.giver] = (True, True, False, False)
    masks[:, cell.taker] = (True, False, True, False)
    both, giver, taker, neither = estimate_selections(estimator, masks)
    synergy = difference(estimator, _sum(both, neither), _sum(giver, taker))
    return Together(cell, both, giver, taker, neither, synergy)


def _sum(first: SelectionEstimate, second: SelectionEstimate) -> SelectionEstimate:
    """Return the first estimate with the losses of both added, example by example and part by part."""
    return replace(first, each=first.each + second.each, readings=first.readings + second.readings)
