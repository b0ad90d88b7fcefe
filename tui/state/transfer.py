"""What tasks do for each other, and what two of them do to the target together. No Textual."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.estimate.whatif import Difference, Judgement, difference, judge_each
from tui.state.arrangement import Arrangement, arrange, full_scale, group_names

if TYPE_CHECKING:
    from curator.estimate.estimator import TargetEstimator
    from curator.estimate.target import TargetEstimates
    from tui.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """Who helps whom, as far as answers of one key say.

    Attributes:
        key: Of the answers.
        values: What each task, by row, does for each, by column (t, t), in nats.
        scale: Full scale of the glyphs, in nats.
        arrangement: Of the tasks.
        groups: What each group of the arrangement is called.
    """

    key: str
    values: Floats
    scale: float
    arrangement: Arrangement
    groups: list[str]


def transfer_of(answers: "TargetEstimates", snapshot: "Snapshot") -> Transfer:
    """Estimate who helps whom; gradients are read where they have not been yet.

    Args:
        answers: Estimates of the snapshot.
        snapshot: Whose tasks have names and tags.
    """
    values = answers.estimator.transfer()
    arrangement = arrange(values)
    groups = group_names(arrangement, snapshot.names, snapshot.tags)
    return Transfer(answers.key, values, full_scale(values), arrangement, groups)


@dataclass(frozen=True, slots=True)
class Cell:
    """A pair of tasks, and the selection around which it is looked at."""

    key: str
    revision: int
    giver: int
    taker: int


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Estimated target losses with both of two tasks, one or neither beside the rest of a selection, in nats."""

    cell: Cell
    both: Judgement
    giver: Judgement
    taker: Judgement
    neither: Judgement
    synergy: Difference
    """What both change beyond the sum of what each changes alone; negative where they go well together."""


def together(estimator: "TargetEstimator", mask: Mask, cell: Cell) -> Together:
    """Estimate what two tasks do to the target together.

    Args:
        estimator: Of the target's loss.
        mask: The selection (t,) whose other tasks stay as they are.
        cell: The tasks.
    """
    masks = np.repeat(mask[None], 4, axis=0)
    masks[:, cell.giver] = (True, True, False, False)
    masks[:, cell.taker] = (True, False, True, False)
    both, giver, taker, neither = judge_each(estimator, masks)
    synergy = difference(
        estimator, replace(both, each=both.each + neither.each), replace(giver, each=giver.each + taker.each)
    )
    return Together(cell, both, giver, taker, neither, synergy)
