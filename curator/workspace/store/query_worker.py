"""Run one SQL query in a process of its own. `curator.workspace.store.query_process` starts the process.

Standard input holds one JSON line, then the tables of `ProjectTables` as Arrow streams, in their order. Standard output
holds one JSON line, then the rows as an Arrow stream:

    {"path": …, "sql": …, "limit": …, "seconds": …}
    {"total": …} or {"error": …, "message": …, "hint": …}

DuckDB cannot interrupt one call of a function, and does not count the texts that functions make. The system can end the
process, and counts all of its memory.
"""

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from curator.core.allocation import limit_memory
from curator.core.errors import CuratorError
from curator.workspace.store.sql import ProjectTables, run_query

# DuckDB's own memory, the result, and the stacks of threads.
_MORE_BYTES = 4 * 2**30


def answer(request: dict[str, Any], present: ProjectTables) -> tuple[dict[str, Any], pa.Table | None]:
    """Run the query of a request. Return the line of the answer, and the rows unless the query failed.

    Args:
        request: The line of the request.
        present: Tables about the current project.
    """
    try:
        rows, total = run_query(Path(request["path"]), request["sql"], present, request["limit"])
    except CuratorError as error:
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint}, None
    return {"total": total}, rows


def main() -> None:
    """Answer one request."""
    # Ctrl-C is for the process that started this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    request = json.loads(sys.stdin.buffer.readline())
    # The process that started this one ends it earlier, unless that process was killed.
    signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 1.0)
    streams = pa.BufferReader(sys.stdin.buffer.read())
    present = ProjectTables(
        **{field.name: pa.ipc.open_stream(streams).read_all() for field in dataclasses.fields(ProjectTables)}
    )
    limit_memory(_MORE_BYTES)
    line, rows = answer(request, present)
    sys.stdout.buffer.write(json.dumps(line).encode() + b"\n")
    if rows is not None:
        with pa.ipc.new_stream(sys.stdout.buffer, rows.schema) as stream:
            stream.write_table(rows)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
