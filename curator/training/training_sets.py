"""Return the examples of a training run as `datasets`, for a trainer that the user starts.

Rows hold token ids and labels, so that every trainer sees the same tokens and the same loss as curator.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from curator.data.corpus import Corpus, training_examples, validation_examples
from curator.data.repetition import repeated
from curator.data.tokens import TokenizedExample
from curator.training.fine_tune import example_counts
from curator.workspace.store.tables import Store

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

Named = tuple[str, Sequence[TokenizedExample]]


def training_sets(corpus: Corpus, store: Store, weights: Mapping[str, float] | None) -> "DatasetDict":
    """Return the splits `train` and `validation`, with the columns `task`, `input_ids` and `labels`.

    Training examples are in the order of the corpus, as in a run of curator. The validation split is missing if the
    targets have no held-out examples.

    Args:
        corpus: Tasks of the project.
        store: The project's store, which holds the tokens.
        weights: Weight of each auxiliary task to include. None includes all, each with the weight 1.
    """
    from datasets import DatasetDict

    tasks = [task for task in corpus.tasks if weights is None or task.name in weights or task.name in corpus.targets]
    counts = example_counts(tasks, weights or {})

    def train() -> Iterator[Named]:
        for task in tasks:
            yield task.name, repeated(training_examples(task, store), counts[task.name], seed=task.name)

    def validation() -> Iterator[Named]:
        for task in corpus.target_tasks:
            yield task.name, validation_examples(task, store)

    sets = DatasetDict({"train": _dataset(train())})
    held_out = _dataset(validation())
    if len(held_out):
        sets["validation"] = held_out
    return sets


def _dataset(tasks: Iterator[Named]) -> "Dataset":
    """Return one data set of the examples of several tasks. Its arrays take four bytes for each token."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable, concat_tables

    tables = []
    for name, examples in tasks:
        columns = {
            "task": pa.array([name] * len(examples), pa.string()),
            "input_ids": _lists([example.input_ids for example in examples]),
            "labels": _lists([example.labels for example in examples]),
        }
        tables.append(InMemoryTable(pa.table(columns)))
    return Dataset(concat_tables(tables))


def _lists(rows: Sequence[Sequence[int]]) -> "pa.Array":
    import pyarrow as pa

    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    values = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.zeros(0, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
