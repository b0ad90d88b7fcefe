"""Plan the fine-tuning runs of one call of `verify`, and report on them."""

from collections.abc import Sequence
from dataclasses import replace

from curator import results
from curator.core import distributed
from curator.core.errors import ConfigError
from curator.estimate.target import TargetEstimates
from curator.select.baselines import NAMES
from curator.select.selections import Selections
from curator.verify.comparison import Choice, compare_methods, plan_comparison, runs_to_compare
from curator.verify.measure import DEFAULT_SEEDS, Run, mark_reported, new_count, runs_to_make
from curator.verify.report import report


def check_counts(runs: int | None, seeds: int | None) -> None:
    """Check the numbers of subsets and seeds, before any stage runs.

    Raises:
        ConfigError: `runs` or `seeds` is below 1.
    """
    if (seeds is not None and seeds < 1) or (runs is not None and runs < 1):
        raise ConfigError(
            f"runs and seeds must be at least 1: runs={runs}, seeds={seeds}", hint="Omit one to use its default."
        )


def expected_count(runs: int | None, seeds: int | None, *, compare: bool) -> int:
    """Return about how many runs a call makes whose subsets are not chosen yet. Arguments are those of `plan_runs`."""
    compared = (len(NAMES) + 2) * (seeds or DEFAULT_SEEDS) if compare else 0
    added = new_count(runs, seeds) if runs is not None or not compare else 0
    return compared + added


def plan_runs(
    selections: Selections,
    *,
    runs: int | None,
    seeds: int | None,
    compare: bool,
    fresh: bool,
    keep: bool = True,
) -> tuple[list[Run], list[Choice]]:
    """Plan the fine-tuning runs of a call.

    Args:
        selections: Selections for the target.
        runs: Number of subsets to add. None adds some if none are measured.
        seeds: Fine-tuning runs on each subset. None means `DEFAULT_SEEDS`.
        compare: Whether to include the selections of the other methods.
        fresh: Plan the comparison again even if cached.
        keep: Whether to store a new plan, so that a later call continues it.

    Returns:
        Subset and seed of each run, and the selections to compare (empty without `compare`). Every process of a
        distributed call gets the same plan.
    """
    todo: list[Run] = []
    choices: list[Choice] = []
    if distributed.is_main():
        if compare:
            choices = plan_comparison(selections, fresh=fresh)
            todo = runs_to_compare(selections.estimates, choices, seeds=seeds or DEFAULT_SEEDS)
        if runs is not None or not compare:
            more = runs_to_make(selections, subsets=runs, seeds=seeds, keep=keep)
            todo += [run for run in more if run not in todo]
    return distributed.from_main((todo, choices))


def report_runs(estimates: TargetEstimates, choices: Sequence[Choice]) -> results.VerifyReport:
    """Report on all measured subsets, and compare the methods if there are choices.

    Args:
        estimates: Estimates for the target, made after the runs.
        choices: Selections from `plan_runs`.

    Raises:
        NumericalError: No subset is measured, or every run on one of the choices diverged.
    """
    found = report(estimates)
    if distributed.is_main():
        mark_reported(estimates.workspace, estimates.corpus)
    return replace(found, comparison=compare_methods(estimates, found, choices)) if choices else found
