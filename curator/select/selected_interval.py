"""Interval of a subset that was selected because of its estimate.

The subset of least estimate is also chosen for its error. An interval that suits a random subset may then miss.
Here a simulation chooses as the user does. It draws true losses from the joint posterior (posterior.py) and new runs on
the measured subsets. It fits the calibration to these runs, and takes the subset of least estimate.
The errors of the subsets that it takes give the shape of the interval.

The conformal width (calibration.py) gives the scale: the errors of all simulated estimates are stretched to that width.
So the interval is right on average if the posterior is too wide or too narrow.

The leave-one-out errors give the place. Where low estimates are too low on average, their regression on the estimates
has a slope. The interval moves by that line at the selected estimate, with the uncertainty of the slope.
docs/decisions/ has the coverage of these steps.
"""

from dataclasses import dataclass, replace

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.core.interval import NORMAL_90, Interval
from curator.estimate.calibration import COVERAGE, Calibration, Evidence, fit
from curator.select.posterior import joint_posterior

# Number of simulated choices. The ends are the 5 % quantiles.
_DRAWS = 400
# Prior standard deviation of the slope of the errors by the estimates, in nats per nat.
_SLOPE = 0.2
# Limits of the stretch to the conformal width, which comes from few runs.
_LEAST_STRETCH, _MOST_STRETCH = 0.5, 2.0
# Without a calibration, the interval of a random subset is stretched by this factor. On four settings and ten
# projections, the intervals of the least estimates then contain 18 of 20 runs. Without the factor they contain 14.
_UNCALIBRATED = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Considered:
    """Subsets that a selection considered, with their estimates.

    Attributes:
        masks: Subsets (s, t).
        changes: Estimated change from each reading (s, p), uncalibrated, nats.
        unit: Spread of the estimated changes, from `posterior.spread_of`.
    """

    masks: Mask
    changes: Floats
    unit: float


def selected_interval(
    estimate: float,
    considered: Considered,
    *,
    known: float,
    evidence: Evidence | None,
    runs: Floats,
    calibration: Calibration | None,
    seed: int,
) -> Interval:
    """Return the 90 % interval of the measured loss of the considered subset with the least estimate.

    Args:
        estimate: Its estimate, nats.
        considered: The subsets that compete.
        known: Loss of all tasks together, nats.
        evidence: Measured subsets, with the changes of one scale. None without a calibration.
        runs: Number of runs of each measured subset (n,).
        calibration: Calibration that was fitted to the evidence. None without a calibration.
        seed: Seed of the simulation.
    """
    errors, every = simulated_errors(considered, known=known, evidence=evidence, runs=runs, seed=seed)
    half_width = None if calibration is None else calibration.half_width
    if evidence is not None and calibration is not None and half_width is not None:
        typical = float(np.quantile(every, COVERAGE))
        stretch = float(np.clip(half_width / typical, _LEAST_STRETCH, _MOST_STRETCH)) if typical > 0 else 1.0
        shift, doubt = shift_of(estimate, evidence.losses, calibration.residuals, noise=half_width / NORMAL_90)
        errors = errors * stretch + shift + doubt * np.random.default_rng(seed).standard_normal(len(errors))
    low, high = np.quantile(errors, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    # The interval holds the estimate, and a loss is not negative.
    low, high = estimate + min(low, 0.0), estimate + max(high, 0.0)
    return Interval(estimate, float(max(low, min(estimate, 0.0))), float(high))


def uncalibrated(plain: Interval) -> Interval:
    """Return the interval of a subset that was selected by estimates without a calibration.

    Args:
        plain: Interval that suits a random subset.
    """
    low = plain.value - _UNCALIBRATED * (plain.value - plain.low)
    high = plain.value + _UNCALIBRATED * (plain.high - plain.value)
    return Interval(plain.value, max(low, 0.0), high)


def shift_of(estimate: float, losses: Floats, residuals: Floats, *, noise: float) -> tuple[float, float]:
    """Return the expected error of an estimate from the errors of other estimates, and its standard error, nats.

    The errors are regressed on the estimates, with a normal prior of mean 0 on the slope.

    Args:
        estimate: The estimate, nats.
        losses: Measured losses (n,), nats.
        residuals: Measured losses minus leave-one-out estimates (n,), nats.
        noise: Standard deviation of the errors, nats.
    """
    estimates = losses - residuals
    away = estimates - estimates.mean()
    information = float(away @ away) + (noise / _SLOPE) ** 2
    if information == 0:
        return 0.0, 0.0
    distance = estimate - float(estimates.mean())
    slope = float(away @ (residuals - residuals.mean())) / information
    return slope * distance, noise * abs(distance) / float(np.sqrt(information))


def simulated_errors(
    considered: Considered, *, known: float, evidence: Evidence | None, runs: Floats, seed: int, draws: int = _DRAWS
) -> tuple[Floats, Floats]:
    """Simulate choices, and return the errors of the chosen and of all subsets.

    Args:
        considered: The subsets that compete.
        known: Loss of all tasks together, nats.
        evidence: Measured subsets. None without a calibration.
        runs: Number of runs of each measured subset (n,).
        seed: Seed of the simulation.
        draws: Number of simulated choices.

    Returns:
        Loss of one run of the chosen subset minus its estimate (draws,), nats, and absolute errors of all (draws, s),
        for means over as many runs as the measured subsets have.
    """
    rng = np.random.default_rng(seed)
    count = len(considered.masks)
    masks, changes = considered.masks, considered.changes
    measured = 0 if evidence is None else len(evidence)
    if evidence is not None:
        masks, changes = np.concatenate([masks, evidence.masks]), np.concatenate([changes, evidence.changes[0]])
    mean_change = changes.mean(axis=1)
    # The mean over several runs of a subset is one run with less noise. It counts as so many runs.
    rows = np.repeat(np.arange(count, count + measured), runs.astype(np.intp)) if measured else np.zeros(0, np.intp)
    losses = np.repeat(evidence.losses, runs.astype(np.intp)) if evidence is not None else np.zeros(0)
    found = joint_posterior(
        masks, mean_change, known=known, unit=considered.unit, rows=rows.tolist(), losses=losses.tolist()
    )
    truths, noises = found.draw(rng, draws)
    # The conformal width comes from means over runs, so its counterpart has their noise. The interval is for one run.
    share = float(np.sqrt((1 / runs).mean())) if measured else 1.0
    chosen, every = np.zeros(draws), np.zeros((draws, count))
    for number in range(draws):
        if evidence is None:
            estimates = known + considered.changes.mean(axis=1)
        else:
            shaken = rng.standard_normal(measured) * noises[number] / np.sqrt(runs)
            again = replace(evidence, losses=truths[number, count:] + shaken)
            estimates = fit(again)[1].losses(known, considered.changes, considered.masks)
        errors, noise = truths[number, :count] - estimates, rng.standard_normal(count) * noises[number]
        best = int(estimates.argmin())
        chosen[number] = errors[best] + noise[best]
        every[number] = np.abs(errors + share * noise)
    return chosen, every
