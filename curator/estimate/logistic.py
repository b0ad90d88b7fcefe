"""The paper's estimator at one checkpoint of meta-training: a convex problem for each subset, from every example."""

from collections.abc import Callable, Sequence

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.core.errors import NumericalError
from curator.estimate.task_sums import ExampleSet

# Lower bound of 1 − q. Below it the example is learned, and float32 does not resolve its margin.
_LEAST_DOUBT = 1e-6


class Logistic:
    """Displacement of fine-tuning on a subset, and the curvature there. Many subsets are solved together.

    The solver is Newton's method with conjugate gradients and Armijo backtracking. Plain Newton diverges on separable
    data with margins near −10. All subsets advance at once, so that the work is matrix products.

    Args:
        sets: Training examples of each auxiliary task (t), then of the target.
        ridge: Ridge c.
        unit: Weight of an average example. Weights are in this unit.
    """

    _steps = 60
    _tolerance = 1e-8

    def __init__(self, sets: Sequence[ExampleSet], ridge: float, unit: float) -> None:
        self._unit = unit
        self._weights = np.concatenate([s.weights for s in sets]) / unit
        self._task = np.repeat(np.arange(len(sets)), [len(s.losses) for s in sets])
        self._means = np.stack([s.weights @ s.gradients / max(float(s.weights.sum()), 1e-300) for s in sets])
        self._ridge = ridge
        self._margins, self._h = _linearised(
            np.concatenate([s.losses for s in sets]), np.concatenate([s.gradients for s in sets])
        )

    def displacements(self, masks: Mask) -> Floats:
        """Solve for the displacement w (s, k) of each subset (s, t).

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
            # A step of length 0 reaches the resolution of float64.
            active = active[step > 0]
        if active.size:
            raise NumericalError(
                f"logistic estimate of {active.size} subsets does not converge in {self._steps} steps",
                hint="Raise estimate.ridge, or use the quadratic estimator.",
            )
        return w

    def task_gains(self, mask: Mask, slope: Floats, stop: Callable[[], bool]) -> Floats:
        """Return how much each task (t,) lowers a loss of slope (k,), to first order around a subset (t,).

        The solution is a single step, so `stop` is not called.
        """
        w, hessian = self._tangent(mask)
        gains = self._slopes(w) * (self._h @ np.linalg.solve(hessian, slope))
        return np.asarray(np.bincount(self._task, weights=gains, minlength=len(mask) + 1)[:-1], np.float64)

    def gains(self, examples: ExampleSet, mask: Mask, slope: Floats) -> Floats:
        """Return how much each training example (n,) lowers a loss of slope (k,), to first order around a subset."""
        w, hessian = self._tangent(mask)
        margins, h = _linearised(examples.losses, examples.gradients)
        slopes = -examples.weights / self._unit * _sigmoid(-(margins + h @ w))
        return np.asarray(slopes * (h @ np.linalg.solve(hessian, slope)))

    def transfer(self, mask: Mask) -> Floats:
        """Return how much each task, by row, lowers the mean training loss of each task, by column (t, t)."""
        w, hessian = self._tangent(mask)
        bounds = np.searchsorted(self._task, np.arange(1, len(self._means)))
        parts = zip(np.split(self._slopes(w), bounds), np.split(self._h, bounds), strict=True)
        by_task = np.stack([slopes @ h for slopes, h in parts])
        return np.asarray(by_task @ np.linalg.solve(hessian, self._means.T))[:-1, :-1]

    def _tangent(self, mask: Mask) -> tuple[Floats, Floats]:
        """Return a subset's displacement (k,), and the Hessian of its objective there (k, k)."""
        w = self.displacements(mask[None])[0]
        slope = _sigmoid(-(self._margins + self._h @ w))
        curvature = np.where(np.append(mask, True)[self._task], self._weights * slope * (1 - slope), 0.0)
        return w, (self._h * curvature[:, None]).T @ self._h + self._ridge * np.eye(self._h.shape[1])

    def _slopes(self, w: Floats) -> Floats:
        """Return the slope of each example's term of the objective (n,), for examples inside and outside the subset."""
        return np.asarray(-self._weights * _sigmoid(-(self._margins + self._h @ w)))

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
        """Return the step length of each subset, halved until the value falls enough (Armijo)."""
        slope = (gradient * direction).sum(axis=1)
        step = np.ones(len(w))
        for _ in range(50):
            tried = self._value(w + step[:, None] * direction, weights)
            good = tried <= value + 1e-4 * step * slope
            if good.all():
                return step
            step = np.where(good, step, step / 2)
        return np.where(good, step, 0.0)


def _linearised(losses: Floats, gradients: Floats) -> tuple[Floats, Floats]:
    """Return the margin m (n,) of each example and its gradient h (n, k)."""
    doubt = np.maximum(-np.expm1(-losses), _LEAST_DOUBT)
    return -losses - np.log(doubt), -gradients / doubt[:, None]


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
