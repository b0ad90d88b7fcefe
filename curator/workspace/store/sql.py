"""Run one SQL query of a user on views over the store, in an in-memory database without other access.

This module alone runs SQL text that users write. DuckDB is therefore restricted first: other files, extensions and
changes of settings are blocked. Then the store is attached read-only, and refused if it holds foreign views. Only a
single query is run, within limits of time and memory. docs/reference/sql.md describes the views, and
`tests/workspace/test_sql.py` tests the description.
"""

import contextlib
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

import duckdb
import psutil
import pyarrow as pa

from curator.core.errors import ConfigError, DataError
from curator.workspace.store.access import QUERY_MEMORY, Database, insert
from curator.workspace.store.schema import Connection

LISTING = """
SELECT table_name AS "view", column_name AS "column", data_type AS "type" FROM duckdb_columns()
WHERE database_name = 'memory' AND schema_name = 'main' ORDER BY table_oid, column_index
"""
"""Query that lists the views with their columns."""

_READS = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
_BATCH = 8192

QUERY_SECONDS = 60.0
"""Time limit of a query, in seconds."""
# DuckDB cannot interrupt one call of a function. After this time, the query is left alone in its thread.
_STOP_SECONDS = 3.0
_LARGEST_RESULT = 2**29
# Address space of a query: DuckDB's own memory, the result, and the stacks of threads.
_MORE_BYTES = 3 * 2**30
_T = TypeVar("_T")

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


class Queries(Database):
    """Run SQL queries of users on the store."""

    def query(
        self, sql: str, present: ProjectTables, *, limit: int | None = None, timeout: float = QUERY_SECONDS
    ) -> tuple[pa.Table, int]:
        """Run one query.

        Args:
            sql: One query that only reads.
            present: Tables about the current project.
            limit: Maximum number of rows to keep. None keeps all.
            timeout: Time limit in seconds, with the opening of the store.

        Returns:
            The rows, under unique column names, and the number of rows before the limit.

        Raises:
            ConfigError: The text is not exactly one valid query, the query reads or writes anything but the views, or
                the query needs too much time or memory.
            DataError: The store does not exist or cannot be read.
            StoreBusy: A writer held the store for ten seconds.
        """
        opened: list[Connection] = []
        # In a separate thread: DuckDB ignores Ctrl-C during a query. A daemon thread does not delay the end of Python.
        result = _in_thread(lambda: self._limited(sql, present, limit, opened))
        try:
            if not wait([result], timeout=timeout).done:
                _stop(result, opened)
                raise ConfigError(
                    f"query took longer than {timeout:g} second{'' if timeout == 1 else 's'}",
                    hint="Pass a larger --timeout, or select fewer rows.",
                )
            return result.result()
        except KeyboardInterrupt:
            _stop(result, opened)
            raise

    def _limited(
        self, sql: str, present: ProjectTables, limit: int | None, opened: list[Connection]
    ) -> tuple[pa.Table, int]:
        with _little_memory():
            return self._query(sql, present, limit, opened)

    def _query(
        self, sql: str, present: ProjectTables, limit: int | None, opened: list[Connection]
    ) -> tuple[pa.Table, int]:
        with self.read() as connection:
            # `read` has upgraded an older schema.
            if connection is None:
                raise DataError(f"store is empty: {self.path}", hint="Run `curator check` or `curator select`.")
        with self.read_attached() as connection, _query_errors():
            opened.append(connection)
            connection.execute("CREATE SCHEMA present")
            insert(connection, "CREATE TABLE present.tasks AS SELECT * FROM new_rows", present.tasks)
            insert(connection, "CREATE TABLE present.split AS SELECT * FROM new_rows", present.split)
            insert(connection, "CREATE TABLE present.keys AS SELECT * FROM new_rows", present.keys)
            for view in _VIEWS:
                connection.execute(view)
            # Read-only: a SELECT may contain an INSERT.
            connection.execute("BEGIN TRANSACTION READ ONLY")
            return _run(connection, _only_query(connection, sql), limit)


def _in_thread(work: Callable[[], _T]) -> "Future[_T]":
    result: Future[_T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="query", daemon=True).start()
    return result


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    """Limit the memory of this process while a query runs. DuckDB does not count the texts that functions make."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = psutil.Process().memory_info().vms + _MORE_BYTES
    if soft != resource.RLIM_INFINITY and soft <= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _stop(result: "Future[_T]", opened: list[Connection]) -> None:
    """Interrupt a query until it ends, or for a few seconds."""
    deadline = time.monotonic() + _STOP_SECONDS
    # Repeated: DuckDB forgets an interrupt that arrives before the query starts.
    while not wait([result], timeout=0.05).done and time.monotonic() < deadline:
        for connection in opened:
            with contextlib.suppress(duckdb.Error):
                connection.interrupt()


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
    for batch in reader:
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
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
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
