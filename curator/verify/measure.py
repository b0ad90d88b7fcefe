"""Measure subsets by fine-tuning on them.

`probe_subsets` chooses the subsets: the current selection, all tasks, the target alone, then a spread over size and
estimate. Every finished run is stored. An interrupted verification therefore resumes, and a later one adds runs.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from curator.core import distributed
from curator.core.config import Config
from curator.core.events import Event, StageProgress
from curator.core.figures import fixed
from curator.core.interval import Interval
from curator.core.metric_name import LOSS
from curator.core.provenance import key_of
from curator.data.corpus import Corpus
from curator.estimate.target import TargetEstimates
from curator.metrics.measuring import Measurer
from curator.select.selections import Selections
from curator.training.fine_tune import measurement_inputs, recipe_key, subset_content, with_epochs
from curator.training.trainer import remove_run
from curator.verify.probes import plan
from curator.workers.fine_tuning import FineTuning, RunPart, RunResult
from curator.workers.pool import Pool, in_order
from curator.workspace.workspace import Workspace

Run = tuple[frozenset[str], int]
"""Subset and seed of one fine-tuning run."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Estimates of subsets from before their runs.

    Attributes:
        estimates: Estimate of each subset.
        calibrated_on: Number of measured subsets that calibrated the estimates. None without estimates.
    """

    estimates: Mapping[frozenset[str], Interval]
    calibrated_on: int | None


NO_PREDICTIONS = Predictions({}, None)
NO_EPOCHS: Mapping[frozenset[str], float] = MappingProxyType({})
"""Every run has the recipe's epochs."""


def new_count(config: Config, subsets: int | None, seeds: int | None) -> int:
    """Return the number of runs of a new plan. Arguments are those of `runs_to_make`."""
    count = config.verify.runs if subsets is None else subsets
    return count * (seeds or config.verify.seeds) + (config.verify.second_runs(count) if seeds is None else 0)


def runs_to_make(selections: Selections, *, subsets: int | None, seeds: int | None, keep: bool = True) -> list[Run]:
    """Return subset and seed of each run of a call: the rest of an interrupted plan, or else a new plan.

    Args:
        selections: Selections for the target.
        subsets: Number of subsets to add. None adds `verify.runs` if no subset is measured.
        seeds: Runs on each subset. None means `verify.seeds`, and a second seed for some subsets if that is 1. A number
            without `subsets` adds runs to measured subsets until each has that many.
        keep: Whether to store a new plan, so that a later call continues it.
    """
    estimates, workspace, corpus = selections.estimates, selections.estimates.workspace, selections.estimates.corpus
    config = workspace.config
    inputs = measurement_inputs(config, corpus)
    key, tasks = key_of(inputs), {task.name: task.content for task in estimates.tasks}
    done = {(m.subset, run.seed) for m in estimates.measured for run in m.runs}
    # The same recipe would diverge again.
    done |= estimates.diverged
    kept = workspace.store.artifact("verify", key)
    planned = [] if kept is None else [(frozenset(subset), seed) for subset, seed in kept.outputs["runs"]]
    # A plan from before a change of a task does not continue: its runs may already be done.
    then = {} if kept is None else kept.inputs.get("tasks", {})
    same = {name for name, content in tasks.items() if then.get(name) == content}
    left = [(subset, seed) for subset, seed in planned if (subset, seed) not in done and subset <= same]
    if left:
        return left
    if kept is not None and not kept.outputs.get("reported", True) and all(run in done for run in planned):
        # All runs are done, but the interrupted call did not report them. This call reports them.
        return []
    if subsets is None and estimates.measured:
        wanted = [(m.subset, seed) for seed in run_seeds(config, seeds or 0) for m in estimates.measured]
        short = {m.subset for m in estimates.measured if len(m.runs) < (seeds or 0)}
        return [(subset, seed) for subset, seed in wanted if subset in short and (subset, seed) not in done]
    chosen = plan(selections, count=config.verify.runs if subsets is None else subsets, seed=config.select.seed)
    # Measure each subset once before any second run, so that an early stop leaves more subsets.
    runs = [(subset, seed) for seed in run_seeds(config, seeds or config.verify.seeds) for subset in chosen]
    if seeds is None:
        count = config.verify.second_runs(len(chosen), sum(len(m.runs) > 1 for m in estimates.measured))
        # The first subsets are the selection, all tasks and the target alone, then an even spread.
        runs += [(subset, run_seeds(config, 2)[-1]) for subset in chosen[:count]]
    outputs = {"runs": [[sorted(subset), seed] for subset, seed in runs], "reported": False}
    if keep:
        workspace.store.put_artifact("verify", key, inputs | {"tasks": tasks}, outputs)
    return runs


def mark_reported(workspace: Workspace, corpus: Corpus) -> None:
    """Record that the planned runs are reported, so that the next call makes a new plan."""
    kept = workspace.store.artifact("verify", recipe_key(workspace.config, corpus))
    if kept is not None and not kept.outputs.get("reported", True):
        workspace.store.put_artifact("verify", kept.key, kept.inputs, kept.outputs | {"reported": True})


def run_seeds(config: Config, count: int) -> list[int]:
    """Return the seeds of the runs on a subset, without the seed of meta-training.

    With that seed, a run on all tasks would repeat meta-training. Its loss is already an input of the estimates.
    """
    return [(config.train.seed + turn) % 2**32 for turn in range(1, count + 1)]


def estimates_before(estimates: TargetEstimates, runs: Sequence[Run]) -> Predictions:
    """Estimate the subset of each run before the run. The runs' records keep these estimates.

    Args:
        estimates: Estimates for the target.
        runs: Subset and seed of each run.
    """
    subsets = list(dict.fromkeys(subset for subset, _ in runs))
    if not subsets:
        return Predictions({}, estimates.calibrated_on)
    found = estimates.estimator.estimate(np.stack([estimates.mask(subset) for subset in subsets]))
    return Predictions(dict(zip(subsets, found, strict=True)), estimates.calibrated_on)


def measure(
    workspace: Workspace,
    corpus: Corpus,
    runs: Sequence[Run],
    *,
    pool: Pool,
    folder: Path,
    measurer: Measurer | None = None,
    predictions: Predictions = NO_PREDICTIONS,
    forgetting: bool = False,
    epochs: Mapping[frozenset[str], float] = NO_EPOCHS,
) -> None:
    """Fine-tune on subsets, and store each result. Store a run that diverges with an infinite loss.

    Results are stored in the order of the runs, whatever the order in which workers end them. So the same runs give
    the same store. After a kill, the next call repeats only the end of each run that was not stored.

    Args:
        workspace: The project.
        corpus: The tasks.
        runs: Subset and seed of each run.
        pool: Place of the runs.
        folder: Folder for checkpoints.
        measurer: Measures the model of each run. None measures the loss only.
        predictions: Estimates from before the runs.
        forgetting: Measure the loss on rows of every task too, before and after each run.
        epochs: Epochs of the runs on a subset, instead of those of the recipe. They are part of the runs' key.

    Raises:
        DataError: A checkpoint cannot be written, the metric cannot be measured, or a worker died too often.
        NumericalError: The metric is not finite.
        StoreBusy: Another process holds the store.
    """
    if not runs:
        return
    own = {subset: with_epochs(workspace, epochs.get(subset)).config for subset, _ in runs}
    tokens = {task.name: task.tokens for task in corpus.tasks}
    costs = [sum(tokens[task] for task in (*subset, *corpus.targets)) * own[subset].train.epochs for subset, _ in runs]
    stage = workspace.reporter.stage("verify", round(sum(costs)), "tokens")
    done = [0.0] * len(runs)

    def follow(number: int, event: Event) -> None:
        if isinstance(event, StageProgress):
            done[number] = costs[number] * event.done / event.total
            stage.advance_to(round(sum(done)), loss=event.loss)

    work = FineTuning(
        workspace=workspace,
        corpus=corpus,
        metric=None if measurer is None else measurer.metric_name,
        forgetting=forgetting,
        used=frozenset(name for subset, _ in runs for name in subset),
    )
    keys = {subset: recipe_key(config, corpus) for subset, config in own.items()}
    parts = [
        _part(workspace, corpus, run, folder, predictions, key=keys[run[0]], epochs=epochs.get(run[0])) for run in runs
    ]
    with closing(pool.run(work, parts, follow)) as ended:
        for number, result in in_order(ended):
            name = f"run {number + 1} of {len(runs)}: {len(runs[number][0])} tasks, seed {runs[number][1]}"
            _keep(workspace, corpus, parts[number], result, predictions, name, key=keys[runs[number][0]])
            done[number] = costs[number]
    stage.finish(f"{len(runs)} fine-tuning runs")


def _part(
    workspace: Workspace,
    corpus: Corpus,
    run: Run,
    folder: Path,
    predictions: Predictions,
    *,
    key: str,
    epochs: float | None,
) -> RunPart:
    """Return one run as a part of the work. The key is that of its recipe."""
    subset, seed = run
    content = subset_content(corpus, subset)
    name = f"verify {len(subset)} tasks {key_of(content)[:8]} seed {seed}"
    return RunPart(
        subset=subset,
        seed=seed,
        folder=folder / key_of({"recipe": key, "subset": content, "seed": seed, "early": True}),
        epochs=epochs,
        early=True,
        tracked=(name, {"subset": sorted(subset), "seed": seed, "target": corpus.target_label}),
        expected=predictions.estimates.get(subset),
    )


def _keep(
    workspace: Workspace,
    corpus: Corpus,
    part: RunPart,
    result: RunResult,
    predictions: Predictions,
    name: str,
    *,
    key: str,
) -> None:
    """Store and report the result of one run, and remove its checkpoints."""
    found, reporter = result.found, workspace.reporter
    if result.diverged is not None:
        reporter.warn(f"{name}: {result.diverged}. curator leaves the run out and does not repeat it.")
    if distributed.is_main():
        target, content = corpus.target_label, subset_content(corpus, part.subset)
        # This order is safe: a kill in between repeats the run, but leaves no folder.
        remove_run(part.folder)
        workspace.store.put_metrics(key, target, content, seed=part.seed, values=result.values)
        workspace.store.put_measurement(
            key,
            target,
            content,
            seed=part.seed,
            loss=found.loss,
            seconds=found.seconds,
            details=replace(
                found.details,
                task_losses=result.lost,
                estimated_before=part.expected,
                calibrated_on=predictions.calibrated_on,
            ),
        )
    distributed.wait()
    shown = [value for value in result.values if value.part == "validation" and value.metric != LOSS]
    reporter.note(f"{name}: loss {fixed(found.loss)}" + "".join(f", {v.metric} {fixed(v.value)}" for v in shown))
