"""The stages that cost: meta-training and gradients, each found again by what goes into it.

`find_*` looks for an artifact that fits the present configuration and data; `make_*` does the work, resumably. A
meta-initialization still fits when tasks were added after it: the new tasks only need gradients. It no longer fits
when a task it has seen was changed or removed, or when the target's held-out examples changed.
"""

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curator import parallel
from curator.batches import TokenizedExample
from curator.config import Config
from curator.corpus import Corpus, Task, training_examples, validation_examples
from curator.errors import NumericalError
from curator.events import Reporter, Stopwatch
from curator.gradients import GradientEngine, Projected
from curator.meta_train import Snapshot, measure_losses, train_adapter
from curator.model import TunedModel
from curator.projection import ProjectionSpec
from curator.provenance import Inputs, hash_of, key_of
from curator.store import Artifact, Store

# Raised when the same inputs would give another meta-initialization.
_TRAIN_VERSION = 2
# Finished gradients are committed at least this often, so that a killed run loses no more.
_COMMIT_SECONDS = 10.0
_COMMIT_ROWS = 8192
# Examples of a task that are looked at to find where numbers went wrong.
_JUDGED = 32

LoadModel = Callable[[], TunedModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaInit:
    """A meta-initialization that fits the project."""

    key: str
    snapshots: tuple[Snapshot, ...]
    layout: str
    """Hash of the parameter layout."""
    trainable_parameters: int
    examples: int
    final_losses: dict[str, float]
    """Loss of each validation example at the end of training, by token hash."""
    unseen: tuple[str, ...]
    """Tasks that were added since."""
    seconds: float
    """Time that meta-training took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientSet:
    """The gradients at one point of one meta-training."""

    key: str
    snapshot: Snapshot


# -- meta-training --------------------------------------------------------------------------------------------------


def train_inputs(config: Config, corpus: Corpus) -> Inputs:
    """What decides a meta-initialization."""
    return {
        "version": _TRAIN_VERSION,
        **recipe_inputs(config, corpus),
        "train": config.train.model_dump(mode="json"),
        "points": list(config.gradients.shares),
        "average": config.gradients.average,
        "tasks": {task.name: task.content for task in corpus.tasks},
        "validation": {task.name: hash_of(task.validation_hashes) for task in corpus.target_tasks},
    }


def recipe_inputs(config: Config, corpus: Corpus) -> Inputs:
    """What decides any fine-tuning run, beside its examples and its seed."""
    model = config.model
    return {
        "model": {
            "sha256": corpus.model.sha256,
            "dtype": model.dtype,
            "quantization": model.quantization,
            "attention": model.attention,
        },
        "lora": config.lora.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude={"seed"}),
    }


def fits(then: Inputs, now: Inputs) -> bool:
    """Whether a meta-initialization made from `then` serves `now`: equal, but for tasks that were added."""
    same = {name: value for name, value in then.items() if name != "tasks"} == {
        name: value for name, value in now.items() if name != "tasks"
    }
    return same and all(now["tasks"].get(task) == content for task, content in then["tasks"].items())


def find_meta_init(config: Config, corpus: Corpus, store: Store) -> MetaInit | None:
    """The meta-initialization that fits and has seen the most tasks, or None."""
    now = train_inputs(config, corpus)
    fitting = [artifact for artifact in store.artifacts("train") if fits(artifact.inputs, now)]
    # `artifacts` gives the newest first, and max keeps the first of equals.
    best = max(fitting, key=lambda artifact: len(artifact.inputs["tasks"]), default=None)
    return None if best is None else _meta_init(best, now)


def make_meta_init(
    config: Config, corpus: Corpus, store: Store, folder: Path, load: LoadModel, reporter: Reporter, *, fresh: bool
) -> MetaInit:
    """Meta-train on all tasks and the targets together.

    Args:
        config: The project's configuration.
        corpus: The tasks.
        store: Where the artifact is recorded, when everything else is on disk.
        folder: `.curator/adapters`.
        load: Gives the model.
        reporter: Told of progress.
        fresh: Begin anew, rather than where an interrupted run left off.

    Raises:
        NumericalError, DataError: As `train_adapter`.
    """
    inputs = train_inputs(config, corpus)
    key = key_of(inputs)
    place = folder / key
    if fresh and parallel.is_main():
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
    parallel.wait()
    examples = [example for task in corpus.tasks for example in training_examples(task, store)]
    tuned = load()
    took = Stopwatch()
    try:
        snapshots = train_adapter(
            tuned,
            examples,
            config.train,
            folder=place,
            shares=config.gradients.shares,
            average=config.gradients.average,
            reporter=reporter.with_sink(took),
            stage="train",
        )
    except NumericalError as error:
        tuned.reset(config.train.seed)
        raise _with_tasks(error, corpus, store, tuned, config) from error
    final_losses: dict[str, float] = {}
    for task in corpus.target_tasks:
        losses = measure_losses(tuned, validation_examples(task, store), batch_tokens=config.gradients.batch_tokens)
        final_losses |= dict(zip(task.validation_hashes, losses.tolist(), strict=True))
    outputs = {
        "seconds": took.whole,
        "final_losses": final_losses,
        "snapshots": [asdict(snapshot) for snapshot in snapshots],
        "layout": tuned.layout.sha256,
        "trainable_parameters": tuned.layout.size,
        "examples": len(examples),
    }
    if parallel.is_main():
        tuned.save_adapter(place / "final")
        store.put_artifact("train", key, inputs, outputs)
    parallel.wait()
    found = store.artifact("train", key)
    assert found is not None
    return _meta_init(found, inputs)


def _with_tasks(
    error: NumericalError, corpus: Corpus, store: Store, tuned: TunedModel, config: Config
) -> NumericalError:
    """An error of training with the tasks whose loss is none even before it, judged by their first examples."""
    bad = []
    for task in corpus.tasks:
        first = training_examples(task, store)[:_JUDGED]
        if not np.isfinite(measure_losses(tuned, first, batch_tokens=config.gradients.batch_tokens)).all():
            bad.append(repr(task.name))
    if not bad:
        return error
    named = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    return NumericalError(
        f"{error.message}; before training, the loss is not finite in {named}",
        hint="Look at their examples, or set model.dtype to float32.",
    )


def _meta_init(artifact: Artifact, now: Inputs) -> MetaInit:
    outputs = artifact.outputs
    return MetaInit(
        key=artifact.key,
        snapshots=tuple(Snapshot(**values) for values in outputs["snapshots"]),
        layout=outputs["layout"],
        trainable_parameters=outputs["trainable_parameters"],
        examples=outputs["examples"],
        final_losses=outputs["final_losses"],
        seconds=outputs["seconds"],
        unseen=tuple(sorted(now["tasks"].keys() - artifact.inputs["tasks"].keys())),
    )


# -- gradients ------------------------------------------------------------------------------------------------------


def gradient_sets(config: Config, meta: MetaInit) -> list[GradientSet]:
    """The sets that estimates rest on, one per point of meta-training."""
    spec = projection(config)
    return [
        GradientSet(
            key=key_of({"train": meta.key, "adapter": s.sha256, "layout": meta.layout, "projection": spec.as_dict()}),
            snapshot=s,
        )
        for s in meta.snapshots
    ]


def projection(config: Config) -> ProjectionSpec:
    """The projection that the configuration names."""
    return ProjectionSpec(dim=config.gradients.projection_dim, seed=config.gradients.projection_seed)


def wanted_hashes(corpus: Corpus) -> set[str]:
    """Token hashes of every example whose gradient is needed."""
    return {h for task in corpus.tasks for h in (*task.train_hashes, *task.validation_hashes)}


def gradients_inputs(sets: Sequence[GradientSet], corpus: Corpus) -> Inputs:
    """What decides whether the gradients are complete."""
    return {
        "sets": [s.key for s in sets],
        "tasks": {task.name: hash_of([*task.train_hashes, *task.validation_hashes]) for task in corpus.tasks},
    }


def make_gradients(
    config: Config, corpus: Corpus, store: Store, meta: MetaInit, folder: Path, load: LoadModel, reporter: Reporter
) -> int:
    """Compute the gradients that are not stored yet, at every point.

    Batches are cut task by task from all of a task's examples, and committed whole: an interrupted run goes on with the
    very batches that an undisturbed one would have had.

    Returns:
        How many gradients were computed.

    Raises:
        NumericalError: A loss or gradient is not finite; the task and example are named.
    """
    sets = gradient_sets(config, meta)
    stored = parallel.from_main([store.gradient_hashes(s.key) for s in sets])
    wanted = wanted_hashes(corpus)
    total, done = len(wanted) * len(sets), sum(len(wanted & there) for there in stored)
    if done == total:
        return 0
    tuned = load()
    stage = reporter.stage("gradients", total, "gradients", done=done)
    for gradient_set, there in zip(sets, stored, strict=True):
        if wanted <= there:
            continue
        snapshot = gradient_set.snapshot
        tuned.load_adapter(folder / meta.key / snapshot.folder, sha256=snapshot.sha256)
        engine = GradientEngine(
            tuned, projection(config), batch_tokens=config.gradients.batch_tokens, reporter=reporter
        )
        writer = _Writer(store, gradient_set.key)
        with writer:
            for batch, rows in _ahead(engine, _batches(engine, corpus, store, there)):
                if rows is not None:
                    _check_finite(batch, *rows)
                for hashes, losses, gradients in parallel.gather(
                    [] if rows is None else [([h for h, _, _ in batch], *rows)]
                ):
                    writer.add(hashes, losses, gradients)
                    done += len(hashes)
                stage.advance_to(min(done, total))
    stage.finish(f"{total} gradients at {len(sets)} points")
    return total - sum(len(wanted & there) for there in stored)


Batch = list[tuple[str, TokenizedExample, str]]
"""(token hash, example, where it comes from) of each example."""
Arrays = tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]


def _batches(engine: GradientEngine, corpus: Corpus, store: Store, there: set[str]) -> Iterator[Batch]:
    """This process's batches; every process yields equally many, an empty one where there are too few."""
    seen = set(there)
    mine: Batch = []
    turn = 0
    for task in corpus.tasks:
        items = _task_items(task, store)
        for positions in engine.batches([example for _, example, _ in items]):
            batch = [items[p] for p in positions if items[p][0] not in seen]
            if not batch:
                continue
            seen |= {h for h, _, _ in batch}
            if turn == parallel.rank():
                mine = batch
            turn += 1
            if turn == parallel.world_size():
                yield mine
                turn, mine = 0, []
    if turn:
        yield mine


def _ahead(engine: GradientEngine, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Arrays | None]]:
    """Batches with their losses and gradients, None of an empty one.

    A GPU is given the next batch before the last is waited for.
    """
    waiting: deque[tuple[Batch, Projected | None]] = deque()

    def arrived() -> tuple[Batch, Arrays | None]:
        batch, projected = waiting.popleft()
        return batch, None if projected is None else projected.arrays()

    for batch in batches:
        waiting.append((batch, engine.project([example for _, example, _ in batch]) if batch else None))
        if len(waiting) > engine.ahead:
            yield arrived()
    while waiting:
        yield arrived()


def _task_items(task: Task, store: Store) -> Batch:
    """Each different example of a task once."""
    items = {
        h: (h, example, f"example {number + 1} of task {task.name!r}")
        for hashes, examples, numbers in (
            (task.train_hashes, training_examples(task, store), task.split.train),
            (task.validation_hashes, validation_examples(task, store), task.split.validation),
        )
        for h, example, number in zip(hashes, examples, numbers, strict=True)
    }
    return list(items.values())


def _check_finite(batch: Batch, losses: npt.NDArray[np.float64], gradients: npt.NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~(np.isfinite(losses) & np.isfinite(gradients).all(axis=1)))
    if bad.size:
        raise NumericalError(
            f"the gradient of {batch[bad[0]][2]} is not finite ({bad.size} in this batch)",
            hint="Set model.dtype to float32, or lower train.learning_rate.",
        )


class _Writer:
    """Commits finished batches to the store: often enough to lose little, seldom enough to cost little."""

    def __init__(self, store: Store, set_key: str) -> None:
        self._store, self._key = store, set_key
        self._hashes: list[str] = []
        self._losses: list[npt.NDArray[np.float64]] = []
        self._gradients: list[npt.NDArray[np.float32]] = []
        self._last = time.monotonic()

    def __enter__(self) -> None:
        return None

    def add(self, hashes: list[str], losses: npt.NDArray[np.float64], gradients: npt.NDArray[np.float32]) -> None:
        if not parallel.is_main():
            return
        self._hashes += hashes
        self._losses.append(losses)
        self._gradients.append(gradients)
        if len(self._hashes) >= _COMMIT_ROWS or time.monotonic() - self._last > _COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        if self._hashes:
            self._store.put_gradients(
                self._key, self._hashes, np.concatenate(self._losses), np.concatenate(self._gradients)
            )
        self._hashes, self._losses, self._gradients = [], [], []
        self._last = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        # Also when interrupted: what is finished is worth keeping, unless it is the store that failed.
        if kind is None or issubclass(kind, KeyboardInterrupt | NumericalError):
            self._commit()
        if kind is None:
            parallel.wait()
