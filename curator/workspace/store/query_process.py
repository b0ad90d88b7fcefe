"""Run SQL queries of users in another process. The system ends it when a query takes too much time or memory."""

import dataclasses
import json
import signal
import subprocess
import time

import pyarrow as pa

from curator.core.errors import ConfigError, CuratorError, DataError, StoreBusy
from curator.core.interpreters import module_command
from curator.workspace.store.access import Database
from curator.workspace.store.sql import ProjectTables

QUERY_SECONDS = 60.0
"""Time limit of a query, in seconds."""
_ERRORS: dict[str, type[CuratorError]] = {error.__name__: error for error in (ConfigError, DataError, StoreBusy)}


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
        began = time.monotonic()
        with self.read() as connection:
            # `read` has upgraded an older schema.
            if connection is None:
                raise DataError(f"store is empty: {self.path}", hint="Run `curator check` or `curator select`.")
        left = max(timeout - (time.monotonic() - began), 0.0)
        request = {"path": str(self.path.absolute()), "sql": sql, "limit": limit, "seconds": left}
        try:
            done = subprocess.run(  # noqa: S603 - starts this interpreter, from a list of words
                [*module_command("curator.workspace.store.query_worker")],
                input=json.dumps(request).encode() + b"\n" + _streams(present),
                capture_output=True,
                timeout=left,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigError(
                f"query took longer than {timeout:g} second{'' if timeout == 1 else 's'}",
                hint="Pass a larger --timeout, or select fewer rows.",
            ) from error
        return _answer(done)


def _streams(present: ProjectTables) -> bytes:
    sink = pa.BufferOutputStream()
    for field in dataclasses.fields(present):
        table = getattr(present, field.name)
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return bytes(sink.getvalue())


def _answer(done: "subprocess.CompletedProcess[bytes]") -> tuple[pa.Table, int]:
    """Return the rows of an ended process, or raise its error."""
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ConfigError(
            f"query ended the process that ran it ({name}), perhaps because it needs more memory than is allowed",
            hint="Select fewer rows or columns, or aggregate.",
        )
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace"))
    line, _, rows = done.stdout.partition(b"\n")
    found = json.loads(line)
    if "error" in found:
        raise _ERRORS[found["error"]](found["message"], hint=found["hint"])
    return pa.ipc.open_stream(rows).read_all(), found["total"]
