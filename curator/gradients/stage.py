"""Compute the gradients of all examples at every checkpoint of meta-training, and store them.

The key of a gradient set is a hash of the checkpoint, the parameter layout and the projection.
`make_gradients` computes only gradients that are not in the store, so an interrupted run resumes.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.core import distributed
from curator.core.config import Config
from curator.core.errors import NumericalError
from curator.core.provenance import Inputs, hash_of, key_of
from curator.data.corpus import Corpus, Task, training_examples, validation_examples
from curator.data.tokens import TokenizedExample
from curator.gradients.away import AdapterPass, AwayGradients
from curator.gradients.engine import GradientEngine, Projected, batches_of
from curator.gradients.projection import ProjectionSpec
from curator.training.meta_init import LoadModel, MetaInit
from curator.training.trainer import Checkpoint
from curator.workspace.store.tables import Store
from curator.workspace.workspace import Workspace

# Longest time and most rows between two commits. They limit the work that a killed run loses.
_COMMIT_SECONDS = 10.0
_COMMIT_ROWS = 8192
# Examples that a cluster gets at once.
_AWAY_EXAMPLES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientSet:
    """Identify the gradients at one checkpoint of one meta-training run, or in one segment of it."""

    key: str
    checkpoint: Checkpoint
    """The checkpoint, or the last part of the segment."""
    parts: tuple[Checkpoint, ...] = ()
    """Adapters of the parts of the segment, in the order of their steps."""


# -- gradients ------------------------------------------------------------------------------------------------------


def gradient_sets(config: Config, meta: MetaInit) -> list[GradientSet]:
    """Return the gradient sets that estimates use, one per checkpoint of meta-training.

    Args:
        config: Configuration of the project.
        meta: Meta-initialization.
    """
    spec = projection(config)
    return [
        GradientSet(
            key=key_of({"train": meta.key, "adapter": s.sha256, "layout": meta.layout, "projection": spec.as_dict()}),
            checkpoint=s,
        )
        for s in meta.checkpoints
    ]


def projection(config: Config) -> ProjectionSpec:
    """Return the projection of the configuration."""
    return ProjectionSpec(dim=config.gradients.projection_dim, seed=config.gradients.projection_seed)


def wanted_hashes(corpus: Corpus) -> set[str]:
    """Return the token hashes of all examples that need gradients: training and validation."""
    return {h for task in corpus.tasks for h in (*task.train_hashes, *task.validation_hashes)}


def gradients_inputs(sets: Sequence[GradientSet], corpus: Corpus) -> Inputs:
    """Return all inputs that decide whether the gradients are complete."""
    return {
        "sets": [s.key for s in sets],
        "tasks": {task.name: hash_of([*task.train_hashes, *task.validation_hashes]) for task in corpus.tasks},
    }


def make_gradients(
    workspace: Workspace, corpus: Corpus, meta: MetaInit, load: LoadModel, away: AwayGradients | None = None
) -> int:
    """Compute the gradients that are not in the store, at every checkpoint.

    Batches are cut task by task from all examples of a task, and committed as a whole.
    So a resumed run has the same batches as an uninterrupted run.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        meta: Meta-initialization.
        load: Loads the model.
        away: Computes the gradients on a cluster. None computes them in this process.

    Returns:
        Number of computed gradients.

    Raises:
        NumericalError: A loss or gradient is not finite. The message names the task and the example.
        DataError: An adapter of meta-training cannot be read.
        ManifestMismatch: An adapter differs from the one that meta-training wrote.
    """
    config, store = workspace.config, workspace.store
    sets = gradient_sets(config, meta)
    stored = distributed.from_main([store.gradient_hashes(s.key) for s in sets])
    wanted = wanted_hashes(corpus)
    total, done = len(wanted) * len(sets), sum(len(wanted & there) for there in stored)
    if done == total:
        return 0
    stage = workspace.reporter.stage("gradients", total, "gradients", done=done)
    shown = done

    def show(count: int) -> None:
        # A cluster computes many gradients before the first of them is stored.
        nonlocal shown
        shown = max(shown, min(count, total))
        stage.advance_to(shown)

    def show_more(count: int) -> None:
        show(done + count)

    for gradient_set, there in zip(sets, stored, strict=True):
        if wanted <= there:
            continue
        batches = _batches(config.gradients.batch_tokens, corpus, store, there)
        writer = _Writer(store, gradient_set.key)
        with writer:
            for batch, rows in _computed(workspace, meta, gradient_set, batches, load, away, show_more):
                if rows is not None:
                    _check_finite(batch, *rows)
                for hashes, losses, gradients in distributed.gather(
                    [] if rows is None else [([h for h, _, _ in batch], *rows)]
                ):
                    writer.add(hashes, losses, gradients)
                    done += len(hashes)
                show(done)
    stage.finish(f"{total} gradients at {len(sets)} checkpoints")
    return total - sum(len(wanted & there) for there in stored)


def _computed(
    workspace: Workspace,
    meta: MetaInit,
    gradient_set: GradientSet,
    batches: "Iterator[Batch]",
    load: LoadModel,
    away: AwayGradients | None,
    follow: Callable[[int], None],
) -> "Iterator[tuple[Batch, Arrays | None]]":
    """Yield each batch of this process with its losses and gradients at one checkpoint."""
    checkpoint, spec = gradient_set.checkpoint, projection(workspace.config)
    folder = workspace.adapters / meta.key / checkpoint.folder
    if away is not None:
        wanted = AdapterPass(folder=folder, sha256=checkpoint.sha256, spec=spec, in_metric=False)
        while some := _some(batches):
            yield from zip(
                some,
                away.batches(wanted, [[example for _, example, _ in batch] for batch in some], follow),
                strict=True,
            )
        return
    tuned = load()
    tuned.load_adapter(folder, sha256=checkpoint.sha256)
    tokens = workspace.config.gradients.batch_tokens
    yield from _ahead(GradientEngine(tuned, spec, batch_tokens=tokens, reporter=workspace.reporter), batches)


def _some(batches: "Iterator[Batch]") -> "list[Batch]":
    """Return the next batches, whose examples a cluster gets at once."""
    found: list[Batch] = []
    count = 0
    for batch in batches:
        found.append(batch)
        count += len(batch)
        if count >= _AWAY_EXAMPLES:
            break
    return found


Batch = list[tuple[str, TokenizedExample, str]]
"""(token hash, example, description of its place) of each example."""
Arrays = tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]


def _batches(batch_tokens: int, corpus: Corpus, store: Store, there: set[str]) -> Iterator[Batch]:
    """Yield the batches of this process. Every process yields the same number, so some batches are empty."""
    seen = set(there)
    mine: Batch = []
    turn = 0
    for task in corpus.tasks:
        items = _task_items(task, store)
        for positions in batches_of([example for _, example, _ in items], batch_tokens):
            batch = [items[p] for p in positions if items[p][0] not in seen]
            if not batch:
                continue
            seen |= {h for h, _, _ in batch}
            if turn == distributed.rank():
                mine = batch
            turn += 1
            if turn == distributed.world_size():
                yield mine
                turn, mine = 0, []
    if turn:
        yield mine


def _ahead(engine: GradientEngine, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Arrays | None]]:
    """Yield each batch with its losses and gradients, or with None if the batch is empty.

    A GPU gets the next batch before the function waits for the previous one.
    """
    waiting: deque[tuple[Batch, Projected | None]] = deque()

    def arrived() -> tuple[Batch, Arrays | None]:
        batch, projected = waiting.popleft()
        return batch, None if projected is None else projected.arrays()

    for batch in batches:
        if not batch:
            engine.stand_by()
        waiting.append((batch, engine.project([example for _, example, _ in batch]) if batch else None))
        if len(waiting) > engine.ahead:
            yield arrived()
    while waiting:
        yield arrived()


def _task_items(task: Task, store: Store) -> Batch:
    """Return each distinct example of a task once."""
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
    """Commit finished batches to the store in groups, by time and number of rows."""

    def __init__(self, store: Store, set_key: str) -> None:
        self._store, self._key = store, set_key
        self._hashes: list[str] = []
        self._losses: list[npt.NDArray[np.float64]] = []
        self._gradients: list[npt.NDArray[np.float32]] = []
        self._last = time.monotonic()

    def __enter__(self) -> None:
        return None

    def add(self, hashes: list[str], losses: npt.NDArray[np.float64], gradients: npt.NDArray[np.float32]) -> None:
        if not distributed.is_main():
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
        # An interrupted run also keeps its finished batches, unless the store itself failed.
        if kind is None or issubclass(kind, KeyboardInterrupt | NumericalError):
            self._commit()
        if kind is None:
            distributed.wait()
