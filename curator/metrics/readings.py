"""Show the stored values of a model, or of a measured subset, as a report needs them."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from curator import results
from curator.core.metric_name import LOSS
from curator.metrics.measuring import PARTS
from curator.metrics.stored import RunValues
from curator.results.base import rounded, rounded_if_known
from curator.training.fine_tune import MeasuredSubset
from curator.workspace.store.metric_values import StoredMetric


def reading(values: Sequence[StoredMetric], name: str, *, runs: int) -> results.MetricReading | None:
    """Return the values of one model as a report shows them. None without values.

    Args:
        values: Values of the model.
        name: Name of the metric.
        runs: Number of fine-tuning runs behind the values. 0 for the model before training.
    """
    if not values:
        return None
    by = {(v.metric, v.part): v for v in values}
    own, test = by.get((name, "validation")), by.get((name, "test"))
    loss, test_loss = by.get((LOSS, "validation")), by.get((LOSS, "test"))
    return results.MetricReading(
        loss=None if loss is None else rounded(loss.value),
        value=None if own is None else rounded(own.value),
        standard_error=None if own is None else rounded_if_known(own.standard_error),
        examples=0 if own is None else own.examples,
        runs=runs,
        test_loss=None if test_loss is None else rounded(test_loss.value),
        test_value=None if test is None else rounded(test.value),
        test_standard_error=None if test is None else rounded_if_known(test.standard_error),
    )


def subset_reading(
    subset: Collection[str], measured: Sequence[MeasuredSubset], values: RunValues, name: str
) -> results.MetricReading | None:
    """Return the values of a measured subset: means over its runs. None if the subset is not measured.

    The standard error is the mean of those of the runs, because all runs measure the same rows.

    Args:
        subset: Names of the auxiliary tasks.
        measured: Measured subsets.
        values: Values of their runs.
        name: Name of the metric.
    """
    found = next((m for m in measured if m.subset == frozenset(subset)), None)
    if found is None:
        return None
    means, runs = [], len(found.runs)
    for metric in dict.fromkeys((LOSS, name)):
        for part in PARTS:
            own = [values.value(found.subset, run.seed, metric, part) for run in found.runs]
            known = [value for value in own if value is not None]
            if known:
                means.append(_mean(known))
                if (metric, part) == (name, "validation"):
                    runs = len(known)
    shown = reading(means, name, runs=runs)
    # Runs of an earlier version of curator kept the loss alone.
    loss = rounded(found.mean)
    if shown is None:
        shown = results.MetricReading(loss=loss, value=None, standard_error=None, examples=0, runs=runs)
    return replace(shown, loss=loss, value=loss if name == LOSS else shown.value)


def _mean(values: Sequence[StoredMetric]) -> StoredMetric:
    errors = [value.standard_error for value in values if value.standard_error is not None]
    error = float(np.mean(errors)) if len(errors) == len(values) else None
    return replace(values[0], value=float(np.mean([value.value for value in values])), standard_error=error)
