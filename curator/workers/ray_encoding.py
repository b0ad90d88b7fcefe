"""Encode rows on a Ray cluster, which limits large collections first.

The process that owns the store reads the rows, and writes them as Parquet. Actors encode the rows of whole files, and
write the examples as Parquet parts. The process reads the parts in their order. A call that is killed leaves its parts,
and the next call encodes only the other rows.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curator.core.config import Config
from curator.core.errors import DataError
from curator.core.files import CHECK_DISK
from curator.core.folders import remove_folder
from curator.core.provenance import key_of
from curator.data.corpus import READER_VERSION
from curator.data.encoding import EncodedTask, batches, encode_tasks, load_encoder
from curator.data.model_files import ModelFiles, check_tokenizer
from curator.data.rows import Row
from curator.workers.pool import Ended, in_order
from curator.workers.ray_cluster import Cluster
from curator.workers.ray_files import over_files, read_table, write_table
from curator.workspace.store.records import StoredExample

# Characters of one file. One processor encodes them in a few seconds, which is as long as a worker takes to start.
_FILE_CHARACTERS = 2_000_000
_TEXT, _INTEGER, _TOKENS = pa.large_string(), pa.int64(), pa.list_(pa.int32())
_ROW = pa.schema({"number": _INTEGER, "file": _TEXT, "line": _INTEGER, "content": _TEXT, "problem": _TEXT})
_EXAMPLE = pa.schema(
    {
        "number": _INTEGER,
        "file": _TEXT,
        "line": _INTEGER,
        "hash": _TEXT,
        "token_hash": _TEXT,
        "text": _TEXT,
        "spans": pa.list_(_INTEGER),
        "input_ids": _TOKENS,
        "labels": _TOKENS,
        "completion_tokens": _INTEGER,
        "truncated": pa.bool_(),
        "left_out": _TEXT,
    }
)


class AwayEncoding:
    """Encode the rows of tasks on a cluster. The result equals that of `encode_tasks`.

    Args:
        config: Configuration of the project.
        folder: Folder of the Parquet files. Every node must reach it at the same path.
        connect: Returns the cluster. Rows of less than two files are encoded in this process.
    """

    def __init__(self, config: Config, folder: Path, connect: Callable[[], Cluster]) -> None:
        self._config, self._folder, self._connect = config, folder, connect

    def __call__(self, tasks: Iterable[tuple[int, list[Row]]], model: ModelFiles) -> Iterator[EncodedTask]:
        """Encode the rows of tasks, as `encode_tasks` does. The rows of a result have no content.

        Raises:
            DataError: `tasks` raises it, a file cannot be written or read, or a worker died too often.
        """
        found: deque[EncodedTask] = deque()
        parts: list[Path] = []
        for batch in batches(tasks, _FILE_CHARACTERS):
            for task, _ in batch:
                if not found or found[-1] is not task:
                    found.append(task)
                    # `batches` still has the contents. Those of a whole collection would fill the memory.
                    task.rows = [replace(row, content={}) for row in task.rows]
            parts.append(self._write([row for _, row in batch], model))
        for _, part in in_order(self._encoded(parts, model)):
            for example in _read_part(part):
                found[0].examples.append(example)
                if len(found[0].examples) == len(found[0].rows):
                    yield found.popleft()

    def remove(self) -> None:
        """Remove all files, after the examples are in the store."""
        remove_folder(self._folder)

    def _write(self, rows: Sequence[Row], model: ModelFiles) -> Path:
        """Write rows for a worker, unless they are encoded. Return the path of their part."""
        columns = {name: [getattr(row, name) for row in rows] for name in _ROW.names}
        columns["content"] = [json.dumps(content) for content in columns["content"]]
        made_by = {"tokenizer": model.tokenizer_sha256, "length": self._config.data.max_length}
        part = self._folder / f"{key_of({**made_by, 'reader': READER_VERSION, 'rows': columns})[:32]}.parquet"
        if not part.exists():
            try:
                _rows_of(part).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"cannot write {self._folder}: {error}", hint=CHECK_DISK) from error
            write_table(pa.table(columns, schema=_ROW), _rows_of(part))
        return part

    def _encoded(self, parts: Sequence[Path], model: ModelFiles) -> Ended:
        """Yield the number and the path of each part, when it is there."""
        missing: dict[Path, list[int]] = {}
        for n, part in enumerate(parts):
            if part.exists():
                yield n, part
            else:
                # Equal rows of two tasks share a part.
                missing.setdefault(_rows_of(part), []).append(n)
        arguments: dict[str, Any] = {"config": self._config, "model": model}
        if len(missing) > 1:
            encoded = over_files(self._connect(), list(missing), EncodeFile, arguments, on_gpu=False)
        else:
            encoded = ((path, EncodeFile(**arguments)(path)) for path in missing)
        for path, _ in encoded:
            yield from ((n, parts[n]) for n in missing[path])


class EncodeFile:
    """Encode the rows of files in a worker.

    Args:
        config: Configuration of the project.
        model: Model of the project.

    Raises:
        DataError: The tokenizer cannot be read.
        FileChanged: The tokenizer differs from that of the process that started the worker.
    """

    def __init__(self, config: Config, model: ModelFiles) -> None:
        # A worker has one processor.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._encoder = load_encoder(model, config)
        check_tokenizer(model)

    def __call__(self, path: Path) -> int:
        """Encode the rows of one file, write their part, and return the number of rows.

        Raises:
            DataError: A file cannot be read or written, or the tokenizer fails.
        """
        rows = [Row(**values | {"content": json.loads(values["content"])}) for values in read_table(path).to_pylist()]
        (task,) = encode_tasks([(0, rows)], self._encoder, threads=1)
        columns = {name: [getattr(example, name) for example in task.examples] for name in _EXAMPLE.names}
        write_table(pa.table(columns, schema=_EXAMPLE), path.parents[1] / path.name)
        return len(rows)


def _rows_of(part: Path) -> Path:
    """Return the path of the rows of a part."""
    return part.parent / "rows" / part.name


def _read_part(path: Path) -> Iterator[StoredExample]:
    table = read_table(path)
    for batch in table.to_batches():
        ids, labels = batch.column("input_ids"), batch.column("labels")
        others = batch.drop_columns(["input_ids", "labels"]).to_pylist()
        for n, values in enumerate(others):
            yield StoredExample(
                **values | {"spans": tuple(values["spans"])}, input_ids=_array(ids[n]), labels=_array(labels[n])
            )


def _array(numbers: Any) -> np.ndarray[Any, Any]:
    return np.asarray(numbers.values.to_numpy(zero_copy_only=False), dtype=np.int32)
