"""Fine-tuning the base model on a subset of tasks, by the project's own recipe: what estimates are estimates of."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curator.core.config import Config
from curator.core.events import Stopwatch
from curator.core.provenance import Inputs, hash_of, key_of
from curator.data.corpus import Corpus, Task, training_examples, validation_examples
from curator.data.repetition import counts_of, repeated
from curator.training.meta_init import recipe_inputs
from curator.training.model import TunedModel
from curator.training.trainer import measure_losses, train_adapter
from curator.workspace.store.measured import Measurement
from curator.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuned:
    """What came of one run.

    Attributes:
        loss: The target's validation loss, nats per target token; each of several targets has its weight.
        seconds: Time that training took, without loading and measuring.
    """

    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class MeasuredSubset:
    """One subset of tasks, and the runs on it with different seeds."""

    subset: frozenset[str]
    runs: tuple[Measurement, ...]

    @property
    def losses(self) -> list[float]:
        """Measured loss of each run."""
        return [run.loss for run in self.runs]

    @property
    def mean(self) -> float:
        """The measured loss of the subset: the mean over its runs."""
        return float(np.mean(self.losses))


def measurement_inputs(config: Config, corpus: Corpus) -> Inputs:
    """What decides a measured loss, beside the subset and the seed."""
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


def recipe_key(config: Config, corpus: Corpus) -> str:
    """Hash of `measurement_inputs`, by which measured losses are found."""
    return key_of(measurement_inputs(config, corpus))


def subset_content(corpus: Corpus, subset: Collection[str]) -> dict[str, str]:
    """Hash of the training examples of each task of a subset, by its name."""
    return {task.name: task.content for task in corpus.auxiliary if task.name in subset}


def measured_subsets(corpus: Corpus, measurements: Sequence[Measurement]) -> list[MeasuredSubset]:
    """What was measured of subsets whose tasks are still as they were, in the order of their first runs."""
    found: dict[frozenset[str], list[Measurement]] = {}
    for m in _of_today(corpus, measurements):
        if math.isfinite(m.loss):
            found.setdefault(frozenset(m.subset), []).append(m)
    return [MeasuredSubset(subset, tuple(runs)) for subset, runs in found.items()]


def diverged_runs(corpus: Corpus, measurements: Sequence[Measurement]) -> set[tuple[frozenset[str], int]]:
    """Subset and seed of each run that came to no loss; their subsets' tasks are still as they were."""
    return {(frozenset(m.subset), m.seed) for m in _of_today(corpus, measurements) if not math.isfinite(m.loss)}


def _of_today(corpus: Corpus, measurements: Sequence[Measurement]) -> list[Measurement]:
    now = {task.name: task.content for task in corpus.auxiliary}
    return [m for m in measurements if all(now.get(task) == content for task, content in m.subset.items())]


def example_counts(tasks: Sequence[Task], weights: Mapping[str, float]) -> dict[str, int]:
    """How many examples of each task are trained on, where each counts as often as its task weighs.

    Args:
        tasks: What is trained on, the targets among it.
        weights: By the task's name; 1 where it is not named.
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
) -> FineTuned:
    """Fine-tune the base model on a subset and the targets, and measure; an interrupted run is gone on with.

    Args:
        workspace: The project.
        corpus: The tasks.
        subset: Names of auxiliary tasks.
        seed: Of initialization and order.
        tuned: Model; its adapter holds the end of training afterwards.
        folder: For checkpoints, which are there until the caller has kept what came of it: then `remove_run`.
        weights: How often a task's examples are trained on, by its name; once where it is not named.
        stage: The stage's name in events.

    Raises:
        NumericalError: The loss is not finite.
        DataError: A checkpoint cannot be written.
    """
    config = workspace.config
    tasks = [task for task in corpus.auxiliary if task.name in subset] + corpus.target_tasks
    counts = example_counts(tasks, weights or {})
    examples = [
        example
        for task in tasks
        for example in repeated(training_examples(task, workspace.store), counts[task.name], seed=task.name)
    ]
    took = Stopwatch()
    train_adapter(
        tuned,
        examples,
        config.train,
        folder=folder,
        reporter=workspace.reporter.with_sink(took),
        stage=stage,
        seed=seed,
        keep_checkpoints=True,
    )
    batch_tokens = config.gradients.batch_tokens
    loss = sum(
        config.data.share_of(task.name, corpus.targets)
        * float(measure_losses(tuned, validation_examples(task, workspace.store), batch_tokens=batch_tokens).mean())
        for task in corpus.target_tasks
    )
    return FineTuned(loss=loss, seconds=took.whole)
