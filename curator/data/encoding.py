"""Encode the rows of many tasks in batches, while another process renders chats and other threads tokenize.

Reading and hashing run in the calling thread. Tokenizing holds no lock of Python, so each further core
tokenizes a batch of its own at the same time. Few batches are in memory. The number of threads does not change the
result.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from curator.core.config import Config
from curator.core.errors import DataError
from curator.data.chat_process import stop
from curator.data.left_out import BAD, CUT_OFF, EMPTY, why_empty
from curator.data.model_files import ModelFiles, load_architecture, load_tokenizer
from curator.data.rows import Row, texts
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


Encode = Callable[[Iterable[tuple[int, list[Row]]], ModelFiles], Iterator[EncodedTask]]
"""Encodes tasks for a model elsewhere, as `encode_tasks` does here."""
_Item = tuple[EncodedTask, Row]
_Rendered = list[Rendered | DataError]


def load_encoder(model: ModelFiles, config: Config) -> Encoder:
    """Return the encoder of a project's model.

    Args:
        model: Model of the project.
        config: Configuration of the project.

    Raises:
        ConfigError: The chat template is not valid.
        DataError: The tokenizer or the model's configuration cannot be read.
    """
    architecture = load_architecture(model.folder, config.model)
    return Encoder(
        load_tokenizer(model.folder, config.model, model.chat_template),
        max_length=config.data.max_length,
        encoder_decoder=bool(getattr(architecture, "is_encoder_decoder", False)),
    )


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
    with (
        ThreadPoolExecutor(1, thread_name_prefix="renderer") as renderer,
        ThreadPoolExecutor(count, thread_name_prefix="tokenizer") as pool,
    ):
        waiting: deque[tuple[list[_Item], Future[_Rendered], Future[list[list[Pieces]]]]] = deque()
        try:
            for batch in batches(tasks, _BATCH_CHARACTERS):
                # One thread renders the batches in their order, while this thread reads.
                rendered = renderer.submit(_render, batch, encoder)
                waiting.append((batch, rendered, pool.submit(_tokenize, rendered, encoder)))
                if len(waiting) > count + 1:
                    yield from _finished(*waiting.popleft(), encoder)
            while waiting:
                yield from _finished(*waiting.popleft(), encoder)
        except BaseException:
            # A chat template may run for seconds, and the threads would wait for it.
            stop()
            for _, rendered, tokens in waiting:
                rendered.cancel()
                tokens.cancel()
            raise


def batches(tasks: Iterable[tuple[int, list[Row]]], most: int) -> Iterator[list[_Item]]:
    """Yield batches of rows. A batch can hold parts of a task or several tasks.

    Args:
        tasks: As for `encode_tasks`.
        most: Number of characters from which on a batch is complete.
    """
    batch: list[_Item] = []
    characters = 0
    for number, rows in tasks:
        task = EncodedTask(number, rows)
        for row in rows:
            batch.append((task, row))
            characters += sum(map(len, texts(row.content)))
            if characters >= most:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def _render(batch: list[_Item], encoder: Encoder) -> _Rendered:
    good = iter(encoder.rendered_all([row.content for _, row in batch if not row.problem]))
    return [NOTHING.rendered if row.problem else next(good) for _, row in batch]


def _tokenize(rendered: Future[_Rendered], encoder: Encoder) -> list[list[Pieces]]:
    return encoder.tokenize([NOTHING.rendered if isinstance(r, DataError) else r for r in rendered.result()])


def _finished(
    batch: list[_Item], renderings: Future[_Rendered], tokens: Future[list[list[Pieces]]], encoder: Encoder
) -> Iterator[EncodedTask]:
    for (task, row), rendered, pieces in zip(batch, renderings.result(), tokens.result(), strict=True):
        if isinstance(rendered, DataError):
            # The tokenizer or its chat template rejects the row.
            row = bad_row(row.number, row.file, row.line, rendered)
            rendered = NOTHING.rendered
        encoded = NOTHING
        try:
            encoded = encoder.finish(rendered, pieces) if not row.problem else NOTHING
        except DataError as error:
            row = bad_row(row.number, row.file, row.line, error)
        task.examples.append(_example(row, encoded))
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
