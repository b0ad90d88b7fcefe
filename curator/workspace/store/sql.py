"""Run one SQL query of a user on views over the store, in an in-memory database without other access.

This module alone runs SQL text that users write. DuckDB is therefore restricted first: other files, extensions and
changes of settings are blocked. Then the store is attached read-only, and refused if it holds foreign views. Only a
single query is run. docs/reference/sql.md describes the views, and `tests/workspace/test_sql.py` tests the description.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from curator.core.errors import ConfigError
from curator.workspace.store.access import OUT_OF_MEMORY, QUERY_MEMORY, Database, insert
from curator.workspace.store.schema import Connection

LISTING = """
SELECT table_name AS "view", column_name AS "column", data_type AS "type" FROM duckdb_columns()
WHERE database_name = 'memory' AND schema_name = 'main' ORDER BY table_oid, column_index
"""
"""Query that lists the views with their columns."""

_READS = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
# Rows of a batch: as many as DuckDB computes at once.
_BATCH = 2048
_LARGEST_RESULT = 2**29
# How messages of DuckDB begin that are about the file, and not about the query.
_OF_THE_FILE = ("IO Error", "FATAL Error", "INTERNAL Error")

# The schema `present` holds facts that are not in the store: which rows belong to the current project.
_VIEWS = (
    """
    CREATE VIEW tasks AS SELECT * EXCLUDE (content) FROM present.tasks
    """,
    """
    CREATE VIEW examples AS
    SELECT s.task, e.number + 1 AS "row", e.file, e.line, s.split, s.reason, len(e.input_ids)::INTEGER AS tokens,
        e.completion_tokens, e.truncated, e.text, e.hash
    FROM store.examples e JOIN present.split s ON e.task_key = s.task_key AND e.number = s.number
    """,
    """
    CREATE VIEW affinities AS
    SELECT a.target, a.task, a.affinity, a.standard_error, r.created AS made,
        a.estimate_key IS NOT DISTINCT FROM (SELECT estimate FROM present.keys) AS current
    FROM store.affinities a JOIN store.artifacts r ON r.stage = 'estimate' AND r.key = a.estimate_key
    QUALIFY rank() OVER (PARTITION BY a.target ORDER BY r.created DESC, r.key) = 1
    """,
    """
    CREATE VIEW runs AS
    SELECT target, json_keys(subset) AS subset, seed, loss AS measured_loss, loss_quarter, loss_half,
        estimated_before, estimated_before_low, estimated_before_high, calibrated_on, tokens, seconds, peak_bytes,
        machine, made,
        recipe = (SELECT recipe FROM present.keys) AND list_has_all(
            (SELECT list({'key': task, 'value': content}) FROM present.tasks),
            map_entries(subset::JSON::MAP(VARCHAR, VARCHAR))) AS current
    FROM store.measurements LEFT JOIN store.run_details USING (recipe, subset, seed)
    """,
    """
    CREATE VIEW metrics AS
    SELECT target, json_keys(subset) AS subset, seed, metric, part, value, standard_error, examples, higher_is_better,
        made,
        recipe = (SELECT recipe FROM present.keys) AND list_has_all(
            (SELECT list({'key': task, 'value': content}) FROM present.tasks),
            map_entries(subset::JSON::MAP(VARCHAR, VARCHAR))) AS current
    FROM store.metric_values
    QUALIFY row_number() OVER (PARTITION BY recipe, subset, seed, metric, part ORDER BY made DESC, version) = 1
    """,
    """
    CREATE VIEW subsets AS
    WITH estimated AS (
        SELECT target, subset::JSON::VARCHAR[] AS subset, loss, low, high,
            estimate_key IS NOT DISTINCT FROM (SELECT estimate FROM present.keys) AS current
        FROM store.estimates
        QUALIFY row_number() OVER (PARTITION BY target, subset ORDER BY created DESC, estimate_key) = 1),
    measured AS (
        SELECT target, subset, avg(measured_loss) AS loss, count(*) AS runs
        FROM runs WHERE current GROUP BY target, subset)
    SELECT target, subset, len(subset)::INTEGER AS size, e.loss AS estimated_loss, e.low AS estimated_loss_low,
        e.high AS estimated_loss_high, e.current, m.loss AS measured_loss, coalesce(m.runs, 0) AS runs
    FROM estimated e FULL JOIN measured m USING (target, subset)
    """,
    """
    CREATE VIEW selections AS
    WITH selected AS (
        SELECT *, list_filter((manifest::JSON->'$.tasks')::JSON[], lambda t: (t->>'$.selected')::BOOLEAN) AS tasks
        FROM store.selections)
    SELECT name, target, method, list_transform(tasks, lambda t: t->>'$.name') AS subset,
        list_transform(tasks, lambda t: (t->>'$.weight')::DOUBLE) AS weights,
        loss AS estimated_loss, (manifest->>'$.estimated_loss_low')::DOUBLE AS estimated_loss_low,
        (manifest->>'$.estimated_loss_high')::DOUBLE AS estimated_loss_high,
        (manifest->>'$.measured_loss')::DOUBLE AS measured_loss, created AS made,
        row_number() OVER (PARTITION BY target ORDER BY created DESC, key) = 1 AS current, manifest
    FROM selected
    """,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProjectTables:
    """Tables about the current project, which `curator sql` joins with the store.

    Attributes:
        tasks: Rows of the view `tasks`, and `content`: the hash of a task's training examples.
        split: `task_key`, `number`, `task`, `split` and `reason` of each example.
        keys: One row: keys of the current `estimate` and `recipe`. Null if there is no estimate or recipe.
    """

    tasks: pa.Table
    split: pa.Table
    keys: pa.Table


def run_query(path: Path, sql: str, present: ProjectTables, limit: int | None) -> tuple[pa.Table, int]:
    """Run one query. `Queries.query` calls this function in another process, with limits of time and memory.

    Args:
        path: The store. It exists, with the current schema.
        sql: One query that only reads.
        present: Tables about the current project.
        limit: Maximum number of rows to keep. None keeps all.

    Returns:
        The rows, under unique column names, and the number of rows before the limit.

    Raises:
        ConfigError: The text is not exactly one valid query, the query reads or writes anything but the views, or
            the query needs too much memory.
        DataError: The store cannot be read.
        StoreBusy: A writer held the store for ten seconds.
    """
    with Database(path).read_attached() as connection, _query_errors():
        connection.execute("CREATE SCHEMA present")
        insert(connection, "CREATE TABLE present.tasks AS SELECT * FROM new_rows", present.tasks)
        insert(connection, "CREATE TABLE present.split AS SELECT * FROM new_rows", present.split)
        insert(connection, "CREATE TABLE present.keys AS SELECT * FROM new_rows", present.keys)
        for view in _VIEWS:
            connection.execute(view)
        # Read-only: a SELECT may contain an INSERT.
        connection.execute("BEGIN TRANSACTION READ ONLY")
        return _run(connection, _only_query(connection, sql), limit)


def _only_query(connection: Connection, sql: str) -> str:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ConfigError(f"expected one query, found {len(statements)} statements", hint="Pass one query at a time.")
    (statement,) = statements
    if statement.type not in _READS:
        raise ConfigError(
            f"statement is not a query: {statement.type.name}",
            hint="Use SELECT, FROM, WITH, DESCRIBE, SUMMARIZE or EXPLAIN.",
        )
    return sql


def _run(connection: Connection, sql: str, limit: int | None) -> tuple[pa.Table, int]:
    reader = connection.sql(sql).to_arrow_reader(_BATCH)
    kept: list[pa.RecordBatch] = []
    total, size = 0, 0
    for batch in _batches(reader):
        room = batch.num_rows if limit is None else max(limit - total, 0)
        if room:
            kept.append(batch.slice(0, room))
            size += kept[-1].nbytes
            if size > _LARGEST_RESULT:
                raise ConfigError(
                    f"result is larger than {_LARGEST_RESULT >> 20} MiB", hint="Select fewer rows or columns."
                )
        total += batch.num_rows
    table = pa.Table.from_batches(kept, reader.schema)
    return _whole_numbers(table.rename_columns(_different(table.column_names))), total


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Read the batches of a result.

    Arrow raises an OSError for every error of DuckDB after the first batch. Convert it back by its text.
    """
    try:
        yield from reader
    except OSError as error:
        text = str(error)
        if text.startswith(OUT_OF_MEMORY):
            raise MemoryError(text) from error
        if text.startswith(_OF_THE_FILE):
            raise
        raise duckdb.DataError(text) from error


def _whole_numbers(table: pa.Table) -> pa.Table:
    """Convert 128-bit integers, which DuckDB returns for sums and Arrow stores as decimals, to 64 bits."""
    for position, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            # Larger values stay decimals.
            with contextlib.suppress(pa.ArrowInvalid):
                table = table.set_column(position, field.name, table.column(position).cast(pa.int64()))
    return table


def _different(names: list[str]) -> list[str]:
    """Return unique names: the second `a` becomes `a_2`."""
    found: list[str] = []
    for name in names:
        unused, number = name, 2
        while unused in found:
            unused, number = f"{name}_{number}", number + 1
        found.append(unused)
    return found


@contextlib.contextmanager
def _query_errors() -> Iterator[None]:
    """Convert DuckDB's errors about a query to `ConfigError`."""
    try:
        yield
    except duckdb.PermissionException as error:
        raise ConfigError(
            f"query is not allowed: {_first_line(error)}",
            hint="Read only from the views. Run `curator sql` to list the views.",
        ) from error
    except (duckdb.OutOfMemoryException, pa.ArrowMemoryError, MemoryError) as error:
        raise ConfigError(
            f"query needs more memory than {QUERY_MEMORY}", hint="Select fewer rows or columns, or aggregate."
        ) from error
    except (duckdb.IOException, duckdb.FatalException, duckdb.InternalException):
        # Errors of the file, which the caller converts.
        raise
    except duckdb.Error as error:
        raise ConfigError(
            f"query failed: {str(error).strip()}", hint="Run `curator sql` to list the views and their columns."
        ) from error


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().partition("\n")[0]
