"""Estimates without some examples: against tasks whose rows are missing, against split tasks, and derivatives."""

import math
from dataclasses import replace

import numpy as np
import pytest
from drawn_trajectories import FINAL, TASKS, Recorded, all_masks, draw_basis, draw_recorded, trajectory_of

from curator.estimate.calibration import Calibration
from curator.estimate.dropped_sums import sums_of_dropped
from curator.estimate.reduced import _reduced
from curator.estimate.task_sums import ExampleSet
from curator.estimate.trajectory import TrajectoryEstimator

DROPPED = {0: [1, 4], 3: [0, 2, 6]}


def _equal_weights(recorded: list[Recorded]) -> list[Recorded]:
    """Give all examples one weight, so that a part of a task has the mean weight of the task."""
    return [
        replace(segment, sets=[replace(s, weights=np.full(len(s.weights), 2.0)) for s in segment.sets])
        for segment in recorded
    ]


def _rows(examples: ExampleSet, kept: np.ndarray) -> ExampleSet:
    return ExampleSet(losses=examples.losses[kept], gradients=examples.gradients[kept], weights=examples.weights[kept])


def _kept(task: int, examples: ExampleSet) -> np.ndarray:
    return np.setdiff1d(np.arange(len(examples.weights)), DROPPED.get(task, []))


def _split(recorded: list[Recorded]) -> list[Recorded]:
    """Make a task of the dropped examples of each task, after the other tasks."""
    return [
        replace(
            segment,
            sets=[
                *(_rows(examples, _kept(task, examples)) for task, examples in enumerate(segment.sets[:-1])),
                *(_rows(segment.sets[task], np.array(rows)) for task, rows in DROPPED.items()),
                segment.sets[-1],
            ],
        )
        for segment in recorded
    ]


def _estimator(recorded: list[Recorded], calibration: Calibration | None = None) -> TrajectoryEstimator:
    return TrajectoryEstimator(trajectory_of(recorded, draw_basis()), FINAL, calibration)


def _without(recorded: list[Recorded], calibration: Calibration | None = None) -> TrajectoryEstimator:
    return _estimator(recorded, calibration).without(sums_of_dropped(trajectory_of(recorded, draw_basis()), DROPPED))


def test_reduced_segment_equals_segment_of_files_without_the_rows() -> None:
    recorded = draw_recorded()
    trajectory = trajectory_of(recorded, draw_basis())
    parts = sums_of_dropped(trajectory, DROPPED)
    lacking = [
        replace(s, sets=[_rows(examples, _kept(task, examples)) for task, examples in enumerate(s.sets)])
        for s in recorded
    ]
    expected = trajectory_of(lacking, draw_basis())
    for whole, part, wanted in zip(trajectory.segments, parts, expected.segments, strict=True):
        found = _reduced(whole, part, DROPPED)
        assert found.examples.tolist() == wanted.examples.tolist() == [3, 9, 1, 4, 6]
        for name in ("weights", "gradient_sums", "curvatures", "rest"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-5, atol=1e-5)
        for task in range(TASKS):
            assert found.read([task])[0].weights.tolist() == wanted.read([task])[0].weights.tolist()


def test_estimates_without_examples_equal_those_of_split_tasks() -> None:
    recorded = _equal_weights(draw_recorded())
    masks = all_masks()
    expected = _estimator(_split(recorded)).validation_losses(np.c_[masks, np.zeros((len(masks), 2), dtype=bool)])
    found = _without(recorded)
    np.testing.assert_allclose(found.validation_losses(masks), expected, rtol=1e-5)
    one_by_one = np.concatenate([found.validation_losses(mask[None]) for mask in masks])
    np.testing.assert_allclose(one_by_one, expected, rtol=1e-5)


def test_estimates_without_every_example_equal_those_without_the_task() -> None:
    recorded, masks = draw_recorded(), all_masks()
    trajectory = trajectory_of(recorded, draw_basis())
    found = _estimator(recorded).without(sums_of_dropped(trajectory, {1: range(9)}))
    expected = _estimator(recorded).validation_losses(masks & (np.arange(TASKS) != 1))
    np.testing.assert_allclose(found.validation_losses(masks), expected, rtol=1e-5)


def test_estimates_without_examples_leave_first_estimator_unchanged() -> None:
    recorded = draw_recorded()
    estimator, trajectory = _estimator(recorded), trajectory_of(recorded, draw_basis())
    before = estimator.validation_losses(all_masks())
    estimator.without(sums_of_dropped(trajectory, DROPPED))
    np.testing.assert_allclose(estimator.validation_losses(all_masks()), before, rtol=0, atol=0)


def test_estimates_without_unattributed_gradients_share_them_by_weight() -> None:
    # The task's sum holds a part that no stored example has. Two of five equal examples take two fifths of it.
    recorded = _equal_weights(draw_recorded())
    trajectory = trajectory_of(recorded, draw_basis())
    extra = np.arange(12, dtype=np.float32)
    first = trajectory.segments[0]
    sums = first.gradient_sums.copy()
    sums[0] += extra
    changed = replace(trajectory, segments=[replace(first, gradient_sums=sums), *trajectory.segments[1:]])
    before, after = (sums_of_dropped(t, DROPPED)[0] for t in (trajectory, changed))
    np.testing.assert_allclose(after.gradient_sums[0] - before.gradient_sums[0], 0.4 * extra, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(after.gradient_sums[1], before.gradient_sums[1], rtol=1e-6)
    assert before.shares.tolist() == pytest.approx([2 / 5, 3 / 7])


def test_weighted_without_examples_has_the_derivative_of_finite_differences() -> None:
    estimator, weights = _without(draw_recorded()), np.array([0.7, 1.0, 0.2, 1.4])
    loss, slopes = estimator.weighted(weights)
    assert loss != pytest.approx(_estimator(draw_recorded()).weighted(weights)[0], abs=1e-4)
    for task, step in enumerate(1e-4 * np.eye(TASKS)):
        numeric = (estimator.weighted(weights + step)[0] - estimator.weighted(weights - step)[0]) / 2e-4
        assert slopes[task] == pytest.approx(numeric, rel=1e-3, abs=1e-7)
    gains = estimator.task_gains(np.ones(TASKS, dtype=bool))
    np.testing.assert_allclose(gains, -estimator.weighted(np.ones(TASKS))[1], rtol=1e-6)


def test_gains_of_dropped_examples_predict_the_difference_of_losses() -> None:
    # Examples of little weight change the loss little, so that the first order is nearly all.
    recorded, mask = (
        [
            replace(s, sets=[replace(e, weights=e.weights / 100) if task == 1 else e for task, e in enumerate(s.sets)])
            for s in draw_recorded()
        ],
        np.ones(TASKS, dtype=bool),
    )
    trajectory, estimator = trajectory_of(recorded, draw_basis()), _estimator(recorded)
    gains = estimator.gains_of(1, mask)
    for row in range(9):
        less = estimator.without(sums_of_dropped(trajectory, {1: [row]}))
        change = (less.validation_losses(mask[None])[0] - estimator.validation_losses(mask[None])[0]).mean()
        assert change == pytest.approx(gains[row], rel=0.02, abs=1e-6)


def test_calibrated_effect_of_task_shrinks_by_dropped_share() -> None:
    effects = np.array([0.1, 0.2, 0.3, 0.4])
    calibration = Calibration(
        scale=1.0,
        offset=0.0,
        slopes=np.array([1.0]),
        effects=effects,
        residuals=np.zeros(5),
        masks=np.ones((5, TASKS), dtype=bool),
        misfits=np.full(5, 0.1),
        reach=0.25,
    )
    recorded, masks = _equal_weights(draw_recorded()), all_masks()
    change = _without(recorded, calibration).validation_losses(masks) - _without(recorded).validation_losses(masks)
    kept = np.array([3 / 5, 1.0, 1.0, 4 / 7])
    # A part of a task is a part of a member: in the effects, and in the distance to the measured subset of all tasks.
    near = [math.exp(-sum(1 - share for share in row) / (TASKS * 0.25)) for row in masks * kept]
    np.testing.assert_allclose(change.mean(axis=1), masks @ (effects * kept) + 0.5 * np.array(near), rtol=1e-6)


def test_parts_of_curvature_add_up_and_are_never_negative() -> None:
    # The stored examples of the first segment are twice as long as in the sums, as if they came from another segment.
    recorded = draw_recorded()
    trajectory = trajectory_of(recorded, draw_basis())
    longer = [replace(examples, gradients=2 * examples.gradients[:, ::-1]) for examples in recorded[0].sets]
    first = replace(trajectory.segments[0], read=lambda tasks: [longer[task] for task in tasks])
    changed = replace(trajectory, segments=[first])
    rows, columns = np.triu_indices(5)
    for dropped in ([0], [1, 2, 3, 5, 6, 7, 8], [0, 4, 8]):
        kept = [n for n in range(9) if n not in dropped]
        parts = [sums_of_dropped(changed, {1: positions})[0] for positions in (dropped, kept)]
        for part in parts:
            matrix = np.zeros((5, 5))
            matrix[rows, columns] = matrix[columns, rows] = part.curvatures[0]
            assert np.linalg.eigvalsh(matrix).min() > -1e-4
            assert part.rest[0] >= 0
        for name in ("curvatures", "gradient_sums", "rest"):
            both = sum(getattr(part, name)[0] for part in parts)
            whole = {"curvatures": first.curvatures, "gradient_sums": first.gradient_sums, "rest": first.rest}[name]
            np.testing.assert_allclose(both, whole[1], rtol=1e-3, atol=1e-4)
