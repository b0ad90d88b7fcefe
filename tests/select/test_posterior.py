"""The joint posterior of losses against slow oracles, and the interval of a selected subset on planted truths."""

import numpy as np
import pytest

from curator.core.interval import Interval
from curator.estimate.calibration import TRAJECTORY_PRIORS, Evidence, calibrate
from curator.select.posterior import (
    JointPriors,
    gains_of_next_run,
    joint_posterior,
    probabilities_best,
    spread_of,
)
from curator.select.selected_interval import Considered, selected_interval, shift_of, simulated_errors, uncalibrated

UNIT = 0.2


def _world(seed: int = 0, subsets: int = 12, tasks: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # All subsets differ. The covariance is then far from singular.
    masks = (rng.permutation(2**tasks)[:subsets, None] >> np.arange(tasks)) & 1 > 0
    return masks, rng.normal(0, UNIT, subsets)


def _covariance(masks: np.ndarray, changes: np.ndarray, priors: JointPriors) -> np.ndarray:
    """Return the prior covariance, entry by entry from the terms of the model."""
    count, tasks = masks.shape
    found = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            shared = sum(bool(masks[i, t] and masks[j, t]) for t in range(tasks))
            apart = sum(bool(masks[i, t] != masks[j, t]) for t in range(tasks)) / tasks
            found[i, j] = (
                (priors.offset * UNIT) ** 2
                + (priors.slope * UNIT) ** 2 * changes[i] * changes[j] / UNIT**2
                + (priors.effects * UNIT) ** 2 / max(tasks / 4, 1) * shared
                + (priors.misfit * UNIT) ** 2 * np.exp(-apart / priors.reach)
            )
    return found


def test_joint_posterior_equals_conditioning_of_the_whole_normal() -> None:
    masks, changes = _world()
    rows, losses = [3, 3, 7, 0], [1.4, 1.3, 0.9, 1.1]
    priors = JointPriors(reach=0.4, noise=0.3)
    found = joint_posterior(masks, changes, known=1.2, unit=UNIT, rows=rows, losses=losses, priors=priors)
    # The joint precision of all losses and runs gives the conditional distribution by blocks.
    truth = _covariance(masks, changes, priors)
    pick = np.eye(12)[rows]
    whole = np.block([[truth, truth @ pick.T], [pick @ truth, pick @ truth @ pick.T + (0.3 * UNIT) ** 2 * np.eye(4)]])
    precision = np.linalg.inv(whole)
    wanted = np.linalg.inv(precision[:12, :12])
    left = np.array(losses) - (1.2 + changes)[rows]
    mean = 1.2 + changes - wanted @ precision[:12, 12:] @ left
    np.testing.assert_allclose(found.covariance, wanted, atol=1e-9)
    np.testing.assert_allclose(found.mean, mean, atol=1e-9)
    distance = left @ np.linalg.inv(whole[12:, 12:]) @ left
    assert found.freedom == priors.freedom + 4
    assert found.factor == pytest.approx((priors.freedom + distance) / (priors.freedom + 4))
    assert found.noise == pytest.approx(0.3 * UNIT)


def test_joint_posterior_without_runs_is_the_prior() -> None:
    masks, changes = _world(1)
    found = joint_posterior(masks, changes, known=1.0, unit=UNIT, rows=[], losses=[])
    np.testing.assert_allclose(found.mean, 1.0 + changes)
    np.testing.assert_allclose(found.covariance, _covariance(masks, changes, JointPriors()))
    assert (found.factor, found.freedom) == (1.0, JointPriors().freedom)


def test_joint_posterior_second_run_lowers_the_variance_and_surprise_raises_the_factor() -> None:
    masks, changes = _world(2)
    one = joint_posterior(masks, changes, known=1.0, unit=UNIT, rows=[4], losses=[1.0 + changes[4]])
    two = joint_posterior(masks, changes, known=1.0, unit=UNIT, rows=[4, 4], losses=[1.0 + changes[4]] * 2)
    far = joint_posterior(masks, changes, known=1.0, unit=UNIT, rows=[4], losses=[5.0])
    assert two.covariance[4, 4] < one.covariance[4, 4]
    assert one.factor < 1.0 < far.factor


def test_joint_posterior_draws_have_its_moments() -> None:
    masks, changes = _world(3, subsets=6)
    priors = JointPriors(freedom=40.0)
    found = joint_posterior(masks, changes, known=1.0, unit=UNIT, rows=[0, 2], losses=[1.5, 1.1], priors=priors)
    draws, noises = found.draw(np.random.default_rng(0), 60_000)
    variance = found.factor * found.freedom / (found.freedom - 2)
    np.testing.assert_allclose(draws.mean(axis=0), found.mean, atol=0.005)
    np.testing.assert_allclose(np.cov(draws.T), variance * found.covariance, rtol=0.05, atol=0.002)
    assert np.mean(noises**2) == pytest.approx(variance * found.noise**2, rel=0.02)


def test_probabilities_best_equal_a_loop_over_draws() -> None:
    draws = np.random.default_rng(0).normal(size=(50, 4))
    shares = probabilities_best(draws)
    for subset in range(4):
        assert shares[subset] == pytest.approx(sum(min(row) == row[subset] for row in draws) / 50)
    assert shares.sum() == pytest.approx(1.0)


def test_gains_of_next_run_equal_the_mean_over_simulated_runs() -> None:
    masks, changes = _world(5)
    rows, losses = [3, 3, 7], [0.9, 1.0, 0.95]
    found = joint_posterior(masks, changes, known=1.0, unit=UNIT, rows=rows, losses=losses)
    gains = gains_of_next_run(found, np.isin(np.arange(12), rows))
    rng = np.random.default_rng(0)
    for subset in (3, 7, 0, 11):
        scale = np.sqrt(found.factor * (found.covariance[subset, subset] + found.noise**2))
        fallen = []
        for surprise in rng.standard_t(found.freedom, 4000):
            loss = found.mean[subset] + scale * surprise
            after = joint_posterior(
                masks, changes, known=1.0, unit=UNIT, rows=[*rows, subset], losses=[*losses, loss]
            )  # fmt: skip
            fallen.append(min(found.mean[3], found.mean[7]) - after.mean[sorted({3, 7, subset})].min())
        assert gains[subset] == pytest.approx(np.mean(fallen), abs=4 * np.std(fallen) / 4000**0.5 + 1e-6)


def test_gains_of_next_run_are_never_negative_and_fall_with_each_run_on_a_subset() -> None:
    masks, changes = _world(6)
    measured = np.arange(12) == 4
    before = np.inf
    for runs in (1, 2, 4, 8, 16):
        found = joint_posterior(masks, changes, known=1.0, unit=UNIT, rows=[4] * runs, losses=[1.1] * runs)
        gains = gains_of_next_run(found, measured)
        assert gains.min() >= -1e-12
        assert gains[4] < before or gains[4] < 1e-9
        before = gains[4]
    # Runs on one subset teach less and less about it, and never all about the others.
    assert gains[4] < 0.02 * gains.max()


def test_spread_of_equal_changes_is_above_zero() -> None:
    assert spread_of(np.array([0.1, 0.3]), 1.0) == pytest.approx(0.1)
    assert spread_of(np.zeros(5), 2.0) == pytest.approx(0.002)
    assert spread_of(np.zeros(0), 0.0) > 0


# -- the interval of a selected subset ------------------------------------------------------------------------------


def _planted(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Evidence]:
    """Return subsets, estimated changes, measured losses and evidence. Each estimate has an error of its own."""
    rng = np.random.default_rng(seed)
    pool, runs, tasks = 120, 14, 12
    masks = rng.random((pool + runs, tasks)) < rng.random((pool + runs, 1))
    gaps = masks @ rng.normal(0, 0.1 / np.sqrt(tasks / 4), tasks)
    gaps -= gaps.mean()
    changes = gaps + rng.normal(0, 0.1, len(masks))
    losses = 1.0 + gaps + rng.normal(0, 0.06, len(masks))
    evidence = Evidence(
        masks=masks[pool:], losses=losses[pool:], known=1.0, changes=changes[None, pool:, None], scales=(1.0,),
        priors=TRAJECTORY_PRIORS,
    )  # fmt: skip
    return masks[:pool], changes[:pool, None], losses[:pool], evidence


def test_selected_interval_covers_nine_in_ten_selected_subsets_and_plain_one_fewer() -> None:
    plain, aware = [], []
    for seed in range(80):
        masks, changes, losses, evidence = _planted(seed)
        found = calibrate(evidence)
        estimates = found.losses(1.0, changes, masks)
        best = int(estimates.argmin())
        interval = selected_interval(
            float(estimates[best]),
            Considered(masks=masks, changes=changes, unit=spread_of(changes[:, 0], 1.0)),
            known=1.0,
            evidence=evidence,
            runs=np.ones(len(evidence)),
            calibration=found,
            seed=0,
        )
        assert found.half_width is not None
        assert interval.low <= interval.value <= interval.high
        plain.append(abs(losses[best] - estimates[best]) <= found.half_width)
        aware.append(interval.low <= losses[best] <= interval.high)
    assert 0.85 <= np.mean(aware) <= 0.95
    assert np.mean(plain) < 0.85
    assert np.mean(plain) <= np.mean(aware) - 0.03


def test_simulated_errors_without_calibration_are_prior_errors() -> None:
    masks, changes = _world(4, subsets=8)
    considered = Considered(masks=masks, changes=changes[:, None], unit=UNIT)
    errors, every = simulated_errors(considered, known=1.0, evidence=None, runs=np.zeros(0), seed=1, draws=20_000)
    best = int(changes.argmin())
    prior = joint_posterior(masks, changes, known=1.0, unit=UNIT, rows=[], losses=[])
    variance = (prior.covariance[best, best] + prior.noise**2) * prior.freedom / (prior.freedom - 2)
    assert np.mean(errors) == pytest.approx(0.0, abs=0.02)
    assert np.var(errors) == pytest.approx(variance, rel=0.1)
    assert every.shape == (20_000, 8)


def test_simulated_errors_of_all_subsets_have_the_noise_of_the_measured_means() -> None:
    masks, changes, _, evidence = _planted(5)
    considered = Considered(masks=masks[:1], changes=changes[:1], unit=0.1)
    runs = np.full(len(evidence), 4.0)
    chosen, every = simulated_errors(considered, known=1.0, evidence=evidence, runs=runs, seed=0, draws=4000)
    every_mask = np.concatenate([masks[:1], evidence.masks])
    every_change = np.concatenate([changes[:1, 0], evidence.changes[0, :, 0]])
    found = joint_posterior(
        every_mask, every_change, known=1.0, unit=0.1,
        rows=np.repeat(np.arange(1, 15), 4).tolist(), losses=np.repeat(evidence.losses, 4).tolist(),
    )  # fmt: skip
    noise = found.noise**2 * found.factor * found.freedom / (found.freedom - 2)
    # One run has four times the variance of a mean of four runs.
    assert np.mean(chosen**2) - np.mean(every**2) == pytest.approx(0.75 * noise, rel=0.15)


def test_selected_interval_is_the_same_in_each_call_and_not_below_zero() -> None:
    masks, changes, _, evidence = _planted(3)
    found = calibrate(evidence)
    considered = Considered(masks=masks, changes=changes, unit=0.1)
    first, again = (
        selected_interval(
            0.05, considered, known=1.0, evidence=evidence, runs=np.ones(len(evidence)), calibration=found, seed=0
        )
        for _ in range(2)
    )
    assert first == again
    assert first.low == 0.0
    assert isinstance(first, Interval)


def test_uncalibrated_interval_of_selected_subset_is_wider_and_not_below_zero() -> None:
    assert uncalibrated(Interval(0.5, 0.3, 0.9)) == Interval(0.5, pytest.approx(0.2), pytest.approx(1.1))  # type: ignore[arg-type]
    assert uncalibrated(Interval(0.1, 0.0, 0.2)).low == 0


def test_shift_of_equals_penalised_regression() -> None:
    rng = np.random.default_rng(0)
    estimates = rng.normal(1.0, 0.1, 15)
    residuals = 0.02 - 0.5 * (estimates - 1.0) + rng.normal(0, 0.01, 15)
    shift, doubt = shift_of(0.8, estimates + residuals, residuals, noise=0.05)
    away = estimates - estimates.mean()
    # The slope of least squares with one more row, which is the prior.
    rows, wanted = np.append(away / 0.05, 1 / 0.2), np.append((residuals - residuals.mean()) / 0.05, 0.0)
    (slope,) = np.linalg.lstsq(rows[:, None], wanted, rcond=None)[0]
    assert shift == pytest.approx(slope * (0.8 - estimates.mean()))
    assert doubt == pytest.approx(abs(0.8 - estimates.mean()) / np.sqrt(rows @ rows))
    assert shift > 0
