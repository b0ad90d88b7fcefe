"""Report a metric over the measured subsets, next to their losses."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from curator import results
from curator.core.figures import fixed
from curator.core.metric_name import LOSS
from curator.core.text import clean
from curator.estimate.target import TargetEstimates
from curator.metrics.measuring import Measurer
from curator.metrics.readings import reading, subset_reading
from curator.metrics.stored import RunValues
from curator.results.base import rounded, rounded_if_known
from curator.training.fine_tune import MeasuredSubset
from curator.verify.metric_statistics import (
    MetricCalibration,
    SubsetMetrics,
    agreement,
    calibrate_metric,
    correlation_interval,
    spread_between,
)
from curator.workspace.store.metric_values import StoredMetric

# A lower rank correlation of loss and metric is a reason to warn.
_LEAST_CORRELATION = 0.5


def with_metric(
    report: results.VerifyReport, estimates: TargetEstimates, measurer: Measurer, before: Sequence[StoredMetric]
) -> results.VerifyReport:
    """Return a report of runs with the metric of each run and of all subsets.

    Args:
        report: Report on the losses.
        estimates: Estimates for the target, made after the runs.
        measurer: The metric.
        before: Values of the model before training.
    """
    values = RunValues(estimates.workspace, estimates.corpus, measurer)
    found = subset_metrics(estimates.measured, values, measurer)
    name, own = measurer.name, _calibration(estimates, found, measurer.name)
    estimated = {} if own is None else dict(zip(found.subsets, own.estimates, strict=True))
    runs = []
    for run in report.runs:
        value = values.value(run.subset, run.seed, name, "validation")
        test = values.value(run.subset, run.seed, name, "test")
        test_loss = values.value(run.subset, run.seed, LOSS, "test")
        fallback = run.measured_loss if name == LOSS else None
        runs.append(
            replace(
                run,
                metric=fallback if value is None else rounded(value.value),
                metric_error=None if value is None else rounded_if_known(value.standard_error),
                metric_estimate=rounded_if_known(estimated.get(frozenset(run.subset))),
                test_loss=None if test_loss is None else rounded(test_loss.value),
                test_metric=None if test is None else rounded(test.value),
            )
        )
    metric = replace(
        _report(name, found, own),
        before=reading(before, name, runs=0),
        all_tasks=subset_reading({task.name for task in estimates.tasks}, estimates.measured, values, name),
        target_only=subset_reading((), estimates.measured, values, name),
        test=_test_part(estimates.measured, values),
    )
    for words in metric.warnings:
        estimates.workspace.reporter.warn(words)
    return replace(report, runs=tuple(runs), metric=metric)


def subset_metrics(measured: Sequence[MeasuredSubset], values: RunValues, measurer: Measurer) -> SubsetMetrics:
    """Return the metric of the measured subsets that have a value.

    Args:
        measured: Measured subsets.
        values: Values of their runs.
        measurer: The metric.
    """
    subsets, runs, losses, errors = [], [], [], []
    for m in measured:
        if measurer.name == LOSS:
            own = [(run.loss, run.loss, math.nan) for run in m.runs]
        else:
            found = [(run, values.value(m.subset, run.seed, measurer.name, "validation")) for run in m.runs]
            own = [
                (run.loss, v.value, math.nan if v.standard_error is None else v.standard_error)
                for run, v in found
                if v is not None
            ]
        if own:
            subsets.append(m.subset)
            runs.append([value for _, value, _ in own])
            losses.append(float(np.mean([loss for loss, _, _ in own])))
            errors.append(float(np.mean([error for _, _, error in own])))
    return SubsetMetrics(
        subsets=subsets,
        runs=runs,
        losses=np.array(losses),
        errors=np.array(errors),
        higher_is_better=measurer.metric.higher_is_better,
        bounds=measurer.metric.bounds,
    )


def _report(name: str, found: SubsetMetrics, own: MetricCalibration | None) -> results.MetricReport:
    correlation = (
        None if name == LOSS else agreement(found.losses, found.means, higher_is_better=found.higher_is_better)
    )
    interval = None if correlation is None else correlation_interval(correlation, len(found.subsets))
    spread, can_rank = spread_between(found)
    noise = found.seed_noise()
    shown, warnings = clean(name, limit=80), []
    if can_rank is False:
        warnings.append(f"{shown} cannot rank these subsets at this number of runs: {_why(spread, noise)}")
    if correlation is not None and correlation < _LEAST_CORRELATION:
        warnings.append(
            f"choosing by loss may choose against {shown}: their rank correlation is {correlation:.2f}"
            f" over {len(found.subsets)} subsets"
        )
    return results.MetricReport(
        name=name,
        higher_is_better=found.higher_is_better,
        rank_correlation_with_loss=rounded_if_known(correlation),
        low=None if interval is None else rounded(interval[0]),
        high=None if interval is None else rounded(interval[1]),
        subsets=len(found.subsets),
        seed_noise=None if noise is None else rounded(noise[0]),
        spread=rounded_if_known(spread),
        can_rank=can_rank,
        slope=None if own is None else rounded(own.slope),
        estimates_spearman=None if own is None else rounded_if_known(own.spearman),
        error=None if own is None else rounded(own.error),
        constant_error=None if own is None else rounded(own.constant_error),
        warnings=tuple(warnings),
    )


def _why(spread: float | None, noise: tuple[float, int] | None) -> str:
    if not noise:
        return "all subsets have the same value"
    return (
        f"the noise between seeds ({fixed(noise[0])}) is at least as large as the spread between subsets"
        f" ({fixed(spread or 0.0)})"
    )


def _calibration(estimates: TargetEstimates, found: SubsetMetrics, name: str) -> MetricCalibration | None:
    evidence = estimates.evidence
    if name == LOSS or evidence is None:
        return None
    rows = {m.subset: row for row, m in enumerate(estimates.measured)}
    return calibrate_metric(evidence, [rows[subset] for subset in found.subsets], found)


def _test_part(measured: Sequence[MeasuredSubset], values: RunValues) -> results.TestPart | None:
    """Compare the losses of both parts over all subsets with a test loss. None without one."""
    pairs = []
    for m in measured:
        found = [(run.loss, values.value(m.subset, run.seed, LOSS, "test")) for run in m.runs]
        own = [(loss, test.value) for loss, test in found if test is not None]
        if own:
            pairs.append((m.subset, *np.mean(own, axis=0).tolist()))
    if not pairs:
        return None
    subset, validation, test = min(pairs, key=lambda pair: pair[1])
    gaps = np.array([t - v for _, v, t in pairs])
    others = np.array([t - v for name, v, t in pairs if name != subset])
    # The difference of one gap and the mean of n others, times (n − 1) / n: the mean includes the chosen one.
    error = float(others.std(ddof=1) * np.sqrt(1 - 1 / len(gaps))) if len(others) > 1 else None
    return results.TestPart(
        chosen=tuple(sorted(subset)),
        validation_loss=rounded(validation),
        test_loss=rounded(test),
        flattery=rounded(test - validation - float(gaps.mean())),
        standard_error=None if error is None else rounded(error),
        subsets=len(pairs),
    )
