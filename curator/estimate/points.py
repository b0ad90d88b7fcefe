"""Read the inputs of the estimates from the store: sums over each task's training examples, at each checkpoint.

The store keeps sums that take less room than their gradients. Other sums are computed when needed.
The hash of a task's training examples identifies its sums. A new task therefore needs only its own sums.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, release
from curator.core.errors import CuratorError, DataError
from curator.core.events import Stage
from curator.data.corpus import Corpus
from curator.estimate.estimator import CheckpointSums
from curator.estimate.task_sums import ExampleSet, TaskSums
from curator.gradients.example_groups import ExampleGroup, held_out_group, training_groups
from curator.gradients.stage import GradientSet
from curator.workspace.workspace import Workspace

# Maximum examples and tasks per store access. They bound memory and the time that other processes wait.
_EXAMPLES, _TASKS = 8192, 128
# Seconds before progress is shown.
_PATIENCE = 1.0


def fill_sums(workspace: Workspace, corpus: Corpus, sets: Sequence[GradientSet]) -> None:
    """Compute missing sums that are worth storing, in one pass over their gradients, and store them.

    Args:
        workspace: The project.
        corpus: The tasks.
        sets: Gradients at each checkpoint.

    Raises:
        DataError: A gradient is not stored.
        StoreBusy: The store cannot be read.
    """
    store = workspace.store
    dim = workspace.config.gradients.projection_dim
    groups = list({group.content: group for group in training_groups(corpus) if not group.is_small(dim)}.values())
    progress = _Progress(workspace, len(groups) * len(sets))
    for gradient_set in sets:
        there = store.stored_sums(gradient_set.key)
        missing = [group for group in groups if group.content not in there]
        progress.skip(len(groups) - len(missing))
        for portion, sums in _made(workspace, gradient_set, missing, progress):
            try:
                store.put_sums(gradient_set.key, [missing[n].content for n in portion], sums)
            except CuratorError as error:
                workspace.reporter.warn(f"cannot store sums over tasks: {error.message}")
                return
    progress.finish()


def read_points(workspace: Workspace, corpus: Corpus, sets: Sequence[GradientSet]) -> list[CheckpointSums]:
    """Read the inputs of the estimates at each checkpoint. Single examples are read on demand.

    Args:
        workspace: The project.
        corpus: The tasks.
        sets: Gradients at each checkpoint.

    Returns:
        Sums and validation examples of each checkpoint.

    Raises:
        DataError: A gradient is not stored.
        StoreBusy: The store cannot be read.
    """
    config, store = workspace.config, workspace.store
    fill_sums(workspace, corpus, sets)
    groups = training_groups(corpus)
    points = []
    progress = _Progress(workspace, len(groups) * len(sets))
    for gradient_set in sets:
        (validation,) = _read(workspace, gradient_set.key, [held_out_group(config, corpus.target_tasks)])
        contents = [group.content for group in groups]
        stored = store.sums(gradient_set.key, contents, config.gradients.projection_dim)
        sums = TaskSums.from_stored(stored)
        missing = [n for n, group in enumerate(groups) if sums.examples[n] != len(group.hashes)]
        progress.skip(len(groups) - len(missing))
        for portion, made in _made(workspace, gradient_set, [groups[n] for n in missing], progress):
            for row, place in enumerate(portion):
                sums.put(missing[place], made.row(row))
            release(sums.packed_curvatures)
        points.append(
            CheckpointSums(
                share=gradient_set.checkpoint.share,
                sums=sums,
                validation=validation,
                read=partial(_read_tasks, workspace, gradient_set.key, groups),
            )
        )
    progress.finish()
    return points


class _Progress:
    """Progress of sums over tasks, at all checkpoints together. A short work reports no progress.

    Args:
        workspace: The project.
        total: Number of sums.
    """

    def __init__(self, workspace: Workspace, total: int) -> None:
        self._reporter, self._total = workspace.reporter, total
        self._began, self._known, self._made = time.monotonic(), 0, 0
        self._stage: Stage | None = None

    def skip(self, count: int) -> None:
        """Leave out sums that are known."""
        self._known += count

    def advance(self, count: int) -> None:
        """Count sums that were made."""
        self._made += count
        if self._stage is None and time.monotonic() - self._began > _PATIENCE:
            self._stage = self._reporter.stage("statistics", self._total, "sums", done=self._known + self._made)
        if self._stage is not None:
            self._stage.advance_to(self._known + self._made)

    def finish(self) -> None:
        """End the stage."""
        if self._stage is not None:
            self._stage.finish(f"{self._made} sums over tasks")


def _made(
    workspace: Workspace, gradient_set: GradientSet, groups: Sequence[ExampleGroup], progress: _Progress
) -> Iterator[tuple[Sequence[int], TaskSums]]:
    """Yield sums from gradients, for as many groups at a time as memory allows."""
    left: Sequence[int] = range(len(groups))
    if sum(len(group.hashes) for group in groups) > _EXAMPLES:
        done: set[int] = set()
        for portion, sums in _in_stored_order(workspace, gradient_set.key, groups):
            yield portion, sums
            done.update(portion)
            progress.advance(len(portion))
        left = [number for number in left if number not in done]
    start = 0
    while start < len(left):
        end, examples = start, 0
        while end < min(len(left), start + _TASKS):
            examples += len(groups[left[end]].hashes)
            if examples > _EXAMPLES and end > start:
                break
            end += 1
        portion = left[start:end]
        yield portion, TaskSums.of(_read(workspace, gradient_set.key, [groups[number] for number in portion]))
        progress.advance(end - start)
        start = end


def _in_stored_order(
    workspace: Workspace, set_key: str, groups: Sequence[ExampleGroup]
) -> Iterator[tuple[Sequence[int], TaskSums]]:
    """Yield sums of the groups whose gradients the store holds. One pass reads each gradient once.

    A group waits in memory until its last gradient is read.
    """
    store = workspace.store
    places: dict[str, list[tuple[int, int]]] = {}
    for number, group in enumerate(groups):
        for position, token_hash in enumerate(group.hashes):
            places.setdefault(token_hash, []).append((number, position))
    left = [len(group.hashes) for group in groups]
    waiting: dict[int, tuple[Floats, npt.NDArray[np.float32]]] = {}
    rows = store.gradient_rows(set_key)
    for first in range(rows.start, rows.stop, _EXAMPLES):
        hashes, losses, gradients = store.gradients_in(set_key, range(first, min(first + _EXAMPLES, rows.stop)))
        whole: list[int] = []
        for row, token_hash in enumerate(hashes):
            for number, position in places.pop(token_hash, ()):
                if number not in waiting:
                    count = len(groups[number].hashes)
                    waiting[number] = np.zeros(count), np.zeros((count, gradients.shape[1]), dtype=np.float32)
                waiting[number][0][position], waiting[number][1][position] = losses[row], gradients[row]
                left[number] -= 1
                if not left[number]:
                    whole.append(number)
        if whole:
            yield whole, TaskSums.of([_example_set(groups[number], *waiting.pop(number)) for number in whole])


def _read_tasks(
    workspace: Workspace, set_key: str, groups: Sequence[ExampleGroup], tasks: Sequence[int]
) -> list[ExampleSet]:
    return _read(workspace, set_key, [groups[task] for task in tasks])


def _read(workspace: Workspace, set_key: str, groups: Sequence[ExampleGroup]) -> list[ExampleSet]:
    wanted = {h for group in groups for h in group.hashes}
    hashes, losses, gradients = workspace.store.gradients(set_key, sorted(wanted))
    if len(hashes) < len(wanted):
        raise DataError(
            f"gradients of {len(wanted) - len(hashes)} examples are not stored", hint="Run `curator gradients`."
        )
    if not wanted:
        gradients = np.zeros((0, workspace.config.gradients.projection_dim), dtype=np.float32)
    places = {h: place for place, h in enumerate(hashes)}
    found = []
    for group in groups:
        rows = np.array([places[h] for h in group.hashes], dtype=np.intp)
        found.append(_example_set(group, losses[rows], gradients[rows]))
    return found


def _example_set(group: ExampleGroup, losses: Floats, gradients: npt.NDArray[np.float32]) -> ExampleSet:
    return ExampleSet(
        losses=losses, gradients=gradients.astype(np.float64), weights=np.asarray(group.weights, dtype=np.float64)
    )
