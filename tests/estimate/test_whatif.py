"""Quick estimates: equal to full estimates, and with correct noise."""

import numpy as np
import pytest
from drawn_estimators import FINAL, all_masks, draw_checkpoints, make_estimator

from curator.core.interval import Interval
from curator.estimate import whatif
from curator.estimate.estimator import TargetEstimator
from curator.estimate.whatif import (
    LossDifference,
    _mean_and_noise,
    best_order,
    difference,
    estimate_selection,
    estimate_selections,
    flips,
)


@pytest.fixture
def estimator() -> TargetEstimator:
    return make_estimator(draw_checkpoints(), [2.0, 3.0])


def test_estimate_selections_equals_estimator_estimate(estimator: TargetEstimator) -> None:
    for judged, estimate in zip(
        estimate_selections(estimator, all_masks()), estimator.estimate(all_masks()), strict=True
    ):
        assert (judged.loss, judged.low, judged.high) == pytest.approx((estimate.value, estimate.low, estimate.high))


def test_interval_around_negative_loss_contains_the_loss() -> None:
    assert Interval.around(0.5, 0.25) == Interval(0.5, 0.25, 0.75)
    assert Interval.around(0.5, 0.75) == Interval(0.5, 0.0, 1.25)
    estimator = make_estimator(draw_checkpoints(), [2.0, 3.0], final=FINAL - 10)
    for judged, estimate in zip(
        estimate_selections(estimator, all_masks()), estimator.estimate(all_masks()), strict=True
    ):
        assert judged.low == judged.loss < min(judged.high, 0)
        assert (estimate.low, estimate.high) == pytest.approx((judged.low, judged.high))


def test_difference_is_paired_by_validation_example(estimator: TargetEstimator) -> None:
    first, second = estimate_selections(estimator, all_masks()[[3, 12]])
    found = difference(estimator, first, second)
    weights = estimator.validation_weights
    paired = first.each - second.each
    assert found.value == pytest.approx(first.loss - second.loss)
    assert found.noise == pytest.approx(1.6448536 * np.sqrt((weights**2 * (paired - found.value) ** 2).sum()))
    assert difference(estimator, second, first).value == pytest.approx(-found.value)
    nothing = difference(estimator, first, first)
    assert (nothing.value, nothing.noise, nothing.is_noise) == (0, 0, True)


def test_difference_noise_covers_choice_of_validation_examples() -> None:
    # Two subsets of equal mean: nine differences in ten are noise.
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(400):
        values = rng.standard_normal(200)
        weights = np.full(200, 1 / 200)
        called += LossDifference(*_mean_and_noise(values, weights)).is_noise
    assert 0.85 < called / 400 < 0.95


def test_flips_equal_change_of_toggled_subsets(estimator: TargetEstimator) -> None:
    for mask in all_masks()[[0, 5, 15]]:
        current = estimate_selection(estimator, mask)
        for task, change in enumerate(flips(estimator, current, np.arange(len(mask)))):
            flipped = mask.copy()
            flipped[task] ^= True
            assert change == pytest.approx(estimate_selection(estimator, flipped).loss - current.loss)


def test_best_order_adds_every_allowed_task(estimator: TargetEstimator) -> None:
    start, allowed = np.array([False, True, False, False]), np.array([True, True, True, False])
    steps = list(best_order(estimator, start, allowed))
    assert steps[0][0] == -1
    assert {task for task, _ in steps[1:]} == {0, 2}
    mask = start.copy()
    for task, loss in steps:
        if task >= 0:
            mask[task] = True
        assert loss == pytest.approx(estimate_selection(estimator, mask).loss)
    assert len(list(best_order(estimator, start, allowed, stop=lambda: True))) == 1


def test_best_order_adds_the_task_with_the_lowest_estimate(
    estimator: TargetEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, steps = np.zeros(4, dtype=bool), list(best_order(estimator, np.zeros(4, dtype=bool), np.ones(4, dtype=bool)))
    for task, loss in steps[1:]:
        tried = {}
        for other in np.flatnonzero(~mask).tolist():
            added = mask.copy()
            added[other] = True
            tried[other] = estimate_selection(estimator, added).loss
        assert task == min(tried, key=lambda other: tried[other])
        assert loss == pytest.approx(tried[task])
        mask[task] = True
    # With many tasks, a step tries those with the highest gain to first order.
    monkeypatch.setattr(whatif, "TRIED", 1)
    mask = np.zeros(4, dtype=bool)
    for task, _ in list(best_order(estimator, mask, np.ones(4, dtype=bool)))[1:]:
        gains = np.where(mask, -np.inf, estimator.task_gains(mask))
        assert task == int(np.argmax(gains))
        mask[task] = True
