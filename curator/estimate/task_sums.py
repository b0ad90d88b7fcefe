"""What the quadratic estimator needs to know of a task: sums over its examples, whatever their number.

For a task of examples with gradients g_i (k) and weights ω_i

    b = Σ ω_i g_i        its pull
    A = Σ ω_i g_i g_iᵀ   its curvature, of which the upper triangle is kept, row by row, in float32

A task's sums depend on that task alone, so they are made once and serve every subset it is in, whatever other tasks
come and go.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, SumArrays

PackedCurvatures = npt.NDArray[np.float32]

# Numbers that are held in float64 at once, beside the triangles themselves.
_AT_ONCE = 2**23


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSet:
    """Examples at one point of meta-training.

    Attributes:
        losses: Loss of each example (n,), nats per completion token.
        gradients: Projected gradients (n, k).
        weights: Of training examples, their completion tokens; of validation examples, their share of the target's
            loss.
    """

    losses: Floats
    gradients: Floats
    weights: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskSums(SumArrays):
    """The sums of several tasks (t) at one point of meta-training, and what is computed with them."""

    @classmethod
    def from_stored(cls, stored: SumArrays) -> "TaskSums":
        """Wrap sums as the store returns them; nothing is copied."""
        return cls(
            weights=stored.weights,
            examples=stored.examples,
            gradient_sums=stored.gradient_sums,
            packed_curvatures=stored.packed_curvatures,
        )

    @classmethod
    def of(cls, sets: Sequence[ExampleSet]) -> "TaskSums":
        """Sum the examples of each task up; there is at least one task."""
        dim = sets[0].gradients.shape[1]
        # In the same order as `np.triu_indices` has it, at a third of the time.
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
        """The sums of one task, as one of one."""
        part = slice(task, task + 1)
        return TaskSums(
            weights=self.weights[part],
            examples=self.examples[part],
            gradient_sums=self.gradient_sums[part],
            packed_curvatures=self.packed_curvatures[part],
        )

    def put(self, task: int, sums: "TaskSums") -> None:
        """Put the sums of one task in place."""
        self.weights[task] = sums.weights[0]
        self.examples[task] = sums.examples[0]
        self.gradient_sums[task] = sums.gradient_sums[0]
        self.packed_curvatures[task] = sums.packed_curvatures[0]

    @property
    def dim(self) -> int:
        """Numbers k in a gradient."""
        return int(self.gradient_sums.shape[1])

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return self.weights.nbytes + self.examples.nbytes + self.gradient_sums.nbytes + self.packed_curvatures.nbytes

    def traces(self) -> Floats:
        """Σ ω_i ‖g_i‖² of each task (t,)."""
        rows, columns = np.triu_indices(self.dim)
        return np.asarray(self.packed_curvatures[:, rows == columns].sum(axis=1, dtype=np.float64))

    def sums(self, factors: npt.NDArray[np.int8] | Floats) -> Floats:
        """PackedCurvatures of Σ_t factor_t A_t, for several rows of factors (s, t): s × k(k + 1)/2.

        Float32 numbers add up in float64 all but without rounding, so that it does not matter in which order or by
        which steps a sum came about.
        """
        used = np.flatnonzero(factors.any(axis=0))
        part = factors[:, used].astype(np.float64)
        found = np.zeros((len(factors), self.packed_curvatures.shape[1]))
        if used.size:
            width = max(_AT_ONCE // used.size, 1)
            for start in range(0, found.shape[1], width):
                columns = slice(start, start + width)
                found[:, columns] = part @ self.packed_curvatures[used, columns].astype(np.float64)
        return found

    def products(self, left: Floats, right: Floats, *, stop: Callable[[], bool] = lambda: False) -> Floats:
        """leftᵀ A_t right of each task (t,); NaN of those that were left when `stop` said so."""
        rows, columns = np.triu_indices(self.dim)
        weights = left[rows] * right[columns] + np.where(rows == columns, 0.0, left[columns] * right[rows])
        found = np.full(len(self.packed_curvatures), np.nan)
        done = 0
        # Less at once than elsewhere, so that nobody who stops it waits.
        for part in self._parts(8 * len(weights)):
            if stop():
                break
            found[done : done + len(part)] = part.astype(np.float64) @ weights
            done += len(part)
        return found

    def images(self, vector: Floats) -> Floats:
        """A_t vector of each task (t, k)."""
        found = [unpacked(part, self.dim) @ vector for part in self._parts(self.dim**2)]
        return np.concatenate([np.zeros((0, self.dim)), *found])

    def _parts(self, numbers: int) -> Iterator[PackedCurvatures]:
        """The triangles of a few tasks at a time, each of which will be so many numbers."""
        count = max(_AT_ONCE // numbers, 1)
        return (self.packed_curvatures[start : start + count] for start in range(0, len(self.packed_curvatures), count))


def unpacked(triangles: npt.NDArray[np.floating], dim: int) -> Floats:
    """The symmetric matrices (…, k, k) of upper triangles (…, k(k + 1)/2)."""
    full = np.take(triangles, _places(dim), axis=-1).astype(np.float64, copy=False)
    return np.asarray(full.reshape(*triangles.shape[:-1], dim, dim))


@lru_cache(maxsize=4)
def _places(dim: int) -> npt.NDArray[np.intp]:
    """Where each element of a symmetric matrix, row by row, stands in its upper triangle (k²,)."""
    rows, columns = np.triu_indices(dim)
    places = np.zeros((dim, dim), dtype=np.intp)
    places[rows, columns] = places[columns, rows] = np.arange(len(rows))
    return places.reshape(-1)
