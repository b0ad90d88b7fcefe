"""Read every row of a store that may be damaged, and save the readable rows.

Run `python -P -m curator.workspace.store.salvage FILE [DIR [TABLE …]]` as a child process, because a damaged file can
crash DuckDB. The child reports each table on standard output, one JSON document a line. After a crash, the parent
starts another child for the next tables.
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

# Rows that are read at once, and the smallest range that is given up as a whole: one DuckDB vector.
_ROWS, _FEWEST = 16384, 2048


def main(arguments: list[str]) -> int:
    """Read a store and report each table on standard output.

    Args:
        arguments: The file, then the output folder of Parquet files (empty for none), then tables to skip.

    Returns:
        Exit code: 1 if the store cannot be opened.
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
    """Read a table. Returns the number of rows read, the ranges of rows lost, and the first error."""
    quoted = '"' + table.replace('"', '""') + '"'
    read, lost, words = 0, [], ""
    writer: pq.ParquetWriter | None = None
    try:
        (top,) = connection.execute("SELECT max(rowid) FROM " + quoted).fetchall()[0]  # noqa: S608 - quoted above
        schema = connection.sql("SELECT * FROM " + quoted + " LIMIT 0").to_arrow_table().schema  # noqa: S608 - quoted above
        if folder is not None:
            # The table's name is untrusted: it must not point to another folder.
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
    """Yield rows in ranges of row numbers. An unreadable range is read again in smaller ranges."""
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
