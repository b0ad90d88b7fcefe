"""Read the inputs of the estimates from the store: sums over each task's training examples, at each checkpoint.

The store keeps sums that take less room than their gradients. Other sums are computed when needed.
The hash of a task's training examples identifies its sums. A new task therefore needs only its own sums.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from curator.core.errors import CuratorError, DataError
from curator.core.events import Stage
from curator.data.corpus import Corpus
from curator.estimate.estimator import CheckpointSums
from curator.estimate.task_sums import ExampleSet, TaskSums
from curator.gradients.example_groups import ExampleGroup, held_out_group, training_groups
from curator.gradients.stage import GradientSet
from curator.workspace.workspace import Workspace

# Maximum examples and tasks per store access. They bound memory and the time that other processes wait.
_EXAMPLES, _TASKS = 65536, 512
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
    for gradient_set in sets:
        there = store.stored_sums(gradient_set.key)
        missing = [group for group in groups if group.content not in there]
        for portion, sums in _made(workspace, gradient_set, missing):
            try:
                store.put_sums(gradient_set.key, [missing[n].content for n in portion], sums)
            except CuratorError as error:
                workspace.reporter.warn(f"cannot store sums over tasks: {error.message}")
                return


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
    for gradient_set in sets:
        (validation,) = _read(workspace, gradient_set.key, [held_out_group(config, corpus.target_tasks)])
        contents = [group.content for group in groups]
        stored = store.sums(gradient_set.key, contents, config.gradients.projection_dim)
        sums = TaskSums.from_stored(stored)
        missing = [n for n, group in enumerate(groups) if sums.examples[n] != len(group.hashes)]
        for portion, made in _made(workspace, gradient_set, [groups[n] for n in missing]):
            for row, place in enumerate(portion):
                sums.put(missing[place], made.row(row))
        points.append(
            CheckpointSums(
                share=gradient_set.checkpoint.share,
                sums=sums,
                validation=validation,
                read=partial(_read_tasks, workspace, gradient_set.key, groups),
            )
        )
    return points


def _made(
    workspace: Workspace, gradient_set: GradientSet, groups: Sequence[ExampleGroup]
) -> Iterator[tuple[range, TaskSums]]:
    """Yield sums from gradients, for as many groups at a time as memory allows."""
    stage: Stage | None = None
    began, start = time.monotonic(), 0
    while start < len(groups):
        end, examples = start, 0
        while end < min(len(groups), start + _TASKS):
            examples += len(groups[end].hashes)
            if examples > _EXAMPLES and end > start:
                break
            end += 1
        yield range(start, end), TaskSums.of(_read(workspace, gradient_set.key, groups[start:end]))
        if stage is None and time.monotonic() - began > _PATIENCE:
            stage = workspace.reporter.stage("statistics", len(groups), "sums")
        if stage is not None:
            stage.advance_to(end)
        start = end
    if stage is not None:
        stage.finish(f"sums of {len(groups)} tasks at {gradient_set.checkpoint.share:.0%} of meta-training")


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
        found.append(
            ExampleSet(
                losses=losses[rows],
                gradients=gradients[rows].astype(np.float64),
                weights=np.asarray(group.weights, dtype=np.float64),
            )
        )
    return found
