"""Find the tasks that `[data]` names, and return one `Source` for each task."""

import difflib
import errno
import itertools
from collections.abc import Callable, Iterable
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
    """List the sources of all tasks that `[data]` names, sorted by task name.

    Args:
        data: Section `[data]` of the configuration.
        root: Project folder. Paths are relative to it.
        values: Returns the values of a source's `task_column`. The default, `read_values`, reads the source.

    Raises:
        ConfigError: `validation_files` names an unknown task.
        DataError: A path does not exist, a glob matches no file, or two files have the same task name.
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
                f"two files have the same task name: {first.name!r}: {first.place} and {second.place}",
                hint="Rename one of the files. A task is named after its file.",
            )
    names = [source.name for source in sources]
    for name in data.validation_files:
        if name not in names:
            raise ConfigError(f"data.validation_files: unknown task: {name!r}", hint=_nearest(name, names))
    return sources


def find_validation(data: DataSection, target: str, root: Path) -> Source | None:
    """Return the source of a target's validation file, or None if `[data]` names no file.

    Args:
        data: Section `[data]` of the configuration.
        target: Name of the target task.
        root: Project folder. Paths are relative to it.

    Raises:
        DataError: The file does not exist.
    """
    path = data.validation_files.get(target)
    return None if path is None else _from_table(TaskSource(name=target, path=path), root)


def unread_files(data: DataSection, root: Path) -> list[Path]:
    """Return the local files that a glob or a folder of `[data]` covers, and that no reader knows.

    Args:
        data: Section `[data]` of the configuration.
        root: Project folder. Paths are relative to it.
    """
    written = [data.tasks] if data.tasks else [path for task in data.task for path in task.paths]
    found: list[Path] = []
    for pattern in dict.fromkeys(written):
        if is_remote(pattern):
            continue
        path = root / pattern
        if is_saved_dataset(path):
            continue
        if path.is_dir():
            covered = list(path.iterdir())
        elif has_wildcards(pattern) and not path.exists():
            base = Path(pattern)
            covered = list(
                Path(base.anchor).glob(str(base.relative_to(base.anchor))) if base.is_absolute() else root.glob(pattern)
            )
        else:
            continue
        found += unread_of(covered)
    return sorted(set(found))


def unread_of(paths: Iterable[Path]) -> list[Path]:
    """Return the files among some paths that no reader knows. Hidden files do not count."""
    return sorted(path for path in paths if path.is_file() and not is_task_file(path) and not path.name.startswith("."))


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


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"Check the spelling: a task is named {near[0]!r}." if near else f"Use one of: {', '.join(names[:20])}."


def _matches(pattern: str, root: Path, key: str) -> list[File]:
    """Return the task files and saved data sets that a glob matches.

    Like in the shell, a wildcard matches no hidden file.
    """
    if is_remote(pattern):
        remote = [file for file in matches(pattern) if is_task_file(file)]
        if not remote:
            raise DataError(f"{key}: no task file matches: {RemoteFile(pattern)}", hint=f"Use {FORMATS}.")
        return [*remote]
    base = Path(pattern)
    try:
        found = sorted(
            Path(base.anchor).glob(str(base.relative_to(base.anchor))) if base.is_absolute() else root.glob(pattern)
        )
        found = [path for path in found if is_saved_dataset(path) or (path.is_file() and is_task_file(path))]
    except OSError as error:
        raise _no_path(key, error) from error
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"{key}: not a valid glob: {pattern!r}: {error}", hint='Write, for example, "tasks/*.jsonl".'
        ) from error
    if not base.name.startswith("."):
        found = [path for path in found if not path.name.startswith(".")]
    if not found:
        raise DataError(f"{key}: no task file matches: {pattern!r} in {root}", hint=f"Use {FORMATS}.")
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
        files = tuple(file for path in task.paths for file in _files(path, root, key))
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


def _files(written: str, root: Path, key: str) -> list[File]:
    """Return the task files that `path` in a `[[data.task]]` table names: a file, a folder, a glob or an address."""
    path = root / written
    if is_remote(written):
        found = matches(written)
        kept: list[File] = [file for file in found if is_task_file(file)]
        if not kept:
            raise DataError(f"{key}: no task file at {RemoteFile(written)}", hint=f"Use {FORMATS}.")
        return kept
    if path.is_dir():
        kept = [*sorted(p for p in path.iterdir() if is_task_file(p) and not p.name.startswith("."))]
        if not kept:
            raise DataError(f"{key}: no task file in folder {path}", hint=f"Use {FORMATS}.")
        return kept
    if path.exists():
        if not is_task_file(path):
            raise DataError(f"{key}: unsupported file type: {path}", hint=f"Use {FORMATS}.")
        return [path]
    if has_wildcards(written):
        kept = [path for path in _matches(written, root, key) if isinstance(path, Path) and path.is_file()]
        if not kept:
            raise DataError(f"{key}: only folders match: {written!r}", hint="Name one saved data set by its path.")
        return kept
    raise DataError(f"{key}: no such file or folder: {path}", hint="Correct `path` in curator.toml.")


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
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
