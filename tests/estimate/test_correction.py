"""The correction of estimates by measured subsets, against loops over tasks and subsets."""

import math

import numpy as np
import pytest

from curator.estimate.correction import Correction, alike, no_correction

TASKS, MEASURED = 5, 7


def _correction(seed: int = 0) -> Correction:
    rng = np.random.default_rng(seed)
    return Correction(
        offset=0.1,
        slopes=np.array([0.6, 0.3]),
        effects=rng.normal(0, 0.1, TASKS),
        misfits=rng.normal(0, 0.1, MEASURED),
        masks=rng.random((MEASURED, TASKS)) < 0.5,
        reach=0.3,
    )


def _shift(made: Correction, members: np.ndarray) -> float:
    """Return the shift of one subset, term by term."""
    found = made.offset + sum(members[t] * made.effects[t] for t in range(TASKS))
    for weight, mask in zip(made.misfits, made.masks, strict=True):
        apart = sum(abs(min(members[t], 1.0) - float(mask[t])) for t in range(TASKS)) / TASKS
        found += weight * math.exp(-apart / made.reach)
    return float(found)


def test_correction_losses_equal_described_sum() -> None:
    made, rng = _correction(), np.random.default_rng(1)
    masks, changes = rng.random((20, TASKS)) < 0.5, rng.normal(size=(20, 2))
    wanted = [
        1.3 + row @ made.slopes + _shift(made, mask.astype(float)) for row, mask in zip(changes, masks, strict=True)
    ]
    np.testing.assert_allclose(made.losses(1.3, changes, masks), wanted)


def test_correction_shift_of_weights_counts_parts_and_at_most_one() -> None:
    made = _correction()
    for weights in np.random.default_rng(2).uniform(0, 2, (20, TASKS)):
        assert made.shifts(weights[None])[0] == pytest.approx(_shift(made, weights))


@pytest.mark.parametrize("highest", [0.99, 1.99])
def test_correction_derivatives_equal_differences_of_shifts(highest: float) -> None:
    made = _correction()
    for weights in np.random.default_rng(3).uniform(0.01, highest, (10, TASKS)):
        steps = 1e-6 * np.eye(TASKS)
        wanted = [(_shift(made, weights + step) - _shift(made, weights - step)) / 2e-6 for step in steps]
        np.testing.assert_allclose(made.derivatives(weights), wanted, rtol=1e-5, atol=1e-8)


def test_correction_derivative_of_member_is_the_one_from_below() -> None:
    made, whole, step = _correction(), np.ones(TASKS), 1e-6
    wanted = [(_shift(made, whole) - _shift(made, whole - step * unit)) / step for unit in np.eye(TASKS)]
    np.testing.assert_allclose(made.derivatives(whole), wanted, rtol=1e-4, atol=1e-7)


def test_correction_gains_equal_shift_without_task_minus_shift_with_it() -> None:
    made, rng = _correction(), np.random.default_rng(4)
    for kept in (np.ones(TASKS), rng.random(TASKS)):
        for mask in rng.random((10, TASKS)) < 0.5:
            wanted = []
            for task in range(TASKS):
                inside, outside = mask.copy(), mask.copy()
                inside[task], outside[task] = True, False
                wanted.append(_shift(made, outside * kept) - _shift(made, inside * kept))
            np.testing.assert_allclose(made.gains(mask, kept), wanted, atol=1e-12)


def test_alike_is_one_for_equal_subsets_and_falls_to_one_over_e_at_its_reach() -> None:
    one = np.array([[True, True, False, False]])
    assert alike(one, one, 0.25)[0, 0] == 1.0
    assert alike(one, np.array([[True, True, True, False]]), 0.25)[0, 0] == pytest.approx(math.exp(-1))
    assert alike(np.zeros((2, 0)), np.zeros((3, 0)), 0.25).tolist() == [[1.0] * 3] * 2


def test_no_correction_changes_nothing() -> None:
    none, masks = no_correction(TASKS), np.ones((2, TASKS), dtype=bool)
    np.testing.assert_array_equal(none.losses(1.5, np.full((2, 1), 0.25), masks), 1.75)
    np.testing.assert_array_equal(none.gains(masks[0], np.ones(TASKS)), 0.0)
    np.testing.assert_array_equal(none.derivatives(np.ones(TASKS)), 0.0)
