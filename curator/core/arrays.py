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
# Bytes of an array that stay in memory: curvatures of one checkpoint, and one array of one segment. A run has up to two
# checkpoints, or four segments with two arrays each. Larger arrays lie in a temporary file.
_IN_MEMORY, _IN_MEMORY_SEGMENT = 64 * 2**20, 8 * 2**20
_CAN_MAP = hasattr(os, "posix_fallocate") and hasattr(mmap, "MADV_DONTNEED")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SumArrays:
    """Sums over the examples of several tasks (t) at one checkpoint, with gradients of k numbers.

    Attributes:
        weights: Sum of the examples' weights of each task (t,).
        examples: Number of examples of each task (t,).
        gradient_sums: Weighted sum of the gradients of each task (t, k).
        packed_curvatures: Upper triangle of the weighted sum of outer products, row by row (t, k(k + 1)/2).
    """

    weights: npt.NDArray[np.float64]
    examples: npt.NDArray[np.int64]
    gradient_sums: npt.NDArray[np.float64]
    packed_curvatures: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, tasks: int, dim: int, folder: Path | None = None) -> Self:
        """Return zeros for `tasks` tasks and gradients of `dim` numbers. The caller fills them in.

        Args:
            tasks: Number of tasks.
            dim: Number of entries of a gradient.
            folder: Folder for the temporary file of large curvatures. None keeps all numbers in memory.
        """
        return cls(
            weights=np.zeros(tasks),
            examples=np.zeros(tasks, dtype=np.int64),
            gradient_sums=np.zeros((tasks, dim)),
            packed_curvatures=_zeros(tasks, dim * (dim + 1) // 2, folder, _IN_MEMORY),
        )

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
    def empty(cls, tasks: int, dim: int, basis: int, folder: Path | None = None) -> Self:
        """Return zeros for `tasks` tasks, gradients of `dim` numbers, and `basis` directions.

        Args:
            tasks: Number of tasks.
            dim: Number of entries of a gradient.
            basis: Number of directions.
            folder: Folder for temporary files of large arrays. None keeps all numbers in memory.
        """
        return cls(
            weights=np.zeros(tasks),
            examples=np.zeros(tasks, dtype=np.int64),
            rest=np.zeros(tasks),
            gradient_sums=_zeros(tasks, dim, folder, _IN_MEMORY_SEGMENT),
            packed_curvatures=_zeros(tasks, basis * (basis + 1) // 2, folder, _IN_MEMORY_SEGMENT),
        )


def mapping_of(array: npt.NDArray[np.floating]) -> mmap.mmap | None:
    """Return the memory map of the temporary file that holds an array. None if the array is in memory."""
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) else None


def release(*arrays: npt.NDArray[np.floating]) -> None:
    """Give the memory of arrays in temporary files back to the system. The files keep the numbers."""
    for array in arrays:
        mapping = mapping_of(array)
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)


def _zeros(rows: int, columns: int, folder: Path | None, in_memory: int) -> npt.NDArray[np.float32]:
    """Return zeros, in a temporary file of the folder if they take more than `in_memory` bytes."""
    size = 4 * rows * columns
    mapping = _mapped(size, folder) if folder is not None and size > in_memory else None
    if mapping is None:
        return np.zeros((rows, columns), dtype=np.float32)
    return np.frombuffer(mapping, dtype=np.float32).reshape(rows, columns)


def _mapped(size: int, folder: Path) -> mmap.mmap | None:
    """Map a temporary file of zeros without a name, `size` bytes. None if the system or the disk does not allow it."""
    if not _CAN_MAP:
        return None
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # Writing to a mapped page without room on the disk would kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), size)
    except OSError:
        return None
