"""Encode the rows of many tasks in batches, while other threads tokenize.

Reading, rendering and hashing run in the calling thread. Tokenizing holds no lock of Python, so each further core
tokenizes a batch of its own at the same time. Few batches are in memory. The number of threads does not change the
result.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from curator.core.errors import DataError
from curator.data.left_out import BAD, CUT_OFF, EMPTY, why_empty
from curator.data.rows import Row
from curator.data.task_rows import bad_row
from curator.data.tokens import NOTHING, Encoder, Pieces, Rendered, TokenArrays
from curator.workspace.store.records import StoredExample

# Characters of one batch. A tokenizer takes about 100 bytes for each token.
_BATCH_CHARACTERS = 200_000
# Largest number of threads. The calling thread cannot feed more.
_MOST_THREADS = 8


@dataclass(slots=True)
class EncodedTask:
    """Hold the rows of one task, and the examples encoded so far."""

    number: int
    """Index of the task in the sources."""
    rows: list[Row]
    examples: list[StoredExample] = field(default_factory=list)


_Item = tuple[EncodedTask, Row, Rendered]


def encode_tasks(
    tasks: Iterable[tuple[int, list[Row]]], encoder: Encoder, *, threads: int | None = None
) -> Iterator[EncodedTask]:
    """Encode the rows of tasks.

    Args:
        tasks: Index and rows of each task, without the tasks that cannot be read.
        encoder: Encoder of the project's model.
        threads: Number of threads that tokenize. None for one for each core.

    Yields:
        The tasks in their order, each with one example for each row.

    Raises:
        DataError: `tasks` raises it. A row that the tokenizer or its template rejects becomes a bad example instead.
    """
    count = threads or min(os.cpu_count() or 1, _MOST_THREADS)
    with ThreadPoolExecutor(count, thread_name_prefix="tokenizer") as pool:
        waiting: deque[tuple[list[_Item], Future[list[list[Pieces]]]]] = deque()
        for batch in _batches(tasks, encoder):
            waiting.append((batch, pool.submit(encoder.tokenize, [text for _, _, text in batch])))
            if len(waiting) > count + 1:
                yield from _finished(*waiting.popleft(), encoder)
        while waiting:
            yield from _finished(*waiting.popleft(), encoder)


def _batches(tasks: Iterable[tuple[int, list[Row]]], encoder: Encoder) -> Iterator[list[_Item]]:
    """Render rows, and yield batches of them. A batch can hold parts of a task or several tasks."""
    batch: list[_Item] = []
    characters = 0
    for number, rows in tasks:
        task = EncodedTask(number, rows)
        for row in rows:
            rendered = NOTHING.rendered
            if not row.problem:
                try:
                    rendered = encoder.rendered(row.content)
                except DataError as error:
                    # The tokenizer or its chat template rejects the row.
                    row = bad_row(row.number, row.file, row.line, error)
            batch.append((task, row, rendered))
            characters += len(rendered.text)
            if characters >= _BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def _finished(batch: list[_Item], tokens: Future[list[list[Pieces]]], encoder: Encoder) -> Iterator[EncodedTask]:
    for (task, row, rendered), pieces in zip(batch, tokens.result(), strict=True):
        task.examples.append(_example(row, encoder.finish(rendered, pieces) if not row.problem else NOTHING))
        if len(task.examples) == len(task.rows):
            yield task


def _example(row: Row, encoded: TokenArrays) -> StoredExample:
    left_out = BAD if row.problem else why_empty(row.content)
    if left_out is None and encoded.completion_tokens == 0:
        left_out = CUT_OFF if encoded.truncated else EMPTY
    return StoredExample(
        number=row.number,
        file=Path(row.file).name,
        line=row.line,
        hash=row.hash,
        token_hash=encoded.token_hash,
        text=row.problem or encoded.rendered.text,
        spans=encoded.rendered.spans,
        input_ids=encoded.input_ids,
        labels=encoded.labels,
        completion_tokens=encoded.completion_tokens,
        truncated=encoded.truncated,
        left_out=left_out,
    )
