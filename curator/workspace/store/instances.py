"""DuckDB instances that are kept between accesses to a store, which is attached to one only while it is in use.

To make an instance takes ten times as long as to attach a file to it, and a command looks into its store dozens of
times.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from curator.workspace.store.schema import Connection

Settings = dict[str, str | bool | int | float | list[str]]

_QUIET: Settings = {
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
# A view in a store that somebody else made could read any file of this machine.
SETTINGS: Settings = _QUIET | {"enable_external_access": False, "lock_configuration": True}
# Of a process that this one was forked from. To destroy them would wait for threads that were not forked with them.
_NOT_OURS: list[Connection] = []


class Instances:
    """The instances of one store: as many as threads have used it at once.

    Args:
        path: The store's file, which must be there when it is attached.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.path.abspath(path)
        self._idle: list[Connection] = []
        self._process = os.getpid()

    @contextmanager
    def attached(self, *, read_only: bool) -> Iterator[Connection]:
        """A connection whose tables are the store's.

        Raises:
            duckdb.Error: It cannot be opened.
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
            # What failed may hold a transaction or the file, and is not used again.
            if whole:
                self._idle.append(connection)
            else:
                connection.close()

    def attach(self, connection: Connection, *, read_only: bool) -> None:
        """Open the store's file."""
        if read_only:
            connection.execute("ATTACH ? AS store (READ_ONLY)", [self._path])
        else:
            connection.execute("ATTACH ? AS store", [self._path])
        connection.execute("USE store")

    def detach(self, connection: Connection) -> None:
        """Close the store's file, with all that was committed in it."""
        connection.execute("USE memory")
        connection.execute("DETACH store")

    def _take(self) -> Connection:
        if self._process != os.getpid():
            _NOT_OURS.extend(self._idle)
            self._idle, self._process = [], os.getpid()
        # Other threads take and give back too; each of these is one step to Python.
        with suppress(IndexError):
            return self._idle.pop()
        made = duckdb.connect(":memory:", config=_QUIET | {"temp_directory": f"{self._path}.tmp"})
        # The store's own folder, for what DuckDB writes beside it.
        made.execute("SET allowed_directories = ?", [[os.path.join(os.path.dirname(self._path), "")]])
        # Where it takes Python for interactive, it would draw on standard output.
        made.execute("SET enable_progress_bar = false")
        made.execute("SET enable_external_access = false; SET lock_configuration = true")
        return made
