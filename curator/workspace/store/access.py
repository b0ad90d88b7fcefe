"""Short transactions under a lock: nobody holds the database.

DuckDB lets one process write or many read, never both at once. So every access takes a lock on a file beside the
database, attaches it, does one short piece of work, and detaches it. The database file is never opened by other means:
closing any other handle to it in this process would drop DuckDB's own lock, which keeps other programs away.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from curator.core.errors import DataError, StoreBusy
from curator.core.files import refuse_endless
from curator.workspace.store.instances import SETTINGS, Instances
from curator.workspace.store.locks import FileLock
from curator.workspace.store.schema import SCHEMA_VERSION, Connection, is_ours, migrate, utc_now, version_of

# What DuckDB raises for the disk and the file; all else is a mistake of ours in the SQL, and stays one.
_FILE_ERRORS = (
    duckdb.IOException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.SerializationException,
    # What a COMMIT raises when the disk is full.
    duckdb.TransactionException,
    OSError,
)
_FULL = "Is the disk full or read-only? Nothing was half written: run the same command again."
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
DAMAGED = (
    "If it is damaged: `curator check --store` says what is, and `curator export-store DIR` saves what can be read."
    " Then delete `.curator/store.duckdb`: results are lost, and made again by the same commands; your data is not."
)
"""What to do about a store that cannot be used."""


class Database:
    """A DuckDB file that several processes read and write in turns.

    Args:
        path: The file; it and its folder are made at the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(path)
        self._instances = Instances(path)

    @contextmanager
    def read(self) -> Iterator[Connection | None]:
        """Open the store for reading; None when there is none yet.

        Raises:
            StoreBusy: A writer held it for ten seconds.
            DataError: The file is damaged or from a newer version.
        """
        if not self._is_there():
            yield None
            return
        with (
            self.lock.held(exclusive=False),
            self._told("read", DAMAGED),
            self._opened(read_only=True) as connection,
        ):
            version = self._checked_version(connection)
            if version in (0, SCHEMA_VERSION):
                # A writer that was killed before its first commit leaves a file with nothing in it.
                yield connection if version else None
                return

        # From an older schema; whoever writes brings it to this one.
        with self.write():
            pass
        with self.read() as current:
            yield current

    @contextmanager
    def read_attached(self) -> Iterator[Connection]:
        """A database of its own, in memory, to which the store is attached for reading as `store`.

        The store must be there; `read` says so, and brings it to this schema.

        Raises:
            StoreBusy: A writer held it for ten seconds.
            DataError: The file cannot be read.
        """
        with self.lock.held(exclusive=False), self._told("read", DAMAGED):
            # It attaches the store first; whoever asks is then kept to that (queries.py). Without a folder for what
            # does not fit into memory, which would be made where the process happens to be.
            config = SETTINGS | {"enable_external_access": True, "lock_configuration": False, "temp_directory": ""}
            connection = duckdb.connect(":memory:", config=config)
            try:
                try:
                    connection.execute("ATTACH ? AS store (READ_ONLY)", [str(self.path)])
                except duckdb.Error as error:
                    raise self._not_opened(error) from error
                yield connection
            finally:
                connection.close()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open the store for one transaction, which is rolled back on any error.

        Raises:
            StoreBusy: Another process held it for ten seconds.
            DataError: The file cannot be written, is damaged, or is from a newer version.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.path.parent}: cannot be made: {error}", hint="Is the disk read-only?") from error
        with self.lock.held(exclusive=True), self._told("written", _FULL):
            if not self._is_there():
                self._make()
            with self._opened(read_only=False) as connection:
                version = self._checked_version(connection)
                if 0 < version < SCHEMA_VERSION:
                    # Closed first: no other handle to the file may be closed while DuckDB has it open.
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
        # DuckDB would wait for a pipe without end.
        for path in (self.path, self.path.with_name(f"{self.path.name}.wal")):
            refuse_endless(path)
        return self.path.exists()

    def _make(self) -> None:
        """Make an empty store, whole or not at all: a file that is cut short would be taken for a damaged one."""
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

    def backups(self) -> list[Path]:
        """Copies of the store from before an upgrade, oldest first."""
        return sorted(self.path.parent.glob(f"{self.path.stem}.schema-*{self.path.suffix}"))

    def _back_up(self, version: int) -> None:
        """Keep the store as it is before an upgrade, as `store.schema-3.duckdb`, in place of earlier such copies."""
        kept = self.path.with_name(f"{self.path.stem}.schema-{version}{self.path.suffix}")
        partial = kept.with_name(f"{kept.name}.partial")
        try:
            shutil.copyfile(self.path, partial)
            partial.replace(kept)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise DataError(
                f"{self.path}: is of an older curator, and there is no room for the copy that is kept before it is"
                f" brought up to date: {error}",
                hint=f"Make room for {self.path.stat().st_size / 1e6:.0f} MB beside it.",
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
                f"{self.path}: open in another program: {line}",
                hint="Close that program (a DuckDB shell, perhaps) and run the command again.",
            )
        if "storage version" in str(error):
            return DataError(
                f"{self.path}: written by another version of DuckDB than this one ({duckdb.__version__}): {line}",
                hint="Install the versions of curator and DuckDB that wrote it, or move `.curator/` away and begin"
                " anew.",
            )
        return DataError(f"{self.path}: cannot be opened: {line}", hint=_hint(error, DAMAGED))

    def _blame(self, connection: Connection, error: duckdb.Error) -> None:
        """Say so where an error comes of tables that are none of ours; else it is a mistake of ours."""
        if not isinstance(error, _FILE_ERRORS) and not is_ours(connection):
            raise DataError(
                f"{self.path}: its tables are not those that curator makes: {_first_line(error)}", hint=DAMAGED
            ) from error

    @contextmanager
    def _told(self, what: str, hint: str) -> Iterator[None]:
        """Turn what DuckDB says of the disk and of signals into errors that people can act on."""
        try:
            yield
        except (RuntimeError, duckdb.InterruptException) as error:
            # Asked to stop in the midst of a query, DuckDB forgets what it was asked by.
            if isinstance(error, RuntimeError) and "interrupted" not in str(error):
                raise
            raise KeyboardInterrupt from error
        except (duckdb.Error, OSError) as error:
            # Only what it finds in a damaged block is an error of no kind.
            if not isinstance(error, _FILE_ERRORS) and type(error) is not duckdb.Error:
                raise
            raise DataError(f"{self.path}: cannot be {what}: {_first_line(error)}", hint=_hint(error, hint)) from error

    def _checked_version(self, connection: Connection) -> int:
        version = version_of(connection)
        if version < 0:
            raise DataError(f"{self.path}: schema {version} has never been", hint=DAMAGED)
        if version > SCHEMA_VERSION:
            raise DataError(
                f"{self.path}: made by a newer curator (schema {version}, this one knows {SCHEMA_VERSION})",
                hint="Install the newer version of curator.",
            )
        return version


def insert(connection: Connection, statement: str, table: pa.Table, parameters: Sequence[str] = ()) -> None:
    """Insert from an Arrow table, which the statement calls `new_rows`; a thousand times as fast as row by row."""
    connection.register("new_rows", table)
    connection.execute(statement, list(parameters))
    connection.unregister("new_rows")


def put_artifact(connection: Connection, stage: str, key: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Store an artifact within a transaction. An artifact with the same stage and key is replaced."""
    connection.execute(
        "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?)",
        [stage, key, json.dumps(inputs, sort_keys=True), json.dumps(outputs, sort_keys=True), utc_now()],
    )


def _roll_back(connection: Connection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        # The transaction is already gone, which is what was wanted; the first error is the one to report.
        return


def _hint(error: BaseException, otherwise: str) -> str:
    """What to do about an error of the disk or the file, as far as its words tell which of them it is."""
    words = str(error)
    if any(os.strerror(number) in words for number in _OF_THE_DISK):
        return _FULL
    return DAMAGED if type(error) is duckdb.Error or "Corrupt" in words else otherwise


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
