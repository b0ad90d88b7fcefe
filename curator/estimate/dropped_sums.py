"""Sums over the examples that a selection drops, as parts of the sums of their tasks.

The store keeps each example in a few hundred directions only. A segment of less than an epoch did not visit every
example. What the sums of a task hold beyond its stored examples is shared among all of its examples by weight.
So the parts of all examples of a task add up to the task.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats
from curator.estimate.implicit_steps import DroppedSums
from curator.estimate.task_sums import ExampleSet
from curator.estimate.trajectory import ExampleSums, Segment, Trajectory, example_sums


def sums_of_dropped(trajectory: Trajectory, dropped: Mapping[int, Sequence[int]]) -> list[DroppedSums]:
    """Sum the dropped examples of each task in each segment.

    Args:
        trajectory: What meta-training left behind.
        dropped: Positions of the dropped examples among the training examples of each task, by number of the task.
            At least one example is dropped.

    Raises:
        CuratorError: The examples cannot be read.
    """
    tasks = sorted(task for task, positions in dropped.items() if len(positions))
    found = []
    for segment in trajectory.segments:
        parts, shares = [], []
        for task in tasks:
            (examples,) = segment.read([task])
            part, share = _part(segment, task, examples, np.asarray(dropped[task], dtype=np.intp), trajectory.basis)
            parts.append(part)
            shares.append(share)
        found.append(
            DroppedSums(
                tasks=np.array(tasks, dtype=np.intp),
                shares=np.array(shares),
                gradient_sums=np.stack([part.gradient_sum for part in parts]),
                curvatures=np.stack([part.curvature for part in parts]),
                rest=np.array([part.rest for part in parts]),
            )
        )
    return found


def _part(
    segment: Segment, task: int, examples: ExampleSet, positions: npt.NDArray[np.intp], basis: Floats
) -> tuple[ExampleSums, float]:
    """Return the part of some examples in the sums of their task, and their share of its weight."""
    chosen = ExampleSet(
        losses=examples.losses[positions],
        gradients=examples.gradients[positions],
        weights=examples.weights[positions],
    )
    own, every = example_sums(chosen, basis), example_sums(examples, basis)
    share = float(chosen.weights.sum() / max(examples.weights.sum(), 1e-30))
    part = ExampleSums(
        gradient_sum=own.gradient_sum + np.float32(share) * (segment.gradient_sums[task] - every.gradient_sum),
        curvature=own.curvature + np.float32(share) * (segment.curvatures[task] - every.curvature),
        rest=own.rest + share * (float(segment.rest[task]) - every.rest),
    )
    return part, share
