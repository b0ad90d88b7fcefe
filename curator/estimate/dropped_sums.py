"""Sums over the examples that a selection drops, as parts of the sums of their tasks.

The store keeps each example in a few hundred directions only. A segment of less than an epoch did not visit every
example. Another segment's gradient then stands for it. So the stored examples of a task do not add up to its sums.

    b   the difference is shared among all examples by weight
    A   A½ C^(−½) C_D C^(−½) A½, with the curvatures C of all stored examples and C_D of the dropped ones
    ρ   by the share of the dropped examples in the stored mean curvature

The parts of all examples of a task then add up to the task. No part of a curvature is negative. If the stored examples
add up to the task, the part of an example is its own.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats
from curator.estimate.implicit_steps import DroppedSums
from curator.estimate.task_sums import ExampleSet, unpacked
from curator.estimate.trajectory import ExampleSums, Segment, Trajectory, example_sums

# Smallest eigenvalue of a curvature that counts, as a share of the largest. Gradients are stored in half precision.
_LEAST = 1e-6


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
        curvature=_part_of(segment.curvatures[task], own.curvature, every.curvature, share, basis.shape[1]),
        rest=float(segment.rest[task]) * (own.rest / every.rest if every.rest > 0 else share),
    )
    return part, share


def _part_of(
    whole: npt.NDArray[np.float32],
    own: npt.NDArray[np.float32],
    every: npt.NDArray[np.float32],
    share: float,
    rank: int,
) -> npt.NDArray[np.float32]:
    """Return the part of some examples in the curvature of their task, packed (r(r + 1)/2,).

    Args:
        whole: Curvature of the task.
        own: Curvature of the stored gradients of the examples.
        every: Curvature of the stored gradients of all examples of the task.
        share: Share of the task's weight, for directions without a stored gradient.
        rank: Number r of directions.
    """
    matrices = unpacked(np.stack([whole, own, every]), rank)
    values, vectors = np.linalg.eigh(matrices[2])
    known = values > _LEAST * max(float(values[-1]), 0.0)
    inverse = (vectors[:, known] / np.sqrt(values[known])) @ vectors[:, known].T
    unknown = np.eye(rank) - vectors[:, known] @ vectors[:, known].T
    part = inverse @ matrices[1] @ inverse + share * unknown
    values, vectors = np.linalg.eigh(matrices[0])
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    rows, columns = np.triu_indices(rank)
    return np.asarray((root @ part @ root)[rows, columns], dtype=np.float32)
