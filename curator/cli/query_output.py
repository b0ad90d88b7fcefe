"""Print or write the rows of a query: as a table, CSV, JSON or Parquet."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curator.cli.tables import console
from curator.core.errors import ConfigError, DataError
from curator.core.files import write_whole
from curator.core.text import clean, styled
from curator.results.display import plain
from curator.results.outputs import QueryResult

FORMATS = ("table", "csv", "json", "parquet")
TABLE_ROWS = 100
"""Number of rows that a table shows."""
_LETTERS = 120


def pick_format(wanted: str | None, output: Path | None) -> str:
    """Choose the output format.

    Args:
        wanted: One of `FORMATS`. None takes the ending of the file, or a table.
        output: The file, or None for standard output.

    Raises:
        ConfigError: The format is unknown, or does not suit the output.
    """
    ending = "" if output is None else output.suffix.removeprefix(".").lower()
    format = wanted or (ending if ending in FORMATS else "table")
    if format not in FORMATS:
        raise ConfigError(f"unknown format: {format!r}", hint=f"Choose one of {', '.join(FORMATS)}.")
    if format == "table" and output is not None:
        raise ConfigError(f"cannot write a table to {output}", hint="Pass --format csv, json or parquet.")
    if format == "parquet" and output is None and sys.stdout.isatty():
        raise ConfigError("cannot print Parquet to a terminal", hint="Write to a file with -o FILE.parquet.")
    return format


def write_result(result: QueryResult, format: str, output: Path | None, *, quiet: bool = False) -> None:
    """Print rows, or write them to a file.

    Args:
        result: The rows.
        format: From `pick_format`.
        output: File, written whole or not at all. None is standard output.
        quiet: Whether to omit the note on standard error that a table is cut.

    Raises:
        DataError: The file cannot be written.
    """
    if format == "table":
        _show(result, quiet=quiet)
        return
    if output is None:
        for part in _parts(result, format):
            _print(part)
        return
    try:
        write_whole(
            output, b"".join(part if isinstance(part, bytes) else part.encode() for part in _parts(result, format))
        )
    except OSError as error:
        raise DataError(f"cannot write {output}: {error}", hint="Choose another file with -o.") from error


def _print(part: str | bytes) -> None:
    if isinstance(part, bytes):
        sys.stdout.buffer.write(part)
    else:
        # Data may hold escape sequences. Files keep them, terminals do not get them.
        sys.stdout.write(clean(part, lines=True) if sys.stdout.isatty() else part)


def _parts(result: QueryResult, format: str) -> Iterator[str | bytes]:
    if format == "csv":
        return _csv(result)
    return _json(result) if format == "json" else _parquet(result)


def _csv(result: QueryResult) -> Iterator[str]:
    """Yield lines by RFC 4180. NULL is empty, lists are JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(result.columns())
    for batch in result.table.to_batches(max_chunksize=8192):
        columns = [batch.column(n).to_pylist() for n in range(batch.num_columns)]
        writer.writerows([_csv_cell(value) for value in row] for row in zip(*columns, strict=True))
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def _csv_cell(value: Any) -> Any:
    found = plain(value)
    if isinstance(found, bool):
        return "true" if found else "false"
    return json.dumps(found, ensure_ascii=False) if isinstance(found, list | dict) else found


def _json(result: QueryResult) -> Iterator[str]:
    yield json.dumps(result.to_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _parquet(result: QueryResult) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet

    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(result.table, sink)
    yield sink.getvalue().to_pybytes()


def _show(result: QueryResult, *, quiet: bool) -> None:
    from rich import box
    from rich.table import Table

    rows = result.rows()
    table = Table(box=box.SIMPLE, pad_edge=False)
    for field in result.table.schema:
        right = _is_number(field.type)
        table.add_column(styled(field.name), justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in result.columns()))
    console().print(table)
    if result.total > len(rows) and not quiet:
        words = f"showing {len(rows):,} of {result.total:,} rows; pass --format csv, json or parquet for all rows"
        print(words, file=sys.stderr)


def _cell(value: Any) -> Any:
    if value is None:
        return styled("NULL", "dim")
    if isinstance(value, float):
        return styled(f"{value:.6g}")
    if isinstance(value, list):
        return styled(", ".join("NULL" if inner is None else str(inner) for inner in value), limit=_LETTERS)
    found = plain(value)
    return styled(json.dumps(found, ensure_ascii=False) if isinstance(found, dict | list) else found, limit=_LETTERS)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
