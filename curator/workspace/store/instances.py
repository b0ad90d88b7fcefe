"""Reuse DuckDB instances between accesses to a store. The store is attached only during an access.

Creating an instance takes ten times as long as attaching a file. One command accesses its store dozens of times.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from curator.core.errors import DataError
from curator.workspace.store.schema import DAMAGED, Connection, foreign_entry

Settings = dict[str, str | bool | int | float | list[str]]

_QUIET: Settings = {
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
# Memory of DuckDB for one store. By default, it keeps up to 80 % of the machine's memory. The rest goes to its
# temporary folder next to the store.
_MEMORY = "192MiB"
# DuckDB otherwise keeps up to 128 MiB of freed memory.
_FLUSH: Settings = {"allocator_flush_threshold": "32MiB", "allocator_bulk_deallocation_flush_threshold": "32MiB"}
# A view in a foreign store could otherwise read any file of this machine.
SETTINGS: Settings = _QUIET | {"enable_external_access": False, "lock_configuration": True}
# Instances of the parent process after a fork. Destroying them would wait for threads that the fork did not copy.
_NOT_OURS: list[Connection] = []


class Instances:
    """Hold the idle instances of one store: at most one for each thread that used the store at the same time.

    Args:
        path: File of the store. The file must exist when it is attached.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.path.abspath(path)
        self._idle: list[Connection] = []
        # Inode of the file that holds no foreign views or functions.
        self._checked = -1
        self._process = os.getpid()

    @contextmanager
    def attached(self, *, read_only: bool) -> Iterator[Connection]:
        """Open a connection with the store attached and selected.

        Raises:
            DataError: As `attach`.
            duckdb.Error: The store cannot be opened.
        """
        connection = self._take()
        whole = False
        try:
            self.attach(connection, read_only=read_only)
            yield connection
            with suppress(duckdb.Error):
                self.detach(connection)
                whole = True
        finally:
            # A failed connection may still hold a transaction or the file, and is not reused.
            if whole:
                self._idle.append(connection)
            else:
                connection.close()

    def attach(self, connection: Connection, *, read_only: bool) -> None:
        """Attach the store's file to a connection.

        Raises:
            DataError: The store holds views, functions or other entries that curator never makes.
            duckdb.Error: The store cannot be opened.
        """
        if read_only:
            connection.execute("ATTACH ? AS store (READ_ONLY)", [self._path])
        else:
            connection.execute("ATTACH ? AS store", [self._path])
        inode = os.stat(self._path).st_ino
        if inode != self._checked:
            if found := foreign_entry(connection):
                raise DataError(f"unexpected {found} in {self._path}", hint=DAMAGED)
            self._checked = inode
        connection.execute("USE store")

    def detach(self, connection: Connection) -> None:
        """Detach the store's file. Committed rows are on disk afterwards."""
        connection.execute("USE memory")
        connection.execute("DETACH store")

    def _take(self) -> Connection:
        if self._process != os.getpid():
            _NOT_OURS.extend(self._idle)
            self._idle, self._process = [], os.getpid()
        # Safe with other threads: `pop` and `append` are atomic.
        with suppress(IndexError):
            return self._idle.pop()
        made = duckdb.connect(
            ":memory:", config=_QUIET | _FLUSH | {"temp_directory": f"{self._path}.tmp", "memory_limit": _MEMORY}
        )
        # DuckDB writes its log and temporary files next to the store.
        made.execute("SET allowed_directories = ?", [[os.path.join(os.path.dirname(self._path), "")]])
        # In interactive Python, DuckDB would draw a progress bar on standard output.
        made.execute("SET enable_progress_bar = false")
        made.execute("SET enable_external_access = false; SET lock_configuration = true")
        return made
