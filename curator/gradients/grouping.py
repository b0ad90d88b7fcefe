"""Data without labels → tasks: the examples of each auxiliary task cut into groups that pull the model the same way.

The paper's experiments on chains of thought select groups, not tasks. Here a group is a cluster of projected
gradients; each becomes a file and a task of its own.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from curator.core.errors import ConfigError, DataError
from curator.core.files import file_names, write_whole
from curator.data.corpus import Corpus, Task
from curator.data.rows import trainable
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.gradients.stage import gradient_sets
from curator.training.meta_init import MetaInit
from curator.workspace.store.tables import Store
from curator.workspace.workspace import Workspace


def write_groups(
    workspace: Workspace, corpus: Corpus, meta: MetaInit, sources: dict[str, Source], *, count: int, folder: Path
) -> list[tuple[str, Path, int]]:
    """Cut each auxiliary task into groups, and write one file for each.

    Args:
        workspace: The project.
        corpus: The tasks.
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
    sets = gradient_sets(workspace.config, meta)
    for task in corpus.auxiliary:
        if len(task.split.train) < count:
            raise ConfigError(
                f"task {task.name!r} has {len(task.split.train)} examples, too few for {count} groups",
                hint="Give a smaller --group.",
            )
        groups = cluster(
            _directions(workspace.store, [s.key for s in sets], task), count, seed=workspace.config.data.seed
        )
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


_ROUNDS, _STARTS = 100, 4


def cluster(gradients: npt.NDArray[np.floating], count: int, *, seed: int) -> npt.NDArray[np.intp]:
    """Group examples by spherical k-means (Dhillon & Modha 2001), begun by k-means++.

    Args:
        gradients: One row for each example (n, k); only its direction counts.
        count: Number of groups.
        seed: Of the starts, of which the best is kept.

    Returns:
        Group of each example (n,), the largest group being 0; some may be empty where examples are few or alike.
    """
    rows = gradients.astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    rng = np.random.default_rng(seed)
    best, least = np.zeros(len(rows), dtype=np.intp), np.inf
    for _ in range(_STARTS):
        centres = _spread(rows, min(count, len(rows)), rng)
        groups = np.full(len(rows), -1, dtype=np.intp)
        for _ in range(_ROUNDS):
            nearest = (rows @ centres.T).argmax(axis=1)
            if (nearest == groups).all():
                break
            groups = nearest
            for group in np.unique(groups):
                mean = rows[groups == group].sum(axis=0)
                centres[group] = mean / max(float(np.linalg.norm(mean)), np.finfo(np.float64).tiny)
        apart = float((1 - (rows * centres[groups]).sum(axis=1)).sum())
        if apart < least - 1e-12:
            best, least = groups, apart
    sizes = np.bincount(best, minlength=count)
    rank = np.empty(count, dtype=np.intp)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(count)
    return np.asarray(rank[best])


def _spread(rows: npt.NDArray[np.float64], count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Rows far from one another, to begin with."""
    chosen = [int(rng.integers(len(rows)))]
    while len(chosen) < count:
        apart = np.maximum(1 - (rows @ rows[chosen].T).max(axis=1), 0.0)
        total = apart.sum()
        chosen.append(int(rng.choice(len(rows), p=apart / total) if total > 0 else rng.integers(len(rows))))
    return rows[chosen].copy()
