"""The tables of the store, and the way from an older schema to this one.

Schema 1
    file_hashes   content hash of a file, valid while its size and times are the same
    artifacts     what a stage made (`outputs`) from what (`inputs`), by the hash of the inputs
    examples      every example of every version of a task, as read and as the model sees it
    gradients     projected gradient and loss of one example at one point of meta-training
    affinities    what each task does to the target's estimated loss, by estimate
    estimates     estimated loss of subsets that somebody asked for, by estimate
    selections    selections by name, with their manifest

Schema 2
    edits         what people changed by hand, in order, by session; never deleted

Schema 3
    statistics    sums over a task's training examples at one point of meta-training, found by the hash of the examples
    triangles     the largest of these sums, cut into short pieces, which DuckDB reads three times as fast as long ones

Schema 4
    measurements  target loss after really fine-tuning on a subset of tasks, by recipe and seed
"""

from collections.abc import Callable
from datetime import UTC, datetime

import duckdb

Connection = duckdb.DuckDBPyConnection


def _create(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE file_hashes (
            path VARCHAR PRIMARY KEY, size BIGINT, mtime_ns BIGINT, inode BIGINT, sha256 VARCHAR);
        CREATE TABLE artifacts (
            stage VARCHAR, key VARCHAR, inputs VARCHAR, outputs VARCHAR, created TIMESTAMP,
            PRIMARY KEY (stage, key));
        CREATE TABLE examples (
            task_key VARCHAR, task VARCHAR, number INTEGER, file VARCHAR, line INTEGER,
            hash VARCHAR, token_hash VARCHAR, text VARCHAR, spans INTEGER[],
            input_ids INTEGER[], labels INTEGER[], completion_tokens INTEGER,
            truncated BOOLEAN, left_out VARCHAR);
        CREATE TABLE gradients (
            set_key VARCHAR, token_hash VARCHAR, loss DOUBLE, gradient FLOAT[]);
        CREATE TABLE affinities (
            estimate_key VARCHAR, target VARCHAR, task VARCHAR, affinity DOUBLE, standard_error DOUBLE);
        CREATE TABLE estimates (
            estimate_key VARCHAR, target VARCHAR, subset VARCHAR, loss DOUBLE, low DOUBLE, high DOUBLE,
            created TIMESTAMP);
        CREATE TABLE selections (
            key VARCHAR PRIMARY KEY, name VARCHAR, target VARCHAR, method VARCHAR, loss DOUBLE,
            manifest VARCHAR, created TIMESTAMP);
        """
    )


def _add_edits(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE edits (
            session VARCHAR, number INTEGER, target VARCHAR, kind VARCHAR, label VARCHAR, changes VARCHAR,
            loss DOUBLE, made TIMESTAMP, PRIMARY KEY (session, number));
        """
    )


def _add_statistics(connection: Connection) -> None:
    # DuckDB would look for a way to compress numbers that have none, which takes longer than all the rest.
    connection.execute(
        """
        CREATE TABLE statistics (
            number BIGINT, set_key VARCHAR, content VARCHAR, weight DOUBLE, examples BIGINT, pull BLOB);
        CREATE TABLE triangles (number BIGINT, piece INTEGER, numbers BLOB USING COMPRESSION uncompressed);
        """
    )


def _add_measurements(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE measurements (
            recipe VARCHAR, target VARCHAR, subset VARCHAR, seed BIGINT, loss DOUBLE, seconds DOUBLE, made TIMESTAMP,
            PRIMARY KEY (recipe, subset, seed));
        """
    )


# Migration i brings a store from schema i to i + 1; all that are missing run and are recorded in one transaction.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create, _add_edits, _add_statistics, _add_measurements)
SCHEMA_VERSION = len(MIGRATIONS)


def version_of(connection: Connection) -> int:
    """Schema of an open store; 0 where nothing is in it yet."""
    try:
        return int(connection.execute("SELECT max(version) FROM schema_version").fetchall()[0][0] or 0)
    except duckdb.CatalogException:
        return 0


def migrate(connection: Connection) -> None:
    """Bring an open store to this schema, in one transaction: killed in its midst, the store is as it was."""
    here = version_of(connection)
    if here >= SCHEMA_VERSION:
        return
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER, applied TIMESTAMP)")
    for version in range(here, SCHEMA_VERSION):
        MIGRATIONS[version](connection)
        connection.execute("INSERT INTO schema_version VALUES (?, ?)", [version + 1, utc_now()])
    connection.execute("COMMIT")


def is_ours(connection: Connection) -> bool:
    """Whether an open store has the tables of its schema, and nothing of its own making beside them."""
    with duckdb.connect(":memory:") as fresh:
        migrate(fresh)
        return _catalog(connection) == _catalog(fresh)


def _catalog(connection: Connection) -> list[tuple[str, ...]]:
    try:
        return connection.execute(
            """
            SELECT 'column', table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal
            UNION ALL SELECT 'view', view_name, '', '' FROM duckdb_views() WHERE NOT internal
            UNION ALL SELECT 'function', function_name, '', '' FROM duckdb_functions() WHERE NOT internal
            ORDER BY ALL
            """
        ).fetchall()
    except duckdb.Error:
        return []


def utc_now() -> datetime:
    """The present in UTC, as the store keeps it: without a zone, which DuckDB needs another package to read."""
    return datetime.now(UTC).replace(tzinfo=None)
