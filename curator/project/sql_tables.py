"""Build the tables that `curator sql` joins with the store, from the project's current state."""

from pathlib import Path

import pyarrow as pa

from curator.core.files import relative_to
from curator.data.corpus import Corpus, Task
from curator.data.left_out import TEST, VALIDATION
from curator.estimate.target import TargetEstimates
from curator.training.fine_tune import recipe_key
from curator.training.meta_init import find_meta_init
from curator.workspace.store.sql import ProjectTables
from curator.workspace.workspace import Workspace

# Reasons that have a split of their own.
_HELD_OUT = (TEST, VALIDATION)
_TASKS = pa.schema(
    {
        "task": pa.string(),
        "target": pa.bool_(),
        "tags": pa.list_(pa.string()),
        "files": pa.list_(pa.string()),
        "rows": pa.int64(),
        "examples": pa.int64(),
        "validation": pa.int64(),
        "left_out": pa.int64(),
        "tokens": pa.int64(),
        "truncated": pa.int64(),
        "content": pa.string(),
    }
)
_SPLIT = pa.schema(
    {"task_key": pa.string(), "number": pa.int32(), "task": pa.string(), "split": pa.string(), "reason": pa.string()}
)


def project_tables(workspace: Workspace, corpus: Corpus) -> ProjectTables:
    """Build the tables of a project's current state.

    Args:
        workspace: The project.
        corpus: Examples of the project, split for the targets of the query.
    """
    meta = find_meta_init(workspace, corpus) if corpus.targets else None
    key = None if meta is None else TargetEstimates(workspace, corpus, meta).key
    return ProjectTables(
        tasks=pa.Table.from_pylist([_row(task, corpus, workspace.root) for task in corpus.tasks], _TASKS),
        split=pa.concat_tables([_SPLIT.empty_table(), *(part for task in corpus.tasks for part in _split(task))]),
        keys=pa.table(
            {
                "estimate": pa.array([key], pa.string()),
                "recipe": pa.array([recipe_key(workspace.config, corpus)], pa.string()),
            }
        ),
    )


def _row(task: Task, corpus: Corpus, root: Path) -> dict[str, object]:
    is_hub = bool(task.version.source.get("hub"))
    left_out = sum(len(numbers) for reason, numbers in task.split.left_out.items() if reason not in _HELD_OUT)
    return {
        "task": task.name,
        "target": task.name in corpus.targets,
        "tags": list(task.tags),
        "files": [name if is_hub else relative_to(name, root) for name, _, _ in task.version.files],
        "rows": len(task.version.index.hashes),
        "examples": len(task.split.train),
        "validation": len(task.split.validation),
        "left_out": left_out,
        "tokens": task.tokens,
        "truncated": task.truncated,
        "content": task.content,
    }


def _split(task: Task) -> list[pa.Table]:
    left_out = {reason: numbers for reason, numbers in task.split.left_out.items() if reason not in _HELD_OUT}
    return [
        _part(task, task.version.key, task.split.train, "train"),
        _part(task, task.held_out_from.key, task.split.validation, "validation"),
        _part(task, task.held_out(TEST)[0].key, task.split.test, "test"),
        *(_part(task, task.version.key, numbers, "left out", reason) for reason, numbers in left_out.items()),
    ]


def _part(task: Task, key: str, numbers: tuple[int, ...], split: str, reason: str | None = None) -> pa.Table:
    many = len(numbers)
    columns = [
        pa.repeat(pa.scalar(key, pa.string()), many),
        pa.array(numbers, pa.int32()),
        *(pa.repeat(pa.scalar(text, pa.string()), many) for text in (task.name, split, reason)),
    ]
    return pa.Table.from_arrays(columns, schema=_SPLIT)
