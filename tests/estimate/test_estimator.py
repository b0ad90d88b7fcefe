"""Estimates: against slow references, and invariances."""

from typing import Any

import numpy as np
import pytest
from drawn_estimators import FINAL, TASKS, Examples, K, all_masks, draw_checkpoints, make_estimator, sums_of
from threadpoolctl import threadpool_info, threadpool_limits

from curator.core.config import EstimateSection
from curator.core.errors import NumericalError
from curator.estimate.calibration import Calibration
from curator.estimate.estimator import (
    _LEAST_RIDGE,
    _RIDGE_SHARE,
    ExampleSet,
    TargetEstimator,
    _solved,
    build_estimator,
    pick_ridge,
)
from curator.estimate.quadratic import Quadratic
from curator.estimate.whatif import difference, estimate_selections

QUADRATIC = EstimateSection(method="quadratic")


def _unit(point: Examples) -> float:
    return float(np.concatenate([s.weights for s in (*point.tasks, point.target)]).mean())


def _slow_quadratic(point: Examples, members: list[int], ridge: float) -> np.ndarray:
    """Return the displacement, summed example by example."""
    a, b = ridge * np.eye(K), np.zeros(K)
    for examples in [*(point.tasks[t] for t in members), point.target]:
        for gradient, weight in zip(examples.gradients, examples.weights / _unit(point), strict=True):
            a += weight * np.outer(gradient, gradient)
            b += weight * gradient
    return -np.linalg.inv(a) @ b


def _slow_logistic(point: Examples, members: list[int], ridge: float) -> np.ndarray:
    """Return the displacement after many small steps of gradient descent."""
    sets = [*(point.tasks[t] for t in members), point.target]
    loss = np.concatenate([s.losses for s in sets])
    weight = np.concatenate([s.weights for s in sets]) / _unit(point)
    q = np.exp(-loss)
    h = -np.concatenate([s.gradients for s in sets]) / (1 - q)[:, None]
    margin = np.log(q / (1 - q))
    w = np.zeros(K)
    step = 1 / (ridge + 0.25 * (weight[:, None] * h**2).sum())
    for _ in range(200_000):
        slope = ridge * w - (weight / (1 + np.exp(margin + h @ w))) @ h
        w -= step * slope
        if np.abs(slope).max() < 1e-10:
            break
    return w


@pytest.mark.parametrize(("method", "slow"), [("quadratic", _slow_quadratic), ("logistic", _slow_logistic)])
def test_validation_losses_equal_slow_reference(method: str, slow: object) -> None:
    points, ridges = draw_checkpoints(), [3.0, 7.0]
    estimator = make_estimator(points, ridges, method=method)
    masks = all_masks()
    estimates = estimator.estimate(masks)
    for mask, estimate in zip(masks, estimates, strict=True):
        members = np.flatnonzero(mask).tolist()
        each = FINAL.copy()
        for point, ridge in zip(points, ridges, strict=True):
            moved = slow(point, members, ridge) - slow(point, list(range(TASKS)), ridge)  # type: ignore[operator]
            each += point.validation.gradients @ moved / len(points)
        assert estimate.value == pytest.approx(each.mean(), abs=1e-6)
        error = each.std() / np.sqrt(len(each))
        assert estimate.high - estimate.value == pytest.approx(1.645 * error, rel=1e-3)


@pytest.mark.parametrize("method", ["quadratic", "logistic"])
def test_estimate_all_tasks_equals_measured_loss(method: str) -> None:
    points = draw_checkpoints()
    estimator = build_estimator([sums_of(p) for p in points], FINAL, EstimateSection(method=method))  # type: ignore[arg-type]
    (estimate,) = estimator.estimate(np.ones((1, TASKS), dtype=bool))
    assert estimate.value == pytest.approx(FINAL.mean())


@pytest.mark.parametrize("method", ["quadratic", "logistic"])
def test_estimate_order_of_tasks_has_no_effect(method: str) -> None:
    points, order = draw_checkpoints(), np.array([2, 0, 3, 1])
    turned = [
        Examples(share=p.share, tasks=[p.tasks[t] for t in order], target=p.target, validation=p.validation)
        for p in points
    ]
    masks = all_masks()
    here = make_estimator(points, [2, 2], method=method).estimate(masks)
    there = make_estimator(turned, [2, 2], method=method).estimate(masks[:, order])
    assert [e.value for e in there] == pytest.approx([e.value for e in here], abs=1e-7)


@pytest.mark.parametrize("method", ["quadratic", "logistic"])
def test_estimate_split_task_equals_whole_task(method: str) -> None:
    points = draw_checkpoints()
    cut = []
    for point in points:
        whole = point.tasks[1]
        halves = [
            ExampleSet(losses=whole.losses[part], gradients=whole.gradients[part], weights=whole.weights[part])
            for part in (slice(0, 4), slice(4, None))
        ]
        tasks = [point.tasks[0], *halves, *point.tasks[2:]]
        cut.append(Examples(share=point.share, tasks=tasks, target=point.target, validation=point.validation))
    masks = all_masks()
    here = make_estimator(points, [2, 2], method=method).estimate(masks)
    there = make_estimator(cut, [2, 2], method=method).estimate(masks[:, [0, 1, 1, 2, 3]])
    assert [e.value for e in there] == pytest.approx([e.value for e in here], abs=1e-7)


def test_estimate_more_ridge_gives_less_change() -> None:
    points = draw_checkpoints()
    spread = []
    for ridge in (1e-2, 1e2, 1e6):
        losses = [e.value for e in make_estimator(points, [ridge, ridge]).estimate(all_masks())]
        spread.append(max(losses) - min(losses))
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 1e-3


@pytest.mark.parametrize("margin", [-10.0, -40.0])
@pytest.mark.parametrize("ridge", [1e-4, 1e-1, 10.0])
def test_logistic_converges_where_plain_newton_diverges(margin: float, ridge: float) -> None:
    """Use separable examples with very negative margins, on which full Newton steps overshoot without end."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        truth = rng.standard_normal(K)
        h = rng.standard_normal((40, K))
        h *= np.sign(h @ truth)[:, None]
        loss = np.logaddexp(0, -margin) * np.ones(40)
        examples = ExampleSet(losses=loss, gradients=-h * (1 - np.exp(-loss))[:, None], weights=np.ones(40))
        point = Examples(share=1.0, tasks=[examples], target=examples, validation=examples)
        fit = make_estimator([point], [ridge], method="logistic", final=loss)._fits[0]
        (w,) = fit.displacements(np.array([[True]]))
        margins = np.concatenate([h, h]) @ w + margin
        slope = ridge * w - (1 / (1 + np.exp(margins))) @ np.concatenate([h, h])
        assert np.abs(slope).max() < 1e-5


def test_pick_ridge_follows_scale_of_gradients_only() -> None:
    (point,) = draw_checkpoints(count=1)

    def scaled(factor: float) -> Examples:
        sets = [
            ExampleSet(losses=s.losses, gradients=factor * s.gradients, weights=7 * s.weights)
            for s in (*point.tasks, point.target)
        ]
        return Examples(share=1.0, tasks=sets[:-1], target=sets[-1], validation=point.validation)

    assert pick_ridge(sums_of(scaled(10.0))) == pytest.approx(100 * pick_ridge(sums_of(point)))
    assert pick_ridge(sums_of(scaled(0.0))) == 1.0


def test_build_estimator_nan_raises_numerical_error() -> None:
    points = draw_checkpoints()
    points[0].tasks[2].gradients[0, 0] = np.nan
    with pytest.raises(NumericalError, match="50%"):
        build_estimator([sums_of(p) for p in points], FINAL, QUADRATIC)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ([1], "'b'"),
        ([2], "'c'"),
        ([0, 3], "'a', 'd'"),
        ([4], "the target"),
        ([1, 4], "'b', the target"),
        ([0, 1, 2, 3, 4], "'a', 'b', 'c', 'd', the target"),
    ],
)
@pytest.mark.parametrize("number", [np.inf, np.nan, 1e200])
def test_build_estimator_infinite_numbers_name_their_tasks(bad: list[int], named: str, number: float) -> None:
    points = draw_checkpoints()
    for task in bad:
        # The squares of the largest numbers are infinite, though all other numbers are finite.
        (*points[1].tasks, points[1].target)[task].gradients[0, 0] = number
    with pytest.raises(NumericalError) as caught:
        build_estimator([sums_of(p) for p in points], FINAL, QUADRATIC, names=["a", "b", "c", "d"])
    assert caught.value.message == (
        f"gradients at 100% of meta-training are not finite, or their squares are not: {named}"
    )
    assert caught.value.hint == "Run `curator gradients --fresh` with model.dtype = float32."


def test_build_estimator_names_at_most_five_tasks() -> None:
    (point,) = draw_checkpoints(count=1, sizes=(1,) * 7)
    for task in point.tasks:
        task.gradients[0, 0] = np.nan
    with pytest.raises(NumericalError, match=r": '0', '1', '2', '3', '4' and 2 more$"):
        build_estimator([sums_of(point)], FINAL, QUADRATIC, names=[str(n) for n in range(7)])
    (point,) = draw_checkpoints(count=1)
    point.validation.losses[0] = np.nan
    with pytest.raises(NumericalError, match=r": the target$"):
        build_estimator([sums_of(point)], FINAL, QUADRATIC, names=["a", "b", "c", "d"])


@pytest.mark.parametrize("method", ["quadratic", "logistic"])
def test_gains_of_equal_derivative_of_estimate(method: str) -> None:
    # A small increase of an example's weight changes the estimate by its gain times that increase.
    points, mask = draw_checkpoints(count=1), np.array([True, False, True, False])
    ridge, epsilon = [2.0], 1e-5
    estimator = make_estimator(points, ridge, method=method)
    (point,) = points
    slow = {"quadratic": _slow_quadratic, "logistic": _slow_logistic}[method]
    unit = _unit(point)

    def loss(task: int, number: int, change: float) -> float:
        # One task holds a second copy of the example with a small weight. The unit must not change.
        examples = point.tasks[task]
        extra = ExampleSet(
            losses=examples.losses[[number]],
            gradients=examples.gradients[[number]],
            weights=examples.weights[[number]] * change,
        )
        sets = [*point.tasks, extra]
        grown = Examples(share=1.0, tasks=sets, target=point.target, validation=point.validation)
        scaled = ridge[0] * unit / _unit(grown)
        w = slow(grown, [*np.flatnonzero(mask), len(sets) - 1], scaled)
        return float(point.validation.weights @ (point.validation.gradients @ w))

    if method == "logistic":
        # Gradient descent stops at a slope of 1e-10, which is as exact as this difference.
        epsilon = 1e-3
    for task, examples in enumerate(point.tasks):
        gains = estimator.gains_of(task, mask)
        assert len(gains) == len(examples.losses)
        for number in (0, len(examples.losses) - 1):
            slope = (loss(task, number, epsilon) - loss(task, number, 0.0)) / epsilon
            assert gains[number] == pytest.approx(-slope, rel=2e-2, abs=1e-5)
    assert len(estimator.gains_of(TASKS, mask)) == len(point.target.losses)
    sums = [estimator.gains_of(task, mask).sum() for task in range(TASKS)]
    assert estimator.task_gains(mask) == pytest.approx(sums, rel=1e-6)


def test_task_gains_of_small_tasks_equal_their_change() -> None:
    # If a task has a small effect, its first-order gain is the change when the task is toggled.
    points = draw_checkpoints(count=2, sizes=(40, 1, 30, 1))
    estimator = make_estimator(points, [40.0, 30.0])
    mask = np.array([True, True, True, False])
    gains = estimator.task_gains(mask)
    for task in (1, 3):
        flipped = mask.copy()
        flipped[task] ^= True
        with_it, without = (mask, flipped) if mask[task] else (flipped, mask)
        change = estimator.estimate(np.stack([without, with_it]))
        assert gains[task] == pytest.approx(change[0].value - change[1].value, rel=0.15)


def test_transfer_equals_gain_with_each_task_as_target() -> None:
    points = draw_checkpoints(count=2)
    estimator = make_estimator(points, [2.0, 3.0])
    transfer = estimator.transfer()
    every = np.ones(TASKS, dtype=bool)
    for column in range(TASKS):
        judged = []
        for p in points:
            own = p.tasks[column]
            share = ExampleSet(losses=own.losses, gradients=own.gradients, weights=own.weights / own.weights.sum())
            judged.append(Examples(share=p.share, tasks=p.tasks, target=p.target, validation=share))
        as_target = make_estimator(judged, [2.0, 3.0], final=judged[0].validation.losses)
        expected = as_target.task_gains(every)
        np.testing.assert_allclose(transfer[:, column], expected, rtol=1e-9)


def test_task_gains_stopped_gives_nan_for_the_rest() -> None:
    estimator = make_estimator(draw_checkpoints(), [2.0, 3.0])
    mask = np.array([True, False, True, True])
    assert np.isnan(estimator.task_gains(mask, stop=lambda: True)).all()
    assert np.isfinite(estimator.task_gains(mask, stop=lambda: False)).all()


# -- calibrated estimates --------------------------------------------------------------------------------------------


def _calibration(residuals: int = 12, *, scale: float = 1.0) -> Calibration:
    rng = np.random.default_rng(residuals)
    return Calibration(
        scale=scale,
        offset=0.3,
        slopes=np.array([1.4, -0.2]),
        effects=np.array([0.05, -0.1, 0.02, 0.2]),
        residuals=0.1 * rng.standard_normal(residuals),
        masks=rng.random((residuals, TASKS)) < 0.5,
        misfits=0.02 * rng.standard_normal(residuals),
        reach=0.25,
    )


def _calibrated(points: list[Examples], ridges: list[float], calibration: Calibration, method: str) -> TargetEstimator:
    return TargetEstimator([sums_of(p) for p in points], FINAL, ridges, method=method, calibration=calibration)


@pytest.mark.parametrize(("method", "slow"), [("quadratic", _slow_quadratic), ("logistic", _slow_logistic)])
def test_estimate_calibrated_equals_described_sum(method: str, slow: object) -> None:
    points, ridges, calibration = draw_checkpoints(), [3.0, 7.0], _calibration()
    estimator = _calibrated(points, ridges, calibration, method)
    masks = all_masks()[[0, 3, 6, 15]]
    estimates = estimator.estimate(masks)
    changes = np.zeros((len(masks), 2))
    for row, mask in enumerate(masks):
        members = np.flatnonzero(mask).tolist()
        for number, (point, ridge) in enumerate(zip(points, ridges, strict=True)):
            moved = slow(point, members, ridge) - slow(point, list(range(TASKS)), ridge)  # type: ignore[operator]
            changes[row, number] = (point.validation.gradients @ moved).mean()
        loss = FINAL.mean() + changes[row] @ [1.4, -0.2] + calibration.shifts(mask[None])[0]
        assert estimates[row].value == pytest.approx(loss, abs=1e-6)
    np.testing.assert_allclose(estimator.changes(masks), changes, atol=1e-6)
    # The calibration gives the same from the same uncalibrated changes.
    losses = estimator.validation_losses(masks) @ estimator.validation_weights
    np.testing.assert_allclose(calibration.losses(FINAL.mean(), estimator.changes(masks), masks), losses, atol=1e-12)
    raw = make_estimator(points, ridges, method=method)
    np.testing.assert_allclose(raw.changes(masks), estimator.changes(masks), atol=1e-12)
    if method == "quadratic":
        # A subset is a mixture of ones and zeros.
        for mask, loss in zip(masks, losses, strict=True):
            assert estimator.weighted(mask.astype(float))[0] == pytest.approx(loss, abs=1e-12)


def test_estimate_interval_is_conformal_with_enough_runs() -> None:
    points, ridges = draw_checkpoints(), [3.0, 7.0]
    for residuals in (0, 8, 9, 30):
        calibration = _calibration(residuals)
        estimator = _calibrated(points, ridges, calibration, "quadratic")
        each = estimator.validation_losses(all_masks())
        for estimate, losses in zip(estimator.estimate(all_masks()), each, strict=True):
            half = calibration.half_width if residuals >= 9 else 1.6448536 * losses.std() / np.sqrt(len(losses))
            assert estimate.high - estimate.value == pytest.approx(half, rel=1e-6)
            assert estimate.low == pytest.approx(max(estimate.value - (half or 0), 0.0))


@pytest.mark.parametrize("method", ["quadratic", "logistic"])
def test_task_gains_calibrated_equal_change_of_small_tasks(method: str) -> None:
    points = draw_checkpoints(count=2, sizes=(40, 1, 30, 1))
    calibration = _calibration()
    calibrated = _calibrated(points, [40.0, 30.0], calibration, method)
    raw = make_estimator(points, [40.0, 30.0], method=method)
    mask = np.array([True, True, True, False])
    gains = calibrated.task_gains(mask)
    for task in (1, 3):
        flipped = mask.copy()
        flipped[task] ^= True
        with_it, without = (mask, flipped) if mask[task] else (flipped, mask)
        change = calibrated.estimate(np.stack([without, with_it]))
        # The correction's part is exact. The rest is to first order.
        exact = calibration.gains(mask, np.ones(TASKS))[task]
        assert gains[task] - exact == pytest.approx(change[0].value - change[1].value - exact, rel=0.15)
    # Gains of examples include slopes, but not the correction of the whole task.
    sums = [calibrated.gains_of(task, mask).sum() for task in range(TASKS)]
    assert gains == pytest.approx(np.array(sums) + calibration.gains(mask, np.ones(TASKS)), rel=1e-6)
    assert not np.allclose(gains, raw.task_gains(mask), atol=1e-3)


def test_build_estimator_multiplies_ridge_by_calibrated_scale() -> None:
    points = [sums_of(p) for p in draw_checkpoints()]
    raw = build_estimator(points, FINAL, QUADRATIC)
    tripled = build_estimator(points, FINAL, QUADRATIC, _calibration(scale=3.0))
    assert tripled.ridges == pytest.approx([3 * ridge for ridge in raw.ridges])
    assert build_estimator(points, FINAL, QUADRATIC, scale=3.0).ridges == pytest.approx(tripled.ridges)


def test_difference_within_calibrated_error_is_noise() -> None:
    points, ridges = draw_checkpoints(), [3.0, 7.0]
    masks = all_masks()[[1, 14]]
    raw = make_estimator(points, ridges)
    for error, expected in ((1e-6, False), (10.0, True)):
        residuals = error * np.random.default_rng(0).standard_normal(12)
        made = Calibration(
            scale=1.0,
            offset=0.0,
            slopes=np.full(2, 0.5),
            effects=np.array([-5.0, 0.0, 0.0, 0.0]),
            residuals=residuals,
            masks=np.random.default_rng(1).random((12, TASKS)) < 0.5,
            misfits=np.zeros(12),
            reach=0.25,
        )
        estimator = _calibrated(points, ridges, made, "quadratic")
        first, second = estimate_selections(estimator, masks)
        found = difference(estimator, first, second)
        assert found.is_noise == expected
        assert found.noise >= difference(raw, *estimate_selections(raw, masks)).noise
        of_tasks = made.noise_of_difference(4)
        assert of_tasks is not None
        assert found.noise >= of_tasks
        same = difference(estimator, first, first)
        assert (same.value, same.noise, same.is_noise) == (0, 0, True)


# -- the ridge ----------------------------------------------------------------------------------------------------


def _trace(examples: ExampleSet) -> float:
    return float((examples.weights * (examples.gradients**2).sum(axis=1)).sum())


def test_pick_ridge_is_share_of_gradients_of_half_the_tasks() -> None:
    for examples in draw_checkpoints():
        half = sum(_trace(task) for task in examples.tasks) / 2 + _trace(examples.target)
        assert pick_ridge(sums_of(examples)) == pytest.approx(_RIDGE_SHARE * half / _unit(examples))


@pytest.mark.parametrize("ridge", ["auto", 3.0])
@pytest.mark.parametrize("method", ["quadratic", "logistic"])
def test_build_estimator_ridge_is_configured_times_calibrated(ridge: str | float, method: str) -> None:
    points = [sums_of(examples) for examples in draw_checkpoints()]
    section = EstimateSection(method=method, ridge=ridge)  # type: ignore[arg-type]
    expected = [pick_ridge(point) if ridge == "auto" else 3.0 for point in points]
    assert build_estimator(points, FINAL, section).ridges == pytest.approx(expected)
    assert build_estimator(points, FINAL, section, scale=0.5).ridges == pytest.approx([0.5 * r for r in expected])
    calibration = Calibration(
        scale=4.0, offset=0.1, slopes=np.array([0.7, 0.2]), effects=np.arange(TASKS) / 10,
        residuals=np.zeros(5), masks=np.ones((5, TASKS), dtype=bool), misfits=np.zeros(5), reach=0.25,
    )  # fmt: skip
    # The scale of the calibration replaces the given scale.
    calibrated = build_estimator(points, FINAL, section, calibration, scale=0.5)
    assert calibrated.ridges == pytest.approx([4.0 * r for r in expected])
    twin = TargetEstimator(points, FINAL, calibrated.ridges, method=method, calibration=calibration)
    np.testing.assert_array_equal(calibrated.validation_losses(all_masks()), twin.validation_losses(all_masks()))
    assert calibrated.calibration is calibration


def test_build_estimator_negligible_ridge_raises_error() -> None:
    made = draw_checkpoints()
    points = [sums_of(examples) for examples in made]
    least = [
        _LEAST_RIDGE * sum(_trace(e) for e in (*examples.tasks, examples.target)) / _unit(examples) for examples in made
    ]
    largest = max(least)
    share = points[int(np.argmax(least))].share
    with pytest.raises(NumericalError) as refused:
        build_estimator(points, FINAL, EstimateSection(method="quadratic", ridge=0.99 * largest))
    assert refused.value.message == (
        f"estimate.ridge = {0.99 * largest:g} is too small for the gradients at {share:.0%} of meta-training: "
        "the equations have no unique solution"
    )
    assert refused.value.hint == f'Set estimate.ridge to "auto", or to {largest:.1g} or more.'
    build_estimator(points, FINAL, EstimateSection(method="quadratic", ridge=1.01 * largest))
    # The factor counts. The logistic estimator has a solution without a ridge.
    build_estimator(points, FINAL, EstimateSection(method="quadratic", ridge=0.99 * largest), scale=1.1)
    with pytest.raises(NumericalError, match="no unique solution"):
        build_estimator(points, FINAL, EstimateSection(method="quadratic", ridge=1.01 * largest), scale=0.9)
    build_estimator(points, FINAL, EstimateSection(method="logistic", ridge=0.99 * largest))


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_estimate_singular_equations_raise_error(number: float) -> None:
    class Singular:
        def displacements(self, _: np.ndarray) -> np.ndarray:
            raise np.linalg.LinAlgError

    class Overflowing:
        def displacements(self, masks: np.ndarray) -> np.ndarray:
            return np.array([[0.0, number]] * len(masks))

    for fit in (Singular(), Overflowing()):
        with pytest.raises(NumericalError) as raised:
            _solved(fit, all_masks())  # type: ignore[arg-type]
        assert raised.value.message == "equations of the estimates have no unique solution"
        assert raised.value.hint == "Raise estimate.ridge."


@pytest.mark.parametrize("method", ["displacements", "task_gains"])
def test_estimate_limits_blas_to_one_thread(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """BLAS threads wait for each other. Next to other programs, estimates took two to three times as long."""

    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    estimator = make_estimator(draw_checkpoints(), [1.0, 2.0])
    solve, seen = getattr(Quadratic, method), list[set[int]]()

    def watched(*arguments: Any) -> Any:
        seen.append(threads())
        return solve(*arguments)

    monkeypatch.setattr(Quadratic, method, watched)
    # Limiting to one thread is a change, whatever the environment sets.
    with threadpool_limits(limits=3, user_api="blas"):
        estimator.estimate(all_masks()[:1])
        estimator.task_gains(all_masks()[3])
        assert threads() == {3}
    assert seen == [{1}, {1}]
