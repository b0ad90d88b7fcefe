"""Follow the difference between the adapter of a subset and that of all tasks through the segments of meta-training.

Each task has two sums over its examples in a segment: b = Σ ω_i g_i and A = Σ ω_i g_i g_iᵀ. A subset
leaves out the tasks R and keeps the tasks K, with the target. Its difference δ follows two implicit Euler steps a
segment, each of half of the segment's step τ:

    δ ← (I + τ/2 Σ_K A)⁻¹ (δ + τ/2 Σ_R b)

The steps are solved in a basis of r directions with high curvature. Outside of the basis, A is its mean curvature ρ:

    e ← (e + τ/2 Σ_R b) / (1 + τ/2 Σ_K ρ)

So e stays a combination of the segments' sums, with factors that depend on the subset only by Σ_K ρ. The readings of a
validation example with gradient g are ⟨g, δ + e⟩. Only products of sums with validation gradients are needed.

A weighted task has its weight as factor of its sums in K, and 1 − weight in R.

The path of all tasks is that of the tasks that meta-training trained on. A task that was added later is not on it. A
subset with such a task moves by −b instead: its factor in R is 0 − weight.

Some examples of a task can be dropped. Their sums are then in R in any case. They are dropped parts of the task.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask, release
from curator.estimate.removed_sums import RemovedSums
from curator.estimate.task_sums import unpacked

SUBSTEPS = 2
"""Implicit steps in a segment."""
# Maximum matrices at once, which then fit the processor's cache.
_MATRICES = 32
# Maximum numbers in float64 at once, in addition to the stored sums.
_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepSums:
    """Sums of each auxiliary task (t), then of the target, over one segment.

    Attributes:
        step: Step τ of the segment.
        gradient_sums: Σ ω_i g_i (t + 1, k).
        curvatures: Packed upper triangle of the curvature inside the basis (t + 1, r(r + 1)/2).
        rest: Mean curvature ρ outside of the basis (t + 1,).
        factors: Factor of each task's curvature, inside and outside (t + 1,).
        validation: Gradients of the validation examples (v, k).
    """

    step: float
    gradient_sums: npt.NDArray[np.floating]
    curvatures: npt.NDArray[np.floating]
    rest: Floats
    factors: Floats
    validation: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DroppedSums:
    """Sums over the dropped examples of several tasks (m) in one segment.

    Attributes:
        tasks: Numbers of the tasks (m,), ascending.
        shares: Share of each task's weight that is dropped (m,).
        gradient_sums: Σ ω_i g_i (m, k), float32.
        curvatures: Packed curvature inside the basis (m, r(r + 1)/2), float32.
        rest: Mean curvature outside of the basis (m,).
    """

    tasks: npt.NDArray[np.intp]
    shares: Floats
    gradient_sums: npt.NDArray[np.floating]
    curvatures: npt.NDArray[np.floating]
    rest: Floats

    def steps(self, whole: StepSums) -> StepSums:
        """Return the parts as sums of implicit steps, with the factors of their tasks and a last row of zeros.

        Args:
            whole: Sums of the whole tasks.
        """
        return replace(
            whole,
            gradient_sums=_with_zeros(self.gradient_sums),
            curvatures=_with_zeros(self.curvatures),
            rest=np.append(self.rest, 0.0),
            factors=np.append(whole.factors[self.tasks], 0.0),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Tangent:
    """Path of one subset: inverse matrix, differences after each step (2, r), damping outside, by segment."""

    inverses: list[Floats]
    inside: list[Floats]
    damping: list[float]


class ImplicitSteps:
    """Differences of subsets, as changes of the validation losses, and their derivatives.

    Args:
        basis: Orthonormal directions (k, r).
        segments: Sums of each segment, in order.
        trained: Which auxiliary tasks (t,) meta-training trained on. None stands for all.
    """

    def __init__(self, basis: Floats, segments: Sequence[StepSums], trained: Mask | None = None) -> None:
        self.basis, self._segments = basis, list(segments)
        self._steps = [segment.step / SUBSTEPS for segment in segments]
        tasks = len(segments[0].factors) - 1
        self.trained = np.ones(tasks) if trained is None else trained.astype(np.float64)
        """Weight of each auxiliary task (t,) in meta-training: 1, or 0 for a task that was added later."""
        on_path = np.append(self.trained, 1.0)
        self._curvatures = [_left_times((on_path * s.factors)[None], s.curvatures)[0] for s in segments]
        self._rest = [float((on_path * segment.factors) @ segment.rest) for segment in segments]
        self._readers = [segment.validation @ basis for segment in segments]
        self._inside = [_times(segment.gradient_sums, basis) for segment in segments]
        self._small, self._columns = self._small_rows()
        rows = [(segment.curvatures[:-1], segment.factors[:-1]) for segment in segments]
        self._sums = RemovedSums([*rows, (self._small, np.ones(len(self._small)))])
        self._dropped: ImplicitSteps | None = None
        self._parents = np.zeros(0, dtype=np.intp)

    def without(self, parents: npt.NDArray[np.intp], dropped: Sequence[StepSums]) -> "ImplicitSteps":
        """Return the steps of tasks that lack some of their examples.

        Args:
            parents: Number of each task that lacks examples (m,), each once.
            dropped: Sums of each segment over the dropped examples of these tasks (m + 1, …). The last row is unused.
        """
        found = copy(self)
        found._parents, found._dropped = parents, ImplicitSteps(self.basis, dropped)
        return found

    def _removed(self, removed: Floats) -> list[Floats]:
        """Return the sums over all removed examples, for what each task loses of its weight (s, t)."""
        found = self._sums.of(removed)
        if self._dropped is None:
            return found
        parts = self._dropped._sums.of((self.trained - removed)[:, self._parents])
        return [whole + part for whole, part in zip(found, parts, strict=True)]

    def _small_rows(self) -> tuple[npt.NDArray[np.float32], list[int]]:
        """Return for each task, side by side: sums inside, curvatures outside, and readings of the sums outside.

        The readings of segment j's validation examples are those of the sums of each segment up to j. A basis of all
        k directions has no such readings.
        """
        parts = [*(inside[:-1] for inside in self._inside), *((s.factors * s.rest)[:-1, None] for s in self._segments)]
        whole = self.basis.shape[0] == self.basis.shape[1]
        for j, reader in enumerate([] if whole else self._segments):
            outside = reader.validation - self._readers[j] @ self.basis.T
            parts += [_times(segment.gradient_sums, outside.T)[:-1] for segment in self._segments[: j + 1]]
        return np.concatenate(parts, axis=1, dtype=np.float32), np.cumsum([part.shape[1] for part in parts])[
            :-1
        ].tolist()

    def changes(self, removed: Floats) -> list[Floats]:
        """Return the linear change of each validation example (s, v) at each segment, nats.

        Args:
            removed: What each auxiliary task loses of its weight in meta-training: `trained` − weight (s, t).
        """
        count = len(self._segments)
        *curvatures, small = self._removed(removed)
        parts = np.split(small, self._columns, axis=1)
        inside, rest, readings = parts[:count], parts[count : 2 * count], parts[2 * count :]
        delta = np.zeros((len(removed), self.basis.shape[1]))
        factors: list[Floats] = []
        found = []
        for j, tau in enumerate(self._steps):
            damping = 1 / (1 + tau * np.maximum(self._rest[j] - rest[j][:, 0], 0.0))
            factors = [factor * damping**SUBSTEPS for factor in factors]
            factors.append(tau * np.sum([damping**n for n in range(1, SUBSTEPS + 1)], axis=0))
            delta = self._solve(j, curvatures[j], delta, inside[j])
            change = delta @ self._readers[j].T
            first = j * (j + 1) // 2
            for factor, reading in zip(factors, readings[first : first + j + 1], strict=False):
                change += factor[:, None] * reading
            found.append(change)
        return found

    def _solve(self, j: int, removed_curvature: Floats, delta: Floats, removed_sum: Floats) -> Floats:
        """Return differences (s, r) after the steps of segment j."""
        found = np.zeros_like(delta)
        for start in range(0, len(delta), _MATRICES):
            part = slice(start, start + _MATRICES)
            inverse = self._inverse(j, removed_curvature[part])
            here = delta[part, :, None]
            for _ in range(SUBSTEPS):
                here = inverse @ (here + self._steps[j] * removed_sum[part, :, None])
            found[part] = here[:, :, 0]
        return found

    def _inverse(self, j: int, removed_curvature: Floats) -> Floats:
        """Return (I + τ Σ_K A)⁻¹ of segment j (s, r, r)."""
        dim = self.basis.shape[1]
        matrices = unpacked(self._steps[j] * (self._curvatures[j] - removed_curvature), dim)
        diagonal = np.arange(dim)
        matrices[:, diagonal, diagonal] += 1.0
        return np.asarray(np.linalg.inv(matrices), np.float64)

    def derivatives(
        self, removed: Floats, slopes: Sequence[Floats], *, stop: Callable[[], bool] = lambda: False
    ) -> Floats:
        """Return the derivative of Σ_j slopes_j · changes_j by the weight of each task, the target last (t + 1,).

        Args:
            removed: `trained` − weight of each auxiliary task (t,).
            slopes: Derivative of a loss by the linear changes of each segment (v,).
            stop: Called before each segment. True stops the work.

        Returns:
            Derivatives. All are NaN if the work stopped.
        """
        found = np.zeros(len(removed) + 1)
        for parts in self._backwards(removed, slopes):
            if stop():
                return np.full(len(found), np.nan)
            found -= self._of_tasks(parts)
            if self._dropped is not None:
                found[self._parents] += self._dropped._of_tasks(parts)[:-1]
        return found

    def examples(
        self, task: int, removed: Floats, slopes: Sequence[Floats], gradients: Sequence[Floats],
        weights: Sequence[Floats],
    ) -> Floats:  # fmt: skip
        """Return the derivative by the weight of each example of one task (n,), as `derivatives` does for tasks.

        Args:
            task: Number of the task.
            removed: As for `derivatives`.
            slopes: As for `derivatives`.
            gradients: Gradients of the task's examples at each segment (n, k), or in the basis only (n, r).
            weights: Weight ω of each example at each segment (n,).
        """
        found = np.zeros(len(weights[0]))
        dim, rank = self.basis.shape
        for parts in self._backwards(removed, slopes):
            g, weight = gradients[parts.segment], weights[parts.segment]
            within = g @ self.basis if g.shape[1] == dim else g
            factor = float(self._segments[parts.segment].factors[task])
            value = within @ parts.linear_inside
            for z, delta in zip(parts.adjoints, parts.deltas, strict=True):
                value += factor * self._steps[parts.segment] * (within @ z) * (within @ delta)
            if g.shape[1] == dim and dim > rank:
                rest = ((g**2).sum(axis=1) - (within**2).sum(axis=1)) / (dim - rank)
                value += g @ parts.linear_outside + factor * parts.of_rest * np.maximum(rest, 0.0)
            found -= weight * value
        return found

    def responses(self) -> list[tuple[Floats, npt.NDArray[np.float32]]]:
        """Return what removing a unit of each auxiliary task moves, to first order around all tasks.

        Returns:
            Derivative of the difference after each segment, inside the basis (t, r) and outside of it (t, k).
        """
        nothing = np.zeros((1, len(self._small)))
        path = self._path(nothing[0])
        inside = np.zeros_like(self._inside[0][:-1])
        outside = np.zeros((len(self._small), self.basis.shape[0]), dtype=np.float32)
        found = []
        for j, tau in enumerate(self._steps):
            sums = self._segments[j].gradient_sums[:-1]
            off = sums - (self._inside[j][:-1] @ self.basis.T)
            release(sums)
            for _ in range(SUBSTEPS):
                inside = (inside + tau * self._inside[j][:-1]) @ path.inverses[j]
                outside = ((outside + tau * off) * path.damping[j]).astype(np.float32)
            found.append((inside, outside))
        return found

    def _path(self, removed: Floats) -> _Tangent:
        count = len(self._segments)
        *curvatures, small = self._removed(removed[None])
        parts = np.split(small, self._columns, axis=1)
        path = _Tangent([], [], [])
        delta = np.zeros(self.basis.shape[1])
        for j, tau in enumerate(self._steps):
            inverse = self._inverse(j, curvatures[j])[0]
            steps = []
            for _ in range(SUBSTEPS):
                delta = inverse @ (delta + tau * parts[j][0])
                steps.append(delta)
            path.inverses.append(inverse)
            path.inside.append(np.stack(steps))
            path.damping.append(1 / (1 + tau * max(self._rest[j] - float(parts[count + j][0, 0]), 0.0)))
        return path

    def _backwards(self, removed: Floats, slopes: Sequence[Floats]) -> "list[_Parts]":
        """Propagate the derivative of a loss backwards, and return what each segment's sums are multiplied with."""
        path = self._path(removed)
        outside = self._outside_states(removed, path)
        inner, outer = np.zeros(self.basis.shape[1]), np.zeros(self.basis.shape[0])
        found = []
        for j in reversed(range(len(self._segments))):
            tau, damping = self._steps[j], path.damping[j]
            whole = slopes[j] @ self._segments[j].validation
            inner = inner + whole @ self.basis
            outer = outer + whole - self.basis @ (whole @ self.basis)
            adjoints, linear, of_rest, along = [], np.zeros_like(outer), 0.0, np.zeros_like(inner)
            for step in reversed(range(SUBSTEPS)):
                inner = path.inverses[j] @ inner
                adjoints.append(inner)
                along = along + tau * inner
                of_rest += damping * tau * float(outer @ outside[j][step])
                outer = damping * outer
                linear = linear + tau * outer
            found.append(_Parts(j, adjoints, list(path.inside[j][::-1]), along, linear, of_rest))
        return found

    def _outside_states(self, removed: Floats, path: _Tangent) -> list[list[Floats]]:
        """Return the difference outside of the basis (k,) after each step of each segment."""
        state, found = np.zeros(self.basis.shape[0]), []
        for j, tau in enumerate(self._steps):
            (whole,) = _left_times(removed[None], self._segments[j].gradient_sums[:-1])
            if self._dropped is not None:
                stays = (self.trained - removed)[None, self._parents]
                whole = whole + _left_times(stays, self._dropped._segments[j].gradient_sums[:-1])[0]
            source = whole - self.basis @ (whole @ self.basis)
            steps = []
            for _ in range(SUBSTEPS):
                state = (state + tau * source) * path.damping[j]
                steps.append(state)
            found.append(steps)
        return found

    def _of_tasks(self, parts: "_Parts") -> Floats:
        """Return the products of one segment's sums with the parts of a derivative (t + 1,)."""
        segment, dim = self._segments[parts.segment], self.basis.shape[1]
        rows, columns = np.triu_indices(dim)
        product = np.stack(parts.adjoints).T @ np.stack(parts.deltas)
        outer = product + product.T
        weights = self._steps[parts.segment] * np.where(rows == columns, 0.5, 1.0) * outer[rows, columns]
        found = self._inside[parts.segment] @ parts.linear_inside + parts.of_rest * segment.factors * segment.rest
        found += _times(segment.gradient_sums, parts.linear_outside[:, None])[:, 0]
        found += segment.factors * _times(segment.curvatures, weights[:, None])[:, 0]
        return np.asarray(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What one segment's sums are multiplied with in a derivative, with the sign of a removal.

    Attributes:
        segment: Number of the segment.
        adjoints: Factors z of the curvature inside the basis (r,), one for each step.
        deltas: The other factors, the differences after each step (r,).
        linear_inside: Factor of the gradient sums inside the basis (r,).
        linear_outside: Factor of the gradient sums outside (k,). It has no part inside.
        of_rest: Factor of the curvature outside.
    """

    segment: int
    adjoints: list[Floats]
    deltas: list[Floats]
    linear_inside: Floats
    linear_outside: Floats
    of_rest: float


def _times(rows: npt.NDArray[np.floating], right: Floats) -> Floats:
    """Return rows (n, m) times a matrix (m, c) in float64, with little memory."""
    step = max(_AT_ONCE // rows.shape[1], 1)
    parts = [rows[start : start + step].astype(np.float64) @ right for start in range(0, len(rows), step)]
    release(rows)
    return np.concatenate([np.zeros((0, right.shape[1])), *parts])


def _left_times(left: Floats, rows: npt.NDArray[np.floating]) -> Floats:
    """Return a matrix (c, n) times rows (n, m) in float64, with little memory."""
    step = max(_AT_ONCE // rows.shape[1], 1)
    found = np.zeros((len(left), rows.shape[1]))
    for start in range(0, len(rows), step):
        found += left[:, start : start + step] @ rows[start : start + step].astype(np.float64)
    release(rows)
    return found


def _with_zeros(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.concatenate([rows, np.zeros_like(rows[:1])])
