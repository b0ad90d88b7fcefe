"""Array types and named arrays that several rooms share."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
"""Double-precision numbers. The docstring of each function gives their shape."""
Mask = npt.NDArray[np.bool_]
"""Membership of tasks or examples: True if the task or example is in the subset."""


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
    def empty(cls, tasks: int, dim: int) -> Self:
        """Return zeros for `tasks` tasks and gradients of `dim` numbers. The caller fills them in."""
        return cls(
            weights=np.zeros(tasks),
            examples=np.zeros(tasks, dtype=np.int64),
            gradient_sums=np.zeros((tasks, dim)),
            packed_curvatures=np.zeros((tasks, dim * (dim + 1) // 2), dtype=np.float32),
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
    def empty(cls, tasks: int, dim: int, basis: int) -> Self:
        """Return zeros for `tasks` tasks, gradients of `dim` numbers, and `basis` directions."""
        return cls(
            weights=np.zeros(tasks),
            examples=np.zeros(tasks, dtype=np.int64),
            rest=np.zeros(tasks),
            gradient_sums=np.zeros((tasks, dim), dtype=np.float32),
            packed_curvatures=np.zeros((tasks, basis * (basis + 1) // 2), dtype=np.float32),
        )
