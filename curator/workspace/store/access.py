"""Access the store in short transactions under a lock. No process holds the database between two accesses.

DuckDB allows one writing process or several reading processes, never both. Every access therefore locks a file
next to the database. Then it attaches the database, runs one short transaction and detaches the database. No other code
opens the database file: closing another handle in this process would drop DuckDB's own lock, which blocks other
programs.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from curator.core.errors import DataError, StoreBusy
from curator.core.files import CHECK_DISK, refuse_endless
from curator.workspace.store.instances import SETTINGS, Instances
from curator.workspace.store.locks import FileLock
from curator.workspace.store.schema import (
    DAMAGED,
    SCHEMA_VERSION,
    Connection,
    foreign_entry,
    is_ours,
    migrate,
    utc_now,
    version_of,
)

# Errors that DuckDB raises for the disk and the file. Any other error is a bug in curator's SQL, and is not converted.
_FILE_ERRORS = (
    duckdb.IOException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.SerializationException,
    # COMMIT raises this error when the disk is full.
    duckdb.TransactionException,
    OSError,
)
# Errors of code that decodes a value of another type or form than curator writes.
_UNEXPECTED = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
_T = TypeVar("_T")
QUERY_MEMORY = "1GiB"
"""Memory of DuckDB for a query of the user."""
OUT_OF_MEMORY = "Out of Memory Error"
"""How DuckDB's message begins if no memory is left."""
_FULL = f"{CHECK_DISK} Then run the same command again. The store holds no partial results."
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class Database:
    """Read and write a DuckDB file that several processes share.

    Args:
        path: The file. The first write creates the file and its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(path)
        self._instances = Instances(path)

    @contextmanager
    def read(self) -> Iterator[Connection | None]:
        """Open the store for reading. Yields None if the store does not exist yet.

        Raises:
            StoreBusy: A writer held the store for ten seconds.
            DataError: The file is damaged or from a newer version.
        """
        if not self._is_there():
            yield None
            return
        with (
            self.lock.held(exclusive=False),
            self._file_errors("read", DAMAGED),
            self._opened(read_only=True) as connection,
        ):
            version = self._checked_version(connection)
            if version in (0, SCHEMA_VERSION):
                # A writer that was killed before its first commit leaves an empty database.
                yield connection if version else None
                return

        # The store has an older schema. A write upgrades the schema.
        with self.write():
            pass
        with self.read() as current:
            yield current

    @contextmanager
    def read_attached(self) -> Iterator[Connection]:
        """Open a new in-memory database with the store attached as `store`, read-only.

        DuckDB has access to no other file, and its configuration is locked, before the store is attached.

        The store must exist and have the current schema. Call `read` first: it checks both.

        Raises:
            StoreBusy: A writer held the store for ten seconds.
            DataError: The file cannot be read, or holds other tables, or views, functions or types.
        """
        with self.lock.held(exclusive=False), self._file_errors("read", DAMAGED):
            # Without a temporary folder: DuckDB would create that in the current folder.
            config = SETTINGS | {"enable_external_access": True, "lock_configuration": False, "temp_directory": ""}
            connection = duckdb.connect(":memory:", config=config | {"memory_limit": QUERY_MEMORY})
            try:
                path = str(self.path)
                connection.execute("SET allowed_paths = ?", [[path, f"{path}.wal"]])
                connection.execute("SET enable_external_access = false; SET lock_configuration = true")
                try:
                    connection.execute("ATTACH ? AS store (READ_ONLY)", [path])
                except duckdb.Error as error:
                    raise self._not_opened(error) from error
                if (found := foreign_entry(connection)) or not is_ours(connection):
                    raise DataError(f"unexpected {found or 'tables'} in {path}", hint=DAMAGED)
                yield connection
            finally:
                connection.close()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open the store for one transaction. Any error rolls the transaction back.

        Raises:
            StoreBusy: Another process held the store for ten seconds.
            DataError: The file cannot be written, is damaged, or is from a newer version.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot create {self.path.parent}: {error}", hint=CHECK_DISK) from error
        with self.lock.held(exclusive=True), self._file_errors("write", _FULL):
            if not self._is_there():
                self._make()
            with self._opened(read_only=False) as connection:
                version = self._checked_version(connection)
                if 0 < version < SCHEMA_VERSION:
                    # Detached first: closing the copy's handle would drop the lock of an attached file.
                    connection.execute("CHECKPOINT")
                    self._instances.detach(connection)
                    self._back_up(version)
                    self._instances.attach(connection, read_only=False)
                if version < SCHEMA_VERSION:
                    migrate(connection)
                connection.execute("BEGIN")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    _roll_back(connection)
                    raise

    def _is_there(self) -> bool:
        # DuckDB would wait for a pipe forever.
        for path in (self.path, self.path.with_name(f"{self.path.name}.wal")):
            refuse_endless(path)
        return self.path.exists()

    def _make(self) -> None:
        """Create an empty store atomically: a truncated file would look damaged."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        left = [partial, partial.with_name(f"{partial.name}.wal")]
        try:
            for path in left:
                path.unlink(missing_ok=True)
            duckdb.connect(str(partial), config=SETTINGS).close()
            partial.replace(self.path)
        finally:
            for path in left:
                path.unlink(missing_ok=True)

    def decoded(self, rows: Iterable[tuple[Any, ...]], decode: Callable[..., _T]) -> list[_T]:
        """Decode rows, each passed as the arguments of a function. Another person may have written the store.

        Raises:
            DataError: A value has another type or form than curator writes.
        """
        try:
            return [decode(*row) for row in rows]
        except _UNEXPECTED as error:
            raise DataError(
                f"unexpected value in {self.path}: {type(error).__name__}: {error}", hint=DAMAGED
            ) from error

    def backups(self) -> list[Path]:
        """Return the copies of the store that upgrades made, oldest first."""
        return sorted(self.path.parent.glob(f"{self.path.stem}.schema-*{self.path.suffix}"))

    def _back_up(self, version: int) -> None:
        """Copy the store before an upgrade, to `store.schema-3.duckdb` for example, and delete earlier copies."""
        kept = self.path.with_name(f"{self.path.stem}.schema-{version}{self.path.suffix}")
        partial = kept.with_name(f"{kept.name}.partial")
        try:
            shutil.copyfile(self.path, partial)
            partial.replace(kept)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise DataError(
                f"cannot copy {self.path} before the upgrade of its schema: {error}",
                hint=f"Free {self.path.stat().st_size / 1e6:.0f} MB on the disk of the store.",
            ) from error
        for other in self.backups():
            if other != kept:
                other.unlink(missing_ok=True)

    @contextmanager
    def _opened(self, *, read_only: bool) -> Iterator[Connection]:
        attached = False
        try:
            with self._instances.attached(read_only=read_only) as connection:
                attached = True
                try:
                    yield connection
                except duckdb.Error as error:
                    self._blame(connection, error)
                    raise
        except duckdb.Error as error:
            if attached:
                raise
            raise self._not_opened(error) from error

    def _not_opened(self, error: duckdb.Error) -> StoreBusy | DataError:
        line = _first_line(error)
        if "Conflicting lock" in line:
            return StoreBusy(
                f"{self.path} is open in another program: {line}",
                hint="Close that program, for example a DuckDB shell, and run the command again.",
            )
        if "storage version" in str(error):
            return DataError(
                f"{self.path} was written by another version of DuckDB (installed: {duckdb.__version__}): {line}",
                hint="Install the versions of curator and DuckDB that wrote the store, or move `.curator/` away.",
            )
        return DataError(f"cannot open {self.path}: {line}", hint=_hint(error, DAMAGED))

    def _blame(self, connection: Connection, error: duckdb.Error) -> None:
        """Convert an error caused by foreign tables. Any other error is a bug in curator's SQL."""
        if not isinstance(error, _FILE_ERRORS) and not is_ours(connection):
            raise DataError(f"unexpected tables in {self.path}: {_first_line(error)}", hint=DAMAGED) from error

    @contextmanager
    def _file_errors(self, action: str, hint: str) -> Iterator[None]:
        """Convert errors of the disk to `DataError`, and interrupts to `KeyboardInterrupt`."""
        try:
            yield
        except (RuntimeError, duckdb.InterruptException) as error:
            # DuckDB replaces a KeyboardInterrupt during a query by its own error.
            if isinstance(error, RuntimeError) and "interrupted" not in str(error):
                raise
            raise KeyboardInterrupt from error
        except (duckdb.Error, OSError) as error:
            # Arrow raises an OSError for every error of DuckDB in the middle of a result.
            if isinstance(error, OSError) and str(error).startswith(OUT_OF_MEMORY):
                raise MemoryError(_first_line(error)) from error
            # DuckDB raises the base class `duckdb.Error` itself only for damaged blocks.
            if not isinstance(error, _FILE_ERRORS) and type(error) is not duckdb.Error:
                raise
            raise DataError(f"cannot {action} {self.path}: {_first_line(error)}", hint=_hint(error, hint)) from error

    def _checked_version(self, connection: Connection) -> int:
        version = version_of(connection)
        if version < 0:
            raise DataError(f"invalid schema version in {self.path}: {version}", hint=DAMAGED)
        if version > SCHEMA_VERSION:
            raise DataError(
                f"{self.path} belongs to a newer curator: schema {version}, supported up to {SCHEMA_VERSION}",
                hint="Install the newer version of curator.",
            )
        return version


def insert(connection: Connection, statement: str, table: pa.Table, parameters: Sequence[str] = ()) -> None:
    """Insert the rows of an Arrow table, a thousand times as fast as row by row.

    Args:
        connection: An open store, within a transaction.
        statement: An INSERT or CREATE statement that reads from `new_rows`.
        table: The rows (n).
        parameters: Values of the statement's parameters.
    """
    connection.register("new_rows", table)
    connection.execute(statement, list(parameters))
    connection.unregister("new_rows")


def subset_of(text: str) -> dict[str, str]:
    """Decode a subset: the hash of the training examples of each task, by the task's name.

    Raises:
        ValueError: The text is not a JSON object of texts.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("a subset is not an object of texts")
    return found


def put_artifact(connection: Connection, stage: str, key: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Store an artifact within a transaction. An artifact with the same stage and key is replaced."""
    put_artifacts(connection, stage, [(key, inputs, outputs)])


def put_artifacts(
    connection: Connection, stage: str, rows: Sequence[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    """Store key, inputs and outputs of artifacts with different keys, as `put_artifact` does."""
    table = pa.table(
        {
            "stage": pa.array([stage] * len(rows), pa.string()),
            "key": pa.array([key for key, _, _ in rows], pa.string()),
            "inputs": pa.array([json.dumps(inputs, sort_keys=True) for _, inputs, _ in rows], pa.string()),
            "outputs": pa.array([json.dumps(outputs, sort_keys=True) for _, _, outputs in rows], pa.string()),
            "created": pa.array([utc_now()] * len(rows), pa.timestamp("us")),
        }
    )
    insert(connection, "INSERT OR REPLACE INTO artifacts BY NAME SELECT * FROM new_rows", table)


def _roll_back(connection: Connection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        # DuckDB has already ended the transaction. The first error is the one to report.
        return


def _hint(error: BaseException, otherwise: str) -> str:
    """Choose a hint by the text of an error: DuckDB has no error classes for a full disk or a damaged file."""
    text = str(error)
    if any(os.strerror(number) in text for number in _OF_THE_DISK):
        return _FULL
    return DAMAGED if type(error) is duckdb.Error or "Corrupt" in text else otherwise


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
