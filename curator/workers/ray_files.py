"""Let workers of a Ray cluster process files, and write one part for each file.

Ray Data gives the paths to actors, and each actor reads its files itself. Tasks of Ray Data that read files would need
processors of their own. Actors that hold all processors would then wait for ever. Ray Data also joins small files into
one block, so that a single actor would get all of them.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curator.core.errors import CuratorError, DataError
from curator.core.files import CHECK_DISK, write_whole
from curator.workers.ray_cluster import RETRIES, Cluster

Process = Callable[[Path], int]
"""Processes one file, writes its part, and returns the number of examples. Equal files give equal parts."""


class Actor:
    """Process files in a worker.

    Args:
        start: Prepares the worker, and returns what processes one file.
        arguments: Arguments of `start`.
    """

    def __init__(self, start: Callable[..., Process], arguments: Mapping[str, Any]) -> None:
        self._start, self._arguments = start, arguments
        self._process: Process | None = None

    def __call__(self, block: pa.Table) -> pa.Table:
        """Process the files of one block. Return their numbers of examples, and an error, if any."""
        failed, paths, counts = "", list[str](), list[int]()
        try:
            if self._process is None:
                self._process = self._start(**self._arguments)
            for path in block.column("item").to_pylist():
                counts.append(self._process(Path(path)))
                paths.append(path)
        except CuratorError as error:
            failed = f"{error.message} {error.hint}".strip()
            paths, counts = [*paths, ""], [*counts, 0]
        return pa.table({"path": paths, "examples": counts, "failed": [failed] * len(paths)})


def over_files(
    cluster: Cluster,
    files: Sequence[Path],
    start: Callable[..., Process],
    arguments: Mapping[str, Any],
    *,
    on_gpu: bool = True,
) -> Iterator[tuple[Path, int]]:
    """Process files on a cluster, each as one task. Ray starts a task again, up to three times, if its worker dies.

    Args:
        cluster: The cluster.
        files: Files to process. Every node must reach them at the same paths.
        start: Prepares a worker, and returns what processes one file.
        arguments: Arguments of `start`.
        on_gpu: Whether each worker needs a GPU, if the cluster has GPUs.

    Yields:
        Each file and its number of examples, in the order in which they end.

    Raises:
        DataError: A worker raised an error for the user, or died too often.
    """
    import ray

    # curator reports the progress.
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    gpus = cluster.gpus if on_gpu else 0
    size = min(len(files), gpus or cluster.cpus)
    items = ray.data.from_items([str(path) for path in files], override_num_blocks=len(files))
    with warnings.catch_warnings():
        # Ray 2.60 offers no other way to limit the retries, and 2.64 will remove this one.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        written = items.map_batches(
            Actor,
            fn_constructor_args=(start, arguments),
            batch_size=None,
            batch_format="pyarrow",
            # A file that waits for one actor could be processed by another.
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            num_gpus=1 if gpus else None,
            # A worker may be replaced at any time. A file that ends each of its workers is an error.
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
    try:
        for row in written.iter_rows():
            if row["failed"]:
                hint = "Correct this on every node, and run the same command again."
                raise DataError(f"a worker failed: {row['failed']}", hint=hint)
            yield Path(row["path"]), int(row["examples"])
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"a pass on the Ray cluster failed: {reason:.200}",
            hint="Check the memory of the nodes and Ray's logs. Run the same command again to resume.",
        ) from error


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file. It appears whole or not at all, even if two workers write it.

    Raises:
        DataError: The file cannot be written.
    """
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    try:
        write_whole(path, buffer.getvalue().to_pybytes())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}", hint=CHECK_DISK) from error


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}", hint="Delete the file, and run the command again.") from error
