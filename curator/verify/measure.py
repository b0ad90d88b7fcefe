"""Measure subsets by fine-tuning on them.

`probe_subsets` chooses the subsets: the current selection, all tasks, the target alone, then a spread over size and
estimate. Every finished run is stored. An interrupted verification therefore resumes, and a later one adds runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from curator.core import distributed
from curator.core.config import Config
from curator.core.errors import NumericalError
from curator.core.events import Event, Reporter, StageProgress
from curator.core.interval import Interval
from curator.core.metric_name import LOSS
from curator.core.provenance import key_of
from curator.data.corpus import Corpus
from curator.estimate.target import TargetEstimates
from curator.metrics.measuring import Measurer
from curator.select.selections import Selections
from curator.training.fine_tune import FineTuned, fine_tune, measurement_inputs, recipe_key, subset_content
from curator.training.forgetting import compared, task_losses
from curator.training.meta_init import LoadModel
from curator.training.tracking import estimate_numbers, tracked_run
from curator.training.trainer import remove_run
from curator.verify.probes import plan
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


def with_epochs(workspace: Workspace, epochs: float | None) -> Workspace:
    """Return the same workspace with other epochs of the recipe. None keeps them."""
    if epochs is None:
        return workspace
    train = workspace.config.train.model_copy(update={"epochs": epochs})
    return replace(workspace, config=workspace.config.model_copy(update={"train": train}))


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
    load: LoadModel,
    folder: Path,
    measurer: Measurer | None = None,
    predictions: Predictions = NO_PREDICTIONS,
    forgetting: bool = False,
    epochs: Mapping[frozenset[str], float] = NO_EPOCHS,
) -> None:
    """Fine-tune on subsets, and store each result when its run ends. Store a run that diverges with an infinite loss.

    Args:
        workspace: The project.
        corpus: The tasks.
        runs: Subset and seed of each run.
        load: Returns the model.
        folder: Folder for checkpoints.
        measurer: Measures the model of each run. None measures the loss only.
        predictions: Estimates from before the runs.
        forgetting: Measure the loss on rows of every task too, before and after each run.
        epochs: Epochs of the runs on a subset, instead of those of the recipe. They are part of the runs' key.

    Raises:
        DataError: A checkpoint cannot be written, or the metric cannot be measured.
        NumericalError: The metric is not finite.
        StoreBusy: Another process holds the store.
    """
    if not runs:
        return
    config, reporter = workspace.config, workspace.reporter
    target = corpus.target_label
    own = {subset: with_epochs(workspace, epochs.get(subset)) for subset, _ in runs}
    keys = {subset: recipe_key(place.config, corpus) for subset, place in own.items()}
    tokens = {task.name: task.tokens for task in corpus.tasks}
    costs = [
        sum(tokens[task] for task in (*subset, *corpus.targets)) * own[subset].config.train.epochs for subset, _ in runs
    ]
    tuned = load()
    base: dict[str, float] = {}
    if forgetting:
        # A new adapter changes nothing, so this is the base model.
        tuned.reset(config.train.seed)
        base = task_losses(workspace, corpus, tuned)
    total = round(sum(costs))
    stage = reporter.stage("verify", total, "tokens")
    before = 0.0
    for number, ((subset, seed), cost) in enumerate(zip(runs, costs, strict=True), start=1):
        begin, part, key = before, cost, keys[subset]

        def follow(event: Event, begin: float = begin, part: float = part) -> None:
            if isinstance(event, StageProgress):
                stage.advance_to(round(begin + part * event.done / event.total), loss=event.loss)

        content = subset_content(corpus, subset)
        place = folder / key_of({"recipe": key, "subset": content, "seed": seed, "early": True})
        run = f"run {number} of {len(runs)}: {len(subset)} tasks, seed {seed}"
        parameters = {"subset": sorted(subset), "seed": seed, "target": target}
        with tracked_run(workspace, f"verify {len(subset)} tasks {key_of(content)[:8]} seed {seed}", parameters) as log:
            expected = predictions.estimates.get(subset)
            if expected is not None:
                log(estimate_numbers(expected))
            try:
                found = fine_tune(
                    own[subset].reporting_to(Reporter(follow)),
                    corpus,
                    subset,
                    seed=seed,
                    tuned=tuned,
                    folder=place,
                    early=True,
                )
                lost = compared(corpus, subset, base, task_losses(workspace, corpus, tuned)) if forgetting else {}
                log({"measured_loss": found.loss, "seconds": found.seconds})
            except NumericalError as error:
                found, lost = FineTuned(loss=math.inf, seconds=0.0), {}
                reporter.warn(f"{run}: {error}. curator leaves the run out and does not repeat it.")
        # A metric that fails leaves the checkpoints, so that the next call resumes at the end of the run.
        values = measurer.of_run(tuned, found) if measurer is not None and math.isfinite(found.loss) else []
        if distributed.is_main():
            # This order is safe: a kill in between repeats the run, but leaves no folder.
            remove_run(place)
            workspace.store.put_metrics(key, target, content, seed=seed, values=values)
            workspace.store.put_measurement(
                key,
                target,
                content,
                seed=seed,
                loss=found.loss,
                seconds=found.seconds,
                details=replace(
                    found.details,
                    task_losses=lost,
                    estimated_before=predictions.estimates.get(subset),
                    calibrated_on=predictions.calibrated_on,
                ),
            )
        distributed.wait()
        before += part
        shown = [value for value in values if value.part == "validation" and value.metric != LOSS]
        reporter.note(f"{run}: loss {found.loss:.4f}" + "".join(f", {v.metric} {v.value:.4f}" for v in shown))
    stage.finish(f"{len(runs)} fine-tuning runs")
