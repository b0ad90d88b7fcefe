"""Compare measured with estimated losses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from curator import results
from curator.core.arrays import Floats
from curator.core.errors import NumericalError
from curator.core.interval import Interval
from curator.estimate.calibration import cross_validated
from curator.estimate.target import TargetEstimates
from curator.results.base import rounded, rounded_if_known, rounded_interval
from curator.training.fine_tune import MeasuredSubset
from curator.workspace.store.measured import Measurement

# Lower bound of a loss in a ratio, nats.
_LEAST_LOSS = 1e-6


def report(estimates: TargetEstimates, *, empty: bool = False) -> results.VerifyReport:
    """Compare measured losses with the estimates of calibrations that exclude the measured subset.

    Args:
        estimates: Estimates for the target.
        empty: Whether a report without runs is wanted: the call measured selections that drop examples only.

    Raises:
        NumericalError: No subset is measured, because every run diverged.
    """
    measured = estimates.measured
    if not measured and empty:
        return _empty(estimates)
    if not measured:
        raise NumericalError("every fine-tuning run diverged", hint="Lower train.learning_rate.")
    seconds_estimating, subsets_estimated = estimates.seconds()
    masks = np.stack([estimates.mask(m.subset) for m in measured])
    truth = np.array([m.mean for m in measured])
    evidence = estimates.evidence
    if evidence is None or len(measured) < 2:
        each = estimates.estimator.estimate(masks)
        estimated = np.array([e.value for e in each])
        widths = np.array([e.high - e.value for e in each])
    else:
        estimated, widths = cross_validated(evidence)
        # The calibrated estimator knows the error of every subset, so its interval would contain each of them.
        spread = np.array([plain.high - plain.value for plain in estimates.uncalibrated.estimate(masks)])
        widths = np.where(np.isnan(widths), spread, widths)
    inside = np.abs(truth - estimated) <= widths
    seconds = [run.seconds for m in measured for run in m.runs]
    typical = float(np.mean([np.mean([run.seconds for run in m.runs]) for m in measured]))
    ratio = None if not seconds_estimating else typical / seconds_estimating
    return results.VerifyReport(
        target=estimates.targets,
        calibrated=evidence is not None,
        runs=tuple(
            results.VerifiedRun(
                subset=tuple(sorted(m.subset)),
                seed=run.seed,
                estimate=rounded_interval(Interval.around(float(loss), float(width))),
                measured_loss=rounded(run.loss),
                **_details(run),
            )
            for m, loss, width in zip(measured, estimated, widths, strict=True)
            for run in m.runs
        ),
        subsets=len(measured),
        relative_error=_relative(estimated, truth),
        constant_relative_error=_relative(np.full_like(truth, truth.mean()), truth),
        seed_noise=None if (noise := seed_noise(measured)) is None else noise[0],
        spearman=rank_correlation(estimated, truth),
        interval_coverage=float(inside.mean()),
        seconds_estimating=seconds_estimating,
        seconds_fine_tuning=float(np.sum(seconds)),
        subsets_estimated=subsets_estimated,
        speedup=None if ratio is None else ratio * subsets_estimated,
        speedup_100=None if ratio is None else ratio * 100,
        predictions=_predictions([run for m in measured for run in m.runs]),
        forgetting=_forgetting(measured),
    )


def _empty(estimates: TargetEstimates) -> results.VerifyReport:
    return results.VerifyReport(
        target=estimates.targets,
        calibrated=False,
        runs=(),
        subsets=0,
        relative_error=None,
        constant_relative_error=None,
        seed_noise=None,
        spearman=None,
        interval_coverage=None,
        seconds_estimating=None,
        seconds_fine_tuning=0.0,
        subsets_estimated=0,
        speedup=None,
        speedup_100=None,
    )


def _details(run: Measurement) -> dict[str, Any]:
    """Return the fields of a run's report that come from its details."""
    found, before = run.details, run.details.estimated_before
    return {
        "estimated_before": None if before is None else rounded(before.value),
        "estimated_before_low": None if before is None else rounded(before.low),
        "estimated_before_high": None if before is None else rounded(before.high),
        "calibrated_on_before": found.calibrated_on,
        "loss_quarter": rounded_if_known(found.loss_quarter),
        "loss_half": rounded_if_known(found.loss_half),
        "tokens": found.tokens,
        "seconds": run.seconds,
        "peak_bytes": found.peak_bytes,
        "machine": found.machine,
    }


def _predictions(runs: Sequence[Measurement]) -> results.Predictions | None:
    """Compare the estimates from before the runs with the measured losses."""
    known = [(before, run.loss) for run in runs if (before := run.details.estimated_before) is not None]
    if not known:
        return None
    estimated, truth = np.array([before.value for before, _ in known]), np.array([loss for _, loss in known])
    return results.Predictions(
        runs=len(known),
        relative_error=_relative(estimated, truth),
        spearman=rank_correlation(estimated, truth),
        interval_coverage=float(np.mean([before.low <= loss <= before.high for before, loss in known])),
    )


def _forgetting(measured: Sequence[MeasuredSubset]) -> tuple[results.ForgottenTask, ...] | None:
    found = tuple(
        results.ForgottenTask(
            subset=tuple(sorted(m.subset)),
            seed=run.seed,
            task=name,
            before=rounded(loss.before),
            after=rounded(loss.after),
            trained=loss.trained,
            held_out=loss.held_out,
        )
        for m in measured
        for run in m.runs
        for name, loss in sorted(run.details.task_losses.items())
    )
    return found or None


def rank_correlation(first: Floats, second: Floats) -> float | None:
    """Return Spearman's rank correlation. None if one input is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def _relative(estimated: Floats, truth: Floats) -> float:
    return float((np.abs(estimated - truth) / np.maximum(truth, _LEAST_LOSS)).mean())


def seed_noise(measured: Sequence[MeasuredSubset]) -> tuple[float, int] | None:
    """Return the standard deviation between seeds of a subset, relative to the loss, pooled over all subsets.

    Returns:
        The standard deviation and its degrees of freedom. None with one seed each.
    """
    several = [np.array(m.losses) / max(m.mean, _LEAST_LOSS) for m in measured if len(m.losses) > 1]
    if not several:
        return None
    freedom = sum(len(losses) - 1 for losses in several)
    return float(np.sqrt(sum(((losses - losses.mean()) ** 2).sum() for losses in several) / freedom)), freedom
