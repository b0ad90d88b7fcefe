"""Sums over a task's examples, which are all that the quadratic estimator needs of a task.

For a task of examples with gradients g_i (k) and weights ω_i

    b = Σ ω_i g_i        gradient sum
    A = Σ ω_i g_i g_iᵀ   curvature; its upper triangle is packed row by row, in float32

A task's sums depend on that task alone. They are computed once and serve every subset with the task.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, SumArrays, release

PackedCurvatures = npt.NDArray[np.float32]

# Maximum numbers in float64 at once, in addition to the packed curvatures.
_AT_ONCE = 2**19
# Tasks whose packed curvatures are read at once for sums.
_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSet:
    """Examples at one checkpoint of meta-training.

    Attributes:
        losses: Loss of each example (n,), nats per completion token.
        gradients: Projected gradients (n, k).
        weights: Completion tokens of training examples, or shares of validation examples in the target's loss (n,).
    """

    losses: Floats
    gradients: Floats
    weights: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskSums(SumArrays):
    """Sums of several tasks (t) at one checkpoint of meta-training, with the operations on them."""

    @classmethod
    def from_stored(cls, stored: SumArrays) -> "TaskSums":
        """Wrap sums from the store without a copy."""
        return cls(
            weights=stored.weights,
            examples=stored.examples,
            gradient_sums=stored.gradient_sums,
            packed_curvatures=stored.packed_curvatures,
        )

    @classmethod
    def of(cls, sets: Sequence[ExampleSet]) -> "TaskSums":
        """Sum the examples of each task. There is at least one task."""
        dim = sets[0].gradients.shape[1]
        # The order is that of `np.triu_indices`, at a third of the time.
        upper = np.triu(np.ones((dim, dim), dtype=bool))
        sums = cls.empty(len(sets), dim)
        for task, examples in enumerate(sets):
            weighted = examples.weights[:, None] * examples.gradients
            sums.weights[task] = examples.weights.sum()
            sums.examples[task] = len(examples.weights)
            sums.gradient_sums[task] = weighted.sum(axis=0)
            sums.packed_curvatures[task] = (weighted.T @ examples.gradients)[upper]
        return sums

    def row(self, task: int) -> "TaskSums":
        """Return the sums of one task, with t = 1."""
        part = slice(task, task + 1)
        return TaskSums(
            weights=self.weights[part],
            examples=self.examples[part],
            gradient_sums=self.gradient_sums[part],
            packed_curvatures=self.packed_curvatures[part],
        )

    def put(self, task: int, sums: "TaskSums") -> None:
        """Overwrite the sums of one task."""
        self.weights[task] = sums.weights[0]
        self.examples[task] = sums.examples[0]
        self.gradient_sums[task] = sums.gradient_sums[0]
        self.packed_curvatures[task] = sums.packed_curvatures[0]

    @property
    def dim(self) -> int:
        """Number k of numbers in a gradient."""
        return int(self.gradient_sums.shape[1])

    @property
    def nbytes(self) -> int:
        """Memory of the sums, bytes."""
        return self.weights.nbytes + self.examples.nbytes + self.gradient_sums.nbytes + self.packed_curvatures.nbytes

    def traces(self) -> Floats:
        """Return Σ ω_i ‖g_i‖² of each task (t,)."""
        rows, columns = np.triu_indices(self.dim)
        diagonal = rows == columns
        found = [part[:, diagonal].sum(axis=1, dtype=np.float64) for part in self._parts(len(rows))]
        return np.concatenate([np.zeros(0), *found])

    def curvatures_of(self, tasks: npt.NDArray[np.intp]) -> PackedCurvatures:
        """Return a copy of the packed curvatures of some tasks (n, k(k + 1)/2)."""
        found = self.packed_curvatures[tasks]
        release(self.packed_curvatures)
        return found

    def sums(self, factors: npt.NDArray[np.int8] | Floats) -> Floats:
        """Return packed Σ_t factor_t A_t for several rows of factors (s, t): (s, k(k + 1)/2).

        Float64 adds float32 numbers almost without rounding. The order of the additions therefore does not matter.
        """
        used = np.flatnonzero(factors.any(axis=0))
        part = factors[:, used].astype(np.float64)
        found = np.zeros((len(factors), self.packed_curvatures.shape[1]))
        # Rows lie together in memory and in a file. The columns of a few rows then fit in float64.
        for first in range(0, used.size, _ROWS):
            tasks = used[first : first + _ROWS]
            rows = self.curvatures_of(tasks)
            width = max(_AT_ONCE // max(tasks.size, len(factors)), 1)
            for start in range(0, found.shape[1], width):
                columns = slice(start, start + width)
                found[:, columns] += part[:, first : first + _ROWS] @ rows[:, columns].astype(np.float64)
        return found

    def products(self, left: Floats, right: Floats, *, stop: Callable[[], bool] = lambda: False) -> Floats:
        """Return leftᵀ A_t right of each task (t,). NaN for tasks that are left when `stop` returns True."""
        rows, columns = np.triu_indices(self.dim)
        weights = left[rows] * right[columns] + np.where(rows == columns, 0.0, left[columns] * right[rows])
        found = np.full(len(self.packed_curvatures), np.nan)
        done = 0
        # The parts are small, so that `stop` takes effect soon.
        for part in self._parts(len(weights)):
            if stop():
                break
            found[done : done + len(part)] = part.astype(np.float64) @ weights
            done += len(part)
        return found

    def images(self, vector: Floats) -> Floats:
        """Return A_t vector of each task (t, k)."""
        found = [unpacked(part, self.dim) @ vector for part in self._parts(self.dim**2)]
        return np.concatenate([np.zeros((0, self.dim)), *found])

    def _parts(self, numbers: int) -> Iterator[PackedCurvatures]:
        """Return packed curvatures of a few tasks at a time. Each task will take `numbers` numbers."""
        count = max(_AT_ONCE // max(numbers, 1), 1)
        for start in range(0, len(self.packed_curvatures), count):
            yield self.packed_curvatures[start : start + count]
            release(self.packed_curvatures)


def unpacked(triangles: npt.NDArray[np.floating], dim: int) -> Floats:
    """Return symmetric matrices (…, k, k) from packed upper triangles (…, k(k + 1)/2)."""
    full = np.take(triangles, _places(dim), axis=-1).astype(np.float64, copy=False)
    return np.asarray(full.reshape(*triangles.shape[:-1], dim, dim))


@lru_cache(maxsize=4)
def _places(dim: int) -> npt.NDArray[np.intp]:
    """Return the position in the packed triangle of each element of a symmetric matrix, row by row (k²,)."""
    rows, columns = np.triu_indices(dim)
    places = np.zeros((dim, dim), dtype=np.intp)
    places[rows, columns] = places[columns, rows] = np.arange(len(rows))
    return places.reshape(-1)
