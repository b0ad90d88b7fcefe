"""Compare the current selection with those of other methods at the same budget, by fine-tuning on each.

All selections are made and stored before the first run. Measured subsets calibrate the estimates and would change
later selections. A resumed comparison therefore keeps the stored selections.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from scipy.stats import t as student

from curator import results
from curator.core.errors import NumericalError
from curator.core.provenance import Inputs, key_of
from curator.estimate.target import TargetEstimates
from curator.results.base import rounded
from curator.select.baselines import NAMES
from curator.select.methods import Request
from curator.select.selections import Selections
from curator.training.fine_tune import MeasuredSubset
from curator.verify.measure import Run, run_seeds
from curator.verify.report import seed_noise

COMPARED_SEEDS = 2
"""Smallest default number of seeds of a comparison. With one seed, noise between seeds is unknown."""
# Increase when the same estimates give other selections to compare.
_VERSION = 1
# Upper quantile of a 90 % interval.
_QUANTILE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Subset that one method selects, and its token budget. Budget None: the current selection is empty."""

    method: str
    subset: frozenset[str]
    budget: int | None


def plan_comparison(selections: Selections, *, fresh: bool = False) -> list[Choice]:
    """Select by each method within the tokens of the current selection, with the same pins.

    Args:
        selections: Selections for the target.
        fresh: Select again even if a plan for this selection is cached.

    Returns:
        The current selection under the name of its method, then the configured method, the ensemble and the baselines.
        Mixtures are left out, because the runs ignore weights.
    """
    estimates, workspace = selections.estimates, selections.estimates.workspace
    last, current = selections.last_or_select(), selections.last_names_or_select()
    inputs: Inputs = {name: value for name, value in estimates.inputs.items() if name != "measured"}
    out = {*last.options.get("exclude", ())} - {*current}
    alike = Request(
        method=last.method,
        max_tokens=sum(task.tokens for task in estimates.tasks if task.name in current) or None,
        include=tuple(name for name in last.options.get("include", ()) if name in current),
        exclude=tuple(task.name for task in estimates.tasks if task.name in out),
    )
    inputs |= {
        "current": sorted(current),
        "alike": asdict(alike),
        "method": workspace.config.select.method,
        "plan": _VERSION,
    }
    kept = None if fresh else workspace.store.artifact("comparison", key_of(inputs))
    if kept is not None:
        return [Choice(method=m, subset=frozenset(names), budget=b) for m, names, b in kept.outputs["choices"]]
    budget = alike.max_tokens
    if budget is None:
        workspace.reporter.warn("the current selection is empty: the other methods select without a budget")
    others = [
        m
        for m in dict.fromkeys((workspace.config.select.method, "ensemble", *NAMES))
        if m not in (last.method, "mixture")
    ]
    choices = [Choice(method=last.method, subset=frozenset(current), budget=budget)]
    stage = workspace.reporter.stage("compare", len(others), "methods")
    for method in others:
        found = selections.choose(replace(alike, method=method))
        choices.append(Choice(method=method, subset=frozenset(found), budget=budget))
        stage.advance()
    stage.finish(f"{len({choice.subset for choice in choices})} different subsets by {len(choices)} methods")
    outputs = {"choices": [[choice.method, sorted(choice.subset), choice.budget] for choice in choices]}
    workspace.store.put_artifact("comparison", key_of(inputs), inputs, outputs)
    return choices


def runs_to_compare(estimates: TargetEstimates, choices: Sequence[Choice], *, seeds: int) -> list[Run]:
    """Return subset and seed of each missing run. Every subset has one run before a subset gets a second one."""
    done = {(m.subset, run.seed) for m in estimates.measured for run in m.runs} | estimates.diverged
    subsets = list(dict.fromkeys(choice.subset for choice in choices))
    wanted = [(subset, seed) for seed in run_seeds(estimates.workspace.config, seeds) for subset in subsets]
    return [run for run in wanted if run not in done]


def compare_methods(
    estimates: TargetEstimates, report: results.VerifyReport, choices: Sequence[Choice]
) -> tuple[results.ComparedMethod, ...]:
    """Report the measured loss of each method's subset.

    Args:
        estimates: Estimates for the target.
        report: Report on all measured subsets, with cross-validated estimates.
        choices: Selections from `plan_comparison`.

    Raises:
        NumericalError: Every run on one of the selections diverged.
    """
    measured = {m.subset: m for m in estimates.measured}
    for choice in choices:
        if choice.subset not in measured:
            raise NumericalError(
                f"fine-tuning on the selection of {choice.method} diverged with every seed",
                hint="Lower train.learning_rate.",
            )
    estimated = {frozenset(run.subset): run.estimated_loss for run in report.runs}
    tokens = {task.name: task.tokens for task in estimates.tasks}
    noise = seed_noise(estimates.measured)
    best = min((measured[choice.subset] for choice in choices), key=lambda m: m.mean)
    found = []
    for choice in choices:
        spent = sum(tokens[name] for name in choice.subset)
        found.append(
            results.ComparedMethod(
                method=choice.method,
                selected=tuple(sorted(choice.subset)),
                tokens=spent,
                tokens_left=None if choice.budget is None else choice.budget - spent,
                estimated_loss=estimated[choice.subset],
                measured_losses=tuple(rounded(loss) for loss in measured[choice.subset].losses),
                measured_loss=rounded(measured[choice.subset].mean),
                as_good_as_best=_as_good(measured[choice.subset], best, noise),
                metric=report.mean_of("metric", choice.subset),
                test_loss=report.mean_of("test_loss", choice.subset),
                test_metric=report.mean_of("test_metric", choice.subset),
            )
        )
    return tuple(found)


def noise_of_difference(first: MeasuredSubset, second: MeasuredSubset, spread: float, freedom: int) -> float:
    """Return half of the 90 % interval of the difference between two measured losses if only seeds differ, nats.

    The interval is Student's t interval with a pooled standard deviation relative to the loss:

        t(0.95, freedom) · spread · √(m₁²/n₁ + m₂²/n₂)   with means m of n seeds each

    Args:
        first: One subset and its runs.
        second: The other subset and its runs.
        spread: Standard deviation of one run, relative to the loss, from `seed_noise`.
        freedom: Degrees of freedom of `spread`.
    """
    both = math.hypot(*(m.mean / math.sqrt(len(m.losses)) for m in (first, second)))
    return float(student.ppf(_QUANTILE, freedom)) * spread * both


def _as_good(subset: MeasuredSubset, best: MeasuredSubset, noise: tuple[float, int] | None) -> bool | None:
    if subset.subset == best.subset:
        return True
    if noise is None:
        return None
    return subset.mean - best.mean <= noise_of_difference(subset, best, *noise)
