"""The examples of one task: read, sort and search. This module imports no Textual.

Texts stay in Arrow columns. A task with 100,000 examples creates Python objects only for the examples on the screen.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from curator.core.arrays import Floats, Mask
from curator.data.corpus import Task
from curator.data.left_out import CUT_OFF, EMPTY, LEAKED, OVER_LIMIT, VALIDATION
from curator.data.splits import TaskSplit
from curator.workspace.store.tables import Store

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]

# Sort orders in the order of the key `s`: column, whether descending, and name.
ORDERS: tuple[tuple[str, bool, str], ...] = (
    ("influence", True, "most helpful first"),
    ("influence", False, "most harmful first"),
    ("length", True, "longest first"),
    ("length", False, "shortest first"),
    ("file", False, "file order"),
    ("file", True, "reverse file order"),
)
# Why training omits a row, in at most ten cells.
REASONS = {VALIDATION: "held out", LEAKED: "leaked", OVER_LIMIT: "over limit", EMPTY: "empty", CUT_OFF: "cut off"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """All n rows of one task, in the order of its files.

    Attributes:
        key: Key of the version of the task.
        texts: Texts as the model sees them (n), an Arrow column.
        spans: Start and end of the parts that carry loss (n), an Arrow column of lists.
        files: Name of the file (n), an Arrow column.
        lines: Line in the file (n,).
        lengths: Number of tokens (n,).
        completion_tokens: Number of tokens that carry loss (n,).
        truncated: Whether the end was cut off (n,).
        split: Split of the rows.
        trained: Numbers of the training rows (m,), in the order of the estimator.
        reasons: Why training omits a row, by number.
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
        """Return the text of one row."""
        return str(self.texts[number].as_py())

    def spans_of(self, number: int) -> tuple[int, ...]:
        """Return start and end of each part of the text that carries loss, in characters."""
        return tuple(self.spans[number].as_py() or ())

    def place(self, number: int) -> str:
        """Return file and line of one row, as `FILE:LINE`."""
        return f"{self.files[number].as_py()}:{self.lines[number]}"

    def by_row(self, gains: Floats) -> Floats:
        """Spread the influences of the training rows (m,) over all rows (n,), with NaN for other rows."""
        spread = np.full(len(self), np.nan)
        spread[self.trained] = gains
        return spread

    def search(self, words: str) -> Mask:
        """Return which rows (n,) contain a text, ignoring case."""
        if not words:
            return np.ones(len(self), dtype=bool)
        found = pc.match_substring(self.texts, words, ignore_case=True)
        return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)

    def arranged(self, by: str, *, descending: bool, influence: Floats | None, shown: Mask) -> Rows:
        """Sort the row numbers.

        Args:
            by: `influence`, `length` or `file`.
            descending: Whether the largest value is first.
            influence: Influence of each row (n,), NaN last. None keeps the order of the file.
            shown: Whether to include a row (n,).
        """
        rows = np.flatnonzero(shown)
        if by == "file":
            return rows[::-1] if descending else rows
        values = influence if by == "influence" else self.lengths
        if values is None:
            return rows
        return np.asarray(rows[np.argsort((-values if descending else values)[rows], kind="stable")])


def read_examples(store: Store, task: Task) -> Examples:
    """Read the rows of a task from the store.

    Args:
        store: Store of the project.
        task: The task, with its split.

    Returns:
        The rows. Empty if the rows were removed from the store meanwhile.

    Raises:
        CuratorError: The store cannot be read.
    """
    table, index, split = store.example_texts(task.version.key), task.version.index, task.split
    count = table.num_rows
    if count != len(index.lengths):
        # The next reading of the project finds the change.
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
