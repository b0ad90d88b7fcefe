"""Tables of the store, and migrations from older schemas.

Schema 1
    file_hashes   content hash of a file, valid while the file's size and times are unchanged
    artifacts     `outputs` of a stage with the `inputs` that determine them, by the hash of the inputs
    examples      text and tokens of every example of every version of a task
    gradients     projected gradient and loss of one example at one checkpoint of meta-training
    affinities    effect of each task on the target's estimated loss, by estimate
    estimates     estimated loss of requested subsets, by estimate
    selections    selections by name, with their manifest

Schema 2
    edits         edits by hand, in order, by session. Never deleted

Schema 3
    statistics    sums over a task's training examples at one checkpoint of meta-training, by the hash of the examples
    triangles     packed curvatures of these sums, in short pieces, which DuckDB reads three times as fast as long ones

Schema 4
    measurements  target loss after fine-tuning on a subset of tasks, by recipe and seed

Schema 5
    segment_sums  sums over a task's training examples in one segment of meta-training, by the hash of the examples
    arrays        named arrays of one meta-training run, such as its basis

Schema 6
    metric_values values of a metric after fine-tuning on a subset of tasks, by recipe, seed and part of the rows

Schema 7
    file_hashes   also the time of the file's last change, which programs cannot set

Schema 8
    run_details   cost, course and earlier estimate of one fine-tuning run, by recipe, subset and seed

Schema 9
    notes         notes of people on tasks, examples and selections

Schema 10
    deleted_selections  deleted selections, which can be restored, with the time of their deletion
"""

from collections.abc import Callable
from datetime import UTC, datetime

import duckdb

Connection = duckdb.DuckDBPyConnection

DAMAGED = (
    "Run `curator check --store` to find damage, and `curator export-store DIR` to save the readable rows."
    " Then delete `.curator/store.duckdb`. Results are lost, and the same commands compute them again."
    " Data files are not affected."
)
"""Hint for a store that cannot be used."""


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
    # Uncompressed: these numbers do not compress, and DuckDB's search for a compression takes most of the time.
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


def _add_segments(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE segment_sums (
            set_key VARCHAR, content VARCHAR, weight DOUBLE, examples BIGINT, rest DOUBLE,
            gradient_sum BLOB USING COMPRESSION uncompressed, curvature BLOB USING COMPRESSION uncompressed);
        CREATE TABLE arrays (key VARCHAR, name VARCHAR, shape INTEGER[], numbers BLOB, PRIMARY KEY (key, name));
        """
    )


def _add_metric_values(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE metric_values (
            recipe VARCHAR, target VARCHAR, subset VARCHAR, seed BIGINT, metric VARCHAR, part VARCHAR, version VARCHAR,
            value DOUBLE, standard_error DOUBLE, examples BIGINT, higher_is_better BOOLEAN, made TIMESTAMP,
            PRIMARY KEY (recipe, subset, seed, metric, part, version));
        """
    )


def _add_change_times(connection: Connection) -> None:
    # Files of earlier schemas have the time 0, so that their hashes are computed once more.
    connection.execute("ALTER TABLE file_hashes ADD COLUMN changed_ns BIGINT DEFAULT 0")


def _add_run_details(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE run_details (
            recipe VARCHAR, subset VARCHAR, seed BIGINT, loss_quarter DOUBLE, loss_half DOUBLE, tokens BIGINT,
            peak_bytes BIGINT, machine VARCHAR, task_losses VARCHAR, estimated_before DOUBLE,
            estimated_before_low DOUBLE, estimated_before_high DOUBLE, calibrated_on INTEGER,
            PRIMARY KEY (recipe, subset, seed));
        """
    )


def _add_notes(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE notes (
            kind VARCHAR, name VARCHAR, sha256 VARCHAR, text VARCHAR, made TIMESTAMP,
            PRIMARY KEY (kind, name, sha256));
        """
    )


def _add_deleted_selections(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE deleted_selections (
            key VARCHAR PRIMARY KEY, name VARCHAR, target VARCHAR, method VARCHAR, loss DOUBLE,
            manifest VARCHAR, created TIMESTAMP, deleted TIMESTAMP);
        """
    )


# Migration i upgrades a store from schema i to i + 1. One transaction runs and records all missing migrations.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _create,
    _add_edits,
    _add_statistics,
    _add_measurements,
    _add_segments,
    _add_metric_values,
    _add_change_times,
    _add_run_details,
    _add_notes,
    _add_deleted_selections,
)
SCHEMA_VERSION = len(MIGRATIONS)


def version_of(connection: Connection) -> int:
    """Return the schema version of an open store, or 0 if the store is empty."""
    try:
        return int(connection.execute("SELECT max(version) FROM schema_version").fetchall()[0][0] or 0)
    except duckdb.CatalogException:
        return 0


def migrate(connection: Connection) -> None:
    """Upgrade an open store to the current schema, in one transaction.

    A killed upgrade leaves the store unchanged.
    """
    here = version_of(connection)
    if here >= SCHEMA_VERSION:
        return
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER, applied TIMESTAMP)")
    for version in range(here, SCHEMA_VERSION):
        MIGRATIONS[version](connection)
        connection.execute("INSERT INTO schema_version VALUES (?, ?)", [version + 1, utc_now()])
    connection.execute("COMMIT")


def foreign_entry(connection: Connection) -> str:
    """Return the kind and name of an entry that curator never makes, for example `view 'x'`. Empty if all are ours.

    A view can read files or compute for ever, and a function can replace one of DuckDB. Attach the store as `store`
    first. Call this function before `USE store`, so that no function of the store runs.
    """
    found = connection.execute(
        """
        SELECT 'function', function_name FROM duckdb_functions() WHERE NOT internal AND database_name = 'store'
        UNION ALL SELECT 'view', view_name FROM duckdb_views() WHERE NOT internal AND database_name = 'store'
        UNION ALL SELECT 'type', type_name FROM duckdb_types() WHERE NOT internal AND database_name = 'store'
        UNION ALL SELECT 'sequence', sequence_name FROM duckdb_sequences() WHERE database_name = 'store'
        UNION ALL SELECT 'schema', schema_name FROM duckdb_schemas() WHERE NOT internal AND database_name = 'store'
            AND schema_name <> 'main'
        ORDER BY ALL LIMIT 1
        """
    ).fetchall()
    return f"{found[0][0]} {found[0][1]!r:.100}" if found else ""


def is_ours(connection: Connection) -> bool:
    """Return whether an open store holds exactly the tables of the schema, and no views or functions."""
    with duckdb.connect(":memory:") as fresh:
        migrate(fresh)
        return _catalog(connection) == _catalog(fresh)


def _catalog(connection: Connection) -> list[tuple[str, ...]]:
    try:
        return connection.execute(
            """
            SELECT 'table', table_name, sql FROM duckdb_tables() WHERE NOT internal
            UNION ALL SELECT 'view', view_name, '' FROM duckdb_views() WHERE NOT internal
            UNION ALL SELECT 'function', function_name, '' FROM duckdb_functions() WHERE NOT internal
            ORDER BY ALL
            """
        ).fetchall()
    except duckdb.Error:
        return []


def utc_now() -> datetime:
    """Return the current UTC time without a time zone: DuckDB needs another package to read time zones."""
    return datetime.now(UTC).replace(tzinfo=None)
