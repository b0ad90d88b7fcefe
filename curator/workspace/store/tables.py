"""`Store`: read and write every table of the store."""

import json
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curator.core.errors import DataError
from curator.core.file_states import FileState
from curator.core.interval import Interval
from curator.workspace.store.access import insert, put_artifact, put_artifacts
from curator.workspace.store.measured import Measured
from curator.workspace.store.metric_values import MetricValues
from curator.workspace.store.notes import Notes
from curator.workspace.store.query_process import Queries
from curator.workspace.store.records import Artifact, ExampleIndex, StoredTask, TokenTable
from curator.workspace.store.schema import DAMAGED, utc_now
from curator.workspace.store.segments import Segments
from curator.workspace.store.selections import SelectionTable
from curator.workspace.store.sums import Sums


class _Facts(dict[str, Any]):
    """Inputs or outputs of an artifact. A missing key means that the store is damaged."""

    def __missing__(self, key: str) -> Any:
        raise DataError(f"missing key in an artifact of the store: {key!r}", hint=DAMAGED)


class Store(Sums, Segments, Measured, MetricValues, SelectionTable, Notes, Queries):
    """Read and write the project's DuckDB file. Each method is one short transaction.

    Args:
        path: `store.duckdb`. The first write creates the file and its folder.
    """

    # -- files and artifacts --------------------------------------------------------------------------------------

    def file_hashes(self, paths: Sequence[str]) -> dict[str, tuple[FileState, str]]:
        """Return stored states and SHA-256 of files, by path."""
        with self.read() as connection:
            if connection is None or not paths:
                return {}
            rows = connection.execute(
                "SELECT path, size, mtime_ns, changed_ns, inode, sha256 FROM file_hashes"
                " WHERE path IN (SELECT unnest(?))",
                [list(paths)],
            ).fetchall()
        return {row[0]: (FileState(*row[1:5]), row[5]) for row in rows}

    def put_file_hashes(self, rows: Sequence[tuple[str, FileState, str]]) -> None:
        """Store path, state and SHA-256 of files."""
        latest = list({row[0]: row for row in rows}.values())
        states = {name: [getattr(state, name) for _, state, _ in latest] for name in FileState._fields}
        table = pa.table(
            {
                "path": pa.array([path for path, _, _ in latest], pa.string()),
                **{name: pa.array(values, pa.int64()) for name, values in states.items()},
                "sha256": pa.array([sha256 for _, _, sha256 in latest], pa.string()),
            }
        )
        with self.write() as connection:
            insert(connection, "INSERT OR REPLACE INTO file_hashes BY NAME SELECT * FROM new_rows", table)

    def forget_file_hashes(self, paths: Sequence[str] | None = None) -> None:
        """Delete the stored hashes of files, so that curator computes them again.

        Args:
            paths: The files. None for all files.
        """
        with self.write() as connection:
            connection.execute(
                "DELETE FROM file_hashes WHERE ? OR path IN (SELECT unnest(?::VARCHAR[]))",
                [paths is None, list(paths or [])],
            )

    def artifact(self, stage: str, key: str) -> Artifact | None:
        """Return the artifact of a stage by the hash of its inputs, or None if it is not stored."""
        found = self.artifacts(stage, [key])
        return found[0] if found else None

    def artifacts(self, stage: str, keys: Sequence[str] | None = None) -> list[Artifact]:
        """Return artifacts of a stage, newest first: all, or those with the given keys."""
        with self.read() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT stage, key, inputs, outputs, created FROM artifacts"
                " WHERE stage = ? AND (? OR key IN (SELECT unnest(?::VARCHAR[])))"
                " ORDER BY created DESC, key",
                [stage, keys is None, list(keys or [])],
            ).fetchall()
        return self.decoded(
            rows,
            lambda s, k, i, o, c: Artifact(
                stage=s, key=k, inputs=self._facts(i), outputs=self._facts(o), created=c.replace(tzinfo=UTC)
            ),
        )

    def _facts(self, text: str) -> "_Facts":
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise DataError(f"artifact is not a JSON object: {self.path}", hint=DAMAGED)
        return _Facts(values)

    def put_artifact(self, stage: str, key: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Store inputs and outputs of a stage. An artifact with the same stage and key is replaced."""
        with self.write() as connection:
            put_artifact(connection, stage, key, inputs, outputs)

    # -- examples -------------------------------------------------------------------------------------------------

    def put_tasks(self, tasks: Sequence[StoredTask]) -> None:
        """Store versions of tasks with their examples and artifacts, in one transaction."""
        rows = [(task, example) for task in tasks for example in task.examples]
        table = pa.table(
            {
                "task_key": pa.array([task.key for task, _ in rows], pa.string()),
                "task": pa.array([task.name for task, _ in rows], pa.string()),
                **{
                    column: _column([getattr(example, column) for _, example in rows], kind)
                    for column, kind in _EXAMPLE_COLUMNS.items()
                },
            }
        )
        with self.write() as connection:
            connection.execute(
                "DELETE FROM examples WHERE task_key IN (SELECT unnest(?))", [[task.key for task in tasks]]
            )
            insert(connection, "INSERT INTO examples BY NAME SELECT * FROM new_rows", table)
            put_artifacts(connection, "task", [(task.key, task.inputs, task.outputs) for task in tasks])

    def example_texts(self, task_key: str) -> pa.Table:
        """Return text and location of a task's examples, in the order of the task.

        Args:
            task_key: Key of the task's version.

        Returns:
            Columns `text`, `spans`, `file` and `line` (n), as in `StoredExample`. Empty if the task is not stored.
        """
        with self.read() as connection:
            if connection is None:
                kinds = [(column, _EXAMPLE_COLUMNS[column]) for column in ("text", "spans", "file", "line")]
                return pa.schema(kinds).empty_table()
            return connection.sql(
                "SELECT text, spans, file, line FROM examples WHERE task_key = ? ORDER BY number", params=[task_key]
            ).to_arrow_table()

    def example_starts(self, task_keys: Sequence[str], characters: int) -> dict[str, str]:
        """Return the start of the first example of several tasks, by task key.

        Args:
            task_keys: Keys of the versions of the tasks. Tasks that are not stored are omitted.
            characters: Most characters of each start.
        """
        with self.read() as connection:
            if connection is None:
                return {}
            found = connection.execute(
                "SELECT task_key, left(text, ?) FROM examples"
                " WHERE number = 0 AND task_key IN (SELECT unnest(?::VARCHAR[]))",
                [characters, list(task_keys)],
            ).fetchall()
        return dict(found)

    def example_indexes(self, task_keys: Sequence[str]) -> dict[str, ExampleIndex]:
        """Return small columns of the examples of several tasks, by task key. Tasks without examples are omitted."""
        with self.read() as connection:
            if connection is None:
                return {}
            # Lists made by DuckDB would have to fit into its memory. Sorted rows need not.
            table = connection.sql(
                "SELECT task_key, hash, token_hash, len(input_ids) AS length, completion_tokens, truncated, left_out"
                " FROM examples WHERE task_key IN (SELECT unnest(?::VARCHAR[])) ORDER BY task_key, number",
                params=[list(task_keys)],
            ).to_arrow_table()
        columns = [table.column(number).to_pylist() for number in range(1, table.num_columns)]
        indexes = {}
        for key, start, stop in _runs(table.column("task_key")):
            hashes, token_hashes, lengths, completion_tokens, truncated, left_out = (c[start:stop] for c in columns)
            indexes[key] = ExampleIndex(
                hashes=hashes,
                token_hashes=token_hashes,
                lengths=lengths,
                completion_tokens=completion_tokens,
                truncated=truncated,
                left_out=left_out,
            )
        return indexes

    def tokens(self, task_key: str) -> list[tuple[list[int], list[int]]]:
        """Return token ids and labels of a task's examples, in the order of the task."""
        with self.read() as connection:
            if connection is None:
                return []
            return connection.execute(
                "SELECT input_ids, labels FROM examples WHERE task_key = ? ORDER BY number", [task_key]
            ).fetchall()

    def input_ids(self, task_keys: Sequence[str]) -> dict[str, TokenTable]:
        """Return the token ids of the examples of several tasks, by task key. Tasks without examples are omitted."""
        with self.read() as connection:
            if connection is None:
                return {}
            table = connection.sql(
                "SELECT task_key, input_ids FROM examples WHERE task_key IN (SELECT unnest(?::VARCHAR[]))"
                " ORDER BY task_key, number",
                params=[list(task_keys)],
            ).to_arrow_table()
        ids = np.concatenate(
            [np.zeros(0, np.int32), *(chunk.flatten().to_numpy() for chunk in table.column("input_ids").chunks)]
        )
        lengths = pc.list_value_length(table.column("input_ids")).to_numpy()
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return {key: TokenTable(ids, ends[start : stop + 1]) for key, start, stop in _runs(table.column("task_key"))}

    def counts_of_token(self, task_keys: Sequence[str], token: int) -> dict[str, int]:
        """Return the number of examples that hold a token, by task key. Tasks without such examples are omitted."""
        with self.read() as connection:
            if connection is None:
                return {}
            found = connection.execute(
                "SELECT task_key, count(*) FROM examples WHERE task_key IN (SELECT unnest(?::VARCHAR[]))"
                " AND (list_contains(input_ids, ?) OR list_contains(labels, ?)) GROUP BY task_key",
                [list(task_keys), token, token],
            ).fetchall()
        return dict(found)

    def tokens_of(self, task_key: str, number: int) -> tuple[list[int], list[int]]:
        """Return token ids and labels of one example. Empty lists if the example is not stored.

        Args:
            task_key: Key of the task's version.
            number: Position of the example in the task, from 0.
        """
        with self.read() as connection:
            if connection is None:
                return [], []
            rows = connection.execute(
                "SELECT input_ids, labels FROM examples WHERE task_key = ? AND number = ?", [task_key, number]
            ).fetchall()
        return rows[0] if rows else ([], [])

    # -- gradients ------------------------------------------------------------------------------------------------

    def put_gradients(
        self,
        set_key: str,
        token_hashes: Sequence[str],
        losses: npt.NDArray[np.float64],
        gradients: npt.NDArray[np.float32],
    ) -> None:
        """Add projected gradients to a set, in one transaction. Stored gradients are skipped.

        Args:
            set_key: Key of the set: hash of the checkpoint, the projection and other inputs.
            token_hashes: Token hash of each example (n).
            losses: Loss of each example (n,), nats per completion token. NaN for a loss that is not known.
            gradients: Projected gradient of each example (n, k).
        """
        # Several tasks may share an example. Its first row is kept.
        rows = list({h: row for row, h in reversed(list(enumerate(token_hashes)))}.values())
        vectors = np.ascontiguousarray(gradients[rows], dtype=np.float32)
        offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * gradients.shape[1])
        table = pa.table(
            {
                "set_key": pa.array([set_key] * len(rows), pa.string()),
                "token_hash": pa.array([token_hashes[row] for row in rows], pa.string()),
                "loss": pa.array(np.asarray(losses, dtype=np.float64)[rows], from_pandas=True),
                "gradient": pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1))),
            }
        )
        with self.write() as connection:
            # An interrupted caller cannot know whether its last commit succeeded, and may repeat it.
            insert(
                connection,
                "INSERT INTO gradients BY NAME SELECT * FROM new_rows"
                " WHERE token_hash NOT IN (SELECT token_hash FROM gradients WHERE set_key = ?)",
                table,
                [set_key],
            )

    def drop_gradients(self, set_keys: Sequence[str]) -> None:
        """Delete the gradients of several sets, and the sums over them."""
        with self.write() as connection:
            connection.execute(
                "DELETE FROM triangles WHERE number IN"
                " (SELECT number FROM statistics WHERE set_key IN (SELECT unnest(?)))",
                [list(set_keys)],
            )
            connection.execute("DELETE FROM statistics WHERE set_key IN (SELECT unnest(?))", [list(set_keys)])
            connection.execute("DELETE FROM segment_sums WHERE set_key IN (SELECT unnest(?))", [list(set_keys)])
            connection.execute("DELETE FROM gradients WHERE set_key IN (SELECT unnest(?))", [list(set_keys)])

    def gradient_hashes(self, set_key: str) -> set[str]:
        """Return the token hashes of examples whose gradients are stored."""
        with self.read() as connection:
            if connection is None:
                return set()
            rows = connection.execute("SELECT token_hash FROM gradients WHERE set_key = ?", [set_key])
            return {row[0] for row in rows.fetchall()}

    def gradients(
        self, set_key: str, token_hashes: Sequence[str] | None = None
    ) -> tuple[list[str], npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Read gradients of a set.

        Args:
            set_key: Key of the set, as for `put_gradients`.
            token_hashes: Token hashes of the examples to read. Examples without gradients are omitted. None reads all.

        Returns:
            Token hashes (n), losses (n,) in nats per completion token and projected gradients (n, k), in any order.
        """
        with self.read() as connection:
            if connection is None:
                return [], np.zeros(0), np.zeros((0, 0), np.float32)
            table = connection.sql(
                "SELECT token_hash, loss, gradient FROM gradients"
                " WHERE set_key = ? AND (? OR token_hash IN (SELECT unnest(?::VARCHAR[])))",
                params=[set_key, token_hashes is None, list(token_hashes or [])],
            ).to_arrow_table()
        return _gradients(table)

    def gradient_rows(self, set_key: str) -> range:
        """Return the rows of the table of gradients among which a set lies, for `gradients_in`."""
        with self.read() as connection:
            if connection is None:
                return range(0)
            found = connection.execute("SELECT min(rowid), max(rowid) FROM gradients WHERE set_key = ?", [set_key])
            first, last = found.fetchall()[0]
        return range(0) if first is None else range(first, last + 1)

    def gradients_in(
        self, set_key: str, rows: range
    ) -> tuple[list[str], npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Read the gradients of a set in some rows of the table, as `gradients` returns them.

        This is much faster than a search for token hashes. Another process may move rows between two calls.
        """
        with self.read() as connection:
            if connection is None:
                return [], np.zeros(0), np.zeros((0, 0), np.float32)
            table = connection.sql(
                "SELECT token_hash, loss, gradient FROM gradients WHERE rowid >= ? AND rowid < ? AND set_key = ?",
                params=[rows.start, rows.stop, set_key],
            ).to_arrow_table()
        return _gradients(table)

    # -- results --------------------------------------------------------------------------------------------------

    def put_affinities(
        self,
        estimate_key: str,
        target: str,
        rows: Sequence[tuple[str, float, float]],
        *,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
    ) -> None:
        """Store (task, affinity, standard error) of an estimate, and the artifact of the estimate."""
        with self.write() as connection:
            connection.execute("DELETE FROM affinities WHERE estimate_key = ?", [estimate_key])
            if rows:
                connection.executemany(
                    "INSERT INTO affinities VALUES (?, ?, ?, ?, ?)",
                    [(estimate_key, target, *row) for row in rows],
                )
            put_artifact(connection, "estimate", estimate_key, inputs, outputs)

    def affinities(self, estimate_key: str) -> dict[str, tuple[float, float]]:
        """Return affinity and standard error by task. Empty if the estimate is not stored."""
        with self.read() as connection:
            if connection is None:
                return {}
            rows = connection.execute(
                "SELECT task, affinity, standard_error FROM affinities WHERE estimate_key = ?", [estimate_key]
            ).fetchall()
        return {task: (affinity, error) for task, affinity, error in rows}

    def put_estimates(
        self,
        estimate_key: str,
        target: str,
        rows: Sequence[tuple[Sequence[str], Interval]],
    ) -> None:
        """Store the estimates of subsets, in nats per target token."""
        keys = [json.dumps(sorted(subset), ensure_ascii=False) for subset, _ in rows]
        latest = list({key: row for row, key in enumerate(keys)}.values())
        table = pa.table(
            {
                "estimate_key": pa.array([estimate_key] * len(latest), pa.string()),
                "target": pa.array([target] * len(latest), pa.string()),
                "subset": pa.array([keys[row] for row in latest], pa.string()),
                "loss": pa.array([rows[row][1].value for row in latest], pa.float64()),
                "low": pa.array([rows[row][1].low for row in latest], pa.float64()),
                "high": pa.array([rows[row][1].high for row in latest], pa.float64()),
                "created": pa.array([utc_now()] * len(latest), pa.timestamp("us")),
            }
        )
        with self.write() as connection:
            connection.execute(
                "DELETE FROM estimates WHERE estimate_key = ? AND subset IN (SELECT unnest(?))", [estimate_key, keys]
            )
            insert(connection, "INSERT INTO estimates BY NAME SELECT * FROM new_rows", table)


def _runs(keys: pa.ChunkedArray) -> list[tuple[str, int, int]]:
    """Return each key of a sorted column, its first row, and the row after its last."""
    counted = pc.value_counts(keys)
    found, row = [], 0
    for key, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
        found.append((key, row, row + count))
        row += count
    return found


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Convert values to an Arrow array. Lists of numbers are joined first, ten times as fast as number by number."""
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values], dtype=np.int64)])
    flat = np.concatenate([np.zeros(0, np.int32), *(np.asarray(value, dtype=np.int32) for value in values)])
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(flat))


_EXAMPLE_COLUMNS = {
    "number": pa.int32(),
    "file": pa.string(),
    "line": pa.int32(),
    "hash": pa.string(),
    "token_hash": pa.string(),
    "text": pa.string(),
    "spans": pa.list_(pa.int32()),
    "input_ids": pa.list_(pa.int32()),
    "labels": pa.list_(pa.int32()),
    "completion_tokens": pa.int32(),
    "truncated": pa.bool_(),
    "left_out": pa.string(),
}


def _gradients(table: pa.Table) -> tuple[list[str], npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    hashes = table.column("token_hash").to_pylist()
    losses = np.asarray(table.column("loss").to_numpy(), dtype=np.float64)
    if not hashes:
        return [], losses, np.zeros((0, 0), np.float32)
    # Chunk by chunk: a single list array would overflow its 32-bit offsets at 8 GB.
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in table.column("gradient").chunks])
    return hashes, losses, flat.reshape(len(hashes), -1)
