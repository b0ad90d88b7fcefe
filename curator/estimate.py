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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curator.config import EstimateSection
from curator.errors import NumericalError

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# 5 % to either side of the middle of a normal distribution.
_NORMAL_90 = 1.6448536269514722
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


class _Quadratic:
    """The quadratic estimator at one point: one k × k solve per subset."""

    def __init__(self, point: PointGradients, ridge: float, unit: float) -> None:
        sets = [*point.tasks, point.target]
        self._ridge = ridge
        self._b = np.stack([(s.weights / unit) @ s.gradients for s in sets])
        self._a = np.stack([(s.gradients * (s.weights / unit)[:, None]).T @ s.gradients for s in sets])

    def displacements(self, masks: Mask) -> Floats:
        """Displacement w (s, k) of each subset (s, t)."""
        members = np.c_[masks, np.ones(len(masks), dtype=bool)].astype(np.float64)
        dim = self._b.shape[1]
        matrices = (members @ self._a.reshape(len(self._a), -1)).reshape(-1, dim, dim)
        matrices += self._ridge * np.eye(dim)
        return -np.linalg.solve(matrices, (members @ self._b)[:, :, None])[:, :, 0]


class _Logistic:
    """The paper's estimator at one point: a convex problem per subset, many of them solved together.

    Newton's method, each step by conjugate gradients, with Armijo backtracking: plain Newton diverges on separable data
    with margins near −10. All subsets advance at once, so that the work is matrix products.
    """

    _steps = 60
    _tolerance = 1e-8

    def __init__(self, point: PointGradients, ridge: float, unit: float) -> None:
        sets = [*point.tasks, point.target]
        losses = np.concatenate([s.losses for s in sets])
        doubt = np.maximum(-np.expm1(-losses), _LEAST_DOUBT)
        self._margins = -losses - np.log(doubt)
        self._h = -np.concatenate([s.gradients for s in sets]) / doubt[:, None]
        self._weights = np.concatenate([s.weights for s in sets]) / unit
        self._task = np.repeat(np.arange(len(sets)), [len(s.losses) for s in sets])
        self._ridge = ridge

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
        kind = _Quadratic if method == "quadratic" else _Logistic
        self.ridges = list(ridges)
        self.task_count = len(points[0].tasks)
        self.validation_weights: Floats = points[0].validation.weights
        self._fits = [kind(point, ridge, unit) for point, ridge in zip(points, ridges, strict=True)]
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
    points: Sequence[PointGradients], final_losses: Floats, section: EstimateSection
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
