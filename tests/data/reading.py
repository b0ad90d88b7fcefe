"""Read one small file as a task."""

import json
from pathlib import Path
from typing import Any

from curator.data.rows import Row
from curator.data.sources import Source
from curator.data.task_rows import read_task


def read_text(folder: Path, name: str, text: Any, **options: Any) -> list[Row]:
    """Write a file and read it as a task, bad rows included. Values other than text are written as JSON."""
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return read_task(Source(name="t", files=(path,), **options), keep_bad=True)


def json_lines(*rows: Any) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)
