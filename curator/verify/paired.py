"""Compare selections by fine-tuning on each with the same seeds.

A seed decides the initialization and the order of examples. Its effect is partly the same for all selections. So losses
are compared seed by seed, and the interval of the mean difference is Student's.

With equal tokens, every run trains on as many tokens as a run of the first selection. A smaller subset then trains for
more epochs, and a larger one for fewer. Such runs have another recipe, so they calibrate no estimate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import t as student

from curator import results
from curator.core.errors import ConfigError, NumericalError
from curator.core.interval import Interval
from curator.core.metric_name import LOSS
from curator.core.provenance import key_of
from curator.data.corpus import Corpus
from curator.data.dropped import NOTHING, Dropped, without
from curator.estimate.loss_estimator import ROUNDING
from curator.estimate.target import TargetEstimates
from curator.metrics.base import Part
from curator.metrics.loss import Loss
from curator.metrics.measuring import Measurer
from curator.metrics.stored import RunValues
from curator.results.base import rounded, rounded_if_known
from curator.select.baselines import NAMES
from curator.select.methods import Request
from curator.select.selections import Selections, dropped_by, find_manifest
from curator.training.fine_tune import MeasuredSubset, diverged_runs, measured_subsets, recipe_key, with_epochs
from curator.verify.measure import Run, run_seeds
from curator.workspace.workspace import Workspace

PAIRED_SEEDS = 3
"""Default number of seeds. With 2, Student's interval of a difference is more than twice as wide."""
ALL, ALONE = "all", ("target", "none")
"""Names of all tasks and of the target alone, unless a stored selection has this name."""
METHODS = ("forward", "backward", "exchange", "ensemble", *NAMES)
"""Methods that select by name, unless a stored selection has this name."""
# Increase when a method's name gives another subset.
_VERSION = 1
# Upper quantile of a 90 % interval.
_QUANTILE = 0.95
# Digits of a number of epochs that equal tokens give. The recipe's key holds this number.
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class NamedSubset:
    """A selection to compare.

    Attributes:
        name: Its name.
        subset: Names of its tasks.
        epochs: Epochs of its runs. None means those of the recipe.
        dropped: Examples of its tasks that its runs do not train on.
    """

    name: str
    subset: frozenset[str]
    epochs: float | None = None
    dropped: Dropped = NOTHING

    @property
    def is_plain(self) -> bool:
        """Return whether its runs have the recipe's epochs and whole tasks. Such runs calibrate estimates."""
        return self.epochs is None and not self.dropped


def named_subsets(
    selections: Selections, names: Sequence[str], *, same_tokens: bool = False, fresh: bool = False
) -> list[NamedSubset]:
    """Return the subsets of selections by name or manifest file.

    `all` names all tasks, and `target` or `none` the target alone. A method that no stored selection is named after
    selects within the tokens of the first selection. Its choice is stored, because later runs calibrate other choices.

    Args:
        selections: Selections for the target.
        names: Different names. One name is measured, and not compared.
        same_tokens: Whether every run trains on as many tokens as a run of the first selection.
        fresh: Select again by the methods even if their choices are stored.

    Raises:
        ConfigError: Names repeat, a selection belongs to another target, holds another task, or has weights.
        DataError: Neither a manifest nor a selection has the name.
    """
    if len(set(names)) < len(names):
        raise ConfigError(
            f"a selection is named twice: {', '.join(names)}", hint="Name different ones, as --selections forward,all."
        )
    estimates = selections.estimates
    stored = {kept.name for kept in estimates.workspace.store.selections()}
    found: list[NamedSubset] = []
    for name in names:
        dropped = NOTHING
        if name not in stored and name in (ALL, *ALONE):
            every = [task.name for task in estimates.tasks]
            subset = frozenset(every if name == ALL else ())
        elif name not in stored and name in METHODS:
            subset = _by_method(selections, name, found[0].subset if found else None, fresh=fresh)
        else:
            subset, dropped = _of_manifest(estimates, name)
        found.append(NamedSubset(name, subset, dropped=dropped))
    if not same_tokens:
        return found
    epochs, spent = estimates.workspace.config.train.epochs, [_tokens(estimates, one) for one in found]
    budget = spent[0]
    return [
        one if tokens == budget else replace(one, epochs=round(epochs * budget / tokens, _DIGITS))
        for one, tokens in zip(found, spent, strict=True)
    ]


def tokens_of(estimates: TargetEstimates, subset: frozenset[str]) -> int:
    """Return the training tokens of a subset and the targets, in one epoch."""
    return _tokens(estimates, NamedSubset("", subset))


def corpus_of(estimates: TargetEstimates, one: NamedSubset) -> Corpus:
    """Return the tasks that the runs on a selection train on: without its dropped examples."""
    return without(estimates.corpus, one.dropped) if one.dropped else estimates.corpus


def _tokens(estimates: TargetEstimates, one: NamedSubset) -> int:
    corpus = corpus_of(estimates, one)
    return sum(task.tokens for task in corpus.tasks if task.name in one.subset or task.name in corpus.targets)


def _by_method(selections: Selections, method: str, first: frozenset[str] | None, *, fresh: bool) -> frozenset[str]:
    """Select by a method within the tokens of the first selection, or return the stored choice."""
    estimates = selections.estimates
    inputs: dict[str, Any] = {name: value for name, value in estimates.inputs.items() if name != "measured"}
    inputs |= {"method": method, "first": None if first is None else sorted(first), "named": _VERSION}
    key, store = key_of(inputs), estimates.workspace.store
    kept = None if fresh else store.artifact("named", key)
    if kept is not None:
        return frozenset(kept.outputs["subset"])
    budget = sum(task.tokens for task in estimates.tasks if first is not None and task.name in first)
    subset = selections.choose(Request(method=method, max_tokens=budget or None))
    store.put_artifact("named", key, inputs, {"subset": sorted(subset)})
    return frozenset(subset)


def _of_manifest(estimates: TargetEstimates, name: str) -> tuple[frozenset[str], Dropped]:
    """Return the tasks of a manifest, and the examples of these tasks that it drops and that still exist."""
    manifest, _ = find_manifest(estimates.workspace, name)
    if manifest.target_names != estimates.targets:
        raise ConfigError(
            f"selection {name!r} is for another target: {', '.join(manifest.target_names)}",
            hint="Set --target to that target, or compare selections for the same target.",
        )
    chosen = [task for task in manifest.tasks if task.selected]
    if any(task.weight != 1.0 for task in chosen):
        raise ConfigError(
            f"selection {name!r} has weights, which runs of subsets ignore", hint="Compare unweighted selections."
        )
    for task in chosen:
        estimates.number_of(task.name)
    subset = frozenset(task.name for task in chosen)
    dropped = Dropped.of(row for row in dropped_by(manifest).within(estimates.corpus).named if row[0] in subset)
    return subset, dropped


def runs_to_pair(
    estimates: TargetEstimates, chosen: Sequence[NamedSubset], *, seeds: int, measurer: Measurer | None = None
) -> list[tuple[NamedSubset, int]]:
    """Return selection and seed of each missing run. All selections have a seed before the next seed starts.

    Args:
        estimates: Estimates for the target.
        chosen: Selections from `named_subsets`.
        seeds: Number of seeds of each selection.
        measurer: Metric of the runs. Stored runs that lack its value are repeated.
    """
    different = list({(one.subset, one.epochs, one.dropped): one for one in reversed(chosen)}.values())[::-1]
    done: dict[tuple[float | None, Dropped], set[Run]] = {}
    for one in different:
        if (one.epochs, one.dropped) in done:
            continue
        workspace, measured, diverged = _stored(estimates, one)
        runs = {(m.subset, run.seed) for m in measured for run in m.runs} | diverged
        if measurer is not None:
            runs -= {*RunValues(workspace, corpus_of(estimates, one), measurer).incomplete(measured)}
        done[one.epochs, one.dropped] = runs
    wanted = [(one, seed) for seed in run_seeds(estimates.workspace.config, seeds) for one in different]
    return [(one, seed) for one, seed in wanted if (one.subset, seed) not in done[one.epochs, one.dropped]]


def _stored(estimates: TargetEstimates, one: NamedSubset) -> tuple[Workspace, Sequence[MeasuredSubset], set[Run]]:
    """Return a workspace with a selection's epochs, the measured subsets of its tasks, and the runs that diverged."""
    if one.is_plain:
        return estimates.workspace, estimates.measured, estimates.diverged
    workspace, corpus = with_epochs(estimates.workspace, one.epochs), corpus_of(estimates, one)
    runs = workspace.store.measurements(recipe_key(workspace.config, corpus))
    return workspace, measured_subsets(corpus, runs), diverged_runs(corpus, runs)


@dataclass(frozen=True, slots=True)
class _Values:
    """Values of one selection by seed: the loss, the metric and its standard error, and both on the test part."""

    loss: dict[int, float]
    metric: dict[int, float]
    error: dict[int, float]
    test_loss: dict[int, float]
    test_metric: dict[int, float]


def compare_selections(
    estimates: TargetEstimates, chosen: Sequence[NamedSubset], measurer: Measurer | None = None
) -> tuple[tuple[results.ComparedSelection, ...], tuple[results.PairedDifference, ...]]:
    """Report the measured losses and metrics of selections, and their differences seed by seed.

    Args:
        estimates: Estimates for the target, made after the runs.
        chosen: Selections from `named_subsets`.
        measurer: Metric of the runs. None reports the loss only.

    Raises:
        NumericalError: Every run on one of the selections diverged.
    """
    values = {one.name: _values(estimates, one, measurer) for one in chosen}
    epochs = estimates.workspace.config.train.epochs
    selections = tuple(
        results.ComparedSelection(
            name=one.name,
            selected=tuple(sorted(one.subset)),
            tokens=_tokens(estimates, one) - tokens_of(estimates, frozenset()),
            epochs=epochs if one.epochs is None else one.epochs,
            tokens_trained=round(_tokens(estimates, one) * (one.epochs or epochs)),
            seeds=tuple(sorted(own.loss)),
            measured_losses=_in_order(own.loss),
            **_mean_fields("measured_loss", "measured", own.loss, Loss.bounds),
            metrics=_in_order(own.metric),
            **_mean_fields("metric", "metric", own.metric, (measurer.metric if measurer else Loss).bounds),
            metric_error=_mean(own.error),
            test_loss=_mean(own.test_loss),
            test_metric=_mean(own.test_metric),
        )
        for one, own in ((one, values[one.name]) for one in chosen)
    )
    differences = []
    for first, second in combinations(chosen, 2):
        seeds, loss = paired_difference(values[first.name].loss, values[second.name].loss)
        metrics = values[first.name].metric, values[second.name].metric
        metric = paired_difference(*metrics)[1] if all(metrics) else None
        differences.append(
            results.PairedDifference(
                first=first.name,
                second=second.name,
                seeds=seeds,
                difference=rounded(loss.value),
                difference_low=_finite(loss.low),
                difference_high=_finite(loss.high),
                metric_difference=None if metric is None else rounded(metric.value),
                metric_difference_low=None if metric is None else _finite(metric.low),
                metric_difference_high=None if metric is None else _finite(metric.high),
            )
        )
    return selections, tuple(differences)


def _values(estimates: TargetEstimates, one: NamedSubset, measurer: Measurer | None) -> _Values:
    workspace, measured, _ = _stored(estimates, one)
    own = next((m for m in measured if m.subset == one.subset), None)
    if own is None:
        raise NumericalError(
            f"fine-tuning on the selection {one.name!r} diverged with every seed",
            hint="Lower train.learning_rate.",
        )
    found = _Values({run.seed: run.loss for run in own.runs}, {}, {}, {}, {})
    if measurer is None:
        return found
    stored = RunValues(workspace, corpus_of(estimates, one), measurer)
    wanted: list[tuple[str, Part, dict[int, float]]] = [(LOSS, "test", found.test_loss)]
    if measurer.name != LOSS:
        wanted += [(measurer.name, "validation", found.metric), (measurer.name, "test", found.test_metric)]
    for run in own.runs:
        for name, part, values in wanted:
            value = stored.value(one.subset, run.seed, name, part)
            if value is not None:
                values[run.seed] = value.value
                if values is found.metric and value.standard_error is not None:
                    found.error[run.seed] = value.standard_error
    return found


def _mean_fields(name: str, prefix: str, values: Mapping[int, float], bounds: tuple[float, float]) -> dict[str, Any]:
    """Return the mean over the seeds and its Student's interval as fields of a report.

    Student's interval may leave the possible values of a loss or a share. `bounds` cuts such an end.
    """
    _, found = paired_difference(values, dict.fromkeys(values, 0.0)) if values else (0, None)
    ends = (np.nan, np.nan) if found is None else (found.low, found.high)
    low, high = (float(np.clip(end, *bounds)) if np.isfinite(end) else end for end in ends)
    return {
        name: None if found is None else rounded(found.value),
        f"{prefix}_low": _finite(low),
        f"{prefix}_high": _finite(high),
    }


def _in_order(values: Mapping[int, float]) -> tuple[float, ...]:
    return tuple(rounded(values[seed]) for seed in sorted(values))


def _mean(values: Mapping[int, float]) -> float | None:
    return rounded(float(np.mean(list(values.values())))) if values else None


def _finite(end: float) -> float | None:
    return rounded_if_known(end if np.isfinite(end) else None)


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[int, Interval]:
    """Return the mean difference of losses with the same seed, and its 90 % interval.

    Args:
        first: Loss by seed, nats.
        second: Loss by seed, nats.

    Returns:
        The number of common seeds, and the difference, first minus second. The ends are infinite with one common seed.
        Without a common seed, the value is the difference of the means, and the ends are infinite. The ends are
        infinite too if every seed has the same difference.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        value = float(np.mean(list(first.values())) - np.mean(list(second.values())))
        return 0, Interval(value, -np.inf, np.inf)
    differences = np.array([first[seed] - second[seed] for seed in seeds])
    value = float(differences.mean())
    if len(seeds) == 1:
        return 1, Interval(value, -np.inf, np.inf)
    if np.ptp(differences) <= ROUNDING:
        # A share of few rows often takes equal values. Their spread of 0 does not show that noise is absent.
        return len(seeds), Interval(value, -np.inf, np.inf)
    error = float(differences.std(ddof=1)) / np.sqrt(len(seeds))
    half = float(student.ppf(_QUANTILE, len(seeds) - 1)) * error
    return len(seeds), Interval(value, value - half, value + half)
