"""`HeldExamples`: examples in memory, for processes that must not open the store."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator.core.file_states import FileState
from curator.workspace.store.schema import Connection
from curator.workspace.store.tables import Store


@dataclass(frozen=True, slots=True)
class _Lists:
    """Lists of numbers as one array, which other processes share without a copy."""

    values: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "_Lists":
        flat = [np.asarray(numbers, dtype=np.int32) for numbers in lists]
        ends = np.cumsum([0, *map(len, flat)], dtype=np.int64)
        return cls(np.concatenate([np.zeros(0, np.int32), *flat]), ends)

    def all(self) -> list[list[int]]:
        bounds = self.ends.tolist()
        return [self.values[a:b].tolist() for a, b in pairwise(bounds)]


class HeldExamples(Store):
    """Hold the examples of some versions of tasks. Every other use of the store is an error.

    Workers get this object instead of the store, because only one process writes to the store.

    Args:
        path: The store that the examples come from.
        tokens: Token ids and labels by the key of a task's version.
        texts: Texts by the key of a task's version, as `example_texts` returns them.
    """

    def __init__(
        self, path: Path, tokens: Mapping[str, tuple[_Lists, _Lists]], texts: Mapping[str, pa.Table] | None = None
    ) -> None:
        super().__init__(path)
        self._tokens, self._texts = dict(tokens), dict(texts or {})

    @classmethod
    def of(cls, store: Store, task_keys: Sequence[str], *, with_texts: Sequence[str] = ()) -> "HeldExamples":
        """Read examples from the store.

        Args:
            store: The store.
            task_keys: Keys of the versions of tasks whose tokens are held.
            with_texts: Keys of those whose texts are held too.
        """
        tokens = {}
        for key in dict.fromkeys(task_keys):
            rows = store.tokens(key)
            tokens[key] = (_Lists.of([ids for ids, _ in rows]), _Lists.of([labels for _, labels in rows]))
        return cls(store.path, tokens, {key: store.example_texts(key) for key in dict.fromkeys(with_texts)})

    def __reduce__(self) -> Any:
        """Leave out the locks and handles of a store, which belong to one process."""
        return HeldExamples, (self.path, self._tokens, self._texts)

    def tokens(self, task_key: str) -> list[tuple[list[int], list[int]]]:
        """Return token ids and labels of a task's examples, in the order of the task."""
        ids, labels = self._tokens[task_key]
        return list(zip(ids.all(), labels.all(), strict=True))

    def example_texts(self, task_key: str) -> pa.Table:
        """Return text and location of a task's examples, as `Store.example_texts` does."""
        return self._texts[task_key]

    def file_hashes(self, paths: Sequence[str]) -> dict[str, tuple[FileState, str]]:
        """Return no hash: each worker hashes the files that it reads, so that it finds other files."""
        return {}

    @contextmanager
    def read(self) -> Iterator[Connection | None]:
        """Refuse to open the store."""
        self._refuse()
        yield

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Refuse to open the store."""
        self._refuse()
        yield

    @contextmanager
    def read_attached(self) -> Iterator[Connection]:
        """Refuse to open the store."""
        self._refuse()
        yield

    def _refuse(self) -> NoReturn:
        raise RuntimeError(f"a worker must not open {self.path}")
