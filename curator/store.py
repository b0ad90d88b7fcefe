"""DuckDB: schema, migrations, short transactions. The only module that speaks to it.

DuckDB lets one process write or many read, never both at once. So nobody holds the database: `Store.read` and
`Store.write` take a lock on a file beside it, connect, do one short piece of work, and close. The database file is
never opened by other means: closing any other handle to it in this process would drop DuckDB's own lock.

Tables (schema 1)
    file_hashes   content hash of a file, valid while its size and times are the same
    artifacts     what a stage made (`outputs`) from what (`inputs`), by the hash of the inputs
    examples      every example of every version of a task, as read and as the model sees it
    gradients     projected gradient and loss of one example at one point of meta-training
    affinities    what each task does to the target's estimated loss, by estimate
    estimates     estimated loss of subsets that somebody asked for, by estimate
    selections    selections by name, with their manifest
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator.errors import DataError, StoreBusy

SCHEMA_VERSION = 1
_LOCK_SECONDS = 10.0
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

_Connection = duckdb.DuckDBPyConnection


def _create(connection: _Connection) -> None:
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


# Migration i brings a store from schema i to i + 1; each runs and is recorded in one transaction.
_MIGRATIONS: tuple[Callable[[_Connection], None], ...] = (_create,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What a stage made, and from what."""

    stage: str
    key: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredExample:
    """One example as it was read and as the model sees it."""

    number: int
    """Position in the task, from 0."""
    file: str
    line: int
    hash: str
    """Hash of the content, whatever the tokenizer."""
    token_hash: str
    """Hash of `input_ids` and `labels`: what a gradient depends on."""
    text: str
    spans: tuple[int, ...]
    """Start and end of each part of `text` that carries loss, in characters, one after the other."""
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """Token ids that carry loss, −100 elsewhere; for an encoder–decoder the decoder's tokens."""
    completion_tokens: int
    truncated: bool
    left_out: str | None
    """Why the example cannot be trained on, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleIndex:
    """The light columns of a task's examples, in the task's order."""

    hashes: list[str]
    token_hashes: list[str]
    lengths: list[int]
    """Tokens of each example."""
    completion_tokens: list[int]
    truncated: list[bool]
    left_out: list[str | None]


class Store:
    """The project's DuckDB file.

    Args:
        path: `store.duckdb`; it and its folder are made at the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_path = path.with_suffix(".lock")

    # -- access ---------------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[_Connection | None]:
        """Open the store for reading; None when there is none yet.

        Raises:
            StoreBusy: A writer held it for ten seconds.
            DataError: The file is damaged or from a newer version.
        """
        if not self.path.exists():
            yield None
            return
        with self._locked(fcntl.LOCK_SH):
            connection = self._connect(read_only=True)
            try:
                self._check_version(connection)
                yield connection
            finally:
                connection.close()

    @contextmanager
    def write(self) -> Iterator[_Connection]:
        """Open the store for one transaction, which is rolled back on any error.

        Raises:
            StoreBusy: Another process held it for ten seconds.
            DataError: The file cannot be written, is damaged, or is from a newer version.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.path.parent}: cannot be made: {error}") from error
        with self._locked(fcntl.LOCK_EX):
            connection = self._connect(read_only=False)
            try:
                self._migrate(connection)
                connection.execute("BEGIN")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    _roll_back(connection)
                    raise
            except (duckdb.IOException, duckdb.FatalException, OSError) as error:
                raise DataError(
                    f"{self.path}: cannot be written: {_first_line(error)}",
                    hint="Is the disk full or read-only? Nothing was half written: run the same command again.",
                ) from error
            finally:
                connection.close()

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise DataError(f"{self._lock_path}: cannot be opened: {error}") from error
        try:
            deadline, pause = time.monotonic() + _LOCK_SECONDS, 0.005
            while True:
                try:
                    fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                        raise StoreBusy(
                            f"{self.path}: held by process {holder or 'unknown'} for over {_LOCK_SECONDS:.0f} seconds",
                            hint="Wait for that process, or stop it, and run the command again.",
                        ) from None
                    time.sleep(pause)
                    pause = min(pause * 2, 0.2)
            if mode == fcntl.LOCK_EX:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _connect(self, *, read_only: bool) -> _Connection:
        try:
            return duckdb.connect(str(self.path), read_only=read_only, config=_SETTINGS)
        except duckdb.IOException as error:
            if "lock" in str(error).lower():
                raise StoreBusy(
                    f"{self.path}: open in another program: {_first_line(error)}",
                    hint="Close that program (a DuckDB shell, perhaps) and run the command again.",
                ) from error
            raise DataError(
                f"{self.path}: cannot be opened: {_first_line(error)}",
                hint="If the file is damaged, delete `.curator/`: results are lost, your data is not.",
            ) from error
        except duckdb.Error as error:
            raise DataError(f"{self.path}: cannot be opened: {_first_line(error)}") from error

    def _check_version(self, connection: _Connection) -> None:
        version = _version(connection)
        if version > SCHEMA_VERSION:
            raise DataError(
                f"{self.path}: made by a newer curator (schema {version}, this one knows {SCHEMA_VERSION})",
                hint="Install the newer version of curator.",
            )

    def _migrate(self, connection: _Connection) -> None:
        self._check_version(connection)
        for version in range(_version(connection), SCHEMA_VERSION):
            connection.execute("BEGIN")
            connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER, applied TIMESTAMP)")
            _MIGRATIONS[version](connection)
            connection.execute("INSERT INTO schema_version VALUES (?, ?)", [version + 1, _now()])
            connection.execute("COMMIT")

    # -- files and artifacts --------------------------------------------------------------------------------------

    def file_hashes(self, paths: Sequence[str]) -> dict[str, tuple[int, int, int, str]]:
        """Known (size, mtime_ns, inode, sha256) of files, by path."""
        with self.read() as connection:
            if connection is None or not paths:
                return {}
            rows = connection.execute(
                "SELECT path, size, mtime_ns, inode, sha256 FROM file_hashes WHERE path IN (SELECT unnest(?))",
                [list(paths)],
            ).fetchall()
        return {row[0]: (row[1], row[2], row[3], row[4]) for row in rows}

    def put_file_hashes(self, rows: Sequence[tuple[str, int, int, int, str]]) -> None:
        """Remember (path, size, mtime_ns, inode, sha256) of files."""
        with self.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO file_hashes VALUES (?, ?, ?, ?, ?)", rows)

    def artifact(self, stage: str, key: str) -> Artifact | None:
        """The artifact of a stage by the hash of its inputs, or None."""
        found = self.artifacts(stage, [key])
        return found[0] if found else None

    def artifacts(self, stage: str, keys: Sequence[str] | None = None) -> list[Artifact]:
        """Artifacts of a stage, newest first: all of them, or those with the keys named."""
        with self.read() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT stage, key, inputs, outputs, created FROM artifacts"
                " WHERE stage = ? AND (? OR key IN (SELECT unnest(?::VARCHAR[])))"
                " ORDER BY created DESC, key",
                [stage, keys is None, list(keys or [])],
            ).fetchall()
        return [
            Artifact(stage=s, key=k, inputs=json.loads(i), outputs=json.loads(o), created=c.replace(tzinfo=UTC))
            for s, k, i, o, c in rows
        ]

    def put_artifact(self, stage: str, key: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Record what a stage made from what, in place of an earlier one of the same key."""
        with self.write() as connection:
            _put_artifact(connection, stage, key, inputs, outputs)

    # -- examples -------------------------------------------------------------------------------------------------

    def put_task(
        self,
        key: str,
        name: str,
        examples: Sequence[StoredExample],
        *,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
    ) -> None:
        """Store one version of a task: its examples and its artifact, in one transaction."""
        table = pa.table(
            {
                "task_key": pa.array([key] * len(examples), pa.string()),
                "task": pa.array([name] * len(examples), pa.string()),
                **{
                    column: pa.array([getattr(example, column) for example in examples], kind)
                    for column, kind in _EXAMPLE_COLUMNS.items()
                },
            }
        )
        with self.write() as connection:
            connection.execute("DELETE FROM examples WHERE task_key = ?", [key])
            connection.register("new_rows", table)
            connection.execute("INSERT INTO examples BY NAME SELECT * FROM new_rows")
            connection.unregister("new_rows")
            _put_artifact(connection, "task", key, inputs, outputs)

    def example_indexes(self, task_keys: Sequence[str]) -> dict[str, ExampleIndex]:
        """The light columns of the examples of several tasks, by task key."""
        with self.read() as connection:
            if connection is None:
                return {}
            rows = connection.execute(
                "SELECT task_key, list(hash ORDER BY number), list(token_hash ORDER BY number),"
                " list(len(input_ids) ORDER BY number), list(completion_tokens ORDER BY number),"
                " list(truncated ORDER BY number), list(left_out ORDER BY number)"
                " FROM examples WHERE task_key IN (SELECT unnest(?)) GROUP BY task_key",
                [list(task_keys)],
            ).fetchall()
        return {
            row[0]: ExampleIndex(
                hashes=row[1],
                token_hashes=row[2],
                lengths=row[3],
                completion_tokens=row[4],
                truncated=row[5],
                left_out=row[6],
            )
            for row in rows
        }

    def tokens(self, task_key: str) -> list[tuple[list[int], list[int]]]:
        """Token ids and labels of a task's examples, in the task's order."""
        with self.read() as connection:
            if connection is None:
                return []
            return connection.execute(
                "SELECT input_ids, labels FROM examples WHERE task_key = ? ORDER BY number", [task_key]
            ).fetchall()

    # -- gradients ------------------------------------------------------------------------------------------------

    def put_gradients(
        self,
        set_key: str,
        token_hashes: Sequence[str],
        losses: npt.NDArray[np.float64],
        gradients: npt.NDArray[np.float32],
    ) -> None:
        """Add projected gradients that are not there yet, in one transaction.

        Args:
            set_key: Which point of which meta-training, projection and so on.
            token_hashes: The examples (n).
            losses: Their losses (n,), nats per completion token.
            gradients: Their projected gradients (n, k).
        """
        n, dim = gradients.shape
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(gradients.reshape(-1)), dim)
        table = pa.table(
            {
                "set_key": pa.array([set_key] * n, pa.string()),
                "token_hash": pa.array(token_hashes, pa.string()),
                "loss": pa.array(losses, pa.float64()),
                "gradient": vectors.cast(pa.list_(pa.float32())),
            }
        )
        with self.write() as connection:
            connection.register("new_rows", table)
            # An interrupted caller cannot know whether its last commit succeeded, and may repeat it.
            connection.execute(
                "INSERT INTO gradients BY NAME SELECT * FROM new_rows WHERE token_hash NOT IN"
                " (SELECT token_hash FROM gradients WHERE set_key = ?)",
                [set_key],
            )
            connection.unregister("new_rows")

    def drop_gradients(self, set_keys: Sequence[str]) -> None:
        """Forget the gradients of several sets."""
        with self.write() as connection:
            connection.execute("DELETE FROM gradients WHERE set_key IN (SELECT unnest(?))", [list(set_keys)])

    def gradient_hashes(self, set_key: str) -> set[str]:
        """Token hashes of the examples whose gradients are stored."""
        with self.read() as connection:
            if connection is None:
                return set()
            rows = connection.execute("SELECT token_hash FROM gradients WHERE set_key = ?", [set_key])
            return {row[0] for row in rows.fetchall()}

    def gradients(self, set_key: str) -> tuple[list[str], npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Read all gradients of a set.

        Returns:
            Token hashes (n), losses (n,) and projected gradients (n, k), in no particular order.
        """
        with self.read() as connection:
            if connection is None:
                return [], np.zeros(0), np.zeros((0, 0), np.float32)
            table = connection.execute(
                "SELECT token_hash, loss, gradient FROM gradients WHERE set_key = ?", [set_key]
            ).to_arrow_table()
        assert table is not None
        hashes = table.column("token_hash").to_pylist()
        losses = np.asarray(table.column("loss").to_numpy(), dtype=np.float64)
        flat = table.column("gradient").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return hashes, losses, flat.reshape(len(hashes), -1) if hashes else np.zeros((0, 0), np.float32)

    # -- results --------------------------------------------------------------------------------------------------

    def put_affinities(
        self,
        estimate_key: str,
        target: str,
        rows: Sequence[tuple[str, float, float]],
        *,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
    ) -> None:
        """Store (task, affinity, standard error) of an estimate, and its artifact."""
        with self.write() as connection:
            connection.execute("DELETE FROM affinities WHERE estimate_key = ?", [estimate_key])
            if rows:
                connection.executemany(
                    "INSERT INTO affinities VALUES (?, ?, ?, ?, ?)",
                    [(estimate_key, target, *row) for row in rows],
                )
            _put_artifact(connection, "estimate", estimate_key, inputs, outputs)

    def affinities(self, estimate_key: str) -> dict[str, tuple[float, float]]:
        """Affinity and standard error by task; empty when the estimate was never stored."""
        with self.read() as connection:
            if connection is None:
                return {}
            rows = connection.execute(
                "SELECT task, affinity, standard_error FROM affinities WHERE estimate_key = ?", [estimate_key]
            ).fetchall()
        return {task: (affinity, error) for task, affinity, error in rows}

    def put_estimates(
        self,
        estimate_key: str,
        target: str,
        rows: Sequence[tuple[Sequence[str], float, float, float]],
    ) -> None:
        """Store (subset, loss, low, high) of subsets that somebody asked for."""
        now = _now()
        with self.write() as connection:
            for subset, *values in rows:
                key = json.dumps(sorted(subset), ensure_ascii=False)
                connection.execute("DELETE FROM estimates WHERE estimate_key = ? AND subset = ?", [estimate_key, key])
                connection.execute(
                    "INSERT INTO estimates VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [estimate_key, target, key, *values, now],
                )

    def put_selection(
        self,
        key: str,
        name: str,
        *,
        target: str,
        method: str,
        loss: float,
        manifest: str,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
    ) -> None:
        """Store a selection with its manifest, and its artifact."""
        with self.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO selections VALUES (?, ?, ?, ?, ?, ?, ?)",
                [key, name, target, method, loss, manifest, _now()],
            )
            _put_artifact(connection, "select", key, inputs, outputs)

    def selection(self, key: str) -> str | None:
        """The manifest of a selection, as JSON, or None."""
        with self.read() as connection:
            if connection is None:
                return None
            rows = connection.execute("SELECT manifest FROM selections WHERE key = ?", [key]).fetchall()
        return rows[0][0] if rows else None

    def selections(self) -> list[tuple[str, str, str, str, float, str, datetime]]:
        """(key, name, target, method, loss, manifest, created) of every selection, newest first."""
        with self.read() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT key, name, target, method, loss, manifest, created FROM selections ORDER BY created DESC, key"
            ).fetchall()
        return [(*row[:-1], row[-1].replace(tzinfo=UTC)) for row in rows]


_EXAMPLE_COLUMNS = {
    "number": pa.int32(),
    "file": pa.string(),
    "line": pa.int32(),
    "hash": pa.string(),
    "token_hash": pa.string(),
    "text": pa.string(),
    "spans": pa.list_(pa.int32()),
    "input_ids": pa.list_(pa.int32()),
    "labels": pa.list_(pa.int32()),
    "completion_tokens": pa.int32(),
    "truncated": pa.bool_(),
    "left_out": pa.string(),
}


def _put_artifact(
    connection: _Connection, stage: str, key: str, inputs: dict[str, Any], outputs: dict[str, Any]
) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?)",
        [stage, key, json.dumps(inputs, sort_keys=True), json.dumps(outputs, sort_keys=True), _now()],
    )


def _now() -> datetime:
    """The present in UTC, as the store keeps it: without a zone, which DuckDB needs another package to read."""
    return datetime.now(UTC).replace(tzinfo=None)


def _version(connection: _Connection) -> int:
    known = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'schema_version'").fetchall()
    if not known[0][0]:
        return 0
    return int(connection.execute("SELECT max(version) FROM schema_version").fetchall()[0][0] or 0)


def _roll_back(connection: _Connection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        # The transaction is already gone, which is what was wanted; the first error is the one to report.
        return


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
