"""Passes over examples on a Ray cluster: projected gradients by actors that hold the model.

The process that owns the store cuts the examples into batches, as a pass in one process does. It writes the batches as
Parquet. Ray Data gives the files to actors. Each actor computes the gradients of whole batches, and writes them as
Parquet parts. A part appears whole or not at all. A call that is killed leaves its parts, and the next call computes
only the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curator.core.errors import DataError
from curator.core.events import Reporter
from curator.core.files import CHECK_DISK
from curator.core.folders import remove_folder
from curator.core.provenance import key_of
from curator.data.model_files import ModelFiles
from curator.data.tokens import TokenizedExample
from curator.gradients.engine import GradientEngine
from curator.gradients.metric import Metric
from curator.gradients.projection import ProjectionSpec
from curator.workers.fine_tuning import kept_model
from curator.workers.ray_cluster import Cluster
from curator.workers.ray_files import over_files, read_table, write_table
from curator.workspace.store.held import HeldExamples
from curator.workspace.workspace import Workspace

PART_BATCHES = 16
"""Batches of one Parquet file. They limit the work that a worker's death loses."""
Batches = Sequence[Sequence[TokenizedExample]]
"""Examples of each batch."""
Found = tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]
"""Losses (n,) and projected gradients (n, k) of one batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterPass:
    """What a pass computes its gradients with.

    Attributes:
        folder: Folder of the adapter, and of the metric.
        sha256: Hash of the adapter's weights.
        spec: Projection.
        in_metric: Whether the folder has a metric to measure gradients in.
    """

    folder: Path
    sha256: str
    spec: ProjectionSpec
    in_metric: bool


class AwayGradients:
    """Compute gradients on a cluster.

    Args:
        workspace: The project.
        model: Files of the base model.
        cluster: The cluster.
        folder: Folder of the Parquet files. Every node must reach it at the same path.
    """

    def __init__(self, workspace: Workspace, model: ModelFiles, cluster: Cluster, folder: Path) -> None:
        # No part of an adapter's gradients comes from the store.
        self._workspace = workspace.away(HeldExamples(workspace.store.path, {}))
        self._model, self._cluster, self._folder = model, cluster, folder

    def batches(self, wanted: AdapterPass, batches: Batches, follow: Callable[[int], None]) -> Iterator[Found]:
        """Compute the gradients of batches. Yield losses and gradients of each batch, in their order.

        Args:
            wanted: Adapter and projection.
            batches: Examples of each batch.
            follow: Receives the number of examples that are done, while actors compute.

        Raises:
            DataError: A file cannot be written or read, or a worker died too often.
            ManifestMismatch: The adapter differs from the one that meta-training wrote.
        """
        (place,) = self.compute([(wanted, batches)], follow)
        for first in range(0, len(batches), PART_BATCHES):
            yield from _read_part(_part(place, first))

    def compute(self, passes: Sequence[tuple[AdapterPass, Batches]], follow: Callable[[int], None]) -> list[Path]:
        """Compute the missing parts of several passes, so that workers start once. `batches` reads the parts.

        Arguments and errors are those of `batches`.

        Returns:
            The folder of the parts of each pass.
        """
        done, files, adapters = 0, list[Path](), dict[Path, AdapterPass]()
        places = [self._place(*one) for one in passes]
        for place, (wanted, batches) in zip(places, passes, strict=True):
            examples = place / "examples"
            remove_folder(examples)
            for first in range(0, len(batches), PART_BATCHES):
                some = batches[first : first + PART_BATCHES]
                if _part(place, first).exists():
                    done += sum(map(len, some))
                    continue
                try:
                    examples.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise DataError(f"cannot write {place}: {error}", hint=CHECK_DISK) from error
                files.append(examples / f"{first:08}.parquet")
                _write_examples(files[-1], some)
                adapters[place] = wanted
        if files:
            arguments = {"workspace": self._workspace, "model": self._model, "adapters": adapters}
            for _, count in over_files(self._cluster, files, Computer, arguments):
                done += count
                follow(done)
        return places

    def _place(self, wanted: AdapterPass, batches: Batches) -> Path:
        """Return the folder of the parts of a pass."""
        rows = [[(list(e.input_ids), list(e.labels)) for e in batch] for batch in batches]
        return self._folder / key_of({"adapter": wanted.sha256, "spec": wanted.spec.as_dict(), "rows": rows})[:32]

    def remove(self) -> None:
        """Remove all parts, after their gradients are in the store."""
        remove_folder(self._folder)


class Computer:
    """Compute the gradients of batches in an actor, which holds the model.

    Args:
        workspace: The project, without its store.
        model: Files of the base model.
        adapters: Adapter and projection by folder of the parts.
    """

    def __init__(self, workspace: Workspace, model: ModelFiles, adapters: Mapping[Path, AdapterPass]) -> None:
        self._workspace, self._model, self._adapters = workspace, model, adapters
        self._ready: tuple[AdapterPass, GradientEngine] | None = None

    def __call__(self, path: Path) -> int:
        """Compute the batches of one file, write its part, and return the number of examples.

        Raises:
            DataError: A file cannot be read or written.
            ManifestMismatch: The adapter differs from the one that meta-training wrote.
        """
        place = path.parents[1]
        rows = read_table(path).to_pylist()
        engine = self._engine(self._adapters[place])
        losses, gradients = [], []
        for row in rows:
            batch = [TokenizedExample(*pair) for pair in zip(row["input_ids"], row["labels"], strict=True)]
            some_losses, some_gradients = engine.project(batch).arrays()
            losses.append(some_losses.tolist())
            gradients.append(some_gradients.reshape(-1))
        table = pa.table(
            {
                "losses": pa.array(losses, pa.list_(pa.float64())),
                "gradients": pa.array(gradients, pa.large_list(pa.float32())),
            }
        )
        write_table(table, _part(place, int(path.stem)))
        return sum(map(len, losses))

    def _engine(self, wanted: AdapterPass) -> GradientEngine:
        if self._ready is None or self._ready[0] != wanted:
            tuned = kept_model(self._workspace, self._model)
            tuned.load_adapter(wanted.folder, sha256=wanted.sha256)
            engine = GradientEngine(
                tuned,
                wanted.spec,
                batch_tokens=self._workspace.config.gradients.batch_tokens,
                reporter=Reporter(),
                metric=Metric.load(wanted.folder, tuned.devices) if wanted.in_metric else None,
            )
            self._ready = wanted, engine
        return self._ready[1]


def _part(place: Path, first: int) -> Path:
    return place / f"part-{first:08}.parquet"


def _write_examples(path: Path, batches: Batches) -> None:
    lists = pa.list_(pa.list_(pa.int32()))
    table = pa.table(
        {
            "input_ids": pa.array([[e.input_ids for e in batch] for batch in batches], lists),
            "labels": pa.array([[e.labels for e in batch] for batch in batches], lists),
        }
    )
    write_table(table, path)


def _read_part(path: Path) -> Iterator[Found]:
    table = read_table(path)
    for losses, gradients in zip(table.column("losses"), table.column("gradients"), strict=True):
        values = np.asarray(losses.as_py(), dtype=np.float64)
        yield values, gradients.values.to_numpy(zero_copy_only=False).reshape(len(values), -1)
