"""Tables of sums over the examples of tasks in segments of meta-training, and of arrays of a whole run."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator.core.arrays import SegmentArrays, release
from curator.workspace.store.access import Database, insert


class Segments(Database):
    """Store and read the sums of segments, and named arrays."""

    def put_segment_sums(self, set_key: str, contents: Sequence[str], sums: SegmentArrays) -> None:
        """Add sums over the examples of tasks, in one transaction. Stored sums are skipped.

        Args:
            set_key: Key of the segment's set of gradients, as for `put_gradients`.
            contents: Hash of each task's examples (t). Of equal hashes, the first is stored.
            sums: Sums of each task (t).
        """
        rows = list({content: row for row, content in reversed(list(enumerate(contents)))}.values())
        table = pa.table(
            {
                "set_key": pa.array([set_key] * len(rows), pa.string()),
                "content": pa.array([contents[row] for row in rows], pa.string()),
                "weight": sums.weights[rows],
                "examples": sums.examples[rows],
                "rest": sums.rest[rows],
                "gradient_sum": pa.array([sums.gradient_sums[row].tobytes() for row in rows], pa.binary()),
                "curvature": pa.array([sums.packed_curvatures[row].tobytes() for row in rows], pa.binary()),
            }
        )
        with self.write() as connection:
            insert(
                connection,
                "INSERT INTO segment_sums BY NAME SELECT * FROM new_rows"
                " WHERE content NOT IN (SELECT content FROM segment_sums WHERE set_key = ?)",
                table,
                [set_key],
            )

    def segment_contents(self, set_key: str) -> set[str]:
        """Return the hashes of examples whose sums are stored."""
        with self.read() as connection:
            if connection is None:
                return set()
            rows = connection.execute("SELECT content FROM segment_sums WHERE set_key = ?", [set_key])
            return {row[0] for row in rows.fetchall()}

    def segment_sums(self, set_key: str, contents: Sequence[str], dim: int, basis: int) -> SegmentArrays:
        """Read sums over the examples of tasks.

        Args:
            set_key: Key of the segment's set of gradients.
            contents: Hash of each task's examples (t).
            dim: Number k of entries of a gradient.
            basis: Number r of directions of the basis.

        Returns:
            Sums of each task (t). All zeros for a task without stored sums.
        """
        sums = SegmentArrays.empty(len(contents), dim, basis, self.path.parent)
        places: dict[str, list[int]] = {}
        for row, content in enumerate(contents):
            places.setdefault(content, []).append(row)
        with self.read() as connection:
            if connection is None:
                return sums
            batches = connection.sql(
                "SELECT content, weight, examples, rest, gradient_sum, curvature FROM segment_sums WHERE set_key = ?",
                params=[set_key],
            ).to_arrow_reader(1024)
            for batch in batches:
                columns = [batch.column(name) for name in ("gradient_sum", "curvature")]
                named = [batch.column(name).to_pylist() for name in ("content", "weight", "examples", "rest")]
                numbers = zip(*named, strict=True)
                for place, (content, weight, examples, rest) in enumerate(numbers):
                    for row in places.get(content, ()):
                        sums.weights[row], sums.examples[row], sums.rest[row] = weight, examples, rest
                        sums.gradient_sums[row] = np.frombuffer(columns[0][place].as_buffer(), dtype=np.float32)
                        sums.packed_curvatures[row] = np.frombuffer(columns[1][place].as_buffer(), dtype=np.float32)
                release(sums.gradient_sums, sums.packed_curvatures)
        return sums

    def put_array(self, key: str, name: str, array: npt.NDArray[np.float32]) -> None:
        """Store or replace a named array of any shape, in single precision."""
        numbers = np.ascontiguousarray(array, dtype=np.float32)
        with self.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO arrays VALUES (?, ?, ?, ?)",
                [key, name, list(numbers.shape), numbers.tobytes()],
            )

    def array(self, key: str, name: str) -> npt.NDArray[np.float32] | None:
        """Return a named array, or None if it is not stored."""
        with self.read() as connection:
            if connection is None:
                return None
            row = connection.execute(
                "SELECT shape, numbers FROM arrays WHERE key = ? AND name = ?", [key, name]
            ).fetchone()
        return None if row is None else np.frombuffer(row[1], dtype=np.float32).reshape(row[0])
