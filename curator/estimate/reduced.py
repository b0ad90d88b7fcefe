"""`ReducedEstimates`: estimates for one target, of tasks without some of their examples."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np

from curator.core.errors import ConfigError
from curator.core.provenance import key_of
from curator.data.dropped import Dropped, without
from curator.estimate.calibration import Calibration, Evidence
from curator.estimate.dropped_sums import sums_of_dropped
from curator.estimate.implicit_steps import DroppedSums
from curator.estimate.loss_estimator import LossEstimator
from curator.estimate.target import TargetEstimates
from curator.estimate.task_sums import ExampleSet
from curator.estimate.trajectory import Segment, Trajectory, TrajectoryEstimator


class ReducedEstimates(TargetEstimates):
    """Estimates of one target's loss for tasks that lack some of their examples.

    The meta-training saw all examples. So the loss of all tasks is known with all examples only, and the calibration is
    that of whole tasks.

    Args:
        whole: Estimates of the tasks with all examples.
        dropped: The dropped examples. The corpus holds each of them, and there is at least one.
    """

    def __init__(self, whole: TargetEstimates, dropped: Dropped) -> None:
        super().__init__(whole.workspace, without(whole.corpus, dropped), whole._meta)
        self._whole, self.dropped = whole, dropped
        self.positions = {
            number: positions for number, task in enumerate(whole.tasks) if (positions := dropped.positions(task))
        }
        self.inputs |= {"whole": whole.key}
        self.key = key_of(self.inputs)

    def renewed(self) -> "ReducedEstimates":
        """Return the estimates without the same examples that all runs in the store calibrate."""
        return ReducedEstimates(self._whole.renewed(), self.dropped)

    @property
    def whole(self) -> TargetEstimates:
        """Estimates of the tasks with all examples."""
        return self._whole

    @cached_property
    def parts(self) -> list[DroppedSums]:
        """Sums over the dropped examples in each segment of meta-training."""
        return sums_of_dropped(self._whole.trajectory, self.positions)

    @cached_property
    def estimator(self) -> LossEstimator:
        """Estimator of the whole tasks, with the dropped examples always out.

        Raises:
            ConfigError: The configured estimator is not that of the trajectory.
        """
        whole = self._whole.estimator
        if not isinstance(whole, TrajectoryEstimator):
            raise ConfigError(
                "dropped examples need the trajectory estimator", hint='Set method = "trajectory" under [estimate].'
            )
        return whole.without(self.parts)

    @cached_property
    def trajectory(self) -> Trajectory:
        """Sums of each segment without the dropped examples. They serve the baselines."""
        whole = self._whole.trajectory
        segments = [
            _reduced(segment, part, self.positions) for segment, part in zip(whole.segments, self.parts, strict=True)
        ]
        return replace(whole, segments=segments)

    @property
    def evidence(self) -> Evidence | None:
        """Measured subsets of whole tasks."""
        return self._whole.evidence

    @property
    def calibration(self) -> Calibration | None:
        """Calibration by measured subsets of whole tasks."""
        return self._whole.calibration

    @property
    def calibrated_on(self) -> int:
        """Number of measured subsets that calibrate the estimates. 0 without calibration."""
        return self._whole.calibrated_on

    def share_dropped(self, names: Collection[str]) -> float:
        """Return the dropped share of the training tokens of some tasks, summed over the tasks."""
        before, after = self._whole.corpus.auxiliary, self.corpus.auxiliary
        return sum(
            1 - task.tokens / max(whole.tokens, 1)
            for whole, task in zip(before, after, strict=True)
            if task.name in names
        )


def reduced_estimates(whole: TargetEstimates, dropped: Dropped) -> TargetEstimates:
    """Return the estimates without some examples. Without dropped examples, these are the whole estimates."""
    return ReducedEstimates(whole, dropped) if dropped else whole


def _reduced(segment: Segment, part: DroppedSums, positions: dict[int, list[int]]) -> Segment:
    """Return the sums of one segment without dropped examples."""
    sums, curvatures, rest = segment.gradient_sums.copy(), segment.curvatures.copy(), segment.rest.copy()
    weights, examples = segment.weights.copy(), segment.examples.copy()
    sums[part.tasks] -= part.gradient_sums
    curvatures[part.tasks] -= part.curvatures
    rest[part.tasks] -= part.rest
    weights[part.tasks] *= 1 - part.shares
    examples[part.tasks] -= [len(positions[task]) for task in part.tasks.tolist()]
    return replace(
        segment,
        weights=weights,
        examples=examples,
        gradient_sums=sums,
        curvatures=curvatures,
        rest=rest,
        read=partial(_read_kept, segment, positions),
    )


def _read_kept(segment: Segment, positions: dict[int, list[int]], tasks: Sequence[int]) -> list[ExampleSet]:
    found = []
    for task, examples in zip(tasks, segment.read(tasks), strict=True):
        kept = np.setdiff1d(np.arange(len(examples.weights)), positions.get(task, []))
        found.append(
            ExampleSet(losses=examples.losses[kept], gradients=examples.gradients[kept], weights=examples.weights[kept])
        )
    return found
