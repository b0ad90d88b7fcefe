"""Capture projected gradients during meta-training, from the passes that training makes anyway.

Each visit of an example gives its gradient at the adapter of that moment, in the metric of that moment.
A process appends its visits to a file. The visits are summed over tasks when training ends (segments.py).
A resumed run first drops the visits that it will repeat. So a kill loses nothing and counts nothing twice.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from curator.core import distributed
from curator.core.errors import DataError, NumericalError
from curator.core.events import Reporter
from curator.gradients.layer_hooks import collecting, trained_layers
from curator.gradients.metric import Metric, adam_squares, factor_of
from curator.gradients.projection import Projection, ProjectionSpec, Sketches, Together
from curator.training.batches import loss_tokens
from curator.training.model import TunedModel

if TYPE_CHECKING:
    import torch

_PATTERN = "visits-*.bin"
# Growth of the number of steps between two updates of the metric. A mean over t steps changes by 1/t in a step.
_GROWTH = 1.05


def _next_update(step: int) -> int:
    """Return the next step after which the metric is updated. It depends on the number of the step only."""
    due = 1
    while due <= step:
        due = max(due + 1, int(due * _GROWTH))
    return due


def visit_dtype(dim: int) -> np.dtype[Any]:
    """Return the record of one visit: step, position of the example, and its gradient as length and direction.

    Half precision loses a thousandth of each entry of the direction, which is far less than the projection loses.
    """
    return np.dtype([("step", "<i4"), ("position", "<i4"), ("length", "<f4"), ("direction", "<f2", (dim,))])


class Capture:
    """Observer of a meta-training run (`trainer.Observer`) that records the gradient of every visit.

    Args:
        tuned: Model in training.
        spec: Projection.
        folder: Folder for the file of visits.
        reporter: Receives a warning if a layer mixes the tokens of a batch.
    """

    def __init__(self, tuned: TunedModel, spec: ProjectionSpec, folder: Path, reporter: Reporter) -> None:
        self._layers = trained_layers(tuned)
        self._tuned, self._reporter = tuned, reporter
        self._names = {id(p): name for name, p in tuned.model.named_parameters() if p.requires_grad}
        self._projection, self._dim = Projection(spec), spec.dim
        for name, shape in tuned.layout.shapes.items():
            self._projection.draw(name, math.prod(shape), tuned.devices[name])
        self._folder = folder
        self._metric, self._due = Metric({}), 1
        self._file: BinaryIO | None = None
        self.complete = all(name in self._layers for name in tuned.layout.shapes)
        """Whether the file holds every visit. False if the model's gradients cannot be captured during training."""

    def begin(self, done: int, checkpoint: Path | None) -> None:
        """Open the file of visits, and drop visits after step `done`."""
        self.open(done)
        self._metric = Metric({}) if checkpoint is None else Metric.load(checkpoint, self._tuned.devices)
        self._due = _next_update(done)

    def open(self, done: int = 0) -> None:
        """Open the file of visits, and drop visits after step `done`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = visits_path(self._folder, distributed.rank())
        if not done and distributed.is_main():
            # Files of an earlier run with more processes would count twice.
            remove_visits(self._folder)
        distributed.wait()
        path.touch()
        if _truncate(path, visit_dtype(self._dim), done) != done:
            # Somebody removed the file of a run that now resumes.
            self.give_up("visits of earlier steps are missing")
        self._file = path.open("ab")

    @contextmanager
    def batch(
        self, step: int, positions: "torch.Tensor", factor: "float | torch.Tensor", inputs: Mapping[str, Any]
    ) -> Iterator[None]:
        """Record the gradients of a batch while its forward and backward pass run.

        A `factor` that is a tensor may receive its value during the backward pass.
        """
        if not self.complete:
            yield
            return
        sketches = Sketches(len(positions), self._dim, self._tuned.device)
        together = Together(self._projection, sketches, self._factors)
        with collecting(self._layers, inputs, together.add, mixed=self._mixed):
            yield
        together.flush()
        if self.complete:
            # The backward pass differentiated the sum over tokens, times the factor.
            projected = sketches.total()
            counts = loss_tokens(inputs, self._tuned.encoder_decoder).clamp(min=1).to(projected.device)
            gradients = projected / (counts * factor)[:, None]
            self.write(step, positions.cpu().numpy(), gradients.cpu().numpy())

    def _factors(self, pieces: "Sequence[tuple[str, torch.Tensor]]") -> "Mapping[str, torch.Tensor]":
        if self._metric.factors:
            return self._metric.factors
        # Before the first step, Adam knows no square. The square of this batch's gradient will be its first.
        return {name: factor_of(gradients.sum(0).square()) for name, gradients in pieces}

    def _mixed(self) -> None:
        self.give_up("a trained layer mixes the tokens of a batch")

    def give_up(self, reason: str) -> None:
        """Capture no more visits, and warn once with the reason."""
        if self.complete:
            self._reporter.warn(f"curator computes gradients after the training, which is slower: {reason}")
        self.complete = False

    def write(self, step: int, positions: npt.NDArray[np.int64], gradients: npt.NDArray[np.float32]) -> None:
        """Append visits to the file.

        Args:
            step: Step of the visits.
            positions: Positions of the examples (n,).
            gradients: Projected gradients (n, k).

        Raises:
            NumericalError: A gradient is not finite.
            DataError: The file cannot be written.
        """
        assert self._file is not None
        lengths = np.linalg.norm(gradients, axis=1)
        if not np.isfinite(lengths).all():
            raise NumericalError(
                f"a gradient is not finite at step {step}",
                hint="Set model.dtype to float32, or lower train.learning_rate.",
            )
        rows = np.zeros(len(positions), dtype=visit_dtype(self._dim))
        rows["step"], rows["position"], rows["length"] = step, positions, lengths
        rows["direction"] = gradients / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
        try:
            self._file.write(rows.tobytes())
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def step(self, step: int, optimizer: Any) -> None:
        """Take over the optimizer's new squares, if enough steps have passed to change their mean."""
        if step >= self._due:
            self._metric = Metric.of_squares(adam_squares(optimizer, self._names))
            self._due = _next_update(step)

    def checkpoint(self, folder: Path) -> None:
        """Write all visits to the disk, so that a run that resumes from here finds them, and the metric."""
        self._flush()
        distributed.wait()
        if distributed.is_main():
            self._metric.save(folder)

    def _flush(self) -> None:
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                raise _unwritable(self._folder, error) from error

    def save(self, folder: Path) -> None:
        """Write the metric of this moment into the folder of an adapter."""
        self._metric.save(folder, half=True)

    def close(self) -> None:
        """Close the file of visits."""
        if self._file is not None:
            self._flush()
            self._file.close()
            self._file = None


def visits_path(folder: Path, rank: int) -> Path:
    """Return the file of one process's visits."""
    return folder / f"visits-{rank:04d}.bin"


def _truncate(path: Path, record: np.dtype[Any], done: int) -> int:
    """Drop visits after step `done`, and a last visit that was not written whole. Return the last step that is left."""
    whole = path.stat().st_size // record.itemsize
    steps = np.memmap(path, dtype=record, mode="r", shape=(whole,))["step"] if whole else np.zeros(0, dtype=np.int32)
    # Steps are in order.
    kept = int(np.searchsorted(steps, done, side="right"))
    last = int(steps[kept - 1]) if kept else 0
    del steps
    with path.open("r+b") as file:
        file.truncate(kept * record.itemsize)
    return last


def read_visits(folder: Path, dim: int) -> list[npt.NDArray[Any]]:
    """Map the visits of each process into memory, in the order of their steps.

    Args:
        folder: Folder of the capture.
        dim: Number of entries of a gradient.

    Raises:
        DataError: There is no file, or a file ends within a visit.
    """
    record = visit_dtype(dim)
    paths = sorted(folder.glob(_PATTERN))
    if not paths or any(path.stat().st_size % record.itemsize for path in paths):
        raise DataError(f"gradients of meta-training are damaged: {folder}", hint="Run `curator train --fresh`.")
    return [np.memmap(path, dtype=record, mode="r") for path in paths if path.stat().st_size]


def remove_visits(folder: Path) -> None:
    """Delete the files of visits, after their sums are stored."""
    for path in folder.glob(_PATTERN):
        path.unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {folder}: {error}",
        hint="Check free disk space and write permissions. Run the same command again to resume.",
    )
