"""Measure the selection in hand with and without the examples that it drops."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curator import results
from curator.core import distributed
from curator.core.metric_name import LOSS
from curator.data.corpus import Corpus
from curator.data.dropped import Dropped, without
from curator.estimate.reduced import ReducedEstimates
from curator.estimate.target import TargetEstimates
from curator.estimate.whatif import difference, estimate_selection
from curator.metrics.measuring import Measurer
from curator.metrics.stored import RunValues
from curator.results.base import rounded, rounded_interval
from curator.select.selections import Selections
from curator.training.fine_tune import MeasuredSubset, measured_subsets, recipe_key
from curator.verify.comparison import COMPARED_SEEDS, noise_of_difference
from curator.verify.measure import Run, measure, run_seeds
from curator.verify.report import seed_noise
from curator.workers.pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropping:
    """A selection that drops examples, and the runs that measure it.

    Attributes:
        subset: The selected tasks.
        dropped: The dropped examples of these tasks.
        whole: Subset and seed of each missing run with all examples.
        reduced: Subset and seed of each missing run without the dropped examples.
    """

    subset: frozenset[str]
    dropped: Dropped
    whole: tuple[Run, ...]
    reduced: tuple[Run, ...]


def plan_dropping(selections: Selections, *, seeds: int | None, planned: Sequence[Run]) -> Dropping | None:
    """Plan the runs on the last selection, with and without the examples that it drops.

    Args:
        selections: Selections for the target.
        seeds: Fine-tuning runs of each kind. None means `verify.seeds`, and at least `COMPARED_SEEDS`.
        planned: Runs with all examples that are planned anyway.

    Returns:
        The plan, equal in every process. None if the last selection drops no example of its tasks.
    """
    found = None
    if distributed.is_main() and (dropped := selections.last_dropped()):
        subset = frozenset(selections.last_names_or_select())
        dropped = Dropped.of(pair for pair in dropped.named if pair[0] in subset)
        if dropped:
            estimates = selections.estimates
            reduced = ReducedEstimates(estimates, dropped)
            count = seeds or max(estimates.workspace.config.verify.seeds, COMPARED_SEEDS)
            wanted = [(subset, seed) for seed in run_seeds(estimates.workspace.config, count)]
            done = [{(m.subset, r.seed) for m in e.measured for r in m.runs} | e.diverged for e in (estimates, reduced)]
            found = Dropping(
                subset=subset,
                dropped=dropped,
                whole=tuple(run for run in wanted if run not in done[0] and run not in planned),
                reduced=tuple(run for run in wanted if run not in done[1]),
            )
    return distributed.from_main(found)


def measure_dropping(
    estimates: TargetEstimates,
    dropping: Dropping,
    *,
    pool: Pool,
    folder: Path,
    measurer: Measurer | None = None,
) -> None:
    """Fine-tune without the dropped examples, and store the results. Arguments and errors are those of `measure`."""
    corpus = without(estimates.corpus, dropping.dropped)
    measure(estimates.workspace, corpus, dropping.reduced, pool=pool, folder=folder, measurer=measurer)


def report_dropping(
    estimates: TargetEstimates, dropping: Dropping, measurer: Measurer | None = None
) -> results.DroppingReport | None:
    """Compare the losses with and without the dropped examples. None if every run of one kind diverged.

    Args:
        estimates: Estimates for the target, made after the runs.
        dropping: The plan from `plan_dropping`.
        measurer: Metric of the runs. None reports the loss only.
    """
    reduced = ReducedEstimates(estimates, dropping.dropped)
    mask = estimates.mask(dropping.subset)
    after, before = estimate_selection(reduced.estimator, mask), estimate_selection(estimates.estimator, mask)
    share = reduced.share_dropped(dropping.subset)
    estimated = difference(estimates.estimator, after, before, dropped=share)
    measurements = estimates.workspace.store.measurements(recipe_key(estimates.workspace.config, estimates.corpus))
    kinds = [measured_subsets(corpus, measurements) for corpus in (reduced.corpus, estimates.corpus)]
    runs = [next((m for m in kind if m.subset == dropping.subset), None) for kind in kinds]
    less, more = runs
    if less is None or more is None:
        return None
    noise = _noise(estimates, less, more)
    return results.DroppingReport(
        subset=tuple(sorted(dropping.subset)),
        dropped_examples=sum(len(positions) for positions in reduced.positions.values()),
        estimate=rounded_interval(after.estimate),
        estimated_difference=rounded(estimated.value),
        estimated_noise=rounded(estimated.noise),
        measured_losses=tuple(map(rounded, less.losses)),
        measured_losses_with_dropped=tuple(map(rounded, more.losses)),
        measured_difference=rounded(less.mean - more.mean),
        measured_noise=None if noise is None else rounded(noise),
        metric=_metric(estimates, reduced.corpus, less, measurer),
        metric_with_dropped=_metric(estimates, estimates.corpus, more, measurer),
    )


def _metric(
    estimates: TargetEstimates, corpus: Corpus, measured: MeasuredSubset, measurer: Measurer | None
) -> float | None:
    """Return the mean metric of the runs on a subset. None if the metric is the loss, or no run measured it."""
    if measurer is None or measurer.name == LOSS:
        return None
    stored = RunValues(estimates.workspace, corpus, measurer)
    found = [stored.value(measured.subset, run.seed, measurer.name, "validation") for run in measured.runs]
    known = [value.value for value in found if value is not None]
    return rounded(float(np.mean(known))) if known else None


def _noise(estimates: TargetEstimates, first: MeasuredSubset, second: MeasuredSubset) -> float | None:
    found = seed_noise([*estimates.measured, first])
    return None if found is None or not np.isfinite(found[0]) else noise_of_difference(first, second, *found)
