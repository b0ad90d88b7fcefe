"""Read sources into rows with a normalised content (rows.py)."""

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from curator.core.errors import DataError
from curator.core.figures import first_of
from curator.core.file_states import FileChanged
from curator.core.text import clean
from curator.data.bad_rows import rows_refusal
from curator.data.choices import COLUMNS, choices_of
from curator.data.columns import (
    refuse_choice_number,
    refuse_named_choice,
    refuse_other_kinds,
    refuse_placeholders,
    unused_columns,
)
from curator.data.formats import TURN_FIELDS, UNKNOWN, recognise, renamed
from curator.data.nested import cell, rows_of
from curator.data.raw import Note, RawRow
from curator.data.readers import ReadOptions, read_file, read_hub, read_saved
from curator.data.rows import Row, place, texts
from curator.data.shapes import as_known
from curator.data.sources import Source, Value
from curator.data.verdicts import Marks, answer_of

# Largest total content, in characters, of rows in memory for tasks that share a file. More rows need another pass.
_MOST_HELD = 2**29
# Fields that a row may lack.
_OPTIONAL = ("input", "system", "history", "tools")


Hashes = Mapping[str, str]
"""SHA-256 by the text of a file's path or address."""


def read_task(source: Source, *, keep_bad: bool = False, hashes: Hashes | None = None) -> list[Row]:
    """Read all rows of a task.

    Args:
        source: Source of the task.
        keep_bad: Whether to return bad rows with their problem instead of raising.
        hashes: Expected hash of each file. None accepts any content.

    Raises:
        FileChanged: A file does not have its hash.
        DataError: A file cannot be read, the source has no rows, or `keep_bad` is false and a row cannot be used.
    """
    ((_, rows),) = read_tasks([source], hashes)
    if isinstance(rows, DataError):
        raise rows
    bad = [row for row in rows if row.problem]
    if bad and not keep_bad:
        raise rows_refusal(bad, len(rows), source.place)
    return rows


def read_tasks(sources: Sequence[Source], hashes: Hashes | None = None) -> Iterator[tuple[int, list[Row] | DataError]]:
    """Read all rows of several tasks. Tasks that differ only in the value of one column share a pass over their file.

    Args:
        sources: Sources of the tasks.
        hashes: Expected hash of each file. None accepts any content.

    Yields:
        Index of a task in `sources`, and its rows, including bad rows. Tasks that share a file are adjacent. Instead of
        the rows, the error of a task whose file cannot be read, or which has no rows.

    Raises:
        FileChanged: A file does not have its hash.
    """
    together: dict[Hashable, list[int]] = {}
    for number, source in enumerate(sources):
        together.setdefault(_origin(source) if source.column else number, []).append(number)
    for waiting in together.values():
        while waiting:
            try:
                rows = _read_together({number: sources[number] for number in waiting}, hashes)
            except FileChanged:
                raise
            except DataError as error:
                rows = dict.fromkeys(waiting, error)
            waiting = [number for number in waiting if number not in rows]
            for number in list(rows):
                yield number, rows.pop(number)


def read_values(source: Source, column: str, hashes: Hashes | None = None) -> list[str]:
    """Return the distinct values of a column as sorted text.

    Args:
        source: Source of the rows.
        column: Column of the rows.
        hashes: Expected hash of each file. None accepts any content.

    Raises:
        FileChanged: A file does not have its hash.
        DataError: The source cannot be read, or a row has neither text nor a number in the column.
    """
    found: set[str] = set()
    for number, (file, line, raw) in enumerate(_raw_rows(source, hashes, column)):
        if isinstance(raw, DataError | Note):
            continue
        cell = raw.get(column)
        if not isinstance(cell, str | int | float) or not str(cell).strip():
            raise DataError(
                f"{place(file, line, number)}: no text or number in the task column {column!r}"
                + (f": {cell!r:.60}" if cell is not None else ""),
                hint=f"Write a value into each row, or use one of the columns {first_of(list(raw), 20)}.",
            )
        found.add(str(cell).lower() if isinstance(cell, bool) else str(cell))
    return sorted(found)


def _origin(source: Source) -> Hashable:
    """Return the key that sources share if one pass can read them."""
    return (
        source.files,
        source.folder,
        source.hub,
        source.config,
        source.split,
        source.revision,
        source.streaming,
        source.column,
        source.rows,
        tuple(sorted(source.csv.items())),
    )


def _read_together(sources: dict[int, Source], hashes: Hashes | None) -> dict[int, list[Row] | DataError]:
    """Read the rows of sources that differ only in `value`. Return only the first sources if the rows are too many.

    Raises:
        DataError: The file of the sources cannot be read.
    """
    rows: dict[int, list[Row]] = {number: [] for number in sources}
    first = next(iter(sources.values()))
    seen: set[str] = set()
    nested = {path for source in sources.values() for path in _names(source) if "." in path}
    wanted: dict[Hashable, list[int]] = {}
    marks = {number: Marks(filtered=source.column, mapped=bool(source.columns)) for number, source in sources.items()}
    held = 0
    notes: dict[str, list[str]] = {}
    for file, line, raw in _raw_rows(first, hashes):
        if isinstance(raw, Note):
            many = len(first.files) > 1
            notes.setdefault(file, []).append(f"in {clean(Path(file).name)}, {raw.text}" if many else raw.text)
            continue
        # The task of an unreadable row is unknown, so the row counts in every task that it may belong to.
        numbers = list(rows)
        if not isinstance(raw, DataError):
            seen.update(map(str, raw))
            seen.update(path for path in nested if cell(raw, path) is not None)
            numbers = _numbers(raw.get(first.column), sources, wanted) if first.column else numbers
        for number in numbers:
            if number not in rows:
                continue
            source = sources[number]
            row = _row(raw, source, file, line, len(rows[number]), notes.get(file, ()))
            rows[number].append(row)
            if isinstance(raw, dict) and not row.problem:
                marks[number].add(row.number, raw, row.content)
            held += len(str(row.content)) if len(sources) > 1 else 0
        while held > _MOST_HELD and len(rows) > 1:
            _, dropped = rows.popitem()
            held -= sum(len(str(row.content)) for row in dropped)
    for number, found in rows.items():
        for place_in_task, error in marks[number].problems().items():
            row = found[place_in_task]
            found[place_in_task] = bad_row(place_in_task, row.file, row.line, error)
        if found:
            # A note belongs to a file, so only the first row of a task carries the notes.
            found[0] = replace(found[0], notes=tuple(dict.fromkeys(itertools.chain(*notes.values()))))
    return {number: _check_found(sources[number], found, seen) or found for number, found in rows.items()}


def _row(
    raw: dict[str, Any] | DataError, source: Source, file: str, line: int, number: int, notes: Sequence[str]
) -> Row:
    where = place(file, line, number)
    try:
        if isinstance(raw, DataError):
            raise raw
        named = as_known(renamed(raw, source.columns, source.roles) if source.columns or source.roles else raw)
        refuse_other_kinds(named, where)
        if source.columns:
            refuse_choice_number(raw, source.columns, where)
        kind, content = recognise(named, where, raw=raw)
        if not source.columns:
            refuse_named_choice(raw, " ".join(texts(content)[:-1]), answer_of(content), where)
        # The column of the filter decides which task a row belongs to.
        choices = choices_of(raw)
        read = {source.column, *(COLUMNS if choices else ())}
        unused = tuple(name for name in unused_columns(named, kind, where) if name not in read)
        refuse_placeholders(texts(content), where)
        return Row(
            number=number,
            file=file,
            line=line,
            content=content,
            format=kind,
            unused=unused,
            choices=choices,
        )
    except DataError as error:
        if source.columns and isinstance(raw, dict):
            error = _under_own_names(error, raw, source.columns, where)
        # An assumption about the file may be the reason.
        said = "".join(f" Note: {note}." for note in notes)
        return bad_row(number, file, line, DataError(error.message, hint=error.hint + said))


def _under_own_names(error: DataError, raw: dict[str, Any], columns: Mapping[str, str], where: str) -> DataError:
    """Return the error of a row with the names of its own columns, which `columns` maps to curator's names."""
    message, hint = error.message, error.hint
    needed = [column for field, column in columns.items() if field not in (*TURN_FIELDS, *_OPTIONAL)]
    missing = [column for column in dict.fromkeys(needed) if cell(raw, column) is None]
    if message.startswith(f"{where}: {UNKNOWN}") and missing:
        message = f"{where}: the row has no value in {', '.join(map(repr, missing))}, which `columns` names"
        hint = hint if hint.startswith("Set ") else "Add the value, or remove the row."
    for field, column in columns.items():
        message = message.replace(f"{where}: {field!r}", f"{where}: {column!r}")
        hint = hint.replace(f'{field} = "{field}', f'{field} = "{column}')
    return DataError(message, hint=hint)


def bad_row(number: int, file: str, line: int, error: DataError) -> Row:
    """Return a row that records why it cannot be used.

    Args:
        number: Position in the task from 0.
        file: File or hub id.
        line: Line in the file from 1, or 0.
        error: Reason. The row stores the message without its place, and the hint.
    """
    message = error.message.removeprefix(f"{place(file, line, number)}: ")
    # The store cannot hold half a surrogate pair, so the message is cleaned.
    problem = f"{clean(message, limit=300)}\n{error.hint}"
    return Row(number=number, file=file, line=line, content={"text": ""}, problem=problem)


def _numbers(cell: Any, sources: dict[int, Source], known: dict[Hashable, list[int]]) -> list[int]:
    """Return the sources that include a row with this cell, cached by cell."""
    key = (type(cell), cell) if isinstance(cell, str | int | float | None) else None
    if key is None or key not in known:
        numbers = [number for number, source in sources.items() if _equals(cell, source.value)]
        if key is None:
            return numbers
        known[key] = numbers
    return known[key]


def _check_found(source: Source, rows: list[Row], seen: set[str]) -> DataError | None:
    """Return the error of a source that has no rows, or whose rows lack a configured column."""
    # `columns = { text = "text" }` only excludes other columns, so such a column may be missing.
    named = {column for field, column in source.columns.items() if field not in (*TURN_FIELDS, column)}
    missing = sorted(({source.column} if source.column else set()) - seen) or (sorted(named - seen) if rows else [])
    if missing and seen:
        return DataError(
            f"task {source.name!r}: no column {missing[0]!r} in {source.place}",
            hint=f"Use one of the columns {first_of(sorted(seen), 20)}.",
        )
    if not rows:
        kept = f" with {source.column} = {source.value!r}" if source.column else ""
        return DataError(
            f"task {source.name!r}: {source.place} holds no rows{kept}", hint="Remove the task, or add examples."
        )
    return None


def _names(source: Source) -> tuple[str, ...]:
    """Return the columns that the configuration of a task names."""
    return tuple(column for field, column in source.columns.items() if field not in TURN_FIELDS)


def _raw_rows(
    source: Source, hashes: Hashes | None, column: str = ""
) -> Iterator[tuple[str, int, dict[str, Any] | DataError | Note]]:
    hashes = hashes or {}
    names = tuple(filter(None, (*_names(source), source.column, column)))
    parts: list[tuple[str, Iterator[RawRow]]]
    if source.hub:
        rows = read_hub(source.hub, source.config, source.split, source.revision, streaming=source.streaming)
        parts = [(source.hub, rows)]
    elif source.folder:
        known = {file: hashes[str(file)] for file in source.files if str(file) in hashes}
        parts = [(str(source.folder), read_saved(source.folder, source.split, known))]
    else:
        options = ReadOptions(csv=source.csv, names=names)
        parts = [
            (str(file), read_file(file, replace(options, sha256=hashes.get(str(file), "")))) for file in source.files
        ]
    for file, rows in parts:
        for line, raw in rows_of(rows, source.rows, names):
            yield file, line, raw


def _equals(cell: Any, value: Value) -> bool:
    """Return whether a cell equals the value of a filter. CSV cells are text, so text is compared with any type."""
    if cell is None:
        return False
    if isinstance(cell, str) and not isinstance(value, str):
        return cell.strip().lower() == str(value).lower()
    if isinstance(cell, bool) or isinstance(value, bool):
        return str(cell).lower() == str(value).lower()
    return bool(cell == value) or str(cell) == value
