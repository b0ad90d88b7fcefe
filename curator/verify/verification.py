"""Plan the fine-tuning runs of one call of `verify`, and report on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from curator import results
from curator.core import distributed
from curator.core.config import Config
from curator.core.errors import ConfigError
from curator.core.text import clean
from curator.data.dropped import Dropped
from curator.estimate.target import TargetEstimates
from curator.metrics.measuring import Measurer
from curator.metrics.stored import RunValues
from curator.select.baselines import NAMES
from curator.select.selections import Selections
from curator.training.fine_tune import recipe_key
from curator.verify.comparison import COMPARED_SEEDS, Choice, compare_methods, plan_comparison, runs_to_compare
from curator.verify.measure import Run, mark_reported, new_count, runs_to_make
from curator.verify.metric_report import with_metric
from curator.verify.paired import PAIRED_SEEDS, NamedSubset, compare_selections, named_subsets, runs_to_pair
from curator.verify.report import report
from curator.workspace.store.metric_values import StoredMetric


@dataclass(frozen=True, slots=True)
class Plan:
    """Fine-tuning runs of one call of `verify`.

    Attributes:
        runs: Subset and seed of each run.
        choices: Selections of the methods to compare.
        named: Selections to compare by name.
        other: Selection and seed of each run with other epochs than the recipe's, or without dropped examples.
    """

    runs: list[Run]
    choices: list[Choice]
    named: list[NamedSubset]
    other: list[tuple[NamedSubset, int]]

    def by_dropped(self) -> list[tuple[Dropped, list[tuple[NamedSubset, int]]]]:
        """Return the runs of `other` in groups that lack the same examples."""
        different = dict.fromkeys(one.dropped for one, _ in self.other)
        return [(dropped, [run for run in self.other if run[0].dropped == dropped]) for dropped in different]


def check_counts(runs: int | None, seeds: int | None, *, same_tokens: bool = False, named: int = 0) -> None:
    """Check the numbers of subsets and seeds, before any stage runs.

    Args:
        runs: Number of subsets.
        seeds: Number of seeds.
        same_tokens: Whether the runs of named selections train on equal tokens.
        named: Number of selections to compare by name.

    Raises:
        ConfigError: `runs` or `seeds` is below 1, or equal tokens are asked for without selections.
    """
    if same_tokens and not named:
        raise ConfigError("--same-tokens needs --selections", hint="Add --selections forward,all,target,random.")
    if (seeds is not None and seeds < 1) or (runs is not None and runs < 1):
        raise ConfigError(
            f"runs and seeds must be at least 1: runs={runs}, seeds={seeds}", hint="Omit one to use its default."
        )


def expected_count(config: Config, runs: int | None, seeds: int | None, *, compare: bool, named: int) -> int:
    """Return about how many runs a call makes whose subsets are not chosen yet.

    Args:
        config: Settings of the project.
        runs: As for `plan_runs`.
        seeds: As for `plan_runs`.
        compare: As for `plan_runs`.
        named: Number of selections to compare by name.
    """
    count = (len(NAMES) + 2) * (seeds or max(config.verify.seeds, COMPARED_SEEDS)) if compare else 0
    count += named * (seeds or max(config.verify.seeds, PAIRED_SEEDS))
    return count + (new_count(config, runs, seeds) if runs is not None or not (compare or named) else 0)


def plan_runs(
    selections: Selections,
    *,
    runs: int | None,
    seeds: int | None,
    compare: bool,
    names: Sequence[str] = (),
    same_tokens: bool = False,
    fresh: bool,
    measurer: Measurer | None = None,
    keep: bool = True,
) -> Plan:
    """Plan the fine-tuning runs of a call.

    Args:
        selections: Selections for the target.
        runs: Number of subsets to add. None adds `verify.runs` if none are measured.
        seeds: Fine-tuning runs on each subset. None means `verify.seeds`, and more for comparisons.
        compare: Whether to include the selections of the other methods.
        names: Selections to compare by name.
        same_tokens: Whether their runs train on as many tokens as a run of the first.
        fresh: Plan the comparison again even if cached.
        measurer: Metric of the runs. Without `runs` and `compare`, stored runs that lack its value are repeated.
        keep: Whether to store a new plan, so that a later call continues it.

    Returns:
        The plan. Every process of a distributed call gets the same plan.

    Raises:
        ConfigError: Names do not suit.
        DataError: A named selection does not exist.
    """
    found = Plan([], [], [], [])
    estimates = selections.estimates
    config = estimates.workspace.config
    if distributed.is_main():
        _note_changes(estimates)
        if measurer is not None:
            found.runs.extend(_repeats(estimates, measurer, repeat=runs is None and not (compare or names)))
        if compare:
            found.choices.extend(plan_comparison(selections, fresh=fresh))
            more = runs_to_compare(estimates, found.choices, seeds=seeds or max(config.verify.seeds, COMPARED_SEEDS))
            found.runs.extend(run for run in more if run not in found.runs)
        if names:
            found.named.extend(named_subsets(selections, names, same_tokens=same_tokens, fresh=fresh))
            count = seeds or max(config.verify.seeds, PAIRED_SEEDS)
            for one, seed in runs_to_pair(estimates, found.named, seeds=count, measurer=measurer):
                if not one.is_plain:
                    found.other.append((one, seed))
                elif (one.subset, seed) not in found.runs:
                    found.runs.append((one.subset, seed))
        if runs is not None or not (compare or names):
            more = runs_to_make(selections, subsets=runs, seeds=seeds, keep=keep)
            found.runs.extend(run for run in more if run not in found.runs)
    return distributed.from_main(found)


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


def _note_changes(estimates: TargetEstimates) -> None:
    """Report how many runs are kept, if tasks were added, changed or removed since the runs."""
    runs = estimates.workspace.store.measurements(recipe_key(estimates.workspace.config, estimates.corpus))
    kept = sum(len(m.runs) for m in estimates.measured) + len(estimates.diverged)
    if len(runs) > kept:
        lost = len(runs) - kept
        estimates.workspace.reporter.note(
            f"{kept} of {len(runs)} measured runs are kept; {lost} used tasks that changed or are gone, or dropped rows"
        )
    new = [task.name for task in estimates.tasks] if runs else []
    for run in runs:
        new = [name for name in new if name not in run.subset]
    planned = estimates.workspace.store.artifact("verify", recipe_key(estimates.workspace.config, estimates.corpus))
    known = {} if planned is None else planned.inputs.get("tasks", {})
    new = [name for name in new if known and name not in known]
    if new:
        estimates.workspace.reporter.note(
            f"all {kept} measured runs are kept, because none of them uses the new tasks: {', '.join(new)}"
        )


def report_runs(
    estimates: TargetEstimates,
    plan: Plan,
    measurer: Measurer | None = None,
    before: Sequence[StoredMetric] = (),
) -> results.VerifyReport:
    """Report on all measured subsets, and compare the methods and selections of the plan.

    Args:
        estimates: Estimates for the target, made after the runs.
        plan: Result of `plan_runs`.
        measurer: Metric of the runs. None reports the loss only.
        before: Values of the model before training.

    Raises:
        NumericalError: No subset is measured, or every run on a selection to compare diverged.
    """
    found = report(estimates, empty=any(one.dropped for one in plan.named))
    if measurer is not None and found.runs:
        found = with_metric(found, estimates, measurer, before)
    if distributed.is_main():
        mark_reported(estimates.workspace, estimates.corpus)
    if plan.choices:
        found = replace(found, comparison=compare_methods(estimates, found, plan.choices))
    if plan.named:
        selections, differences = compare_selections(estimates, plan.named, measurer)
        found = replace(found, selections=selections, differences=differences)
    return found


def stored_report(estimates: TargetEstimates) -> results.VerifyReport:
    """Report on the stored runs. Make no run.

    Raises:
        ConfigError: No subset is measured.
    """
    if not estimates.measured:
        raise ConfigError("no measured subset to report", hint="Run `curator verify` first.")
    return report(estimates)
