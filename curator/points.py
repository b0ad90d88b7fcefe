"""What estimates are made from, read from the store: sums over each task's training examples, at each point.

Sums that are not stored yet are made from the gradients here, and only those. A task's sums are known by the hash of
its training examples, so a task that comes needs its own alone, and one that goes takes nothing along.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from curator.config import Config
from curator.corpus import Corpus, Task
from curator.errors import CuratorError, DataError
from curator.estimate import Point
from curator.events import Reporter, Stage
from curator.provenance import hash_of
from curator.stages import GradientSet
from curator.statistics import ExampleSet, Statistics
from curator.store import Store

# Raised when the same gradients would give other sums.
_VERSION = 1
# Examples whose gradients are held at once, and sums: both bound memory, and how long others wait for the store.
_EXAMPLES, _TASKS = 16384, 512
# Seconds after which people are told what takes so long.
_PATIENCE = 1.0

Unsaved = dict[str, dict[str, Statistics]]
"""Sums that could not be stored, by gradient set and content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Examples that are summed together.

    Attributes:
        hashes: Their token hashes (n).
        weights: Their weights (n).
    """

    hashes: Sequence[str]
    weights: Sequence[float]

    @property
    def content(self) -> str:
        """Hash of the examples. An example's weight follows from its tokens, as its completion is among them."""
        return hash_of([str(_VERSION), *self.hashes])


def training_groups(corpus: Corpus) -> list[Group]:
    """Training examples of each auxiliary task, and those of all targets together last."""
    return [_training(tasks) for tasks in (*([task] for task in corpus.auxiliary), corpus.target_tasks)]


def _training(tasks: Sequence[Task]) -> Group:
    return Group(
        hashes=[h for task in tasks for h in task.train_hashes],
        weights=[float(task.version.index.completion_tokens[n]) for task in tasks for n in task.split.train],
    )


def _held_out(config: Config, tasks: Sequence[Task]) -> Group:
    """The validation examples; each target has its share of the loss."""
    shares = {task.name: config.data.share_of(task.name, [t.name for t in tasks]) for task in tasks}
    return Group(
        hashes=[h for task in tasks for h in task.validation_hashes],
        weights=[shares[task.name] / len(task.split.validation) for task in tasks for _ in task.split.validation],
    )


def fill_statistics(
    config: Config, corpus: Corpus, store: Store, sets: Sequence[GradientSet], reporter: Reporter
) -> Unsaved:
    """Make the sums that are not stored yet, in one pass over their gradients, and store them.

    Args:
        config: The project's configuration.
        corpus: The tasks.
        store: Where the gradients are.
        sets: The gradients at each point.
        reporter: Told of progress where it takes over a second, and of a store that cannot be written.

    Returns:
        The sums that could not be stored; usually none.

    Raises:
        DataError: A gradient is not stored.
        StoreBusy: The store cannot be read.
    """
    groups = {group.content: group for group in training_groups(corpus) if group.hashes}
    missing = []
    for gradient_set in sets:
        there = store.statistics_there(gradient_set.key)
        missing += [(gradient_set.key, content) for content in groups if content not in there]
    unsaved: Unsaved = {}
    stage: Stage | None = None
    began, done = time.monotonic(), 0
    for set_key, contents in _portions(missing, groups):
        sums = Statistics.of(_read(store, set_key, config, [groups[content] for content in contents]))
        if not unsaved:
            try:
                store.put_statistics(set_key, contents, sums)
            except CuratorError as error:
                reporter.warn(f"sums over tasks are not kept: {error.message}")
                unsaved[set_key] = {}
        if unsaved:
            unsaved.setdefault(set_key, {}).update((content, sums.row(n)) for n, content in enumerate(contents))
        done += len(contents)
        if stage is None and time.monotonic() - began > _PATIENCE:
            stage = reporter.stage("statistics", len(missing), "sums")
        if stage is not None:
            stage.advance_to(done)
    if stage is not None:
        stage.finish(f"sums of {len(groups)} tasks at {len(sets)} points")
    return unsaved


def _portions(missing: Sequence[tuple[str, str]], groups: dict[str, Group]) -> Iterator[tuple[str, list[str]]]:
    """Cut (gradient set, content) into what is read at once; of one set each."""
    start = 0
    while start < len(missing):
        end, examples = start, 0
        while end < min(len(missing), start + _TASKS) and missing[end][0] == missing[start][0]:
            examples += len(groups[missing[end][1]].hashes)
            if examples > _EXAMPLES and end > start:
                break
            end += 1
        yield missing[start][0], [content for _, content in missing[start:end]]
        start = end


def read_points(
    config: Config, corpus: Corpus, store: Store, sets: Sequence[GradientSet], reporter: Reporter
) -> list[Point]:
    """Read what estimates are made from, at each point; single examples are read when they are asked for.

    Args, Raises: As for `fill_statistics`.
    """
    unsaved = fill_statistics(config, corpus, store, sets, reporter)
    groups = training_groups(corpus)
    contents = [group.content for group in groups]
    points = []
    for gradient_set in sets:
        (validation,) = _read(store, gradient_set.key, config, [_held_out(config, corpus.target_tasks)])
        sums = store.statistics(gradient_set.key, contents, config.gradients.projection_dim)
        kept = unsaved.get(gradient_set.key, {})
        for number, (group, content) in enumerate(zip(groups, contents, strict=True)):
            if content in kept:
                sums.put(number, kept[content])
            if sums.examples[number] != len(group.hashes):
                # Sums of nothing would be taken for a task that does nothing.
                raise DataError(
                    "sums over tasks were dropped while they were read",
                    hint="Run the command again; another process is making gradients anew.",
                )
        points.append(
            Point(
                share=gradient_set.snapshot.share,
                statistics=sums,
                validation=validation,
                read=partial(_read_tasks, store, gradient_set.key, config, groups),
            )
        )
    return points


def _read_tasks(
    store: Store, set_key: str, config: Config, groups: Sequence[Group], tasks: Sequence[int]
) -> list[ExampleSet]:
    return _read(store, set_key, config, [groups[task] for task in tasks])


def _read(store: Store, set_key: str, config: Config, groups: Sequence[Group]) -> list[ExampleSet]:
    wanted = {h for group in groups for h in group.hashes}
    hashes, losses, gradients = store.gradients(set_key, sorted(wanted))
    if len(hashes) < len(wanted):
        raise DataError(
            f"gradients of {len(wanted) - len(hashes)} examples are not stored", hint="Run `curator gradients`."
        )
    if not wanted:
        gradients = np.zeros((0, config.gradients.projection_dim), dtype=np.float32)
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
