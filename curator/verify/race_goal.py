"""What a race minimises: the loss, or a metric by its own calibration.

The calibration of the metric (metric_statistics.py) gives its slope b by the estimated change of the loss:

    metric = a + b · estimated change of the loss + Σ effects of the tasks + misfit + noise

The joint posterior (posterior.py) has the same terms. So it takes b · change as the estimated change of the metric.
If a higher metric is better, the race minimises its negative. Until enough subsets have a value, the loss decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curator.core.arrays import Floats
from curator.core.metric_name import LOSS
from curator.estimate.target import TargetEstimates
from curator.metrics.measuring import Measurer
from curator.metrics.stored import RunValues
from curator.training.fine_tune import MeasuredSubset
from curator.verify.metric_report import subset_metrics
from curator.verify.metric_statistics import calibrate_metric

_LEAST_UNIT = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetricGoal:
    """A metric as the values that a race minimises.

    Attributes:
        name: Name of the metric.
        sign: −1 if a higher metric is better, else 1. The race minimises sign · metric.
        slope: Change of the minimised value for a change of the estimated loss by one nat.
        known: Minimised value of all tasks by the calibration, without effects of tasks.
        spread: Standard deviation of the minimised value between the measured subsets.
        measured: Measured subsets that have a value.
        values: Metric of each of their runs (n lists).
    """

    name: str
    sign: float
    slope: float
    known: float
    spread: float
    measured: Sequence[MeasuredSubset]
    values: Sequence[Sequence[float]]

    def unit(self, of_loss: float) -> float:
        """Return the unit of the joint priors.

        Args:
            of_loss: Unit of the loss, from `spread_of`, nats.
        """
        return max(abs(self.slope) * of_loss, self.spread, _LEAST_UNIT)

    def means(self) -> dict[frozenset[str], float]:
        """Return the mean metric of each measured subset."""
        return {m.subset: float(np.mean(own)) for m, own in zip(self.measured, self.values, strict=True)}


def metric_goal(estimates: TargetEstimates, measurer: Measurer | None) -> MetricGoal | None:
    """Return the metric as the goal of a race. None if the loss decides: by configuration, or with too few values.

    Args:
        estimates: Estimates for the target, that all stored runs calibrate.
        measurer: The metric of the runs. None measures the loss only.
    """
    evidence = estimates.evidence
    if measurer is None or measurer.name == LOSS or evidence is None:
        return None
    found = subset_metrics(estimates.measured, RunValues(estimates.workspace, estimates.corpus, measurer), measurer)
    places = {m.subset: row for row, m in enumerate(estimates.measured)}
    rows = [places[subset] for subset in found.subsets]
    own = calibrate_metric(evidence, rows, found)
    if own is None:
        return None
    sign = -1.0 if found.higher_is_better else 1.0
    changes: Floats = estimates.estimator.changes(evidence.masks[rows]).mean(axis=1)
    means = sign * found.means
    return MetricGoal(
        name=measurer.name,
        sign=sign,
        slope=sign * own.slope,
        known=float(means.mean() - sign * own.slope * changes.mean()),
        spread=float(means.std(ddof=1)),
        measured=[estimates.measured[row] for row in rows],
        values=found.runs,
    )
