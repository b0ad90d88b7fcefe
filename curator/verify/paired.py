"""Compare selections by fine-tuning on each with the same seeds.

A seed decides the initialization and the order of examples. Its effect is partly the same for all selections. So losses
are compared seed by seed, and the interval of the mean difference is Student's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import t as student

from curator import results
from curator.core.errors import ConfigError, NumericalError
from curator.core.interval import Interval
from curator.estimate.target import TargetEstimates
from curator.results.base import rounded, rounded_if_known
from curator.select.selections import find_manifest
from curator.verify.measure import Run, run_seeds

PAIRED_SEEDS = 3
"""Default number of seeds. With 2, Student's interval of a difference is more than twice as wide."""
ALL, NONE = "all", "none"
"""Names of all tasks and of the target alone, unless a stored selection has this name."""
# Upper quantile of a 90 % interval.
_QUANTILE = 0.95


@dataclass(frozen=True, slots=True)
class NamedSubset:
    """A selection to compare."""

    name: str
    subset: frozenset[str]


def named_subsets(estimates: TargetEstimates, names: Sequence[str]) -> list[NamedSubset]:
    """Return the subsets of selections by name or manifest file. `all` and `none` name all tasks and the target alone.

    Args:
        estimates: Estimates for the target.
        names: Different names. One name is measured, and not compared.

    Raises:
        ConfigError: Names repeat, a selection belongs to another target, holds another task, has
            weights, or drops examples.
        DataError: Neither a manifest nor a selection has the name.
    """
    if len(set(names)) < len(names):
        raise ConfigError(
            f"a selection is named twice: {', '.join(names)}", hint="Name different ones, as --selections forward,all."
        )
    stored = {kept.name for kept in estimates.workspace.store.selections()}
    every = [task.name for task in estimates.tasks]
    found = []
    for name in names:
        if name in (ALL, NONE) and name not in stored:
            found.append(NamedSubset(name, frozenset(every if name == ALL else ())))
            continue
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
        if manifest.dropped_examples:
            raise ConfigError(
                f"selection {name!r} drops examples, which runs of subsets train on",
                hint="Run `curator verify` without --selections after this selection.",
            )
        for task in chosen:
            estimates.number_of(task.name)
        found.append(NamedSubset(name, frozenset(task.name for task in chosen)))
    return found


def runs_to_pair(estimates: TargetEstimates, chosen: Sequence[NamedSubset], *, seeds: int) -> list[Run]:
    """Return subset and seed of each missing run. All selections have a seed before the next seed starts."""
    done = {(m.subset, run.seed) for m in estimates.measured for run in m.runs} | estimates.diverged
    subsets = list(dict.fromkeys(one.subset for one in chosen))
    wanted = [(subset, seed) for seed in run_seeds(estimates.workspace.config, seeds) for subset in subsets]
    return [run for run in wanted if run not in done]


def compare_selections(
    estimates: TargetEstimates, chosen: Sequence[NamedSubset]
) -> tuple[tuple[results.ComparedSelection, ...], tuple[results.PairedDifference, ...]]:
    """Report the measured losses of selections, and their differences seed by seed.

    Args:
        estimates: Estimates for the target, made after the runs.
        chosen: Selections from `named_subsets`.

    Raises:
        NumericalError: Every run on one of the selections diverged.
    """
    measured = {m.subset: {run.seed: run for run in m.runs} for m in estimates.measured}
    tokens = {task.name: task.tokens for task in estimates.tasks}
    for one in chosen:
        if one.subset not in measured:
            raise NumericalError(
                f"fine-tuning on the selection {one.name!r} diverged with every seed",
                hint="Lower train.learning_rate.",
            )
    losses = {one.name: {seed: run.loss for seed, run in measured[one.subset].items()} for one in chosen}
    selections = tuple(
        results.ComparedSelection(
            name=one.name,
            selected=tuple(sorted(one.subset)),
            tokens=sum(tokens[name] for name in one.subset),
            seeds=tuple(sorted(losses[one.name])),
            measured_losses=tuple(rounded(losses[one.name][seed]) for seed in sorted(losses[one.name])),
            measured_loss=rounded(float(np.mean(list(losses[one.name].values())))),
        )
        for one in chosen
    )
    differences = []
    for first, second in combinations(chosen, 2):
        seeds, found = paired_difference(losses[first.name], losses[second.name])
        differences.append(
            results.PairedDifference(
                first=first.name,
                second=second.name,
                seeds=seeds,
                difference=rounded(found.value),
                difference_low=rounded_if_known(found.low if np.isfinite(found.low) else None),
                difference_high=rounded_if_known(found.high if np.isfinite(found.high) else None),
            )
        )
    return selections, tuple(differences)


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[int, Interval]:
    """Return the mean difference of losses with the same seed, and its 90 % interval.

    Args:
        first: Loss by seed, nats.
        second: Loss by seed, nats.

    Returns:
        The number of common seeds, and the difference, first minus second. The ends are infinite with one common seed.
        Without a common seed, the value is the difference of the means, and the ends are infinite.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        value = float(np.mean(list(first.values())) - np.mean(list(second.values())))
        return 0, Interval(value, -np.inf, np.inf)
    differences = np.array([first[seed] - second[seed] for seed in seeds])
    value = float(differences.mean())
    if len(seeds) == 1:
        return 1, Interval(value, -np.inf, np.inf)
    error = float(differences.std(ddof=1)) / np.sqrt(len(seeds))
    half = float(student.ppf(_QUANTILE, len(seeds) - 1)) * error
    return len(seeds), Interval(value, value - half, value + half)
