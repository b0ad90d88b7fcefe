"""Tables of sums over the examples of tasks. The sums are large and must be read fast."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator.core.arrays import SumArrays, release
from curator.workspace.store.access import Database, insert
from curator.workspace.store.schema import Connection

# Pieces that are read at once.
_BATCH = 8192


class Sums(Database):
    """Store and read sums over examples."""

    def put_sums(self, set_key: str, contents: Sequence[str], sums: SumArrays) -> None:
        """Add sums over the examples of tasks, in one transaction. Stored sums are skipped.

        Args:
            set_key: Key of the set of gradients, as for `put_gradients`.
            contents: Hash of each task's examples (t).
            sums: Sums of each task (t).
        """
        with self.write() as connection:
            there = _contents(connection, set_key)
            rows = [row for row, content in enumerate(contents) if content not in there]
            if not rows:
                # Another process has stored these sums since the caller looked.
                return
            (start,) = connection.execute("SELECT coalesce(max(number), -1) + 1 FROM statistics").fetchall()[0]
            numbers = np.arange(start, start + len(rows))
            pieces = sums.packed_curvatures[rows].reshape(len(rows), -1, _piece(sums.dim))
            table = pa.table(
                {
                    "number": numbers,
                    "set_key": pa.array([set_key] * len(rows), pa.string()),
                    "content": pa.array([contents[row] for row in rows], pa.string()),
                    "weight": sums.weights[rows],
                    "examples": sums.examples[rows],
                    "pull": _blobs(sums.gradient_sums[rows]),
                }
            )
            insert(connection, "INSERT INTO statistics BY NAME SELECT * FROM new_rows", table)
            table = pa.table(
                {
                    "number": np.repeat(numbers, pieces.shape[1]),
                    "piece": np.tile(np.arange(pieces.shape[1], dtype=np.int32), len(rows)),
                    "numbers": _blobs(pieces.reshape(-1, pieces.shape[2])),
                }
            )
            insert(connection, "INSERT INTO triangles BY NAME SELECT * FROM new_rows", table)

    def stored_sums(self, set_key: str) -> set[str]:
        """Return the hashes of examples whose sums are stored."""
        with self.read() as connection:
            return set() if connection is None else _contents(connection, set_key)

    def sums(self, set_key: str, contents: Sequence[str], dim: int) -> SumArrays:
        """Read sums over the examples of tasks.

        Args:
            set_key: Key of the set of gradients, as for `put_gradients`.
            contents: Hash of each task's examples (t).
            dim: Projection dimension k.

        Returns:
            Sums of each task (t). All zeros for a task without stored sums.
        """
        sums = SumArrays.empty(len(contents), dim, self.path.parent)
        with self.read() as connection:
            if connection is None:
                return sums
            found = {
                content: values
                for content, *values in connection.execute(
                    "SELECT content, number, weight, examples, pull FROM statistics WHERE set_key = ?", [set_key]
                ).fetchall()
            }
            rows = [row for row, content in enumerate(contents) if content in found]
            # Tasks with the same examples share their pieces, which are read for the last of these tasks.
            row_of = np.zeros(max((values[0] for values in found.values()), default=-1) + 1, dtype=np.intp)
            for row in rows:
                row_of[found[contents[row]][0]] = row
                _, sums.weights[row], sums.examples[row], pull = found[contents[row]]
                sums.gradient_sums[row] = np.frombuffer(pull)
            pieces = sums.packed_curvatures.reshape(len(contents), -1, _piece(dim))
            batches = connection.sql(
                "SELECT number, piece, numbers FROM triangles WHERE number IN (SELECT unnest(?::BIGINT[]))",
                params=[[found[contents[row]][0] for row in rows]],
            ).to_arrow_reader(_BATCH)
            for batch in batches:
                places = row_of[batch.column("number").to_numpy()], batch.column("piece").to_numpy()
                pieces[places] = _numbers(batch.column("numbers"), _piece(dim))
                release(sums.packed_curvatures)
        for row in rows:
            read = row_of[found[contents[row]][0]]
            if read != row:
                sums.packed_curvatures[row] = sums.packed_curvatures[read]
        return sums


def _contents(connection: Connection, set_key: str) -> set[str]:
    rows = connection.execute("SELECT content FROM statistics WHERE set_key = ?", [set_key])
    return {row[0] for row in rows.fetchall()}


def _piece(dim: int) -> int:
    """Return how many numbers a piece of a triangle has: k + 1, or half of it, which divides k(k + 1)/2."""
    return (dim + 1) // (1 + dim % 2)


def _blobs(rows: npt.NDArray[np.generic]) -> pa.Array:
    """Return the bytes of each row (n, m), without a copy."""
    size = rows.shape[1] * rows.itemsize
    ends = pa.py_buffer(np.arange(len(rows) + 1, dtype=np.int64) * size)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(rows), [None, ends, pa.py_buffer(np.ascontiguousarray(rows))]
    )


def _numbers(blobs: pa.Array, width: int) -> npt.NDArray[np.float32]:
    """Return the rows (n, width) that `_blobs` received, without a copy."""
    _, ends, data = blobs.buffers()
    kind = np.int64 if pa.types.is_large_binary(blobs.type) else np.int32
    start = int(np.frombuffer(ends, dtype=kind)[blobs.offset])
    return np.frombuffer(data, dtype=np.float32, count=len(blobs) * width, offset=start).reshape(-1, width)
