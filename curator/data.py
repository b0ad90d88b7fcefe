"""Files and hub → tasks → rows.

`find_tasks` turns `[data]` into sources; `read_task` reads one of them into `Row`s with a normalised content (rows.py).
"""

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curator.config import DataSection, TaskSource
from curator.errors import ConfigError, DataError
from curator.readers import (
    FORMATS,
    RawRow,
    is_saved_dataset,
    is_task_file,
    read_file,
    read_hub,
    read_saved,
    task_name,
)
from curator.rows import Row, normalise, place
from curator.text import clean

Value = str | int | bool | None

# Bad rows that an error lists.
_BAD_LISTED = 5
_SKIP_HINT = 'To go on without such rows: --skip-bad-rows, or bad_rows = "skip" under [data].'


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one task's rows come from."""

    name: str
    files: tuple[Path, ...] = ()
    """Local files, in the order in which they are read."""
    folder: Path | None = None
    """A folder that `datasets.load_from_disk` reads; `files` are then its parts."""
    hub: str = ""
    config: str = ""
    split: str = "train"
    revision: str = ""
    column: str = ""
    value: Value = None
    tags: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What decides which rows are read, beside the bytes of the files; only what is not as usual."""
        described: dict[str, Any] = {}
        if self.hub:
            described = {"hub": self.hub, "config": self.config, "revision": self.revision}
        if self.folder is not None:
            described["saved_dataset"] = True
        if self.split != "train":
            described["split"] = self.split
        described = {key: value for key, value in described.items() if value != ""}
        if self.column:
            described |= {"column": self.column, "value": self.value}
        return described

    @property
    def place(self) -> str:
        """Where the rows are, for messages."""
        return self.hub or str(self.folder or ", ".join(map(str, self.files[:3])))


# -- finding tasks ------------------------------------------------------------------------------------------------


def find_tasks(data: DataSection, root: Path) -> list[Source]:
    """List the tasks that `[data]` names, by name.

    Args:
        data: The section.
        root: The project folder, to which paths are relative.

    Raises:
        ConfigError: `validation_files` names a task that is none.
        DataError: A path does not exist, the glob matches nothing, or two files would be the same task.
    """
    if data.tasks:
        sources = [_from_file(path) for path in _matches(data.tasks, root, "data.tasks")]
    else:
        sources = [_from_table(task, root) for task in data.task]
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


def _matches(pattern: str, root: Path, key: str) -> list[Path]:
    """What a glob matches of what can be read; like the shell's, it matches no hidden file by a wildcard."""
    base = Path(pattern)
    try:
        found = sorted(
            Path(base.anchor).glob(str(base.relative_to(base.anchor))) if base.is_absolute() else root.glob(pattern)
        )
    except (ValueError, NotImplementedError, OSError) as error:
        raise ConfigError(f"{key}: {pattern!r} is no glob: {error}", hint='Write, for example, "tasks/*.jsonl".') from (
            error
        )
    found = [path for path in found if is_saved_dataset(path) or (path.is_file() and is_task_file(path))]
    if not base.name.startswith("."):
        found = [path for path in found if not path.name.startswith(".")]
    if not found:
        raise DataError(f"{key}: no file matches {pattern!r} in {root}", hint=f"A task is one of: {FORMATS}.")
    return found


def _from_file(path: Path) -> Source:
    name = task_name(path)
    _check_name(name, path)
    if path.is_dir():
        return Source(name=name, folder=path, files=_parts(path))
    return Source(name=name, files=(path,))


def _from_table(task: TaskSource, root: Path) -> Source:
    filters: dict[str, Any] = {"column": task.column, "value": task.value, "tags": task.tags}
    if task.hub:
        return Source(
            name=task.name, hub=task.hub, config=task.config, split=task.split, revision=task.revision, **filters
        )
    path = root / task.path
    key = f"task {task.name!r}"
    if is_saved_dataset(path):
        return Source(name=task.name, folder=path, files=_parts(path), split=task.split, **filters)
    if path.is_dir():
        files = tuple(sorted(p for p in path.iterdir() if is_task_file(p) and not p.name.startswith(".")))
        if not files:
            raise DataError(f"{key}: {path} holds no task file", hint=f"Known: {FORMATS}.")
    elif path.exists():
        if not is_task_file(path):
            raise DataError(f"{key}: {path} is no known kind of file", hint=f"Known: {FORMATS}.")
        files = (path,)
    elif any(c in task.path for c in "*?["):
        files = tuple(path for path in _matches(task.path, root, key) if path.is_file())
        if not files:
            raise DataError(f"{key}: {task.path!r} matches folders only", hint="Name one saved data set by its path.")
    else:
        raise DataError(f"{key}: {path} does not exist", hint="Correct `path` in curator.toml.")
    for file in files:
        _check_name(task.name, file)
    return Source(name=task.name, files=files, **filters)


def _check_name(name: str, path: Path) -> None:
    try:
        f"{name}{path}".encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{str(path)!a}: the file's name is not UTF-8, and could stand in no manifest", hint="Rename the file."
        ) from error


def _parts(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


# -- reading rows -------------------------------------------------------------------------------------------------


def refusal(bad: Sequence[tuple[str, str]], rows: int, where: str) -> DataError:
    """The error for rows that cannot be used.

    Args:
        bad: Place and problem of each of them; at least one.
        rows: How many rows there are in all.
        where: What holds them.
    """
    first, _, hint = bad[0][1].partition("\n")
    if len(bad) == 1:
        return DataError(f"{bad[0][0]}: {first} (1 of {rows:,} rows in {where})", hint=f"{hint} {_SKIP_HINT}")
    listed = [f"{place}: {problem.partition(chr(10))[0]}" for place, problem in bad[:_BAD_LISTED]]
    if len(bad) > _BAD_LISTED:
        listed.append(f"and {len(bad) - _BAD_LISTED:,} more")
    return DataError(
        f"{len(bad):,} of {rows:,} rows in {where} cannot be used:\n  " + "\n  ".join(listed),
        hint=f"{hint} {_SKIP_HINT}",
    )


def read_task(source: Source, *, keep_bad: bool = False) -> list[Row]:
    """Read all rows of a task.

    Args:
        source: Where they are.
        keep_bad: Whether rows that cannot be used are among those that are returned, with their problem.

    Raises:
        DataError: A file cannot be read, there are no rows, or some cannot be used (with file and line).
    """
    rows: list[Row] = []
    columns: set[str] = set()
    for file, line, raw in _raw_rows(source):
        if source.column and not isinstance(raw, DataError):
            columns.update(map(str, raw))
            if not _equals(raw.get(source.column), source.value):
                continue
        rows.append(_row(raw, file, line, len(rows)))
    if rows:
        bad = [(row.place, row.problem) for row in rows if row.problem]
        if bad and not keep_bad:
            raise refusal(bad, len(rows), source.place)
        return rows
    if columns and source.column not in columns:
        raise DataError(
            f"task {source.name!r}: {source.place}: no column {source.column!r}",
            hint=f"Columns there: {', '.join(sorted(columns)[:20])}.",
        )
    kept = f" with {source.column} = {source.value!r}" if source.column else ""
    raise DataError(
        f"task {source.name!r}: {source.place} holds no rows{kept}", hint="Remove the task, or give it examples."
    )


def _row(raw: dict[str, Any] | DataError, file: str, line: int, number: int) -> Row:
    where = place(file, line, number)
    try:
        if isinstance(raw, DataError):
            raise raw
        return Row(number=number, file=file, line=line, content=normalise(raw, where))
    except DataError as error:
        return bad_row(number, file, line, error)


def bad_row(number: int, file: str, line: int, error: DataError) -> Row:
    """A row that cannot be used; the message is kept without its place."""
    what = error.message.removeprefix(f"{place(file, line, number)}: ")
    # Cleaned, because it is kept, and a store takes no half of a surrogate pair.
    problem = f"{clean(what, limit=300)}\n{error.hint}"
    return Row(number=number, file=file, line=line, content={"text": ""}, problem=problem)


def _raw_rows(source: Source) -> Iterator[tuple[str, int, dict[str, Any] | DataError]]:
    parts: list[tuple[str, Iterator[RawRow]]]
    if source.hub:
        parts = [(source.hub, read_hub(source.hub, source.config, source.split, source.revision))]
    elif source.folder:
        parts = [(str(source.folder), read_saved(source.folder, source.split))]
    else:
        parts = [(str(file), read_file(file)) for file in source.files]
    for file, rows in parts:
        for line, raw in rows:
            yield file, line, raw


def _equals(cell: Any, value: Value) -> bool:
    """Whether a cell is the value of a filter; in CSV every cell is text, elsewhere it may have a type."""
    if cell is None:
        return False
    if isinstance(cell, str) and not isinstance(value, str):
        return cell.strip().lower() == str(value).lower()
    if isinstance(cell, bool) or isinstance(value, bool):
        return str(cell).lower() == str(value).lower()
    return bool(cell == value) or str(cell) == value
