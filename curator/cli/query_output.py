"""What SQL answers, as a table for people or as CSV, JSON or Parquet for programs."""

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
"""Rows that a table shows; it is for people."""
_LETTERS = 120


def pick_format(wanted: str | None, output: Path | None) -> str:
    """The format that was asked for, or the one that fits.

    Args:
        wanted: One of `FORMATS`; None for what the file's name says, or a table.
        output: The file, or None for standard output.

    Raises:
        ConfigError: It is not known, or does not go there.
    """
    ending = "" if output is None else output.suffix.removeprefix(".").lower()
    format = wanted or (ending if ending in FORMATS else "table")
    if format not in FORMATS:
        raise ConfigError(f"no format {format!r}", hint=f"Formats: {', '.join(FORMATS)}.")
    if format == "table" and output is not None:
        raise ConfigError(f"{output}: a table is for people to read", hint="Name a --format: csv, json or parquet.")
    if format == "parquet" and output is None and sys.stdout.isatty():
        raise ConfigError("Parquet is binary, and standard output a terminal", hint="Name a file with -o FILE.parquet.")
    return format


def write_answer(result: QueryResult, format: str, output: Path | None, *, quiet: bool = False) -> None:
    """Write rows in a format.

    Args:
        result: The rows.
        format: From `pick_format`.
        output: A file, written whole or not at all; None for standard output.
        quiet: Do not say on standard error that a table has more rows than are shown.

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
        raise DataError(f"{output}: cannot be written: {error}", hint="Choose another place with -o.") from error


def _print(part: str | bytes) -> None:
    if isinstance(part, bytes):
        sys.stdout.buffer.write(part)
    else:
        # Escape sequences of the data are for files, not for a terminal.
        sys.stdout.write(clean(part, lines=True) if sys.stdout.isatty() else part)


def _parts(result: QueryResult, format: str) -> Iterator[str | bytes]:
    if format == "csv":
        return _csv(result)
    return _json(result) if format == "json" else _parquet(result)


def _csv(result: QueryResult) -> Iterator[str]:
    """Lines as RFC 4180 has them; NULL is nothing, lists are JSON."""
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
        words = f"the first {len(rows):,} of {result.total:,} rows; --format csv, json or parquet has all"
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
