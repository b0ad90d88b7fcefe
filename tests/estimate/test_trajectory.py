"""The trajectory estimator: against a slow reference, on a model with a known answer, and invariances."""

from dataclasses import replace

import numpy as np
import pytest
from drawn_trajectories import (
    FINAL,
    RANK,
    TASKS,
    K,
    Recorded,
    all_masks,
    draw_basis,
    draw_recorded,
    make_trajectory_estimator,
    trajectory_of,
)

from curator.core.errors import NumericalError
from curator.estimate.calibration import Calibration
from curator.estimate.implicit_steps import SUBSTEPS, ImplicitSteps
from curator.estimate.readings import bounded, bounded_slope
from curator.estimate.task_sums import ExampleSet
from curator.estimate.trajectory import Trajectory, TrajectoryEstimator, step_scale, step_sums, top_directions
from curator.estimate.whatif import difference, doubtful_tasks, estimate_selection, estimate_selections


def _slow_losses(recorded: list[Recorded], basis: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the estimated loss of each validation example, from a loop over examples with matrices of k × k."""
    dim, rank = basis.shape
    inside, outside = basis @ basis.T, np.eye(dim) - basis @ basis.T
    scale = step_scale(trajectory_of(recorded, basis).segments)
    whole = sum(segment.step for segment in recorded)
    delta, gaps = np.zeros(dim), np.zeros(len(recorded[0].validation.losses))
    for segment in recorded:
        tau = scale * segment.step / SUBSTEPS
        matrix, force = np.eye(dim), np.zeros(dim)
        for weight, examples in zip([*weights, 1.0], segment.sets, strict=True):
            tokens = examples.weights.mean()
            for omega, g in zip(examples.weights, examples.gradients, strict=True):
                rest = (g @ outside @ g) / max(dim - rank, 1)
                matrix += tau * weight * tokens * omega * (inside @ np.outer(g, g) @ inside + rest * outside)
                force += (1 - weight) * omega * g
        for _ in range(SUBSTEPS):
            delta = np.linalg.solve(matrix, delta + tau * force)
        for number, (loss, g) in enumerate(zip(segment.validation.losses, segment.validation.gradients, strict=True)):
            q = np.exp(-loss)
            shifted = np.log(q / (1 - q)) - (g @ delta) / (1 - q)
            gaps[number] += (np.logaddexp(0, -shifted) - loss) * segment.step / whole
    return FINAL + gaps


@pytest.mark.parametrize("rank", [1, RANK, K])
def test_validation_losses_equal_slow_reference(rank: int) -> None:
    recorded, basis = draw_recorded(), draw_basis(rank=rank)
    estimator = make_trajectory_estimator(recorded, basis)
    masks = all_masks()
    expected = np.stack([_slow_losses(recorded, basis, mask.astype(float)) for mask in masks])
    np.testing.assert_allclose(estimator.validation_losses(masks), expected, rtol=1e-5)
    one_by_one = np.concatenate([estimator.validation_losses(mask[None]) for mask in masks])
    np.testing.assert_allclose(one_by_one, estimator.validation_losses(masks), rtol=0, atol=1e-10)


def test_validation_losses_of_weights_equal_slow_reference() -> None:
    recorded, basis, weights = draw_recorded(), draw_basis(), np.array([0.3, 2.0, 0.0, 1.0])
    loss, _ = make_trajectory_estimator(recorded, basis).weighted(weights)
    assert loss == pytest.approx(_slow_losses(recorded, basis, weights).mean(), rel=1e-6)


def test_validation_losses_of_near_and_far_subsets_are_equal() -> None:
    estimator = make_trajectory_estimator()
    mask = np.array([True, False, True, True])
    near = mask ^ np.eye(TASKS, dtype=bool)
    together = estimator.validation_losses(near)
    far = estimator.validation_losses(np.concatenate([near, ~near]))[:TASKS]
    np.testing.assert_allclose(together, far, rtol=0, atol=1e-10)


def _train(inputs: np.ndarray, answers: np.ndarray, step: float, steps: int) -> np.ndarray:
    """Return parameters before and after every step of plain gradient descent on Σ (x·θ − y)² / 2."""
    path = [np.zeros(inputs.shape[1])]
    for _ in range(steps):
        path.append(path[-1] - step * (inputs @ path[-1] - answers) @ inputs)
    return np.array(path)


@pytest.mark.parametrize("added", [(), (1,)])
def test_changes_of_quadratic_model_equal_trained_difference(added: tuple[int, ...]) -> None:
    # Every input has one answer near 1 and one near −1. So Σ g gᵀ is the curvature Σ x xᵀ, up to squares of `bias`.
    # All batches are full, and D is 1.
    rng = np.random.default_rng(0)
    dim, tasks, step, segments, steps, bias = 6, 3, 5e-4, 200, 4, 1e-3
    data = []
    for _ in range(tasks + 1):
        x = rng.standard_normal((4, dim))
        ideal = x @ (bias * rng.standard_normal(dim))
        data.append((np.concatenate([x, x]), np.concatenate([ideal + 1, ideal - 1])))
    held_out = rng.standard_normal((5, dim))

    def path(members: list[int]) -> np.ndarray:
        return _train(
            np.concatenate([data[t][0] for t in members]), np.concatenate([data[t][1] for t in members]), step,
            segments * steps,
        )  # fmt: skip

    # A task that was added later played no part in meta-training.
    everything = path([t for t in range(tasks + 1) if t not in added])
    recorded, before = [], everything[0]
    for number in range(segments):
        mean = everything[1 + number * steps : 1 + (number + 1) * steps].mean(axis=0)
        sets = [
            ExampleSet(losses=np.ones(8), gradients=(x @ mean - y)[:, None] * x, weights=np.ones(8)) for x, y in data
        ]
        validation = ExampleSet(losses=np.full(5, 1.0), gradients=held_out, weights=np.full(5, 0.2))
        recorded.append(Recorded((number + 1) / segments, step * steps, sets, validation, mean - before))
        before = mean
    trajectory = trajectory_of(recorded, np.eye(dim))
    # The recorded movement tells that the steps of plain gradient descent have their full size.
    seen = ~np.isin(np.arange(tasks), added)
    assert step_scale(trajectory.segments, seen) == pytest.approx(1.0, abs=0.02)
    estimator = TrajectoryEstimator(replace(trajectory, trained=seen), np.ones(5))
    masks = all_masks(tasks)
    ends = np.arange(1, segments + 1) * steps
    trained = [path([*np.flatnonzero(mask).tolist(), tasks]) for mask in masks]
    gaps = np.array([((of[ends] - everything[ends]) @ held_out.T).mean() for of in trained])
    np.testing.assert_allclose(estimator.changes(masks)[:, 0], gaps, rtol=0, atol=0.02 * np.abs(gaps).max())
    assert estimator.changes(seen[None])[0, 0] == 0.0


def test_added_task_is_no_part_of_the_known_loss_and_its_derivatives_are_exact() -> None:
    seen, weights = np.array([True, False, True, True]), np.array([0.7, 0.4, 1.0, 0.2])
    recorded, basis = draw_recorded(), draw_basis()
    estimator = make_trajectory_estimator(recorded, basis, seen)
    assert (estimator.validation_losses(seen[None])[0] == FINAL).all()
    assert estimator.all_tasks_loss == pytest.approx(FINAL.mean())
    # Without the added task, nothing depends on it.
    kept = [replace(segment, sets=[s for n, s in enumerate(segment.sets) if n != 1]) for segment in recorded]
    masks = all_masks(TASKS - 1)
    fewer = TrajectoryEstimator(trajectory_of(kept, basis), FINAL).validation_losses(masks)
    np.testing.assert_allclose(estimator.validation_losses(np.insert(masks, 1, False, axis=1)), fewer, rtol=1e-6)
    _, gradient = estimator.weighted(weights)
    for task, step in enumerate(1e-5 * np.eye(TASKS)):
        difference = estimator.weighted(weights + step)[0] - estimator.weighted(weights - step)[0]
        assert gradient[task] == pytest.approx(difference / 2e-5, rel=1e-6)


def test_reading_noise_is_the_spread_of_a_difference_between_the_segments() -> None:
    recorded = draw_recorded()
    estimator = make_trajectory_estimator(recorded)
    masks, weights = np.array([[True, False, True, True], [True, True, True, True]]), estimator.validation_weights
    _, readings = estimator.losses_and_readings(masks, weights)
    shares = np.array([segment.step for segment in recorded])
    shares /= shares.sum()
    np.testing.assert_allclose(readings @ shares, estimator.changes(masks)[:, 0], atol=1e-12)
    away = readings[0] - readings[0] @ shares
    expected = (sum(share * value**2 for share, value in zip(shares, away, strict=True)) / 2) ** 0.5
    assert float(estimator.reading_noise(readings[0] - readings[1])) == pytest.approx(expected)
    one = make_trajectory_estimator(draw_recorded(segments=1))
    assert float(one.reading_noise(one.losses_and_readings(masks, weights)[1][0])) == 0.0


def test_weighted_gradient_equals_finite_differences() -> None:
    estimator = make_trajectory_estimator()
    weights = np.array([0.7, 0.2, 1.0, 1.4])
    _, gradient = estimator.weighted(weights)
    for task, step in enumerate(1e-5 * np.eye(TASKS)):
        difference = estimator.weighted(weights + step)[0] - estimator.weighted(weights - step)[0]
        assert gradient[task] == pytest.approx(difference / 2e-5, rel=1e-6)


def test_gains_of_examples_equal_finite_differences_and_sum_to_task_gains() -> None:
    recorded, basis = [_with_equal_weights(segment) for segment in draw_recorded()], draw_basis()
    estimator = make_trajectory_estimator(recorded, basis)
    mask = np.array([True, False, True, True])
    gains = [estimator.gains_of(task, mask) for task in range(TASKS + 1)]
    np.testing.assert_allclose([g.sum() for g in gains[:-1]], estimator.task_gains(mask), rtol=1e-5)
    # Give one example a little more weight in its task, which leaves the weight of all tasks together as it was.
    task, example, step = 3, 2, 1e-4
    weights = mask.astype(float)
    split = [_with_example_apart(segment, task, example) for segment in recorded]
    apart = make_trajectory_estimator(split, basis)
    more, less = (np.append(weights, 1.0 + sign * step) for sign in (1, -1))
    slope = (apart.weighted(more)[0] - apart.weighted(less)[0]) / (2 * step)
    assert gains[task][example] == pytest.approx(-slope, rel=1e-4)


def _with_example_apart(segment: Recorded, task: int, example: int) -> Recorded:
    """Return the segment with one example as a task of its own, the last one before the target."""
    kept = np.arange(len(segment.sets[task].weights)) != example
    sets = list(segment.sets)
    sets[task] = _rows(segment.sets[task], kept)
    sets.insert(TASKS, _rows(segment.sets[task], ~kept))
    return replace(segment, sets=sets)


def _with_equal_weights(segment: Recorded) -> Recorded:
    """Return the segment with examples of 3 tokens each."""
    return replace(segment, sets=[replace(e, weights=np.full(len(e.weights), 3.0)) for e in segment.sets])


def _rows(examples: ExampleSet, rows: np.ndarray) -> ExampleSet:
    return ExampleSet(losses=examples.losses[rows], gradients=examples.gradients[rows], weights=examples.weights[rows])


def test_gains_of_examples_inside_the_basis_need_no_other_dimensions() -> None:
    recorded, basis = draw_recorded(), draw_basis()
    trajectory = trajectory_of(recorded, basis)

    def gains(turn: np.ndarray) -> np.ndarray:
        """Return the gains of examples without gradients outside of the basis, in k or in r dimensions."""
        sets = [[replace(e, gradients=e.gradients @ basis @ turn) for e in segment.sets] for segment in recorded]
        segments = [
            replace(segment, read=lambda tasks, of=of: [of[task] for task in tasks])
            for segment, of in zip(trajectory.segments, sets, strict=True)
        ]
        return TrajectoryEstimator(Trajectory(basis, segments), FINAL).gains_of(1, np.arange(TASKS) != 2)

    np.testing.assert_allclose(gains(np.eye(RANK)), gains(basis.T), rtol=1e-9)


def test_task_gains_that_are_stopped_are_nan() -> None:
    estimator = make_trajectory_estimator()
    assert np.isnan(estimator.task_gains(np.ones(TASKS, dtype=bool), stop=lambda: True)).all()


def test_transfer_equals_finite_difference_of_mean_training_loss() -> None:
    recorded, basis = draw_recorded(), draw_basis()
    transfer = make_trajectory_estimator(recorded, basis).transfer()
    segments = trajectory_of(recorded, basis).segments
    shares = np.array([segment.step for segment in segments])
    for reader in range(TASKS):
        sums = [
            replace(
                step_sums(segment, step_scale(segments)),
                validation=(segment.gradient_sums[reader] / segment.weights[reader])[None],
            )
            for segment in segments
        ]
        removed = 1e-6 * np.eye(TASKS)
        changes = np.stack(ImplicitSteps(basis, sums).changes(removed))[:, :, 0] / 1e-6
        np.testing.assert_allclose(transfer[:, reader], shares @ changes / shares.sum(), rtol=1e-3, atol=1e-6)


def test_all_tasks_together_have_exactly_the_known_loss() -> None:
    estimator = make_trajectory_estimator()
    every = np.ones((1, TASKS), dtype=bool)
    assert (estimator.validation_losses(every)[0] == FINAL).all()
    assert estimator.validation_losses(np.concatenate([every, ~every, every]))[2].tolist() == FINAL.tolist()


def test_order_of_tasks_and_examples_does_not_matter() -> None:
    recorded, basis, order = draw_recorded(), draw_basis(), np.array([2, 0, 3, 1])
    turned = [
        replace(s, sets=[*(_rows(s.sets[t], np.arange(len(s.sets[t].weights))[::-1]) for t in order), s.sets[-1]])
        for s in recorded
    ]
    masks = all_masks()
    expected = make_trajectory_estimator(recorded, basis).validation_losses(masks)
    found = make_trajectory_estimator(turned, basis).validation_losses(masks[:, order])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_splitting_a_task_in_two_leaves_estimates_as_they_are() -> None:
    recorded, basis = [_with_equal_weights(segment) for segment in draw_recorded()], draw_basis()
    split = [_with_example_apart(segment, 1, 4) for segment in recorded]
    masks = all_masks()
    expected = make_trajectory_estimator(recorded, basis).validation_losses(masks)
    found = make_trajectory_estimator(split, basis).validation_losses(np.c_[masks, masks[:, 1]])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_task_without_gradients_has_no_effect() -> None:
    recorded = draw_recorded()
    silent = [
        replace(s, sets=[ExampleSet(losses=s.sets[0].losses, gradients=0 * s.sets[0].gradients,
                                    weights=s.sets[0].weights), *s.sets[1:]])
        for s in recorded
    ]  # fmt: skip
    estimator = make_trajectory_estimator(silent)
    mask = np.array([True, False, True, False])
    found = estimator.validation_losses(np.stack([mask, mask ^ np.array([True, False, False, False])]))
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-12)
    assert estimator.task_gains(mask)[0] == 0


def test_segment_without_examples_passes_the_difference_on() -> None:
    recorded, basis = draw_recorded(), draw_basis()
    nothing = ExampleSet(losses=np.zeros(0), gradients=np.zeros((0, K)), weights=np.zeros(0))
    empty = replace(recorded[1], sets=[nothing] * (TASKS + 1), moved=np.zeros(K))
    estimator = make_trajectory_estimator([recorded[0], empty, recorded[2]], basis)
    losses = estimator.validation_losses(all_masks())
    assert np.isfinite(losses).all()
    only_empty = make_trajectory_estimator([empty], basis)
    np.testing.assert_allclose(only_empty.validation_losses(all_masks()), np.tile(FINAL, (2**TASKS, 1)), atol=1e-12)
    assert np.isfinite(only_empty.transfer()).all()


@pytest.mark.parametrize("tasks", [0, 1])
def test_few_tasks_give_finite_estimates(tasks: int) -> None:
    estimator = make_trajectory_estimator(draw_recorded((3,) * tasks + (4,)))
    masks = all_masks(tasks)
    assert np.isfinite(estimator.validation_losses(masks)).all()
    assert estimator.task_gains(masks[0]).shape == (tasks,)
    assert estimator.transfer().shape == (tasks, tasks)
    assert all(interval.low < interval.high for interval in estimator.estimate(masks))


def test_intervals_without_validation_spread_have_a_width() -> None:
    recorded = [replace(s, validation=_rows(s.validation, np.zeros(1, dtype=int))) for s in draw_recorded(validation=1)]
    recorded = [replace(s, validation=replace(s.validation, weights=np.ones(1))) for s in recorded]
    estimator = TrajectoryEstimator(trajectory_of(recorded, draw_basis()), FINAL[:1])
    for interval in estimator.estimate(all_masks()):
        assert interval.high - interval.low > 1e-3
    assert estimator.note is not None
    assert "1 validation example," in estimator.note


def test_intervals_cover_noise_spread_and_size_of_the_change() -> None:
    masks = all_masks()
    estimator = make_trajectory_estimator()
    each = estimator.validation_losses(masks)
    gaps = each - FINAL
    change = gaps.mean(axis=1)
    wide = estimator.half_widths(*estimator.losses_and_readings(masks, estimator.validation_weights))
    least = 1.6448536269514722 * np.sqrt(
        gaps.var(axis=1) / len(FINAL) + (0.25 * change) ** 2 + (0.08 * FINAL.mean()) ** 2
    )
    # The readings of three segments differ, unless no task is left out.
    assert (wide[:-1] > least[:-1]).all()
    one = make_trajectory_estimator(draw_recorded(segments=1))
    each = one.validation_losses(masks)
    gaps = each - FINAL
    expected = gaps.var(axis=1) / len(FINAL) + (0.25 * gaps.mean(axis=1)) ** 2 + (0.08 * FINAL.mean()) ** 2
    found = one.half_widths(*one.losses_and_readings(masks, one.validation_weights))
    np.testing.assert_allclose(found, 1.6448536269514722 * np.sqrt(expected))
    assert wide[-1] == pytest.approx(1.6448536269514722 * 0.08 * FINAL.mean())


def test_note_with_enough_validation_examples_is_absent() -> None:
    recorded = draw_recorded(validation=20)
    assert TrajectoryEstimator(trajectory_of(recorded, draw_basis()), np.ones(20)).note is None


def test_calibration_shifts_losses_and_gains() -> None:
    trajectory = trajectory_of(draw_recorded(), draw_basis())
    effects = np.array([0.1, -0.2, 0.0, 0.3])
    calibration = Calibration(
        scale=1.0, offset=0.05, slopes=np.array([0.8]), effects=effects, residuals=np.zeros(9),
        masks=np.random.default_rng(0).random((9, TASKS)) < 0.5, misfits=np.linspace(-0.1, 0.2, 9), reach=0.4,
    )  # fmt: skip
    raw, found = TrajectoryEstimator(trajectory, FINAL), TrajectoryEstimator(trajectory, FINAL, calibration)
    masks = all_masks()
    expected = calibration.losses(raw.all_tasks_loss, raw.changes(masks), masks)
    np.testing.assert_allclose(found.validation_losses(masks).mean(axis=1), expected)
    corrected = calibration.gains(masks[5], np.ones(TASKS))
    np.testing.assert_allclose(found.task_gains(masks[5]), 0.8 * raw.task_gains(masks[5]) + corrected)
    weights = np.array([0.5, 1.0, 0.2, 0.0])
    shift = float(calibration.shifts(weights[None])[0])
    loss, slopes = found.weighted(weights)
    assert loss == pytest.approx(FINAL.mean() + shift + 0.8 * (raw.weighted(weights)[0] - FINAL.mean()))
    # The derivative is that of the loss, inside of the weights' limits.
    for task in (0, 2):
        step = 1e-5 * np.eye(TASKS)[task]
        change = found.weighted(weights + step)[0] - found.weighted(weights - step)[0]
        assert slopes[task] == pytest.approx(change / 2e-5, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("place", ["gradient_sums", "curvatures", "rest", "moved"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(place: str, value: float) -> None:
    trajectory = trajectory_of(draw_recorded(), draw_basis())
    getattr(trajectory.segments[1], place)[1] = value
    with pytest.raises(NumericalError, match="the target" if place == "moved" else "'b'"):
        TrajectoryEstimator(trajectory, FINAL, names=["a", "b", "c", "d"])


def test_losses_that_are_not_finite_are_refused() -> None:
    trajectory = trajectory_of(draw_recorded(), draw_basis())
    with pytest.raises(NumericalError, match="end of meta-training"):
        TrajectoryEstimator(trajectory, np.full(len(FINAL), np.nan))


def test_bounded_reading_starts_linear_and_stays_positive() -> None:
    losses = np.array([1e-9, 0.1, 1.0, 8.0])
    np.testing.assert_array_equal(bounded(np.zeros(4), losses), 0.0)
    np.testing.assert_allclose(bounded_slope(np.zeros(4), losses), 1.0, rtol=1e-6)
    assert (bounded(np.full(4, -50.0), losses) + losses >= -1e-6).all()
    step = 1e-6
    rise = (bounded(np.full(4, -0.02 + step), losses) - bounded(np.full(4, -0.02 - step), losses)) / (2 * step)
    np.testing.assert_allclose(bounded_slope(np.full(4, -0.02), losses)[1:], rise[1:], rtol=1e-4)


def test_top_directions_hold_the_largest_curvature() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, K)) * np.linspace(3, 0.1, K)
    basis = top_directions(rows.T @ rows, 3)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    kept = np.linalg.norm(rows @ basis) ** 2
    assert kept == pytest.approx(np.linalg.eigvalsh(rows.T @ rows)[-3:].sum())
    assert top_directions(rows.T @ rows, 100).shape == (K, K)


def test_difference_of_equal_subsets_from_two_batches_is_exactly_zero_without_noise() -> None:
    estimator = make_trajectory_estimator()
    masks = all_masks()
    for mask, together in zip(masks, estimate_selections(estimator, masks), strict=True):
        found = difference(estimator, together, estimate_selection(estimator, mask))
        assert (found.value, found.noise) == (0.0, 0.0)


def test_doubtful_tasks_are_those_whose_removal_is_within_the_noise() -> None:
    estimator = make_trajectory_estimator()
    mask = np.array([True, False, True, True])
    whole = estimate_selection(estimator, mask)
    expected = []
    for task in np.flatnonzero(mask):
        less = mask.copy()
        less[task] = False
        if difference(estimator, estimate_selection(estimator, less), whole).is_noise:
            expected.append(int(task))
    assert doubtful_tasks(estimator, mask).tolist() == expected
    assert doubtful_tasks(estimator, np.zeros(TASKS, dtype=bool)).size == 0
