"""Split data without task labels into tasks: groups of examples with similar gradients.

The paper's experiments on chains of thought select groups instead of tasks.
A group is a cluster of projected gradients. Each group becomes a file and a task.
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
from curator.gradients.segment_sets import sets_in_use
from curator.training.meta_init import MetaInit
from curator.workspace.store.tables import Store
from curator.workspace.workspace import Workspace


def check_group_count(corpus: Corpus, count: int) -> None:
    """Check that every auxiliary task has enough examples for a number of groups.

    Raises:
        ConfigError: A task has fewer examples than groups.
    """
    for task in corpus.auxiliary:
        if len(task.split.train) < count:
            raise ConfigError(
                f"too few examples in task {task.name!r} for {count} groups: {len(task.split.train)}",
                hint="Pass a smaller --group.",
            )


def write_groups(
    workspace: Workspace, corpus: Corpus, meta: MetaInit, sources: dict[str, Source], *, count: int, folder: Path
) -> list[tuple[str, Path, int]]:
    """Split each auxiliary task into groups of examples, and write one file per group.

    Args:
        workspace: The project.
        corpus: Tasks of the project.
        meta: Meta-initialization of the stored gradients.
        sources: Source of each task by name.
        count: Maximum number of groups per task. `check_group_count` accepts it.
        folder: Folder for the files.

    Returns:
        Name, file and number of rows of each group. Empty groups are left out.

    Raises:
        DataError: A file cannot be read or written.
    """
    written = []
    names = [_group_name(task.name, group, count) for task in corpus.auxiliary for group in range(count)]
    files = dict(zip(names, file_names(names), strict=True))
    sets = sets_in_use(workspace.config, meta)
    for task in corpus.auxiliary:
        groups = cluster(
            _directions(workspace.store, [s.key for s in sets], task), count, seed=workspace.config.data.seed
        )
        known = {path: sha256 for path, sha256, _ in task.version.files}
        rows = {row.number: row for row in read_task(sources[task.name], keep_bad=True, hashes=known)}
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
                hint = "Check free disk space and write permissions."
                raise DataError(f"cannot write {path}: {error}", hint=hint) from error
            written.append((name, path, len(numbers)))
    return written


def _group_name(task: str, group: int, count: int) -> str:
    return f"{task}-group-{group + 1:0{len(str(count))}}"


def _directions(store: Store, set_keys: list[str], task: Task) -> np.ndarray:
    """Return the normalised gradients of a task's training examples in all sets (n, sets · k).

    The part of a set that does not hold an example is zero.
    """
    parts = []
    for key in set_keys:
        hashes, _, gradients = store.gradients(key, sorted(set(task.train_hashes)))
        places = {h: place for place, h in enumerate(hashes)}
        rows = np.zeros((len(task.train_hashes), gradients.shape[1]))
        for row, h in enumerate(task.train_hashes):
            if h in places:
                rows[row] = gradients[places[h]]
        parts.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny))
    return np.concatenate(parts, axis=1)


# Largest number of k-means rounds, and number of random starts.
_ROUNDS, _STARTS = 100, 4


def cluster(gradients: npt.NDArray[np.floating], count: int, *, seed: int) -> npt.NDArray[np.intp]:
    """Group examples by the direction of their gradients with spherical k-means and k-means++ starts.

    Args:
        gradients: One row per example (n, k). Only the direction of a row matters.
        count: Maximum number of groups.
        seed: Seed of the random starts. The best start is kept.

    Returns:
        Group of each example (n,), from 0 by falling size. Groups can be empty if examples are few or equal.

    Source:
        Dhillon & Modha, "Concept decompositions for large sparse text data using clustering", Machine Learning 2001.
        Arthur & Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
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
    """Draw the initial centres by k-means++: rows far from each other are more likely."""
    chosen = [int(rng.integers(len(rows)))]
    while len(chosen) < count:
        apart = np.maximum(1 - (rows @ rows[chosen].T).max(axis=1), 0.0)
        total = apart.sum()
        chosen.append(int(rng.choice(len(rows), p=apart / total) if total > 0 else rng.integers(len(rows))))
    return rows[chosen].copy()
