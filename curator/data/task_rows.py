"""Sources → rows: `read_tasks` reads them into `Row`s with a normalised content (rows.py)."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from curator.core.errors import DataError
from curator.core.text import clean
from curator.data.columns import refuse_other_kinds, refuse_placeholders, unused_columns
from curator.data.formats import TURN_FIELDS, recognise, renamed
from curator.data.readers import RawRow, read_file, read_hub, read_saved
from curator.data.rows import Row, place, texts
from curator.data.shapes import as_known
from curator.data.sources import Source, Value

# Rows that are held at once for tasks that share a file, in characters. What is beyond is read by going through the
# file again.
_MOST_HELD = 2**29
# Bad rows that an error lists.
_BAD_LISTED = 5
_SKIP_HINT = 'To go on without such rows: --skip-bad-rows, or bad_rows = "skip" under [data].'


# -- finding tasks ------------------------------------------------------------------------------------------------


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
    # One line for each file and reason, with its number of rows.
    groups: dict[tuple[str, str], list[str]] = {}
    for stands, problem in bad:
        groups.setdefault((_file_of(stands), problem.partition("\n")[0]), []).append(stands)
    listed = [
        f"{places[0]}: {problem}" + (f" ({len(places):,} rows)" if len(places) > 1 else "")
        for (_, problem), places in list(groups.items())[:_BAD_LISTED]
    ]
    rest = sum(len(places) for places in list(groups.values())[_BAD_LISTED:])
    if rest:
        listed.append(f"and {rest:,} more")
    return DataError(
        f"{len(bad):,} of {rows:,} rows in {where} cannot be used:\n  " + "\n  ".join(listed),
        hint=f"{hint} {_SKIP_HINT}",
    )


def _file_of(place: str) -> str:
    """Return the file of a place such as `file:line` or `file, row 3`."""
    head, _, tail = place.rpartition(":")
    return head if tail.isdigit() else place.rpartition(", row ")[0]


def read_task(source: Source, *, keep_bad: bool = False) -> list[Row]:
    """Read all rows of a task.

    Args:
        source: Where they are.
        keep_bad: Whether rows that cannot be used are among those that are returned, with their problem.

    Raises:
        DataError: A file cannot be read, there are no rows, or some cannot be used (with file and line).
    """
    ((_, rows),) = read_tasks([source])
    bad = [(row.place, row.problem) for row in rows if row.problem]
    if bad and not keep_bad:
        raise refusal(bad, len(rows), source.place)
    return rows


def read_tasks(sources: Sequence[Source]) -> Iterator[tuple[int, list[Row]]]:
    """Read all rows of several tasks; a file that many share, each with a value of its own, is read once.

    Args:
        sources: Where they are.

    Yields:
        The place of a task in `sources`, and its rows, those that cannot be used among them; tasks that share a file
        come together.

    Raises:
        DataError: A file cannot be read, or there are no rows.
    """
    together: dict[Hashable, list[int]] = {}
    for number, source in enumerate(sources):
        together.setdefault(_origin(source) if source.column else number, []).append(number)
    for waiting in together.values():
        while waiting:
            rows = _read_together({number: sources[number] for number in waiting})
            waiting = [number for number in waiting if number not in rows]
            for number in list(rows):
                yield number, rows.pop(number)


def read_values(source: Source, column: str) -> list[str]:
    """The values of a column, as text, in order.

    Raises:
        DataError: The source cannot be read, or a row has no such value.
    """
    found: set[str] = set()
    for number, (file, line, raw) in enumerate(_raw_rows(source)):
        if isinstance(raw, DataError):
            continue
        cell = raw.get(column)
        if not isinstance(cell, str | int | float) or not str(cell).strip():
            raise DataError(
                f"{place(file, line, number)}: no text or number in the column {column!r}, which names the task"
                + (f", but {cell!r:.60}" if cell is not None else ""),
                hint=f"Columns there: {', '.join(list(map(str, raw))[:20])}.",
            )
        found.add(str(cell).lower() if isinstance(cell, bool) else str(cell))
    return sorted(found)


def _origin(source: Source) -> Hashable:
    """What sources have in common that can be read together."""
    return (
        source.files,
        source.folder,
        source.hub,
        source.config,
        source.split,
        source.revision,
        source.streaming,
        source.column,
    )


def _read_together(sources: dict[int, Source]) -> dict[int, list[Row]]:
    """Rows of sources that differ by their value at most; of the first of them only, where all are too many."""
    rows: dict[int, list[Row]] = {number: [] for number in sources}
    first = next(iter(sources.values()))
    seen: set[str] = set()
    wanted: dict[Hashable, list[int]] = {}
    held = 0
    for file, line, raw in _raw_rows(first):
        # Nobody knows whose a row is that cannot be read: it is counted wherever it may belong.
        numbers = list(rows)
        if not isinstance(raw, DataError):
            seen.update(map(str, raw))
            numbers = _numbers(raw.get(first.column), sources, wanted) if first.column else numbers
        for number in numbers:
            if number not in rows:
                continue
            source = sources[number]
            row = _row(raw, source, file, line, len(rows[number]))
            rows[number].append(row)
            held += len(str(row.content)) if len(sources) > 1 else 0
        while held > _MOST_HELD and len(rows) > 1:
            _, dropped = rows.popitem()
            held -= sum(len(str(row.content)) for row in dropped)
    for number, found in rows.items():
        _check_found(sources[number], found, seen)
    return rows


def _row(raw: dict[str, Any] | DataError, source: Source, file: str, line: int, number: int) -> Row:
    where = place(file, line, number)
    try:
        if isinstance(raw, DataError):
            raise raw
        named = as_known(renamed(raw, source.columns, source.roles) if source.columns or source.roles else raw)
        refuse_other_kinds(named, where)
        columns = map(str, raw) if source.columns or source.roles else None
        kind, content = recognise(named, where, columns=columns)
        unused = unused_columns(named, kind, where)
        refuse_placeholders(texts(content), where)
        return Row(number=number, file=file, line=line, content=content, format=kind, unused=unused)
    except DataError as error:
        return bad_row(number, file, line, error)


def bad_row(number: int, file: str, line: int, error: DataError) -> Row:
    """A row that cannot be used; the message is kept without its place."""
    what = error.message.removeprefix(f"{place(file, line, number)}: ")
    # Cleaned, because it is kept, and a store takes no half of a surrogate pair.
    problem = f"{clean(what, limit=300)}\n{error.hint}"
    return Row(number=number, file=file, line=line, content={"text": ""}, problem=problem)


def _numbers(cell: Any, sources: dict[int, Source], known: dict[Hashable, list[int]]) -> list[int]:
    """Which sources want a row with this cell; there are few different cells, and they are asked for once."""
    key = (type(cell), cell) if isinstance(cell, str | int | float | None) else None
    if key is None or key not in known:
        numbers = [number for number, source in sources.items() if _equals(cell, source.value)]
        if key is None:
            return numbers
        known[key] = numbers
    return known[key]


def _check_found(source: Source, rows: list[Row], seen: set[str]) -> None:
    """Make sure that there are rows, and that no column of the configuration is one that is not there.

    Raises:
        DataError: As said.
    """
    # A column under its own name says that no other is read; one under another that is not there is a mistake.
    named = {column for field, column in source.columns.items() if field not in (*TURN_FIELDS, column)}
    missing = sorted(({source.column} if source.column else set()) - seen) or (sorted(named - seen) if rows else [])
    if missing and seen:
        raise DataError(
            f"task {source.name!r}: {source.place}: no column {missing[0]!r}",
            hint=f"Columns there: {', '.join(sorted(seen)[:20])}.",
        )
    if not rows:
        kept = f" with {source.column} = {source.value!r}" if source.column else ""
        raise DataError(
            f"task {source.name!r}: {source.place} holds no rows{kept}", hint="Remove the task, or give it examples."
        )


def _raw_rows(source: Source) -> Iterator[tuple[str, int, dict[str, Any] | DataError]]:
    parts: list[tuple[str, Iterator[RawRow]]]
    if source.hub:
        rows = read_hub(source.hub, source.config, source.split, source.revision, streaming=source.streaming)
        parts = [(source.hub, rows)]
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
