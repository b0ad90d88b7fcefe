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

from curator.core.arrays import Floats

Triangles = npt.NDArray[np.float32]

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
class Statistics:
    """The sums of several tasks (t) at one point of meta-training.

    Attributes:
        weights: Σ ω_i of each task (t,), completion tokens.
        examples: Examples of each task (t,).
        pulls: b of each task (t, k).
        triangles: Upper triangle of A of each task (t, k(k + 1)/2).
    """

    weights: Floats
    examples: npt.NDArray[np.int64]
    pulls: Floats
    triangles: Triangles

    @classmethod
    def empty(cls, tasks: int, dim: int) -> "Statistics":
        """Sums over no examples, to be filled in: of so many tasks, with gradients of so many numbers."""
        return cls(
            weights=np.zeros(tasks),
            examples=np.zeros(tasks, dtype=np.int64),
            pulls=np.zeros((tasks, dim)),
            triangles=np.zeros((tasks, dim * (dim + 1) // 2), dtype=np.float32),
        )

    @classmethod
    def of(cls, sets: Sequence[ExampleSet]) -> "Statistics":
        """Sum the examples of each task up; there is at least one task."""
        dim = sets[0].gradients.shape[1]
        # In the same order as `np.triu_indices` has it, at a third of the time.
        upper = np.triu(np.ones((dim, dim), dtype=bool))
        sums = cls.empty(len(sets), dim)
        for task, examples in enumerate(sets):
            weighted = examples.weights[:, None] * examples.gradients
            sums.weights[task] = examples.weights.sum()
            sums.examples[task] = len(examples.weights)
            sums.pulls[task] = weighted.sum(axis=0)
            sums.triangles[task] = (weighted.T @ examples.gradients)[upper]
        return sums

    def row(self, task: int) -> "Statistics":
        """The sums of one task, as one of one."""
        part = slice(task, task + 1)
        return Statistics(
            weights=self.weights[part],
            examples=self.examples[part],
            pulls=self.pulls[part],
            triangles=self.triangles[part],
        )

    def put(self, task: int, sums: "Statistics") -> None:
        """Put the sums of one task in place."""
        self.weights[task] = sums.weights[0]
        self.examples[task] = sums.examples[0]
        self.pulls[task] = sums.pulls[0]
        self.triangles[task] = sums.triangles[0]

    @property
    def dim(self) -> int:
        """Numbers k in a gradient."""
        return int(self.pulls.shape[1])

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return self.weights.nbytes + self.examples.nbytes + self.pulls.nbytes + self.triangles.nbytes

    def traces(self) -> Floats:
        """Σ ω_i ‖g_i‖² of each task (t,)."""
        rows, columns = np.triu_indices(self.dim)
        return np.asarray(self.triangles[:, rows == columns].sum(axis=1, dtype=np.float64))

    def sums(self, factors: npt.NDArray[np.int8] | Floats) -> Floats:
        """Triangles of Σ_t factor_t A_t, for several rows of factors (s, t): s × k(k + 1)/2.

        Float32 numbers add up in float64 all but without rounding, so that it does not matter in which order or by
        which steps a sum came about.
        """
        used = np.flatnonzero(factors.any(axis=0))
        part = factors[:, used].astype(np.float64)
        found = np.zeros((len(factors), self.triangles.shape[1]))
        if used.size:
            width = max(_AT_ONCE // used.size, 1)
            for start in range(0, found.shape[1], width):
                columns = slice(start, start + width)
                found[:, columns] = part @ self.triangles[used, columns].astype(np.float64)
        return found

    def products(self, left: Floats, right: Floats, *, stop: Callable[[], bool] = lambda: False) -> Floats:
        """leftᵀ A_t right of each task (t,); NaN of those that were left when `stop` said so."""
        rows, columns = np.triu_indices(self.dim)
        weights = left[rows] * right[columns] + np.where(rows == columns, 0.0, left[columns] * right[rows])
        found = np.full(len(self.triangles), np.nan)
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

    def _parts(self, numbers: int) -> Iterator[Triangles]:
        """The triangles of a few tasks at a time, each of which will be so many numbers."""
        count = max(_AT_ONCE // numbers, 1)
        return (self.triangles[start : start + count] for start in range(0, len(self.triangles), count))


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
