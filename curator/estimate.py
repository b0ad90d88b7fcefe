"""First-order estimates of the target's loss after fine-tuning on any subset of tasks.

At a point θ* of meta-training the model is linearised: fine-tuning on a subset S and the target's training examples
T is a displacement w of the projected parameters, and the loss of validation example i becomes ℓ_i + ⟨g_i, w⟩.

    quadratic   w = −(Σ_{t∈S∪T} A_t + c·I)⁻¹ Σ_{t∈S∪T} b_t,   with b_t = Σ ω_i g_i and A_t = Σ ω_i g_i g_iᵀ per task
    logistic    w = argmin Σ_{i∈S∪T} ω_i softplus(−(m_i + ⟨h_i, w⟩)) + c/2·‖w‖²   (Li et al. 2024)

with m_i = log(q_i / (1 − q_i)) the margin of the geometric mean token probability q_i = exp(−ℓ_i), for which
softplus(−m_i) = ℓ_i exactly, and h_i = ∇m_i = −g_i / (1 − q_i). ω_i is the example's share of completion tokens,
because training weighs tokens, not examples.

The estimates of several points are averaged, each as a difference to the estimate of all tasks together, whose loss is
known: it is what meta-training came to.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curator.errors import NumericalError

if TYPE_CHECKING:
    from curator.config import EstimateSection

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# 5 % to either side of the middle of a normal distribution.
_NORMAL_90 = 1.6448536269514722
# Most memory for a matrix per task, at each point; beyond it, sums are made from the examples.
_STACK_BYTES = 2**28
# So few subsets are summed from what they share, even where there is a matrix per task to read.
_FEW = 8
# Of the trace of an average subset's matrix, see `pick_ridge`.
_RIDGE_SHARE = 0.003
# Least 1 − q: below it an example is learned, and its margin is not known in float32.
_LEAST_DOUBT = 1e-6


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PointGradients:
    """Everything that is known at one point of meta-training.

    Attributes:
        share: Share of meta-training's steps.
        tasks: Training examples of each auxiliary task (t).
        target: Training examples of the targets.
        validation: Held-out examples of the targets.
    """

    share: float
    tasks: Sequence[ExampleSet]
    target: ExampleSet
    validation: ExampleSet


@dataclass(frozen=True, slots=True)
class SubsetEstimate:
    """Estimated loss in nats per target token, and its 90 % interval over the validation examples."""

    loss: float
    low: float
    high: float


class _Fit(ABC):
    """An estimator at one point: where fine-tuning on a subset ends, and how steep it is there."""

    def __init__(self, point: PointGradients, ridge: float, unit: float) -> None:
        sets = [*point.tasks, point.target]
        self._weights = np.concatenate([s.weights for s in sets]) / unit
        self._task = np.repeat(np.arange(len(sets)), [len(s.losses) for s in sets])
        self._means = np.stack([s.weights @ s.gradients / max(float(s.weights.sum()), 1e-300) for s in sets])
        self._ridge = ridge

    @abstractmethod
    def displacements(self, masks: Mask) -> Floats:
        """Displacement w (s, k) of each subset (s, t)."""

    @abstractmethod
    def _tangent(self, mask: Mask) -> tuple[Floats, Floats, Floats]:
        """A subset's objective at its displacement.

        Returns:
            Its Hessian H (k, k), and slopes s (n,) and directions x (n, k) such that s_i x_i is the gradient of what
            example i adds to the objective, whether it is in the subset or not.
        """

    def gains(self, mask: Mask, slope: Floats) -> Floats:
        """How much each training example (n,) lowers a loss of slope (k,), to first order around a subset (t,)."""
        hessian, slopes, directions = self._tangent(mask)
        return np.asarray(slopes * (directions @ np.linalg.solve(hessian, slope)))

    def transfer(self, mask: Mask) -> Floats:
        """How much each task, by row, lowers the mean training loss of each, by column (t + 1, t + 1)."""
        hessian, slopes, directions = self._tangent(mask)
        bounds = np.searchsorted(self._task, np.arange(1, len(self._means)))
        parts = zip(np.split(slopes, bounds), np.split(directions, bounds), strict=True)
        by_task = np.stack([slope @ direction for slope, direction in parts])
        return np.asarray(by_task @ np.linalg.solve(hessian, self._means.T))


class _Quadratic(_Fit):
    """The quadratic estimator at one point: one k × k solve per subset."""

    def __init__(self, point: PointGradients, ridge: float, unit: float) -> None:
        super().__init__(point, ridge, unit)
        sets = [*point.tasks, point.target]
        self._gradients = np.concatenate([s.gradients for s in sets])
        self._b = np.stack([(s.weights / unit) @ s.gradients for s in sets])
        tasks, dim = self._b.shape
        self._stack: Floats | None = None
        if tasks * dim * dim * 8 <= _STACK_BYTES:
            self._stack = np.stack([self._sum(np.arange(tasks) == t) for t in range(tasks)]).reshape(tasks, -1)
        self._base = np.zeros(tasks, dtype=bool), np.zeros((dim, dim))

    def displacements(self, masks: Mask) -> Floats:
        members = np.c_[masks, np.ones(len(masks), dtype=bool)]
        pull = members.astype(np.float64) @ self._b
        return -np.linalg.solve(self._matrices(members), pull[:, :, None])[:, :, 0]

    def _tangent(self, mask: Mask) -> tuple[Floats, Floats, Floats]:
        w = self.displacements(mask[None])[0]
        slopes = self._weights * (1 + self._gradients @ w)
        (hessian,) = self._matrices(np.append(mask, True)[None])
        return hessian, slopes, self._gradients

    def _matrices(self, members: Mask) -> Floats:
        """Σ A_t + c·I of each subset (s, k, k)."""
        dim = self._b.shape[1]
        if self._stack is not None and len(members) > _FEW:
            matrices = (members.astype(np.float64) @ self._stack).reshape(-1, dim, dim)
        else:
            shared = np.asarray(members.all(axis=0))
            base = self._moved_base(shared)
            matrices = np.stack([base + self._sum(row & ~shared) for row in members])
        return np.asarray(matrices + self._ridge * np.eye(dim))

    def _moved_base(self, tasks: Mask) -> Floats:
        """Σ A_t over some tasks, from the last such sum where that is less work: a toggle moves one task."""
        there, matrix = self._base
        added, dropped = tasks & ~there, there & ~tasks
        if (added | dropped).sum() < tasks.sum():
            matrix = matrix + self._sum(added) - self._sum(dropped)
        else:
            matrix = self._sum(tasks)
        self._base = tasks, matrix
        return matrix

    def _sum(self, tasks: Mask) -> Floats:
        """Σ A_t over some tasks, from their examples."""
        rows = np.flatnonzero(tasks[self._task])
        gradients = self._gradients[rows]
        return np.asarray((gradients * self._weights[rows, None]).T @ gradients)


class _Logistic(_Fit):
    """The paper's estimator at one point: a convex problem per subset, many of them solved together.

    Newton's method, each step by conjugate gradients, with Armijo backtracking: plain Newton diverges on separable data
    with margins near −10. All subsets advance at once, so that the work is matrix products.
    """

    _steps = 60
    _tolerance = 1e-8

    def __init__(self, point: PointGradients, ridge: float, unit: float) -> None:
        super().__init__(point, ridge, unit)
        sets = [*point.tasks, point.target]
        losses = np.concatenate([s.losses for s in sets])
        doubt = np.maximum(-np.expm1(-losses), _LEAST_DOUBT)
        self._margins = -losses - np.log(doubt)
        self._h = -np.concatenate([s.gradients for s in sets]) / doubt[:, None]

    def displacements(self, masks: Mask) -> Floats:
        """Displacement w (s, k) of each subset (s, t).

        Raises:
            NumericalError: Newton's method does not converge.
        """
        members = np.c_[masks, np.ones(len(masks), dtype=bool)]
        weights = np.where(members[:, self._task], self._weights, 0.0)
        w = np.zeros((len(masks), self._h.shape[1]))
        value = self._value(w, weights)
        active = np.arange(len(masks))
        for _ in range(self._steps):
            part, here = weights[active], w[active]
            slope = _sigmoid(-(self._margins + here @ self._h.T))
            gradient = self._ridge * here - (part * slope) @ self._h
            small = np.abs(gradient).max(axis=1) <= self._tolerance * (1 + np.abs(part).sum(axis=1))
            active, part, here, slope, gradient = (x[~small] for x in (active, part, here, slope, gradient))
            if not active.size:
                return w
            direction = self._newton(part * slope * (1 - slope), gradient)
            step = self._line_search(here, part, value[active], gradient, direction)
            w[active] = here + step[:, None] * direction
            value[active] = self._value(w[active], part)
            # A step of nothing is the end of what float64 can tell apart.
            active = active[step > 0]
        if active.size:
            raise NumericalError(
                f"the logistic estimate of {active.size} subsets does not converge in {self._steps} steps",
                hint="Raise estimate.ridge, or use the quadratic estimator.",
            )
        return w

    def _tangent(self, mask: Mask) -> tuple[Floats, Floats, Floats]:
        w = self.displacements(mask[None])[0]
        slope = _sigmoid(-(self._margins + self._h @ w))
        curvature = np.where(np.append(mask, True)[self._task], self._weights * slope * (1 - slope), 0.0)
        hessian = (self._h * curvature[:, None]).T @ self._h + self._ridge * np.eye(self._h.shape[1])
        return hessian, -self._weights * slope, self._h

    def _value(self, w: Floats, weights: Floats) -> Floats:
        margins = self._margins + w @ self._h.T
        return np.asarray((weights * np.logaddexp(0, -margins)).sum(axis=1) + self._ridge / 2 * (w**2).sum(axis=1))

    def _newton(self, curvature: Floats, gradient: Floats) -> Floats:
        """Solve (Hᵀ diag(curvature) H + c·I) x = −gradient by conjugate gradients, for all subsets at once."""
        x = np.zeros_like(gradient)
        residual = -gradient
        direction = residual.copy()
        size = (residual**2).sum(axis=1)
        enough = 1e-12 * size
        for _ in range(2 * gradient.shape[1]):
            image = (curvature * (direction @ self._h.T)) @ self._h + self._ridge * direction
            length = size / np.maximum((direction * image).sum(axis=1), np.finfo(np.float64).tiny)
            x += length[:, None] * direction
            residual -= length[:, None] * image
            new = (residual**2).sum(axis=1)
            if (new <= enough).all():
                break
            direction = residual + (new / np.maximum(size, np.finfo(np.float64).tiny))[:, None] * direction
            size = new
        return x

    def _line_search(self, w: Floats, weights: Floats, value: Floats, gradient: Floats, direction: Floats) -> Floats:
        """Length of each subset's step: halved until the value falls by enough (Armijo)."""
        slope = (gradient * direction).sum(axis=1)
        step = np.ones(len(w))
        for _ in range(50):
            tried = self._value(w + step[:, None] * direction, weights)
            good = tried <= value + 1e-4 * step * slope
            if good.all():
                return step
            step = np.where(good, step, step / 2)
        return np.where(good, step, 0.0)


class TargetEstimator:
    """Estimates of one target's loss, from gradients at one or more points of meta-training.

    Args:
        points: Gradients at each point of meta-training.
        final_losses: Loss of each validation example at the end of meta-training (v,).
        ridges: Ridge c at each point; it belongs to the sum over examples, not to their mean.
        method: `quadratic` or `logistic`.
    """

    def __init__(
        self, points: Sequence[PointGradients], final_losses: Floats, ridges: Sequence[float], *, method: str
    ) -> None:
        unit = _mean_weight(points[0])
        kind: type[_Fit] = _Quadratic if method == "quadratic" else _Logistic
        self.ridges = list(ridges)
        self.task_count = len(points[0].tasks)
        sizes = [len(s.losses) for s in (*points[0].tasks, points[0].target)]
        self._owners = np.repeat(np.arange(len(sizes)), sizes)
        self.validation_weights: Floats = points[0].validation.weights
        self._fits: list[_Fit] = [kind(point, ridge, unit) for point, ridge in zip(points, ridges, strict=True)]
        self._gradients = [point.validation.gradients for point in points]
        # All tasks together are what meta-training trained on: their loss is measured, not estimated.
        every = np.ones((1, self.task_count), dtype=bool)
        self._every = [fit.displacements(every) for fit in self._fits]
        self._known = final_losses
        self.all_tasks_loss = float(self._known @ self.validation_weights)

    def validation_losses(self, masks: Mask) -> Floats:
        """Estimated loss of each validation example (s, v) under each subset (s, t)."""
        change = np.zeros((len(masks), len(self._known)))
        for fit, every, gradients in zip(self._fits, self._every, self._gradients, strict=True):
            change += (fit.displacements(masks) - every) @ gradients.T
        return np.asarray(self._known + change / len(self._fits))

    def gains(self, mask: Mask) -> Floats:
        """What each training example does to the target's estimated loss, to first order around a subset.

        An influence function: the gain of example i is ḡᵀ H⁻¹ ∇f_i(w), with ḡ the mean validation gradient and H the
        curvature of the subset's objective at its displacement w.

        Args:
            mask: Membership of the auxiliary tasks (t,).

        Returns:
            Gain in nats (n,), > 0 where the example helps; task by task, the target's examples last. An example that
            is in the subset would be missed by that much, another one would add it.
        """
        total = sum(
            fit.gains(mask, self.validation_weights @ gradients)
            for fit, gradients in zip(self._fits, self._gradients, strict=True)
        )
        return np.asarray(total / len(self._fits))

    def task_gains(self, gains: Floats) -> Floats:
        """Sums of `gains` by auxiliary task (t,)."""
        return np.asarray(np.bincount(self._owners, weights=gains, minlength=self.task_count + 1)[:-1], np.float64)

    def gains_of(self, task: int, gains: Floats) -> Floats:
        """The part of `gains` that belongs to one task, in the order of its training examples."""
        return np.asarray(gains[self._owners == task])

    def transfer(self) -> Floats:
        """How much each auxiliary task lowers the mean training loss of each other (t, t), row → column, in nats.

        To first order, around all tasks together; > 0 where the row helps the column.
        """
        every = np.ones(self.task_count, dtype=bool)
        total = sum(fit.transfer(every) for fit in self._fits)
        return np.asarray(total / len(self._fits))[:-1, :-1]

    def estimate(self, masks: Mask) -> list[SubsetEstimate]:
        """Estimated loss and interval of each subset.

        Args:
            masks: Membership of the auxiliary tasks (s, t).

        Returns:
            One estimate per subset (s).
        """
        each = self.validation_losses(masks)
        losses = each @ self.validation_weights
        spread = np.sqrt(((self.validation_weights * (each - losses[:, None])) ** 2).sum(axis=1))
        return [
            SubsetEstimate(float(loss), max(float(loss - _NORMAL_90 * s), 0.0), float(loss + _NORMAL_90 * s))
            for loss, s in zip(losses, spread, strict=True)
        ]


def build_estimator(
    points: Sequence[PointGradients], final_losses: Floats, section: "EstimateSection"
) -> TargetEstimator:
    """Make the estimator that the configuration names, with a ridge for each point.

    Args:
        points: From the store.
        final_losses: As for `TargetEstimator`.
        section: `[estimate]`.

    Raises:
        NumericalError: Losses or gradients are not finite.
    """
    for point in points:
        for examples in (*point.tasks, point.target, point.validation):
            if not (np.isfinite(examples.losses).all() and np.isfinite(examples.gradients).all()):
                raise NumericalError(
                    f"the gradients at {point.share:.0%} of meta-training hold NaN or infinity",
                    hint="Run `curator gradients --fresh`.",
                )
    ridges = [pick_ridge(point) if section.ridge == "auto" else section.ridge for point in points]
    return TargetEstimator(points, final_losses, ridges, method=section.method)


def pick_ridge(point: PointGradients) -> float:
    """The ridge that `auto` stands for: a fixed share of the squared length of the gradients of half of the tasks.

    In other words of the trace of Σ A_t over an average subset, so that neither the number of examples, nor the
    scale of the parameters, nor projection_dim moves the estimates. That it is a constant share is found, not
    derived: docs/decisions.md has the figures.

    Returns:
        Ridge c, in squared gradient units; 1 where there is no gradient at all.
    """
    unit = _mean_weight(point)
    lengths = [float((s.weights / unit) @ (s.gradients**2).sum(axis=1)) for s in (*point.tasks, point.target)]
    return _RIDGE_SHARE * (sum(lengths[:-1]) / 2 + lengths[-1]) or 1.0


def _mean_weight(point: PointGradients) -> float:
    weights = np.concatenate([s.weights for s in (*point.tasks, point.target)])
    return float(weights.mean())


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


__all__: Sequence[Any] = [
    "ExampleSet",
    "PointGradients",
    "SubsetEstimate",
    "TargetEstimator",
    "build_estimator",
    "pick_ridge",
]
