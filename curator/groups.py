"""Data without labels → tasks: the examples of each auxiliary task cut into groups that pull the model the same way.

The paper's experiments on chains of thought select groups, not tasks. Here a group is a cluster of projected
gradients; each becomes a file and a task of its own.
"""

import json
from pathlib import Path

import numpy as np

from curator.clusters import cluster
from curator.config import Config
from curator.corpus import Corpus, Task
from curator.data import Source, read_task
from curator.errors import ConfigError, DataError
from curator.files import file_names, write_whole
from curator.rows import trainable
from curator.stages import MetaInit, gradient_sets
from curator.store import Store


def write_groups(
    config: Config,
    corpus: Corpus,
    store: Store,
    meta: MetaInit,
    sources: dict[str, Source],
    *,
    count: int,
    folder: Path,
) -> list[tuple[str, Path, int]]:
    """Cut each auxiliary task into groups, and write one file for each.

    Args:
        config: The project's configuration.
        corpus: The tasks.
        store: Where gradients are.
        meta: The meta-initialization at whose points they were taken.
        sources: Where the rows of each task come from, by its name.
        count: Groups of each task.
        folder: Where to.

    Returns:
        Name, file and rows of each group.

    Raises:
        ConfigError: A task has fewer examples than groups.
        DataError: A file cannot be read or written.
    """
    written = []
    names = [_group_name(task.name, group, count) for task in corpus.auxiliary for group in range(count)]
    files = dict(zip(names, file_names(names), strict=True))
    sets = gradient_sets(config, meta)
    for task in corpus.auxiliary:
        if len(task.split.train) < count:
            raise ConfigError(
                f"task {task.name!r} has {len(task.split.train)} examples, too few for {count} groups",
                hint="Give a smaller --group.",
            )
        groups = cluster(_directions(store, [s.key for s in sets], task), count, seed=config.data.seed)
        rows = {row.number: row for row in read_task(sources[task.name], keep_bad=True)}
        for group in range(count):
            numbers = [n for n, of in zip(task.split.train, groups.tolist(), strict=True) if of == group]
            if not numbers:
                continue
            name = _group_name(task.name, group, count)
            path = folder / f"{files[name]}.jsonl"
            lines = [json.dumps(trainable(rows[n].content), ensure_ascii=False) + "\n" for n in numbers]
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(path, "".join(lines).encode())
            except OSError as error:
                raise DataError(f"{path}: cannot be written: {error}", hint="Is the disk full?") from error
            written.append((name, path, len(numbers)))
    return written


def _group_name(task: str, group: int, count: int) -> str:
    return f"{task}-group-{group + 1:0{len(str(count))}}"


def _directions(store: Store, set_keys: list[str], task: Task) -> np.ndarray:
    """The gradients of a task's training examples at all points, each of length 1, side by side (n, points · k)."""
    parts = []
    for key in set_keys:
        hashes, _, gradients = store.gradients(key, sorted(set(task.train_hashes)))
        places = {h: place for place, h in enumerate(hashes)}
        rows = gradients[[places[h] for h in task.train_hashes]].astype(np.float64)
        parts.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny))
    return np.concatenate(parts, axis=1)
