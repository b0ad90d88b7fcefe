"""Array types and named arrays that several rooms share."""

import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
"""Double-precision numbers. The docstring of each function gives their shape."""
Mask = npt.NDArray[np.bool_]
"""Membership of tasks or examples: True if the task or example is in the subset."""
# Bytes of packed curvatures that stay in memory. Larger ones lie in a temporary file.
_IN_MEMORY = 64 * 2**20
_CAN_MAP = hasattr(os, "posix_fallocate") and hasattr(mmap, "MADV_DONTNEED")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SumArrays:
    """Sums over the examples of several tasks (t) at one checkpoint, with gradients of k numbers.

    Attributes:
        weights: Sum of the examples' weights of each task (t,).
        examples: Number of examples of each task (t,).
        gradient_sums: Weighted sum of the gradients of each task (t, k).
        packed_curvatures: Upper triangle of the weighted sum of outer products, row by row (t, k(k + 1)/2).
        mapping: Memory map of the file that holds `packed_curvatures`. None if they are in memory.
    """

    weights: npt.NDArray[np.float64]
    examples: npt.NDArray[np.int64]
    gradient_sums: npt.NDArray[np.float64]
    packed_curvatures: npt.NDArray[np.float32]
    mapping: mmap.mmap | None = None

    @classmethod
    def empty(cls, tasks: int, dim: int, folder: Path | None = None) -> Self:
        """Return zeros for `tasks` tasks and gradients of `dim` numbers. The caller fills them in.

        Args:
            tasks: Number of tasks.
            dim: Number of entries of a gradient.
            folder: Folder for the temporary file of large curvatures. None keeps all numbers in memory.
        """
        shape = tasks, dim * (dim + 1) // 2
        mapping = _mapped(4 * shape[0] * shape[1], folder) if folder is not None else None
        return cls(
            weights=np.zeros(tasks),
            examples=np.zeros(tasks, dtype=np.int64),
            gradient_sums=np.zeros((tasks, dim)),
            packed_curvatures=np.zeros(shape, dtype=np.float32)
            if mapping is None
            else np.frombuffer(mapping, dtype=np.float32).reshape(shape),
            mapping=mapping,
        )

    def release(self) -> None:
        """Give the memory of the mapped pages back to the system. The file keeps the numbers."""
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)

    @property
    def dim(self) -> int:
        """Return the number k of entries of a gradient."""
        return int(self.gradient_sums.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentArrays:
    """Sums over the examples of several tasks (t) in one segment.

    A gradient has k numbers, and the basis r directions.

    Attributes:
        weights: Sum of the examples' weights of each task (t,).
        examples: Number of examples of each task (t,).
        rest: Mean curvature of each task outside the basis (t,).
        gradient_sums: Weighted sum of the gradients of each task (t, k).
        packed_curvatures: Upper triangle of the curvature in the basis, row by row (t, r(r + 1)/2).
    """

    weights: npt.NDArray[np.float64]
    examples: npt.NDArray[np.int64]
    rest: npt.NDArray[np.float64]
    gradient_sums: npt.NDArray[np.float32]
    packed_curvatures: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, tasks: int, dim: int, basis: int) -> Self:
        """Return zeros for `tasks` tasks, gradients of `dim` numbers, and `basis` directions."""
        return cls(
            weights=np.zeros(tasks),
            examples=np.zeros(tasks, dtype=np.int64),
            rest=np.zeros(tasks),
            gradient_sums=np.zeros((tasks, dim), dtype=np.float32),
            packed_curvatures=np.zeros((tasks, basis * (basis + 1) // 2), dtype=np.float32),
        )


def _mapped(size: int, folder: Path) -> mmap.mmap | None:
    """Map a temporary file of zeros without a name, `size` bytes. None if memory is enough, or the disk is not."""
    if size <= _IN_MEMORY or not _CAN_MAP:
        return None
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # Writing to a mapped page without room on the disk would kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), size)
    except OSError:
        return None
