"""Meta-train one adapter on all tasks together, and find a stored one that fits.

`find_meta_init` looks for an artifact that fits the current configuration and data.
`make_meta_init` trains, and resumes an interrupted run.
A meta-initialization still fits after a task is added. The new task only needs gradients.
A meta-initialization does not fit after a task of its training changed or was removed.
It also does not fit after the held-out examples of a target changed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from curator.core import distributed
from curator.core.config import Config
from curator.core.errors import NumericalError
from curator.core.events import Stopwatch
from curator.core.figures import first_of
from curator.core.folders import remove_folder
from curator.core.provenance import Inputs, hash_of, key_of
from curator.data.corpus import Corpus, training_examples, validation_examples
from curator.training.model import TunedModel
from curator.training.trainer import Checkpoint, Observer, measure_losses, train_adapter
from curator.workspace.store.records import Artifact
from curator.workspace.workspace import Workspace

# Increase the number when the same inputs give another meta-initialization.
_TRAIN_VERSION = 2
# Increase the number when the same training gives other captured gradients.
_CAPTURE_VERSION = 1
# Examples per task in the search for a loss that is not finite.
_CHECKED_EXAMPLES = 32

LoadModel = Callable[[], TunedModel]


class CapturingObserver(Observer, Protocol):
    """Observer that captures the gradients of a run."""

    complete: bool
    """Whether the gradients of every visit were captured."""

    def close(self) -> None:
        """Finish the capture."""


MakeObserver = Callable[[TunedModel, Corpus, str], CapturingObserver]
"""Makes the observer of a run from its model, its corpus and its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaInit:
    """Describe a meta-initialization that fits the project."""

    key: str
    checkpoints: tuple[Checkpoint, ...]
    layout: str
    """Hash of the parameter layout."""
    trainable_parameters: int
    examples: int
    final_losses: dict[str, float]
    """Loss of each validation example at the end of training, by token hash."""
    unseen: tuple[str, ...]
    """Tasks that were added after meta-training."""
    seconds: float
    """Duration of meta-training."""
    captured: bool = False
    """Whether gradients were captured during the training."""


# -- meta-training --------------------------------------------------------------------------------------------------


def train_inputs(config: Config, corpus: Corpus) -> Inputs:
    """Return all inputs that decide a meta-initialization."""
    gradients = config.gradients
    recorded: Inputs = (
        {
            "points": list(gradients.parts),
            "capture": {"dim": gradients.captured_dim, "seed": gradients.projection_seed, "version": _CAPTURE_VERSION},
        }
        if config.captures
        else {"points": list(gradients.shares), "average": gradients.average}
    )
    return {
        "version": _TRAIN_VERSION,
        **recipe_inputs(config, corpus),
        "train": config.train.decisive(),
        **recorded,
        "tasks": {task.name: task.content for task in corpus.tasks},
        "validation": {task.name: hash_of(task.validation_hashes) for task in corpus.target_tasks},
    }


def recipe_inputs(config: Config, corpus: Corpus) -> Inputs:
    """Return all inputs that decide a fine-tuning run, except its examples and its seed."""
    model = config.model
    return {
        "model": {
            "sha256": corpus.model.sha256,
            "dtype": model.dtype,
            "quantization": model.quantization,
            "attention": model.attention,
        },
        "lora": config.lora.model_dump(mode="json"),
        "train": {name: value for name, value in config.train.decisive().items() if name != "seed"},
    }


def fits(then: Inputs, now: Inputs) -> bool:
    """Return whether a meta-initialization made from `then` fits `now`: `now` may only add tasks."""
    same = {name: value for name, value in then.items() if name != "tasks"} == {
        name: value for name, value in now.items() if name != "tasks"
    }
    return same and all(now["tasks"].get(task) == content for task, content in then["tasks"].items())


def find_meta_init(workspace: Workspace, corpus: Corpus) -> MetaInit | None:
    """Return the meta-initialization that fits and was trained on the most tasks, or None if none fits.

    Args:
        workspace: The project.
        corpus: Tasks of the project.

    Raises:
        DataError: The store cannot be read.
    """
    now = train_inputs(workspace.config, corpus)
    fitting = [artifact for artifact in workspace.store.artifacts("train") if fits(artifact.inputs, now)]
    # `artifacts` returns the newest first, and `max` keeps the first of equals.
    best = max(fitting, key=lambda artifact: len(artifact.inputs["tasks"]), default=None)
    return None if best is None else _meta_init(best, now)


def seconds_without_capture(workspace: Workspace, corpus: Corpus) -> float | None:
    """Return the duration of a meta-training that would fit, had it captured gradients. None without one."""
    recorded = ("points", "average", "capture")

    def rest(inputs: Inputs) -> Inputs:
        return {name: value for name, value in inputs.items() if name not in recorded}

    now = train_inputs(workspace.config, corpus)
    found = [
        artifact.outputs["seconds"]
        for artifact in workspace.store.artifacts("train")
        if "capture" not in artifact.inputs and fits(rest(artifact.inputs), rest(now))
    ]
    return found[0] if found and workspace.config.captures else None


def make_meta_init(
    workspace: Workspace, corpus: Corpus, load: LoadModel, *, fresh: bool, observe: MakeObserver | None = None
) -> MetaInit:
    """Meta-train on all tasks and the targets together.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        load: Loads the model.
        fresh: Whether to train from the beginning instead of resuming an interrupted run.
        observe: Makes an observer that captures gradients during the training.

    Raises:
        NumericalError: The loss or the adapter is not finite.
        DataError: A checkpoint cannot be read or written.
    """
    config, store = workspace.config, workspace.store
    inputs = train_inputs(config, corpus)
    key = key_of(inputs)
    place = workspace.adapters / key
    if fresh and distributed.is_main():
        remove_folder(place / "checkpoints")
    distributed.wait()
    examples = [example for task in corpus.tasks for example in training_examples(task, store)]
    tuned = load()
    took = Stopwatch()
    observer = None if observe is None else observe(tuned, corpus, key)
    try:
        checkpoints = train_adapter(
            tuned,
            examples,
            config.train,
            folder=place,
            shares=inputs["points"],
            average=inputs.get("average"),
            reporter=workspace.reporter.with_sink(took),
            stage="train",
            observer=observer,
        )
    except NumericalError as error:
        tuned.reset(config.train.seed)
        raise _with_tasks(workspace, error, corpus, tuned) from error
    captured = False
    if observer is not None:
        observer.close()
        captured = all(distributed.gather([observer.complete]))
    return keep_meta_init(workspace, corpus, tuned, inputs, checkpoints, seconds=took.whole, captured=captured)


def keep_meta_init(
    workspace: Workspace,
    corpus: Corpus,
    tuned: TunedModel,
    inputs: Inputs,
    checkpoints: Sequence[Checkpoint],
    *,
    seconds: float,
    captured: bool,
) -> MetaInit:
    """Measure the validation losses at the end of a meta-training, and store the meta-initialization.

    Args:
        workspace: The project.
        corpus: Tasks of the run.
        tuned: Model at the end of the run.
        inputs: Result of `train_inputs`.
        checkpoints: Saved adapters.
        seconds: Duration of the run.
        captured: Whether the gradients of every visit were captured.

    Raises:
        DataError: The adapter cannot be written.
    """
    store, key = workspace.store, key_of(inputs)
    final_losses: dict[str, float] = {}
    batch_tokens = workspace.config.gradients.batch_tokens
    for task in corpus.target_tasks:
        losses = measure_losses(tuned, validation_examples(task, store), batch_tokens=batch_tokens)
        final_losses |= dict(zip(task.validation_hashes, losses.tolist(), strict=True))
    outputs = {
        "seconds": seconds,
        "final_losses": final_losses,
        "snapshots": [asdict(checkpoint) for checkpoint in checkpoints],
        "layout": tuned.layout.sha256,
        "trainable_parameters": tuned.layout.size,
        "examples": sum(len(task.split.train) for task in corpus.tasks),
        "captured": captured,
    }
    if distributed.is_main():
        tuned.save_adapter(workspace.adapters / key / "final")
        store.put_artifact("train", key, inputs, outputs)
    distributed.wait()
    found = store.artifact("train", key)
    assert found is not None
    return _meta_init(found, inputs)


def learning_rates(config: Config, steps: int) -> list[float]:
    """Return the learning rate of each step of a training run (steps,), as the schedules of transformers have it.

    Estimates need these rates in processes that train nothing. The import of transformers takes seconds and memory.
    """
    recipe = config.train
    warmup = math.ceil(recipe.warmup * steps)

    def factor(step: int) -> float:
        if recipe.schedule == "constant":
            return 1.0
        if step < warmup:
            return step / max(1, warmup)
        progress = (step - warmup) / max(1, steps - warmup)
        if recipe.schedule == "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return [recipe.learning_rate * factor(step) for step in range(steps)]


def _with_tasks(workspace: Workspace, error: NumericalError, corpus: Corpus, tuned: TunedModel) -> NumericalError:
    """Add the causes to a training error: weights of the base model and tasks that are not finite before training."""
    message, damaged = error.message, tuned.weights_not_finite()
    if damaged:
        message += f". The base model holds numbers that are not finite in {first_of(damaged, 5)}"
    bad = []
    for task in corpus.tasks:
        first = training_examples(task, workspace.store)[:_CHECKED_EXAMPLES]
        if not np.isfinite(measure_losses(tuned, first, batch_tokens=workspace.config.gradients.batch_tokens)).all():
            bad.append(repr(task.name))
    if bad:
        message += f". Before training, the loss is not finite in {first_of(bad, 5)}"
    if damaged:
        hint = 'Download the model again, or choose another model. Also try model.dtype = "float32".'
    else:
        hint = "Check the examples of these tasks, or set model.dtype to float32." if bad else error.hint
    return NumericalError(message, hint=hint)


def _meta_init(artifact: Artifact, now: Inputs) -> MetaInit:
    outputs = artifact.outputs
    return MetaInit(
        key=artifact.key,
        checkpoints=tuple(Checkpoint(**values) for values in outputs["snapshots"]),
        layout=outputs["layout"],
        trainable_parameters=outputs["trainable_parameters"],
        examples=outputs["examples"],
        final_losses=outputs["final_losses"],
        seconds=outputs["seconds"],
        captured=outputs.get("captured", False),
        unseen=tuple(sorted(now["tasks"].keys() - artifact.inputs["tasks"].keys())),
    )
