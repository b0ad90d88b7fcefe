"""Where tasks are: `find_tasks` turns `[data]` into sources, each of them one task's rows to be."""

import difflib
import errno
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from curator.core.config import DataSection, TaskSource
from curator.core.errors import ConfigError, DataError
from curator.core.files import File
from curator.core.remote import RemoteFile, has_wildcards, is_remote, matches
from curator.core.text import clean
from curator.data.readers import FORMATS, is_saved_dataset, is_task_file, task_name
from curator.data.sources import Source
from curator.data.task_rows import read_values


def find_tasks(
    data: DataSection, root: Path, *, values: "Callable[[Source, str], list[str]] | None" = None
) -> list[Source]:
    """List the tasks that `[data]` names, by name.

    Args:
        data: The section.
        root: The project folder, to which paths are relative.
        values: Says what is in the column of a source that makes a task of each of its values; `read_values` reads it.

    Raises:
        ConfigError: `validation_files` names a task that is none.
        DataError: A path does not exist, the glob matches nothing, or two files would be the same task.
    """
    if data.tasks:
        sources = [_from_file(path) for path in _matches(data.tasks, root, "data.tasks")]
    else:
        sources = []
        for task in data.task:
            source = _from_table(task, root)
            sources += _each(source, task.task_column, values or read_values) if task.task_column else [source]
    sources.sort(key=lambda source: source.name)
    for first, second in itertools.pairwise(sources):
        if first.name == second.name:
            raise DataError(
                f"two files would be the task {first.name!r}: {first.place} and {second.place}",
                hint="Rename one of them: a task is named after its file.",
            )
    names = [source.name for source in sources]
    for name in data.validation_files:
        if name not in names:
            raise ConfigError(f"data.validation_files: {name!r} is no task of this project", hint=_nearest(name, names))
    return sources


def find_validation(data: DataSection, target: str, root: Path) -> Source | None:
    """The target's own validation file, if `[data]` names one.

    Raises:
        DataError: It does not exist.
    """
    path = data.validation_files.get(target)
    return None if path is None else _from_table(TaskSource(name=target, path=path), root)


def check_target(targets: tuple[str, ...], sources: list[Source]) -> None:
    """Make sure that every target is a task.

    Raises:
        ConfigError: There is no target, one is no task, or one stands there twice.
    """
    names = [source.name for source in sources]
    if not targets:
        raise ConfigError(
            "no target task is named", hint="Set `target` under [data] in curator.toml, or pass --target."
        )
    for target in targets:
        if target not in names:
            raise ConfigError(f"target {target!r} is no task of this project", hint=_nearest(target, names))
        if targets.count(target) > 1:
            raise ConfigError(f"target {target!r} is named twice", hint="Name each target once.")


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Tasks: {', '.join(names[:20])}."


def _matches(pattern: str, root: Path, key: str) -> list[File]:
    """What a glob matches of what can be read; like the shell's, it matches no hidden file by a wildcard."""
    if is_remote(pattern):
        there = [file for file in matches(pattern) if is_task_file(file)]
        if not there:
            raise DataError(f"{key}: no file matches {RemoteFile(pattern)}", hint=f"A task is one of: {FORMATS}.")
        return [*there]
    base = Path(pattern)
    try:
        found = sorted(
            Path(base.anchor).glob(str(base.relative_to(base.anchor))) if base.is_absolute() else root.glob(pattern)
        )
        found = [path for path in found if is_saved_dataset(path) or (path.is_file() and is_task_file(path))]
    except OSError as error:
        raise _no_path(key, error) from error
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"{key}: {pattern!r} is no glob: {error}", hint='Write, for example, "tasks/*.jsonl".') from (
            error
        )
    if not base.name.startswith("."):
        found = [path for path in found if not path.name.startswith(".")]
    if not found:
        raise DataError(f"{key}: no file matches {pattern!r} in {root}", hint=f"A task is one of: {FORMATS}.")
    return [*found]


def _from_file(path: File) -> Source:
    name = task_name(path)
    _check_name(name, path)
    if isinstance(path, Path) and path.is_dir():
        return Source(name=name, folder=path, files=_parts(path))
    return Source(name=name, files=(path,))


def _from_table(task: TaskSource, root: Path) -> Source:
    rest: dict[str, Any] = {
        "column": task.column,
        "value": task.value,
        "columns": dict(sorted(task.columns.items())),
        "roles": dict(sorted(task.roles.items())),
        "tags": task.tags,
    }
    if task.hub:
        return Source(
            name=task.name,
            hub=task.hub,
            config=task.config,
            split=task.split,
            revision=task.revision,
            streaming=task.streaming,
            **rest,
        )
    key = f"task {task.name!r}"
    try:
        if len(task.paths) == 1 and not is_remote(task.paths[0]) and is_saved_dataset(root / task.paths[0]):
            folder = root / task.paths[0]
            return Source(name=task.name, folder=folder, files=_parts(folder), split=task.split, **rest)
        files = tuple(file for path in task.paths for file in _files(path, root, key))
    except OSError as error:
        raise _no_path(key, error) from error
    for file in files:
        _check_name(task.name, file)
        if files.count(file) > 1:
            raise DataError(f"{key}: {file} is named twice", hint="Name it once in `path`.")
    return Source(name=task.name, files=files, **rest)


def _no_path(key: str, error: OSError) -> DataError:
    """The error for a path that the system does not look up."""
    path = clean(error.filename, limit=100)
    if error.errno == errno.ENAMETOOLONG:
        return DataError(f"{key}: the path is too long: {path}", hint="Correct the path in curator.toml.")
    return DataError(f"{key}: {path}: cannot be read: {error.strerror}", hint="Is it yours to read?")


def _files(written: str, root: Path, key: str) -> list[File]:
    """The files that a path in a table stands for."""
    path = root / written
    if is_remote(written):
        found = matches(written)
        kept: list[File] = [file for file in found if is_task_file(file)]
        if not kept:
            raise DataError(f"{key}: {RemoteFile(written)} is, or holds, no task file", hint=f"Known: {FORMATS}.")
        return kept
    if path.is_dir():
        kept = [*sorted(p for p in path.iterdir() if is_task_file(p) and not p.name.startswith("."))]
        if not kept:
            raise DataError(f"{key}: {path} holds no task file", hint=f"Known: {FORMATS}.")
        return kept
    if path.exists():
        if not is_task_file(path):
            raise DataError(f"{key}: {path} is no known kind of file", hint=f"Known: {FORMATS}.")
        return [path]
    if has_wildcards(written):
        kept = [path for path in _matches(written, root, key) if isinstance(path, Path) and path.is_file()]
        if not kept:
            raise DataError(f"{key}: {written!r} matches folders only", hint="Name one saved data set by its path.")
        return kept
    raise DataError(f"{key}: {path} does not exist", hint="Correct `path` in curator.toml.")


def _each(source: Source, column: str, values: Callable[[Source, str], list[str]]) -> list[Source]:
    """A source cut into one for each value of a column."""
    made: dict[str, Source] = {}
    for value in values(source, column):
        plain = f"{source.name}-{clean(value).strip()}" if source.name else clean(value).strip()
        name, number = plain, 2
        while name in made:
            name, number = f"{plain}-{number}", number + 1
        made[name] = replace(source, name=name, column=column, value=value)
    return list(made.values())


def _check_name(name: str, path: File) -> None:
    try:
        f"{name}{path}".encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{str(path)!a}: the file's name is not UTF-8, and could stand in no manifest", hint="Rename the file."
        ) from error


def _parts(folder: Path) -> tuple[File, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
