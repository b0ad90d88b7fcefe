"""The examples of one task: read from the store, put in order and searched. No Textual.

Texts stay in Arrow's columns, so that a task of 100,000 examples costs no Python object until it is looked at.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from curator.core.arrays import Floats, Mask
from curator.data.corpus import CUT_OFF, EMPTY, Task
from curator.data.splits import LEAKED, OVER_LIMIT, VALIDATION, TaskSplit
from curator.workspace.store.tables import Store

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]

# Sort orders in the order in which `s` goes through them: what by, whether descending, and what it is called.
ORDERS: tuple[tuple[str, bool, str], ...] = (
    ("influence", True, "most helpful first"),
    ("influence", False, "most harmful first"),
    ("length", True, "longest first"),
    ("length", False, "shortest first"),
    ("file", False, "as in the file"),
    ("file", True, "end of the file first"),
)
# Why a row is not trained on, in at most ten cells.
REASONS = {VALIDATION: "held out", LEAKED: "leaked", OVER_LIMIT: "over limit", EMPTY: "empty", CUT_OFF: "cut off"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """All rows of one task, in the order of its files; n of them.

    Attributes:
        key: The task's version.
        texts: What the model sees (n), an Arrow column.
        spans: Start and end of the parts that carry loss (n), an Arrow column of lists.
        files: Name of the file (n), an Arrow column.
        lines: Line in the file (n,).
        lengths: Tokens (n,).
        completion_tokens: Tokens that carry loss (n,).
        truncated: Whether the end was cut off (n,).
        split: Which rows are trained on.
        trained: Their numbers (m,), in the order in which the estimator has them.
        reasons: Why a row is not trained on, by number.
    """

    key: str
    texts: Any
    spans: Any
    files: Any
    lines: Ints
    lengths: Ints
    completion_tokens: Ints
    truncated: Mask
    split: TaskSplit
    trained: Rows
    reasons: dict[int, str]

    def __len__(self) -> int:
        return len(self.lines)

    def text(self, number: int) -> str:
        """Text of one row."""
        return str(self.texts[number].as_py())

    def spans_of(self, number: int) -> tuple[int, ...]:
        """Start and end of each part of a row's text that carries loss, in characters, one after the other."""
        return tuple(self.spans[number].as_py() or ())

    def place(self, number: int) -> str:
        """File and line of one row."""
        return f"{self.files[number].as_py()}:{self.lines[number]}"

    def by_row(self, gains: Floats) -> Floats:
        """Influences of the trained rows (m,), laid out by row (n,); NaN for rows that are not trained on."""
        spread = np.full(len(self), np.nan)
        spread[self.trained] = gains
        return spread

    def search(self, words: str) -> Mask:
        """The rows (n,) whose text holds some words, whatever their case."""
        if not words:
            return np.ones(len(self), dtype=bool)
        found = pc.match_substring(self.texts, words, ignore_case=True)
        return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)

    def arranged(self, by: str, *, descending: bool, influence: Floats | None, shown: Mask) -> Rows:
        """Row numbers in an order.

        Args:
            by: `influence`, `length` or `file`.
            descending: Largest first.
            influence: Of each row (n,), NaN last; None where it is not known, which leaves them as in the file.
            shown: The rows that are wanted (n,).
        """
        rows = np.flatnonzero(shown)
        if by == "file":
            return rows[::-1] if descending else rows
        values = influence if by == "influence" else self.lengths
        if values is None:
            return rows
        return np.asarray(rows[np.argsort((-values if descending else values)[rows], kind="stable")])


def read_examples(store: Store, task: Task) -> Examples:
    """Read a task's rows.

    Args:
        store: The project's store.
        task: The task, with its split.

    Returns:
        Its rows; none where they were dropped from the store meanwhile.

    Raises:
        CuratorError: The store cannot be read.
    """
    table, index, split = store.example_texts(task.version.key), task.version.index, task.split
    count = table.num_rows
    if count != len(index.lengths):
        # Whoever reads the project again will know.
        table, count, split = table.slice(0, 0), 0, TaskSplit(name=task.name, train=(), validation=(), left_out={})
    return Examples(
        key=task.version.key,
        texts=table.column("text"),
        spans=table.column("spans"),
        files=table.column("file"),
        lines=np.asarray(table.column("line").to_numpy(), dtype=np.int64),
        lengths=np.asarray(index.lengths[:count], dtype=np.int64),
        completion_tokens=np.asarray(index.completion_tokens[:count], dtype=np.int64),
        truncated=np.asarray(index.truncated[:count], dtype=bool),
        split=task.split,
        trained=np.asarray(split.train, dtype=np.intp),
        reasons={number: reason for reason, numbers in split.left_out.items() for number in numbers},
    )
