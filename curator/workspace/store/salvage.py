"""Reads every row of every table of a store that may be damaged, and saves what can be read.

Run as a process of its own (`python -m curator.workspace.store.salvage FILE [DIR [TABLE …]]`), because a damaged file
may take DuckDB down with it. It says on standard output how far it has come, one JSON document a line, so that whoever
started it can go on after the table at which it died.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curator.workspace.store.instances import SETTINGS
from curator.workspace.store.schema import Connection

# Rows that are read at once, and the fewest that are given up together: as many as DuckDB keeps in a vector.
_ROWS, _FEWEST = 16384, 2048


def main(arguments: list[str]) -> int:
    """Read a store; see the module.

    Args:
        arguments: The file; the folder that Parquet files go to, or nothing; tables to pass over.
    """
    path, folder, skipped = arguments[0], arguments[1] if len(arguments) > 1 else "", set(arguments[2:])
    try:
        connection = duckdb.connect(path, read_only=True, config=SETTINGS)
        tables = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY table_name").fetchall()
    except duckdb.Error as error:
        _say(error=_first_line(error))
        return 1
    with closing(connection):
        for (table,) in tables:
            if table not in skipped:
                _say(table=table)
                _say(table=table, **_read(connection, table, Path(folder) if folder else None))
    return 0


def _read(connection: Connection, table: str, folder: Path | None) -> dict[str, Any]:
    """Read a table; rows read, rows lost (as ranges) and the first error."""
    quoted = '"' + table.replace('"', '""') + '"'
    read, lost, words = 0, [], ""
    writer: pq.ParquetWriter | None = None
    try:
        (top,) = connection.execute("SELECT max(rowid) FROM " + quoted).fetchall()[0]  # noqa: S608 - quoted above
        schema = connection.sql("SELECT * FROM " + quoted + " LIMIT 0").to_arrow_table().schema  # noqa: S608 - quoted above
        if folder is not None:
            # A table's name is what the file says; it must not name another folder.
            writer = pq.ParquetWriter(folder / f"{Path(table).name}.parquet", schema, compression="zstd")
        for begin, end, found in _parts(connection, quoted, 0, -1 if top is None else top):
            if isinstance(found, duckdb.Error):
                lost.append([begin, end])
                words = words or _first_line(found)
                continue
            read += found.num_rows
            if writer is not None:
                writer.write_table(found.cast(schema))
    except duckdb.Error as error:
        return {"read": read, "lost": [[0, None]], "words": _first_line(error)}
    finally:
        if writer is not None:
            writer.close()
    return {"read": read, "lost": lost, "words": words}


def _parts(
    connection: Connection, quoted: str, begin: int, last: int, size: int = _ROWS
) -> Iterator[tuple[int, int, pa.Table | duckdb.Error]]:
    """Rows by their number, in parts; where one cannot be read, smaller ones are tried."""
    for start in range(begin, last + 1, size):
        end = min(start + size - 1, last)
        try:
            found = connection.sql(
                "SELECT * FROM " + quoted + " WHERE rowid BETWEEN ? AND ?",  # noqa: S608 - `_read` quotes the name
                params=[start, end],
            ).to_arrow_table()
        except duckdb.Error as error:
            if size > _FEWEST:
                yield from _parts(connection, quoted, start, end, size=_FEWEST)
            else:
                yield start, end, error
        else:
            yield start, end, found


def _say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
