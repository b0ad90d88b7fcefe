"""Plan the fine-tuning runs of one call of `verify`, and report on them."""

from collections.abc import Sequence
from dataclasses import replace

from curator import results
from curator.core import distributed
from curator.core.errors import ConfigError
from curator.core.text import clean
from curator.estimate.target import TargetEstimates
from curator.metrics.measuring import Measurer
from curator.metrics.stored import RunValues
from curator.select.selections import Selections
from curator.verify.comparison import Choice, compare_methods, plan_comparison, runs_to_compare
from curator.verify.measure import DEFAULT_SEEDS, Run, mark_reported, runs_to_make
from curator.verify.metric_report import with_metric
from curator.verify.report import report
from curator.workspace.store.metric_values import StoredMetric


def plan_runs(
    selections: Selections,
    *,
    runs: int | None,
    seeds: int | None,
    compare: bool,
    fresh: bool,
    measurer: Measurer | None = None,
) -> tuple[list[Run], list[Choice]]:
    """Plan the fine-tuning runs of a call.

    Args:
        selections: Selections for the target.
        runs: Number of subsets to add. None adds some if none are measured.
        seeds: Fine-tuning runs on each subset. None means `DEFAULT_SEEDS`.
        compare: Whether to include the selections of the other methods.
        fresh: Plan the comparison again even if cached.
        measurer: Metric of the runs. Without `runs` and `compare`, stored runs that lack its value are repeated.

    Returns:
        Subset and seed of each run, and the selections to compare (empty without `compare`). Every process of a
        distributed call gets the same plan.

    Raises:
        ConfigError: `runs` or `seeds` is below 1.
    """
    if (seeds is not None and seeds < 1) or (runs is not None and runs < 1):
        raise ConfigError(
            f"runs and seeds must be at least 1: runs={runs}, seeds={seeds}", hint="Omit one to use its default."
        )
    todo: list[Run] = []
    choices: list[Choice] = []
    if distributed.is_main():
        if measurer is not None:
            todo = _repeats(selections.estimates, measurer, repeat=runs is None and not compare)
        if compare:
            choices = plan_comparison(selections, fresh=fresh)
            todo += runs_to_compare(selections.estimates, choices, seeds=seeds or DEFAULT_SEEDS)
        if runs is not None or not compare:
            more = runs_to_make(selections, subsets=runs, seeds=seeds)
            todo += [run for run in more if run not in todo]
    return distributed.from_main((todo, choices))


def _repeats(estimates: TargetEstimates, measurer: Measurer, *, repeat: bool) -> list[Run]:
    """Return the stored runs to repeat for the metric, and say so. No adapter of these runs exists any more."""
    workspace = estimates.workspace
    lacking = RunValues(workspace, estimates.corpus, measurer).incomplete(estimates.measured)
    if not lacking:
        return []
    words = f"{len(lacking)} stored runs have no value of {clean(measurer.name, limit=80)}, and no adapter"
    if repeat:
        workspace.reporter.note(f"{words}: curator repeats these runs")
        return lacking
    workspace.reporter.warn(f"{words}: `curator verify --metric` without --runs and --compare repeats them")
    return []


def report_runs(
    estimates: TargetEstimates,
    choices: Sequence[Choice],
    measurer: Measurer | None = None,
    before: Sequence[StoredMetric] = (),
) -> results.VerifyReport:
    """Report on all measured subsets, and compare the methods if there are choices.

    Args:
        estimates: Estimates for the target, made after the runs.
        choices: Selections from `plan_runs`.
        measurer: Metric of the runs. None reports the loss only.
        before: Values of the model before training.

    Raises:
        NumericalError: No subset is measured, or every run on one of the choices diverged.
    """
    found = report(estimates)
    if measurer is not None:
        found = with_metric(found, estimates, measurer, before)
    if distributed.is_main():
        mark_reported(estimates.workspace, estimates.corpus)
    return replace(found, comparison=compare_methods(estimates, found, choices)) if choices else found
