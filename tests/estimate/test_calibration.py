"""Calibration: against a direct refit, and on losses with a known law."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.estimate.calibration import (
    LEAST_RUNS,
    RIDGE_SCALES,
    TRAJECTORY_PRIORS,
    Calibration,
    Evidence,
    Priors,
    calibrate,
    conformal,
    cross_validated,
)

POINTS = 3


def _evidence(
    subsets: int = 20,
    tasks: int = 6,
    *,
    seed: int = 0,
    law: Callable[[np.ndarray], np.ndarray] = lambda change: change,
    noise: float = 0.0,
    scales: tuple[float, ...] = RIDGE_SCALES,
) -> Evidence:
    """Return subsets with losses that follow the change of the second ridge scale, the mean of its checkpoints."""
    rng = np.random.default_rng(seed)
    masks = rng.random((subsets, tasks)) < 0.5
    effects = rng.normal(-0.05, 0.1, (len(scales), tasks, POINTS))
    bent = 0.02 * np.sin(masks @ rng.normal(0, 3, (tasks, POINTS)))
    changes = np.stack([masks @ of + bent for of in effects])
    row = min(1, len(scales) - 1)
    losses = 1.5 + law(changes[row].mean(axis=1)) + noise * rng.standard_normal(subsets)
    return Evidence(masks=masks, losses=losses, known=1.5, changes=changes, scales=scales)


def _of(found: Calibration, evidence: Evidence) -> np.ndarray:
    row = list(evidence.scales).index(found.scale)
    return found.losses(evidence.known, evidence.changes[row], evidence.masks)


def _part(evidence: Evidence, numbers: np.ndarray, tasks: np.ndarray | None = None) -> Evidence:
    tasks = np.arange(evidence.masks.shape[1]) if tasks is None else tasks
    return Evidence(
        masks=evidence.masks[numbers][:, tasks],
        losses=evidence.losses[numbers],
        known=evidence.known,
        changes=evidence.changes[:, numbers],
        scales=evidence.scales,
        priors=evidence.priors,
    )


def _same(evidence: Evidence, **changes: object) -> Evidence:
    values: dict[str, object] = {name: getattr(evidence, name) for name in evidence.__slots__}
    return Evidence(**(values | changes))  # type: ignore[arg-type]


# -- the fit --------------------------------------------------------------------------------------------------------


def test_calibrate_fit_equals_maximum_of_described_model() -> None:
    # The posterior mean of a linear model with normal priors minimises a penalised sum of squares.
    evidence = _evidence(14, scales=(1.0,), law=lambda change: 0.3 + 1.4 * change, noise=0.05)
    found = calibrate(evidence)
    changes = evidence.changes[0]
    spread, unit = evidence.losses.std(), changes.mean(axis=1).std()
    tasks = evidence.masks.shape[1]
    prior = np.concatenate([[0.0], np.full(POINTS, 1 / POINTS), np.zeros(tasks)])
    widths = spread * np.concatenate(
        [
            [evidence.priors.offset],
            np.full(POINTS, evidence.priors.slopes / (unit * math.sqrt(POINTS))),
            np.full(tasks, evidence.priors.effects / math.sqrt(tasks / 4)),
        ]
    )
    design = np.c_[np.ones(14), changes, evidence.masks]
    rows = np.concatenate([design / (evidence.priors.noise * spread), np.diag(1 / widths)])
    wanted = np.concatenate([(evidence.losses - evidence.known) / (evidence.priors.noise * spread), prior / widths])
    best = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    got = np.concatenate([[found.offset], found.slopes, found.effects])
    np.testing.assert_allclose(got, best, rtol=1e-7, atol=1e-9)


def test_calibrate_with_misfits_equals_conditioning_of_the_described_normal() -> None:
    priors = Priors(slopes=0.2, effects=0.4, noise=0.3, offset=0.6, misfit=0.7, reach=0.3)
    evidence = _same(_evidence(14, scales=(1.0,), noise=0.1), priors=priors)
    seen, new = _part(evidence, np.arange(9)), _part(evidence, np.arange(9, 14))
    found = calibrate(seen).losses(evidence.known, new.changes[0], new.masks)
    # Entry by entry, the covariance of the losses of all 14 subsets, and then the mean of five given nine.
    changes, masks, spread = evidence.changes[0], evidence.masks, seen.losses.std()
    unit, tasks = seen.changes[0].mean(axis=1).std(), masks.shape[1]
    covariance = np.zeros((14, 14))
    for i in range(14):
        for j in range(14):
            apart = sum(bool(masks[i, t] != masks[j, t]) for t in range(tasks)) / tasks
            shared = sum(bool(masks[i, t] and masks[j, t]) for t in range(tasks))
            covariance[i, j] = spread**2 * (
                priors.offset**2
                + priors.slopes**2 / POINTS * sum(changes[i, p] * changes[j, p] for p in range(POINTS)) / unit**2
                + priors.effects**2 * shared / (tasks / 4)
                + priors.misfit**2 * math.exp(-apart / priors.reach)
            )
    mean = evidence.known + changes.mean(axis=1)
    inner = covariance[:9, :9] + (priors.noise * spread) ** 2 * np.eye(9)
    wanted = mean[9:] + covariance[9:, :9] @ np.linalg.inv(inner) @ (seen.losses - mean[:9])
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize(("offset", "slope"), [(0.4, 1.0), (-0.2, 2.0), (0.3, 0.4), (0.0, -0.5)])
def test_calibrate_linear_distortion_is_undone(offset: float, slope: float) -> None:
    evidence = _evidence(60, law=lambda change: offset + slope * change)
    seen, new = _part(evidence, np.arange(30)), _part(evidence, np.arange(30, 60))
    found = calibrate(seen)
    raw = new.known + new.changes[1].mean(axis=1)
    wrong, right = (np.abs(new.losses - losses).mean() for losses in (raw, _of(found, new)))
    assert right < 0.15 * wrong
    assert right < 0.15 * new.losses.std()


def test_calibrate_picks_ridge_that_agrees_with_runs() -> None:
    # The losses follow the second ridge scale. Changes of the other scales are independent draws.
    for seed in range(5):
        assert calibrate(_evidence(25, seed=seed, noise=0.005)).scale == RIDGE_SCALES[1]


def test_calibrate_agreeing_runs_leave_estimates_unchanged() -> None:
    evidence = _evidence(25)
    found = calibrate(evidence)
    assert found.slopes.sum() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(_of(found, evidence), evidence.losses, atol=1e-3)
    assert found.half_width is not None
    assert found.half_width < 0.02 * np.ptp(evidence.losses)


def test_calibrate_task_with_unestimated_effect_gets_effect() -> None:
    evidence = _evidence(60, scales=(1.0,), noise=0.01)
    raw = evidence.losses.copy()
    evidence = _same(evidence, losses=raw + 0.5 * evidence.masks[:, 2])
    seen, new = _part(evidence, np.arange(40)), _part(evidence, np.arange(40, 60))
    found = calibrate(seen)
    assert int(np.argmax(np.abs(found.effects))) == 2
    assert found.effects[2] > 0.2
    assert np.abs(new.losses - _of(found, new)).mean() < 0.2 * np.abs(new.losses - raw[40:]).mean()


def test_calibrate_losses_in_other_unit_scale_result() -> None:
    evidence = _evidence(15, noise=0.05)
    bits = Evidence(
        masks=evidence.masks,
        losses=evidence.losses / math.log(2),
        known=evidence.known / math.log(2),
        changes=evidence.changes / math.log(2),
        scales=evidence.scales,
    )
    np.testing.assert_allclose(
        calibrate(bits).residuals * math.log(2), calibrate(evidence).residuals, rtol=1e-6, atol=1e-12
    )


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_calibrate_order_of_subsets_and_tasks_has_no_effect(seed: int) -> None:
    evidence = _same(_evidence(12, seed=seed, noise=0.1), priors=Priors(misfit=0.5 * (seed % 2)))
    rng = np.random.default_rng(seed)
    subsets, tasks = rng.permutation(12), rng.permutation(6)
    here, there = calibrate(evidence), calibrate(_part(evidence, subsets, tasks))
    assert there.scale == here.scale
    assert there.offset == pytest.approx(here.offset, abs=1e-9)
    np.testing.assert_allclose(there.slopes, here.slopes, atol=1e-9)
    np.testing.assert_allclose(there.effects, here.effects[tasks], atol=1e-9)
    np.testing.assert_allclose(there.residuals, here.residuals[subsets], atol=1e-9)
    assert there.half_width == pytest.approx(here.half_width)
    assert there.noise_of_difference(3) == pytest.approx(here.noise_of_difference(3))


# -- cross-validation ------------------------------------------------------------------------------------------------


def test_cross_validated_error_excludes_its_own_subset() -> None:
    evidence = _evidence(11, noise=0.1)
    found = calibrate(evidence)
    estimates, widths = cross_validated(evidence)
    for number in range(11):
        others = _part(evidence, np.delete(np.arange(11), number))
        refitted = calibrate(others)
        (estimate,) = _of(refitted, Evidence(
            masks=evidence.masks[[number]],
            losses=evidence.losses[[number]],
            known=evidence.known,
            changes=evidence.changes[:, [number]],
            scales=evidence.scales,
        ))  # fmt: skip
        assert estimates[number] == pytest.approx(estimate, abs=1e-9)
        assert found.residuals[number] == pytest.approx(evidence.losses[number] - estimate, abs=1e-9)
        assert widths[number] == pytest.approx(refitted.half_width)


def test_cross_validated_loss_does_not_affect_its_own_estimate() -> None:
    evidence = _evidence(12, noise=0.1)
    estimates, widths = cross_validated(evidence)
    for number in (0, 7):
        losses = evidence.losses.copy()
        losses[number] += 5.0
        changed = Evidence(
            masks=evidence.masks, losses=losses, known=evidence.known, changes=evidence.changes, scales=evidence.scales
        )
        again, wide = cross_validated(changed)
        assert again[number] == pytest.approx(estimates[number], abs=1e-12)
        assert wide[number] == pytest.approx(widths[number], abs=1e-12)
        # The estimates of the other subsets do use the loss.
        assert np.abs(np.delete(again - estimates, number)).min() > 1e-6


def test_cross_validated_pure_noise_is_not_explained() -> None:
    # A calibration that used the subset's own loss would beat the mean.
    ratios = []
    for seed in range(40):
        evidence = _evidence(20, seed=seed)
        pure = np.random.default_rng(1000 + seed).standard_normal(20)
        evidence = Evidence(
            masks=evidence.masks,
            losses=pure,
            known=evidence.known,
            changes=evidence.changes,
            scales=evidence.scales,
        )
        ratios.append(np.abs(calibrate(evidence).residuals).mean() / np.abs(pure - pure.mean()).mean())
    assert np.mean(ratios) > 1.0


# -- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(12))
def test_conformal_fewer_than_nine_errors_gives_none(count: int) -> None:
    errors = np.arange(count, dtype=float)
    assert (conformal(errors) is None) == (count < 9)


def test_conformal_width_is_order_statistic_of_errors() -> None:
    rng = np.random.default_rng(0)
    for count, rank in ((9, 9), (19, 18), (29, 27), (99, 90)):
        errors = rng.standard_normal(count)
        assert conformal(errors) == pytest.approx(np.sort(np.abs(errors))[rank - 1])
        assert conformal(rng.permutation(errors) * rng.choice([-1, 1], count)) == pytest.approx(conformal(errors))
    # Interpolated: 0.9 · 15 = 13.5.
    assert conformal(np.arange(1.0, 15.0)) == pytest.approx(13.5)


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential", "random"])
@pytest.mark.parametrize("count", [9, 12, 25])
def test_conformal_covers_nine_in_ten_like_errors(draw: str, count: int) -> None:
    rng = np.random.default_rng(count)
    inside = []
    for _ in range(1500):
        errors = getattr(rng, draw)(count + 1)
        inside.append(abs(errors[-1]) <= (conformal(errors[:-1]) or 0.0))
    assert 0.875 < np.mean(inside) < 0.925


@pytest.mark.parametrize("law", ["line", "bent", "nothing"])
def test_cross_validated_intervals_cover_nine_in_ten_subsets(law: str) -> None:
    laws: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "line": lambda change: 0.1 + 0.5 * change,
        "bent": lambda change: 4 * change**2,
        "nothing": lambda change: 0 * change,
    }
    inside: list[bool] = []
    for seed in range(60):
        evidence = _evidence(26, seed=seed, law=laws[law], noise=0.03, scales=RIDGE_SCALES[:3])
        seen, new = _part(evidence, np.arange(14)), _part(evidence, np.arange(14, 26))
        found = calibrate(seen)
        assert found.half_width is not None
        inside += (np.abs(new.losses - _of(found, new)) <= found.half_width).tolist()
    assert 0.85 < np.mean(inside) < 0.95


def test_noise_of_difference_covers_nine_in_ten_differences() -> None:
    inside: list[bool] = []
    for seed in range(60):
        evidence = _evidence(30, seed=seed, law=lambda change: 0.1 + 0.5 * change, noise=0.03, scales=(1.0, 3.0))
        seen, new = _part(evidence, np.arange(14)), _part(evidence, np.arange(14, 30))
        found = calibrate(seen)
        errors = new.losses - _of(found, new)
        for one in range(0, 16, 2):
            apart = int((new.masks[one] ^ new.masks[one + 1]).sum())
            noise = found.noise_of_difference(max(apart, 1))
            assert noise is not None
            inside.append(abs(errors[one] - errors[one + 1]) <= noise)
    assert 0.8 < np.mean(inside) < 0.97


def test_noise_of_difference_grows_with_tasks_and_is_zero_for_same_subset() -> None:
    found = calibrate(_evidence(12, noise=0.1))
    noise = [found.noise_of_difference(tasks) for tasks in (0, 1, 4, 9)]
    one = noise[1]
    assert one is not None
    assert one > 0
    assert noise == pytest.approx([0.0, one, 2 * one, 3 * one])
    assert calibrate(_evidence(8, noise=0.1)).noise_of_difference(3) is None


# -- degenerate inputs -----------------------------------------------------------------------------------------------


def test_calibrate_equal_losses_predict_that_loss() -> None:
    evidence = _evidence(12)
    for loss in (0.1, 0.3, 2.0):
        # The mean of equal numbers may differ from them by rounding.
        found = calibrate(_same(evidence, losses=np.full(12, loss), known=loss, changes=0 * evidence.changes))
        np.testing.assert_allclose(found.residuals, 0, atol=1e-9)
        assert found.half_width == pytest.approx(0, abs=1e-9)
        assert np.isfinite(_of(calibrate(_same(evidence, losses=np.full(12, loss))), evidence)).all()


@pytest.mark.parametrize("count", [LEAST_RUNS, 9, 12])
def test_calibrate_zero_changes_give_finite_result(count: int) -> None:
    evidence = _evidence(count, noise=0.1)
    found = calibrate(_same(evidence, changes=np.zeros_like(evidence.changes)))
    assert np.isfinite(found.residuals).all()
    # The ridges are equivalent, and the slopes stay at their prior.
    np.testing.assert_allclose(found.slopes, 1 / POINTS)
    assert abs(found.residuals).max() < 10 * evidence.losses.std()


def test_calibrate_equal_subsets_give_finite_result() -> None:
    evidence = _evidence(10, noise=0.1)
    masks, changes = np.repeat(evidence.masks[:1], 10, axis=0), np.repeat(evidence.changes[:, :1], 10, axis=1)
    found = calibrate(_same(evidence, masks=masks, changes=changes))
    mean = evidence.losses.mean()
    np.testing.assert_allclose(found.losses(1.5, changes[0], masks), mean, atol=0.1 * evidence.losses.std())
    assert np.isfinite(found.noise_of_difference(2) or np.nan)


@pytest.mark.parametrize("tasks", [0, 1, 40])
def test_calibrate_few_or_many_tasks_gives_finite_result(tasks: int) -> None:
    evidence = _evidence(10, tasks, noise=0.1)
    found = calibrate(evidence)
    assert found.effects.shape == (tasks,)
    assert np.isfinite(_of(found, evidence)).all()
    estimates, widths = cross_validated(evidence)
    assert np.isfinite(estimates).all()
    assert np.isfinite(widths).all()


def test_calibration_round_trip_through_json_keeps_values() -> None:
    for tasks in (0, 5):
        evidence = _same(_evidence(10, tasks, noise=0.1), priors=TRAJECTORY_PRIORS)
        found = calibrate(evidence)
        again = Calibration.from_dict(json.loads(json.dumps(found.as_dict())))
        assert again.masks.dtype == bool
        assert (again.scale, again.offset) == (found.scale, found.offset)
        assert again.half_width == found.half_width
        assert again.noise_of_difference(2) == found.noise_of_difference(2)
        np.testing.assert_array_equal(_of(again, evidence), _of(found, evidence))


def test_priors_of_the_trajectory_keep_slope_and_offset_closer_to_the_raw_estimate() -> None:
    evidence = _evidence(8, scales=(1.0,), law=lambda change: 0.4 + 2.0 * change, noise=0.02)
    wide = calibrate(evidence)
    narrow = calibrate(_same(evidence, priors=TRAJECTORY_PRIORS))
    assert abs(narrow.slopes.sum() - 1) < abs(wide.slopes.sum() - 1)
    assert abs(narrow.offset) < abs(wide.offset)
    # Evidence without a subset keeps the priors.
    assert _same(evidence, priors=TRAJECTORY_PRIORS).without(0).priors == TRAJECTORY_PRIORS


def test_default_priors_are_those_of_estimators_with_a_ridge() -> None:
    evidence = _evidence(12)
    np.testing.assert_array_equal(calibrate(evidence).slopes, calibrate(_same(evidence, priors=Priors())).slopes)
