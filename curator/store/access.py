"""Short transactions under a lock: nobody holds the database.

DuckDB lets one process write or many read, never both at once. So every access takes a lock on a file beside the
database, connects, does one short piece of work, and closes. The database file is never opened by other means: closing
any other handle to it in this process would drop DuckDB's own lock.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from curator.errors import DataError, StoreBusy
from curator.store.schema import SCHEMA_VERSION, Connection, is_ours, migrate, version_of

_LOCK_SECONDS = 10.0
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # A view in a store that somebody else made could read any file.
    "enable_external_access": False,
    "lock_configuration": True,
}
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
DAMAGED = "If the file is damaged, delete `.curator/`: results are lost, your data is not."
"""What to do about a store that cannot be used."""


class Database:
    """A DuckDB file that several processes read and write in turns.

    Args:
        path: The file; it and its folder are made at the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_path = path.with_suffix(".lock")

    @contextmanager
    def read(self) -> Iterator[Connection | None]:
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
                version = self._checked_version(connection)
                if version in (0, SCHEMA_VERSION):
                    # A writer that was killed before its first commit leaves a file with nothing in it.
                    yield connection if version else None
                    return
            except _FILE_ERRORS as error:
                raise DataError(f"{self.path}: cannot be read: {_first_line(error)}", hint=DAMAGED) from error
            except duckdb.Error as error:
                self._blame(connection, error)
                raise
            finally:
                connection.close()

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
        with self._locked(fcntl.LOCK_SH):
            # Without a folder for what does not fit into memory, which would be made where the process happens to be.
            # It attaches the store first; whoever asks is then kept to that (queries.py).
            free = {"enable_external_access": True, "lock_configuration": False, "temp_directory": ""}
            connection = duckdb.connect(":memory:", config=_SETTINGS | free)
            try:
                try:
                    connection.execute("ATTACH ? AS store (READ_ONLY)", [str(self.path)])
                except duckdb.Error as error:
                    raise self._not_opened(error) from error
                yield connection
            except _FILE_ERRORS as error:
                raise DataError(f"{self.path}: cannot be read: {_first_line(error)}", hint=DAMAGED) from error
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
        with self._locked(fcntl.LOCK_EX):
            connection = self._connect(read_only=False)
            try:
                self._checked_version(connection)
                migrate(connection)
                connection.execute("BEGIN")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    _roll_back(connection)
                    raise
            except _FILE_ERRORS as error:
                raise DataError(
                    f"{self.path}: cannot be written: {_first_line(error)}",
                    hint="Is the disk full or read-only? Nothing was half written: run the same command again.",
                ) from error
            except duckdb.Error as error:
                self._blame(connection, error)
                raise
            finally:
                connection.close()

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise DataError(f"{self._lock_path}: cannot be opened: {error}", hint="Is it yours to write?") from error
        try:
            self._wait_for(descriptor, mode)
            # Whoever waits names the last one in; a full disk must not keep people from reading.
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            except OSError:
                pass
            yield
        except RuntimeError as error:
            # What DuckDB makes of an interrupt.
            if str(error) != "Query interrupted":
                raise
            raise KeyboardInterrupt from error
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int, mode: int) -> None:
        deadline, pause = time.monotonic() + _LOCK_SECONDS, 0.005
        while True:
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                    raise StoreBusy(
                        f"{self.path}: held by process {holder or 'unknown'} for over {_LOCK_SECONDS:.0f} seconds",
                        hint="Wait for that process, or stop it, and run the command again.",
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, 0.2)

    def _connect(self, *, read_only: bool) -> Connection:
        try:
            return duckdb.connect(str(self.path), read_only=read_only, config=_SETTINGS)
        except duckdb.Error as error:
            raise self._not_opened(error) from error

    def _not_opened(self, error: duckdb.Error) -> StoreBusy | DataError:
        if isinstance(error, duckdb.IOException) and "lock" in str(error).lower():
            return StoreBusy(
                f"{self.path}: open in another program: {_first_line(error)}",
                hint="Close that program (a DuckDB shell, perhaps) and run the command again.",
            )
        return DataError(f"{self.path}: cannot be opened: {_first_line(error)}", hint=DAMAGED)

    def _blame(self, connection: Connection, error: duckdb.Error) -> None:
        """Say so where an error comes of tables that are none of ours; else it is a mistake of ours."""
        if not is_ours(connection):
            raise DataError(
                f"{self.path}: its tables are not those that curator makes: {_first_line(error)}", hint=DAMAGED
            ) from error

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


def _roll_back(connection: Connection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.Error:
        # The transaction is already gone, which is what was wanted; the first error is the one to report.
        return


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
