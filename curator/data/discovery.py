"""Find the tasks that `[data]` names, and return one `Source` for each task."""

import difflib
import errno
import itertools
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from curator.core.config import DataSection, TaskSource
from curator.core.errors import ConfigError, DataError
from curator.core.figures import first_of
from curator.core.files import File
from curator.core.folders import entries_below, matching
from curator.core.remote import RemoteFile, has_wildcards, is_remote, matches
from curator.core.text import clean
from curator.data.layouts import Found, FoundTask, splits_beside, tasks_among, tasks_of_folder
from curator.data.left_out import TEST, VALIDATION
from curator.data.readers import FORMATS, is_saved_dataset, is_task_file
from curator.data.sources import Source
from curator.data.task_rows import read_values


def find_tasks(
    data: DataSection, root: Path, *, values: "Callable[[Source, str], list[str]] | None" = None
) -> list[Source]:
    """List the sources of all tasks that `[data]` names, sorted by task name.

    Args:
        data: Section `[data]` of the configuration.
        root: Project folder. Paths are relative to it.
        values: Returns the values of a source's `task_column`. The default, `read_values`, reads the source.

    Raises:
        ConfigError: `validation_files` or `test_files` names an unknown task.
        DataError: A path does not exist, a glob matches no file, or two files have the same task name.
    """
    if data.tasks:
        sources = [_from_found(task) for task in tasks_at(data.tasks, root, "data.tasks", kept=data.targets).tasks]
    else:
        sources = []
        for task in data.task:
            source = _from_table(task, root)
            sources += _each(source, task.task_column, values or read_values) if task.task_column else [source]
    sources.sort(key=lambda source: source.name)
    for first, second in itertools.pairwise(sources):
        if first.name == second.name:
            raise DataError(
                f"two files have the same task name: {first.name!r}: {first.place} and {second.place}",
                hint="Rename one of the files, or name the tasks in [[data.task]] tables.",
            )
    names = [source.name for source in sources]
    for key, files in (("validation_files", data.validation_files), ("test_files", data.test_files)):
        for name in files:
            if name not in names:
                raise ConfigError(f"data.{key}: unknown task: {name!r}", hint=_nearest(name, names))
    return sources


def find_held_out(data: DataSection, target: str, root: Path, part: str) -> Source | None:
    """Return the source of a target's validation or test file, or None if `[data]` names no file.

    Args:
        data: Section `[data]` of the configuration.
        target: Name of the target task.
        root: Project folder. Paths are relative to it.
        part: `validation` or `test`.

    Raises:
        DataError: The file does not exist.
    """
    path = (data.test_files if part == TEST else data.validation_files).get(target)
    return None if path is None else _from_table(TaskSource(name=target, path=path), root, all_splits=True)


def find_validation(data: DataSection, target: str, root: Path) -> Source | None:
    """Return the source of a target's validation file, as `find_held_out` does."""
    return find_held_out(data, target, root, VALIDATION)


def left_out_files(data: DataSection, root: Path) -> Found:
    """Return the files that a glob or a folder of `[data]` covers, and that belong to no task.

    Args:
        data: Section `[data]` of the configuration.
        root: Project folder. Paths are relative to it.

    Raises:
        DataError: The README of a data set names files outside its folder.
    """
    found = Found()
    if data.tasks:
        found = found_at(data.tasks, root, "data.tasks", kept=data.targets)
    for task in data.task:
        for written in task.paths:
            if written and not _is_one_file(written, root):
                found += found_at(written, root, f"task {task.name!r}")
    used = {file for task in found.tasks for file in task.files}
    for written in (*data.validation_files.values(), *data.test_files.values()):
        used |= {root / written}
    return Found(
        held_out=tuple(sorted({file for file in found.held_out if file not in used}, key=str)),
        unread=tuple(sorted(set(found.unread))),
        below=tuple(sorted({*found.below} - used)),
        missing=tuple(sorted(set(found.missing))),
    )


def _is_one_file(written: str, root: Path) -> bool:
    if is_remote(written):
        return not has_wildcards(written) and is_task_file(RemoteFile(written))
    return (root / written).is_file()


def check_target(targets: tuple[str, ...], sources: list[Source]) -> None:
    """Check that every target is a task of the project.

    Raises:
        ConfigError: `targets` is empty, holds an unknown task, or holds a task twice.
    """
    names = [source.name for source in sources]
    if not targets:
        raise ConfigError("no target task is set", hint="Set `target` under [data] in curator.toml, or pass --target.")
    for target in targets:
        if target not in names:
            raise ConfigError(f"unknown target: {target!r}", hint=_nearest(target, names))
        if targets.count(target) > 1:
            raise ConfigError(f"duplicate target: {target!r}", hint="Name each target once.")


def check_auxiliary(names: Iterable[str], targets: Collection[str], tasks: Collection[str]) -> None:
    """Check that every name is an auxiliary task.

    Args:
        names: Names to check.
        targets: Names of the targets.
        tasks: Names of all tasks, or of all auxiliary tasks.

    Raises:
        ConfigError: A name is a target, or not a task.
    """
    for name in names:
        if name in targets:
            raise ConfigError(
                f"target named as an auxiliary task: {name!r}",
                hint="Name auxiliary tasks only. Every subset includes the target.",
            )
        if name not in tasks:
            near = difflib.get_close_matches(name, [task for task in tasks if task not in targets], n=1)
            raise ConfigError(
                f"unknown task: {name!r}",
                hint=f"Use {near[0]!r}, or list the tasks with `curator check`."
                if near
                else "List the tasks with `curator check`.",
            )


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"Check the spelling: a task is named {near[0]!r}." if near else f"Use one of: {first_of(names, 20)}."


def tasks_at(written: str, root: Path, key: str, *, kept: Collection[str] = (), all_splits: bool = False) -> Found:
    """Return the result of `found_at`.

    Raises:
        ConfigError: The glob is not valid.
        DataError: A folder cannot be read, or no task file matches.
    """
    found = found_at(written, root, key, kept=kept, all_splits=all_splits)
    if not found.tasks:
        local = not is_remote(written)
        where = (
            f"in folder {root / written}" if local and (root / written).is_dir() else f"matches: {written!r} in {root}"
        )
        held_out = f" (only test and validation splits, such as {found.held_out[0]})" if found.held_out else ""
        raise DataError(
            f"{key}: no task file {where if local else f'at {RemoteFile(written)}'}{held_out}",
            hint="Name the file itself in [[data.task]] to train on it." if held_out else f"Use {FORMATS}.",
        )
    return found


def found_at(written: str, root: Path, key: str, *, kept: Collection[str] = (), all_splits: bool = False) -> Found:
    """Return the tasks of a folder, a glob or an address, and the files of no task.

    A pattern that ends in a plain name, such as `tasks/*/test.jsonl`, names its files itself.

    Args:
        written: Local folder or glob, or an address. Like in the shell, a wildcard matches no hidden file.
        root: Folder that a relative path refers to.
        key: Name of the setting for errors.
        kept: Names of tasks that remain tasks, even if they look like a test or validation split.
        all_splits: Whether test and validation splits are tasks too.

    Raises:
        ConfigError: The glob is not valid.
        DataError: A folder or an address cannot be read.
    """
    last = written.rstrip("/").rpartition("/")[2]
    all_splits = all_splits or (has_wildcards(written) and not has_wildcards(last))
    if is_remote(written):
        paths: list[File] = [*matches(written)]
        found = tasks_among(
            paths, named_after_folder=_below(written.partition("://")[2]), kept=kept, all_splits=all_splits
        )
    else:
        try:
            if (root / written).is_dir():
                found = tasks_of_folder(root / written, kept=kept, all_splits=all_splits)
            else:
                covered = _globbed(written, root, key)
                found = tasks_among(
                    [path for path in covered if last.startswith(".") or not path.name.startswith(".")],
                    named_after_folder=_below(os.path.abspath(root / written)),
                    kept=kept,
                    all_splits=all_splits,
                )
            known = {*found.files, *found.held_out}
            found += Found(held_out=tuple(file for file in splits_beside(found) if file not in known))
            read = {*found.files, *found.held_out}
            found = replace(found, below=tuple(file for file in found.below if file not in read))
        except OSError as error:
            raise _no_path(key, error) from error
    return found


def _below(written: str) -> Callable[[PurePosixPath], bool]:
    """Return whether a folder lies below the part of a path that has no wildcards."""
    plain = itertools.takewhile(lambda part: not has_wildcards(part), PurePosixPath(written).parts[:-1])
    base = PurePosixPath(*plain)
    return lambda folder: folder != base


def _globbed(pattern: str, root: Path, key: str) -> list[Path]:
    try:
        return matching(pattern, root)
    except ValueError as error:
        raise ConfigError(
            f"{key}: not a valid glob: {pattern!r}: {error}", hint='Write, for example, "tasks/*.jsonl".'
        ) from error


def _from_found(task: FoundTask) -> Source:
    for file in task.files:
        _check_name(task.name, file)
    folder = task.files[0]
    if isinstance(folder, Path) and folder.is_dir():
        return Source(name=task.name, folder=folder, files=_parts(folder))
    return Source(name=task.name, files=task.files)


def _from_table(task: TaskSource, root: Path, *, all_splits: bool = False) -> Source:
    rest: dict[str, Any] = {
        "column": task.column,
        "value": task.value,
        "columns": dict(sorted(task.columns.items())),
        "roles": dict(sorted(task.roles.items())),
        "rows": task.rows,
        "csv": task.csv.model_dump(exclude_none=True),
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
        files = tuple(file for path in task.paths for file in _files(path, root, key, all_splits=all_splits))
    except OSError as error:
        raise _no_path(key, error) from error
    for file in files:
        _check_name(task.name, file)
        if files.count(file) > 1:
            raise DataError(f"{key}: duplicate file: {file}", hint="Name each file once in `path`.")
    return Source(name=task.name, files=files, **rest)


def _no_path(key: str, error: OSError) -> DataError:
    """Return the error for a path that the operating system cannot look up."""
    path = clean(error.filename, limit=100)
    if error.errno == errno.ENAMETOOLONG:
        return DataError(f"{key}: the path is too long: {path}", hint="Correct the path in curator.toml.")
    return DataError(f"{key}: cannot read {path}: {error.strerror}", hint="Check the permissions of the path.")


def _files(written: str, root: Path, key: str, *, all_splits: bool) -> list[File]:
    """Return the task files that `path` in a `[[data.task]]` table names: a file, a folder, a glob or an address."""
    path = root / written
    if not is_remote(written):
        if path.is_file():
            if not is_task_file(path):
                raise DataError(f"{key}: unsupported file type: {path}", hint=f"Use {FORMATS}.")
            return [path]
        if not path.exists() and not has_wildcards(written):
            raise DataError(f"{key}: no such file or folder: {path}", hint="Correct `path` in curator.toml.")
    elif not has_wildcards(written):
        found = matches(written)
        if found == [RemoteFile(written)]:
            # The address of a file, and not of a folder.
            if not is_task_file(found[0]):
                raise DataError(f"{key}: no task file at {found[0]}", hint=f"Use {FORMATS}.")
            return [*found]
    kept = [
        file
        for file in tasks_at(written, root, key, all_splits=all_splits).files
        if not (isinstance(file, Path) and file.is_dir())
    ]
    if not kept:
        raise DataError(f"{key}: only folders match: {written!r}", hint="Name one saved data set by its path.")
    return sorted(kept, key=str)


def _each(source: Source, column: str, values: Callable[[Source, str], list[str]]) -> list[Source]:
    """Split a source into one source for each value of a column."""
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
            f"file name is not valid UTF-8: {str(path)!a}", hint="Rename the file. A manifest holds UTF-8 only."
        ) from error


def _parts(folder: Path) -> tuple[File, ...]:
    return tuple(sorted(path for path in entries_below(folder) if path.is_file()))
