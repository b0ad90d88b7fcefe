"""Fine-tune the base model on a subset of tasks with the project's recipe. Estimates predict the resulting loss."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from curator.core import distributed
from curator.core.config import Config
from curator.core.events import Stopwatch
from curator.core.provenance import Inputs, hash_of, key_of
from curator.data.corpus import Corpus, Task, training_examples, validation_examples
from curator.data.repetition import counts_of, repeated
from curator.training.meta_init import recipe_inputs
from curator.training.model import TunedModel
from curator.training.trainer import Checkpoint, measure_losses, train_adapter
from curator.training.usage import PeakMemory, machine_name
from curator.workspace.store.measured import Measurement, RunDetails
from curator.workspace.workspace import Workspace

# Shares of the steps at which the loss of a verified run is kept.
_EARLY = (0.25, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuned:
    """Hold the result of one fine-tuning run.

    Attributes:
        loss: Validation loss of the targets, weighted by `share_of`, in nats per target token.
        seconds: Training time, without loading and measuring.
        loss_error: Standard error of the loss over the validation examples. None with one example of a target.
        examples: Number of validation examples.
        details: Cost and course of the run.
    """

    loss: float
    seconds: float
    loss_error: float | None = None
    examples: int = 0
    details: RunDetails = field(default_factory=RunDetails)


@dataclass(frozen=True, slots=True)
class MeasuredSubset:
    """Hold one subset of tasks and its fine-tuning runs with different seeds."""

    subset: frozenset[str]
    runs: tuple[Measurement, ...]

    @property
    def losses(self) -> list[float]:
        """Return the measured loss of each run."""
        return [run.loss for run in self.runs]

    @property
    def mean(self) -> float:
        """Return the measured loss of the subset: the mean over its runs."""
        return float(np.mean(self.losses))


def measurement_inputs(config: Config, corpus: Corpus) -> Inputs:
    """Return all inputs that decide a measured loss, except the subset and the seed."""
    return recipe_inputs(config, corpus) | {
        "targets": {
            task.name: {
                "train": task.content,
                "validation": hash_of(task.validation_hashes),
                "share": config.data.share_of(task.name, corpus.targets),
            }
            for task in corpus.target_tasks
        }
    }


def with_epochs(workspace: Workspace, epochs: float | None) -> Workspace:
    """Return the same workspace with other epochs of the recipe. None keeps them."""
    if epochs is None:
        return workspace
    train = workspace.config.train.model_copy(update={"epochs": epochs})
    return replace(workspace, config=workspace.config.model_copy(update={"train": train}))


def recipe_key(config: Config, corpus: Corpus) -> str:
    """Return the hash of `measurement_inputs`, which is the key of measured losses in the store."""
    return key_of(measurement_inputs(config, corpus))


def subset_content(corpus: Corpus, subset: Collection[str]) -> dict[str, str]:
    """Return the hash of the training examples of each task of a subset, by task name."""
    return {task.name: task.content for task in corpus.auxiliary if task.name in subset}


def measured_subsets(corpus: Corpus, measurements: Sequence[Measurement]) -> list[MeasuredSubset]:
    """Group the measurements of subsets whose tasks are unchanged, in the order of their first runs.

    Args:
        corpus: Tasks of the project.
        measurements: Runs from the store. Runs without a finite loss are left out.
    """
    found: dict[frozenset[str], list[Measurement]] = {}
    for m in _unchanged(corpus, measurements):
        if math.isfinite(m.loss):
            found.setdefault(frozenset(m.subset), []).append(m)
    return [MeasuredSubset(subset, tuple(runs)) for subset, runs in found.items()]


def diverged_runs(corpus: Corpus, measurements: Sequence[Measurement]) -> set[tuple[frozenset[str], int]]:
    """Return subset and seed of each run without a finite loss whose tasks are unchanged."""
    return {(frozenset(m.subset), m.seed) for m in _unchanged(corpus, measurements) if not math.isfinite(m.loss)}


def _unchanged(corpus: Corpus, measurements: Sequence[Measurement]) -> list[Measurement]:
    now = {task.name: task.content for task in corpus.auxiliary}
    return [m for m in measurements if all(now.get(task) == content for task, content in m.subset.items())]


def example_counts(tasks: Sequence[Task], weights: Mapping[str, float]) -> dict[str, int]:
    """Return the number of training examples of each task, repeated by the weight of the task.

    Args:
        tasks: Tasks to train on, including the targets.
        weights: Weight by task name. Missing tasks have weight 1.
    """
    return counts_of({task.name: (weights.get(task.name, 1.0), len(task.split.train)) for task in tasks})


def fine_tune(
    workspace: Workspace,
    corpus: Corpus,
    subset: Collection[str],
    *,
    seed: int,
    tuned: TunedModel,
    folder: Path,
    weights: Mapping[str, float] | None = None,
    stage: str = "fine-tune",
    early: bool = False,
) -> FineTuned:
    """Fine-tune the base model on a subset and the targets, and measure the validation loss of the targets.

    The function resumes an interrupted run from the checkpoints in `folder`.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        subset: Names of auxiliary tasks.
        seed: Seed of the initialization and of the order of examples.
        tuned: Model. Its adapter holds the fine-tuned weights afterwards.
        folder: Folder for checkpoints. Call `remove_run` after the result is stored.
        weights: Number of times that a task's examples are repeated, by task name. Missing tasks have weight 1.
        stage: Name of the stage in events.
        early: Measure the loss also after 25 % and 50 % of the steps. The training stays the same.

    Raises:
        NumericalError: The loss or the adapter is not finite.
        DataError: A checkpoint cannot be read or written.
    """
    config = workspace.config
    tasks = [task for task in corpus.auxiliary if task.name in subset] + corpus.target_tasks
    counts = example_counts(tasks, weights or {})
    examples = [
        example
        for task in tasks
        for example in repeated(training_examples(task, workspace.store), counts[task.name], seed=task.name)
    ]
    took, peak = Stopwatch(), PeakMemory(tuned.device)
    saved = train_adapter(
        tuned,
        examples,
        config.train,
        folder=folder,
        shares=_EARLY if early else (),
        reporter=workspace.reporter.with_sink(took),
        stage=stage,
        seed=seed,
        keep_checkpoints=True,
    )
    quarter, half = _early_losses(workspace, corpus, tuned, saved, folder) if early else (None, None)
    details = RunDetails(
        loss_quarter=quarter,
        loss_half=half,
        tokens=round(config.train.epochs * sum(len(example.input_ids) for example in examples)),
        peak_bytes=peak.read(),
        machine=machine_name(tuned.device),
    )
    loss, error, count = _target_loss(workspace, corpus, tuned)
    return FineTuned(loss=loss, seconds=took.whole, loss_error=error, examples=count, details=details)


def _target_loss(workspace: Workspace, corpus: Corpus, tuned: TunedModel) -> tuple[float, float | None, int]:
    """Measure the targets' validation loss with the present adapter.

    Returns:
        Loss in nats per target token, its standard error over the examples (None with one example of a target), and
        the number of examples.
    """
    config = workspace.config
    loss, variance, count = 0.0, 0.0, 0
    for task in corpus.target_tasks:
        share = config.data.share_of(task.name, corpus.targets)
        losses = measure_losses(
            tuned, validation_examples(task, workspace.store), batch_tokens=config.gradients.batch_tokens
        )
        loss += share * float(losses.mean())
        variance += share**2 * float(losses.var(ddof=1)) / len(losses) if len(losses) > 1 else math.nan
        count += len(losses)
    return loss, math.sqrt(variance) if math.isfinite(variance) else None, count


def _early_losses(
    workspace: Workspace, corpus: Corpus, tuned: TunedModel, saved: Sequence[Checkpoint], folder: Path
) -> tuple[float, float]:
    """Return the validation loss at a quarter and at half of the steps. The adapter is the same afterwards."""
    distributed.wait()
    losses: list[float] = []
    if distributed.is_main() or tuned.sharded:
        end = tuned.adapter_weights()
        for checkpoint in saved:
            tuned.load_adapter(folder / checkpoint.folder, sha256=checkpoint.sha256)
            losses.append(_target_loss(workspace, corpus, tuned)[0])
        tuned.put_adapter_weights(end)
    # A run of few steps has one adapter for both shares.
    losses = distributed.from_main(losses)
    return losses[0], losses[-1]
