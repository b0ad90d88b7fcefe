"""The quadratic estimator at one point of meta-training, from sums alone.

Where many subsets differ widely, their matrices are products of membership and triangles, and each is solved by itself.
Where subsets lie near one another (a toggle, every step of a search), they are solved from the one in their middle: its
inverse is so nearly theirs that conjugate gradients come to eight digits in a few products with a small matrix.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.estimate.task_sums import ExampleSet, TaskSums, unpacked

# Tasks by which subsets differ from their middle, in the mean, up to which they are near one another.
_NEAR = 4
# So few systems are solved faster by elimination than by inverting their middle first.
_FEW = 6
# Subsets whose sums are held at once, and matrices: the latter stay in the processor's cache.
_SUMS, _MATRICES = 256, 8
# Size of what is left of an error, of the size of the displacement, and most steps towards it.
_TOLERANCE, _STEPS = 1e-9, 30


class Quadratic:
    """Where fine-tuning on a subset ends, and how steep it is there.

    Args:
        sums: Sums of each auxiliary task (t), and those of the target last.
        ridge: Added to the diagonal of every subset's matrix, in the units of Σ A_t.
    """

    def __init__(self, statistics: TaskSums, ridge: float) -> None:
        self._statistics, self._ridge = statistics, ridge
        # The last sum over a subset, in one tuple: threads that ask at once see one or another, never half of each.
        self._base = np.zeros(len(statistics.weights), dtype=bool), np.zeros(statistics.packed_curvatures.shape[1])

    def displacements(self, masks: Mask) -> Floats:
        """Displacement w (s, k) of each subset (s, t)."""
        members = np.c_[masks, np.ones(len(masks), dtype=bool)]
        middle = np.asarray(2 * members.sum(axis=0) > len(members))
        if (members ^ middle).sum() <= _NEAR * len(members):
            return self._solve_near(members, middle)
        parts = [self._solve_far(members[start : start + _SUMS]) for start in range(0, len(members), _SUMS)]
        return np.concatenate(parts)

    def weighted(self, weights: Floats, slope: Floats) -> tuple[Floats, Floats]:
        """A subset in which tasks count more or less.

        Args:
            weights: How much each auxiliary task counts (t,), ≥ 0; the target counts once.
            slope: Gradient of a loss (k,).

        Returns:
            The displacement (k,), and how much the loss falls for each unit of a task's weight (t,).
        """
        factors = np.append(weights, 1.0)
        matrix = self._with_ridge(unpacked(self._statistics.sums(factors[None])[0], self._statistics.dim))
        both = np.stack([-(factors @ self._statistics.gradient_sums), slope], axis=1)
        w, adjoint = np.linalg.solve(matrix, both).T
        return w, (self._statistics.gradient_sums @ adjoint + self._statistics.products(adjoint, w))[:-1]

    def task_gains(self, mask: Mask, slope: Floats, stop: Callable[[], bool]) -> Floats:
        """How much each task lowers a loss of slope (k,), to first order around a subset (t,): (t,)."""
        w, adjoint = self._tangent(mask, slope)
        gains = self._statistics.gradient_sums @ adjoint + self._statistics.products(adjoint, w, stop=stop)
        return np.asarray(gains[:-1])

    def gains(self, examples: ExampleSet, mask: Mask, slope: Floats) -> Floats:
        """How much each of some training examples (n,) does so."""
        w, adjoint = self._tangent(mask, slope)
        return np.asarray(examples.weights * (1 + examples.gradients @ w) * (examples.gradients @ adjoint))

    def transfer(self, mask: Mask) -> Floats:
        """How much each task, by row, lowers the mean training loss of each, by column (t, t)."""
        sums, (w,) = self._statistics, self.displacements(mask[None])
        means = sums.gradient_sums / np.maximum(sums.weights, 1e-300)[:, None]
        slopes = sums.gradient_sums + sums.images(w)
        return np.asarray(slopes @ np.linalg.solve(self._matrix(np.append(mask, True)), means.T))[:-1, :-1]

    def _tangent(self, mask: Mask, slope: Floats) -> tuple[Floats, Floats]:
        """A subset's displacement (k,), and H⁻¹ of a slope (k,), H being the curvature there."""
        members = np.append(mask, True)
        both = np.stack([-(members @ self._statistics.gradient_sums), slope], axis=1)
        w, adjoint = np.linalg.solve(self._matrix(members), both).T
        return w, adjoint

    def _solve_far(self, members: Mask) -> Floats:
        sums = self._statistics.sums(members.astype(np.int8))
        pulls = members.astype(np.float64) @ self._statistics.gradient_sums
        found = np.zeros_like(pulls)
        for start in range(0, len(members), _MATRICES):
            part = slice(start, start + _MATRICES)
            matrices = self._with_ridge(unpacked(sums[part], self._statistics.dim))
            found[part] = -np.linalg.solve(matrices, pulls[part, :, None])[:, :, 0]
        return found

    def _solve_near(self, members: Mask, middle: Mask) -> Floats:
        matrix, pulls = self._matrix(middle), members.astype(np.float64) @ self._statistics.gradient_sums
        moves = members.astype(np.int8) - middle
        if not moves.any():
            same = np.asarray(-np.linalg.solve(matrix, middle @ self._statistics.gradient_sums), np.float64)
            return np.repeat(same[None], len(members), axis=0)
        inverse = np.asarray(np.linalg.inv(matrix), np.float64) if len(members) > _FEW else None
        found = np.zeros_like(pulls)
        for first in range(0, len(members), _MATRICES):
            part = slice(first, first + _MATRICES)
            matrices = self._changes(moves[part])
            matrices += matrix
            if inverse is None:
                found[part] = -np.linalg.solve(matrices, pulls[part, :, None])[:, :, 0]
            else:
                found[part] = conjugate_gradients(matrices, -pulls[part], inverse)
        return found

    def _changes(self, moves: npt.NDArray[np.int8]) -> Floats:
        """Σ_t move_t A_t for several rows of moves (s, t): (s, k, k)."""
        if (np.count_nonzero(moves, axis=1) != 1).any():
            return unpacked(self._statistics.sums(moves), self._statistics.dim)
        tasks = np.abs(moves).argmax(axis=1)
        matrices = unpacked(self._statistics.packed_curvatures[tasks], self._statistics.dim)
        removed = moves[np.arange(len(moves)), tasks] < 0
        matrices[removed] *= -1
        return matrices

    def _matrix(self, members: Mask) -> Floats:
        """Σ A_t + c·I over a subset, from the last such sum where that is less work: a toggle moves one task."""
        there, triangle = self._base
        moves = members.astype(np.int8) - there
        if np.count_nonzero(moves) < np.count_nonzero(members):
            triangle = triangle + self._statistics.sums(moves[None])[0]
        else:
            triangle = self._statistics.sums(members[None].astype(np.int8))[0]
        self._base = members, triangle
        return self._with_ridge(unpacked(triangle, self._statistics.dim))

    def _with_ridge(self, matrices: Floats) -> Floats:
        """Add c·I to matrices (…, k, k), in place."""
        diagonal = np.arange(self._statistics.dim)
        matrices[..., diagonal, diagonal] += self._ridge
        return matrices


def conjugate_gradients(matrices: Floats, right: Floats, inverse: Floats) -> Floats:
    """Solve several symmetric positive definite systems, whose inverse is nearly known.

    Args:
        matrices: Of the systems (s, k, k).
        right: Their right-hand sides (s, k).
        inverse: What is near the inverse of each (k, k).

    Returns:
        Their solutions (s, k), to eight digits or better; by elimination where the inverse is too far off.
    """
    x = right @ inverse
    residual = right - (matrices @ x[:, :, None])[:, :, 0]
    direction = better = residual @ inverse
    size = (residual * better).sum(axis=1)
    enough = _TOLERANCE**2 * ((right @ inverse) * right).sum(axis=1)
    # The floor is for systems that are solved to the last bit, whose direction is nothing.
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
