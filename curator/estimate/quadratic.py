"""The quadratic estimator at one checkpoint of meta-training, from sums alone.

Subsets that differ widely are solved one by one. Their matrices are products of membership and packed curvatures.
Subsets that differ in few tasks are solved by conjugate gradients from the inverse at their majority subset.
Toggles and search steps ask for such subsets. A few products with a small matrix then give eight digits.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.estimate.task_sums import ExampleSet, TaskSums, unpacked

# Maximum mean number of tasks by which near subsets differ from their majority subset.
_NEAR = 4
# Elimination solves up to this many systems faster than an inverse at the majority subset.
_FEW = 6
# Maximum subsets with sums in memory, and maximum matrices, which then fit the processor's cache.
_SUMS, _MATRICES = 256, 8
# Relative size of the remaining error, and maximum number of steps.
_TOLERANCE, _STEPS = 1e-9, 30


class Quadratic:
    """Displacement of fine-tuning on a subset, and the curvature there.

    Args:
        sums: Sums of each auxiliary task (t), then of the target.
        ridge: Added to the diagonal of every subset's matrix, in the units of Σ A_t.
    """

    def __init__(self, sums: TaskSums, ridge: float) -> None:
        self._sums, self._ridge = sums, ridge
        # Last subset and its sum, in one tuple: concurrent threads read one whole pair or another.
        self._base = np.zeros(len(sums.weights), dtype=bool), np.zeros(sums.packed_curvatures.shape[1])

    def displacements(self, masks: Mask) -> Floats:
        """Solve for the displacement w (s, k) of each subset (s, t)."""
        members = np.c_[masks, np.ones(len(masks), dtype=bool)]
        middle = np.asarray(2 * members.sum(axis=0) > len(members))
        if (members ^ middle).sum() <= _NEAR * len(members):
            return self._solve_near(members, middle)
        parts = [self._solve_far(members[start : start + _SUMS]) for start in range(0, len(members), _SUMS)]
        return np.concatenate(parts)

    def weighted(self, weights: Floats, slope: Floats) -> tuple[Floats, Floats]:
        """Solve for the displacement of weighted tasks.

        Args:
            weights: Weight of each auxiliary task (t,), ≥ 0. The target has weight 1.
            slope: Gradient of a loss (k,).

        Returns:
            The displacement (k,), and the decrease of the loss for each unit of a task's weight (t,).
        """
        factors = np.append(weights, 1.0)
        matrix = self._with_ridge(unpacked(self._sums.sums(factors[None])[0], self._sums.dim))
        both = np.stack([-(factors @ self._sums.gradient_sums), slope], axis=1)
        w, adjoint = np.linalg.solve(matrix, both).T
        return w, (self._sums.gradient_sums @ adjoint + self._sums.products(adjoint, w))[:-1]

    def task_gains(self, mask: Mask, slope: Floats, stop: Callable[[], bool]) -> Floats:
        """Return how much each task (t,) lowers a loss of slope (k,), to first order around a subset (t,)."""
        w, adjoint = self._tangent(mask, slope)
        gains = self._sums.gradient_sums @ adjoint + self._sums.products(adjoint, w, stop=stop)
        return np.asarray(gains[:-1])

    def gains(self, examples: ExampleSet, mask: Mask, slope: Floats) -> Floats:
        """Return how much each training example (n,) lowers a loss of slope (k,), to first order around a subset."""
        w, adjoint = self._tangent(mask, slope)
        return np.asarray(examples.weights * (1 + examples.gradients @ w) * (examples.gradients @ adjoint))

    def transfer(self, mask: Mask) -> Floats:
        """Return how much each task, by row, lowers the mean training loss of each task, by column (t, t)."""
        sums, (w,) = self._sums, self.displacements(mask[None])
        means = sums.gradient_sums / np.maximum(sums.weights, 1e-300)[:, None]
        slopes = sums.gradient_sums + sums.images(w)
        return np.asarray(slopes @ np.linalg.solve(self._matrix(np.append(mask, True)), means.T))[:-1, :-1]

    def _tangent(self, mask: Mask, slope: Floats) -> tuple[Floats, Floats]:
        """Return a subset's displacement (k,), and the product of a slope (k,) with the inverse curvature there."""
        members = np.append(mask, True)
        both = np.stack([-(members @ self._sums.gradient_sums), slope], axis=1)
        w, adjoint = np.linalg.solve(self._matrix(members), both).T
        return w, adjoint

    def _solve_far(self, members: Mask) -> Floats:
        sums = self._sums.sums(members.astype(np.int8))
        gradient_sums = members.astype(np.float64) @ self._sums.gradient_sums
        found = np.zeros_like(gradient_sums)
        for start in range(0, len(members), _MATRICES):
            part = slice(start, start + _MATRICES)
            matrices = self._with_ridge(unpacked(sums[part], self._sums.dim))
            found[part] = -np.linalg.solve(matrices, gradient_sums[part, :, None])[:, :, 0]
        return found

    def _solve_near(self, members: Mask, middle: Mask) -> Floats:
        matrix, gradient_sums = self._matrix(middle), members.astype(np.float64) @ self._sums.gradient_sums
        moves = members.astype(np.int8) - middle
        if not moves.any():
            same = np.asarray(-np.linalg.solve(matrix, middle @ self._sums.gradient_sums), np.float64)
            return np.repeat(same[None], len(members), axis=0)
        inverse = np.asarray(np.linalg.inv(matrix), np.float64) if len(members) > _FEW else None
        found = np.zeros_like(gradient_sums)
        for first in range(0, len(members), _MATRICES):
            part = slice(first, first + _MATRICES)
            matrices = self._changes(moves[part])
            matrices += matrix
            if inverse is None:
                found[part] = -np.linalg.solve(matrices, gradient_sums[part, :, None])[:, :, 0]
            else:
                found[part] = conjugate_gradients(matrices, -gradient_sums[part], inverse)
        return found

    def _changes(self, moves: npt.NDArray[np.int8]) -> Floats:
        """Return Σ_t move_t A_t for several rows of moves (s, t): (s, k, k)."""
        if (np.count_nonzero(moves, axis=1) != 1).any():
            return unpacked(self._sums.sums(moves), self._sums.dim)
        tasks = np.abs(moves).argmax(axis=1)
        matrices = unpacked(self._sums.curvatures_of(tasks), self._sums.dim)
        removed = moves[np.arange(len(moves)), tasks] < 0
        matrices[removed] *= -1
        return matrices

    def _matrix(self, members: Mask) -> Floats:
        """Return Σ A_t + c·I over a subset. Start from the last such sum if that is less work, as for a toggle."""
        there, packed = self._base
        moves = members.astype(np.int8) - there
        if np.count_nonzero(moves) < np.count_nonzero(members):
            packed = packed + self._sums.sums(moves[None])[0]
        else:
            packed = self._sums.sums(members[None].astype(np.int8))[0]
        self._base = members, packed
        return self._with_ridge(unpacked(packed, self._sums.dim))

    def _with_ridge(self, matrices: Floats) -> Floats:
        """Add c·I to matrices (…, k, k), in place."""
        diagonal = np.arange(self._sums.dim)
        matrices[..., diagonal, diagonal] += self._ridge
        return matrices


def conjugate_gradients(matrices: Floats, right: Floats, inverse: Floats) -> Floats:
    """Solve several symmetric positive definite systems with one approximate inverse.

    Args:
        matrices: Matrices (s, k, k).
        right: Right-hand sides (s, k).
        inverse: Approximate inverse of every matrix (k, k).

    Returns:
        Solutions (s, k), to eight digits or better. Elimination solves the systems if the inverse is too inaccurate.
    """
    x = right @ inverse
    residual = right - (matrices @ x[:, :, None])[:, :, 0]
    direction = better = residual @ inverse
    size = (residual * better).sum(axis=1)
    enough = _TOLERANCE**2 * ((right @ inverse) * right).sum(axis=1)
    # The floor avoids 0/0 for systems that are already solved to the last bit.
    floor = np.finfo(np.float64).tiny
    for _ in range(_STEPS):
        if (size <= enough).all():
            return x
        image = (matrices @ direction[:, :, None])[:, :, 0]
        length = size / np.maximum((direction * image).sum(axis=1), floor)
        x += length[:, None] * direction
        residual -= length[:, None] * image
        better = residual @ inverse
        before, size = size, (residual * better).sum(axis=1)
        direction = better + (size / np.maximum(before, floor))[:, None] * direction
    return np.asarray(np.linalg.solve(matrices, right[:, :, None])[:, :, 0])
