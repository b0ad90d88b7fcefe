"""Estimate the target's loss after fine-tuning on any subset of tasks, to first order.

The model is linearised at a checkpoint θ* of meta-training.
Fine-tuning on a subset S and the target's training examples T is a displacement w of the projected parameters.
The loss of validation example i becomes ℓ_i + ⟨g_i, w⟩.

    quadratic   w = −(Σ_{t∈S∪T} A_t + c·I)⁻¹ Σ_{t∈S∪T} b_t,   with b_t = Σ ω_i g_i and A_t = Σ ω_i g_i g_iᵀ per task
    logistic    w = argmin Σ_{i∈S∪T} ω_i softplus(−(m_i + ⟨h_i, w⟩)) + c/2·‖w‖²   (Li et al. 2024)

Here m_i = log(q_i / (1 − q_i)) is the margin of the geometric mean token probability q_i = exp(−ℓ_i).
This margin gives softplus(−m_i) = ℓ_i exactly. Its gradient is h_i = ∇m_i = −g_i / (1 − q_i).
The weight ω_i is the example's share of completion tokens, because training weighs tokens and not examples.

The quadratic estimator needs sums per task only (task_sums.py, quadratic.py).
The logistic estimator needs every example (logistic.py).

Estimates of several checkpoints are averaged as differences to the estimate of all tasks together.
The loss of all tasks together is known from the end of meta-training.
Measured subsets calibrate the estimates and give their intervals (calibration.py).
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.core.arrays import Floats, Mask
from curator.core.errors import ConfigError, NumericalError
from curator.core.figures import first_of
from curator.core.interval import NORMAL_90
from curator.estimate.calibration import Calibration
from curator.estimate.logistic import Logistic
from curator.estimate.loss_estimator import ROUNDING, LossEstimator, one_core_each
from curator.estimate.quadratic import Quadratic
from curator.estimate.task_sums import ExampleSet, TaskSums

if TYPE_CHECKING:
    from curator.core.config import EstimateSection


# Share of the trace of an average subset's matrix, see `pick_ridge`.
_RIDGE_SHARE = 0.003
# Share of the trace of all tasks together. Float32 sums lose about as much.
_LEAST_RIDGE = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSums:
    """Sums and validation examples at one checkpoint of meta-training.

    Attributes:
        share: Share of meta-training's steps.
        sums: Sums of each auxiliary task (t), then of the target.
        validation: Held-out examples of the targets.
        read: Reads the training examples of several tasks by number. The target has number t. Reading may be slow and
            may raise a `CuratorError`.
    """

    share: float
    sums: TaskSums
    validation: ExampleSet
    read: Callable[[Sequence[int]], list[ExampleSet]]


class TargetEstimator(LossEstimator):
    """Estimates of one target's loss, from gradients at one or more checkpoints of meta-training.

    Args:
        points: Sums and validation examples at each checkpoint.
        final_losses: Loss of each validation example at the end of meta-training (v,), nats.
        ridges: Ridge c at each checkpoint, relative to the sum over examples, not to their mean.
        method: `quadratic` or `logistic`.
        calibration: Correction fitted to measured subsets, if there is one.
    """

    def __init__(
        self,
        points: Sequence[CheckpointSums],
        final_losses: Floats,
        ridges: Sequence[float],
        *,
        method: str,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(final_losses, points[0].validation.weights, len(points[0].sums.weights) - 1, calibration)
        if method not in ("quadratic", "logistic"):
            raise ValueError(f"no method of single checkpoints: {method}")
        unit = _mean_weight(points[0])
        self.ridges = list(ridges)
        self._points = list(points)
        self._fits: list[Quadratic | Logistic] = [
            Quadratic(point.sums, ridge * unit)
            if method == "quadratic"
            else Logistic(point.read(range(self.task_count + 1)), ridge, unit)
            for point, ridge in zip(points, ridges, strict=True)
        ]
        self._gradients = [point.validation.gradients for point in points]
        # Matrices of some hundred rows are too small for several cores each, but checkpoints are independent.
        self._threads = ThreadPoolExecutor(min(len(points), os.cpu_count() or 1), thread_name_prefix="point")
        # Meta-training trained on all tasks together, so their loss is measured and not estimated.
        every = np.ones((1, self.task_count), dtype=bool)
        self._every = [_solved(fit, every) for fit in self._fits]
        self._shares = np.full(len(points), 1 / len(points)) if calibration is None else calibration.slopes

    def validation_losses(self, masks: Mask) -> Floats:
        """Estimate the loss of each validation example (s, v) under each subset (s, t), nats."""
        moves = self._moves(masks)
        losses = np.repeat(self._known[None], len(masks), axis=0)
        losses += self._correction.shifts(masks)[:, None]
        for share, move, gradients in zip(self._shares, moves, self._gradients, strict=True):
            losses += share * (move @ gradients.T)
        return losses

    def changes(self, masks: Mask) -> Floats:
        """Estimate the uncalibrated difference to the loss of all tasks (s, p) by each checkpoint alone, nats."""
        pairs = zip(self._moves(masks), self._slopes(), strict=True)
        return np.stack([move @ slope for move, slope in pairs], axis=1)

    def _moves(self, masks: Mask) -> list[Floats]:
        """Return displacements at each checkpoint (s, k), relative to that of all tasks together."""
        with one_core_each():
            found = list(self._threads.map(lambda fit: _solved(fit, masks), self._fits))
        return [displacements - every for displacements, every in zip(found, self._every, strict=True)]

    def weighted(self, weights: Floats) -> tuple[float, Floats]:
        """Estimate the target's loss for weighted tasks, and its gradient.

        Args:
            weights: Weight of each auxiliary task (t,), ≥ 0. A subset has ones and zeros.

        Returns:
            The loss, nats, and its derivative by each task's weight (t,).

        Raises:
            ConfigError: The estimator is the logistic one, which has no weights.
        """
        loss = self.all_tasks_loss + float(self._correction.shifts(weights[None])[0])
        gradient = self._correction.derivatives(weights)
        for share, fit, every, slope in zip(self._shares, self._fits, self._every, self._slopes(), strict=True):
            if isinstance(fit, Logistic):
                raise ConfigError(
                    "mixture weights need the quadratic estimator", hint='Set method = "quadratic" under [estimate].'
                )
            displacement, gains = fit.weighted(weights, slope)
            loss += share * float((displacement - every[0]) @ slope)
            gradient -= share * gains
        return loss, gradient

    def task_gains(self, mask: Mask, *, stop: Callable[[], bool] = lambda: False) -> Floats:
        """Estimate the effect of each auxiliary task on the target's loss, to first order around a subset.

        The gain of a task is the sum of `gains_of` over its examples, plus the change of the correction. The method
        reads sums only, not examples.

        Args:
            mask: Membership of the auxiliary tasks (t,).
            stop: Called now and then. True stops the work.

        Returns:
            Gain in nats (t,), > 0 if the task helps. NaN for tasks that are left when the work stops.
        """
        pairs = zip(self._fits, self._slopes(), strict=True)
        with one_core_each():
            return self._combined([fit.task_gains(mask, slope, stop) for fit, slope in pairs]) + self._correction.gains(
                mask, self._kept
            )

    def gains_of(self, task: int, mask: Mask) -> Floats:
        """Estimate the effect of each training example of a task on the target's loss, to first order around a subset.

        The gain is an influence function. The gain of example i is ḡᵀ H⁻¹ ∇f_i(w). Here ḡ is the mean validation
        gradient, and H is the curvature of the subset's objective at its displacement w.

        Args:
            task: Number of the auxiliary task. t stands for the target.
            mask: Membership of the auxiliary tasks (t,).

        Returns:
            Gain in nats (n,), > 0 if the example helps. Removing an example of the subset loses its gain. Adding
            another example adds its gain.

        Raises:
            CuratorError: The examples cannot be read.
        """
        found = []
        for point, fit, slope in zip(self._points, self._fits, self._slopes(), strict=True):
            (examples,) = point.read([task])
            found.append(fit.gains(examples, mask, slope))
        return self._combined(found)

    def transfer(self) -> Floats:
        """Estimate how much each auxiliary task lowers the mean training loss of each other, nats.

        Returns:
            Gain of the column's task by the row's task (t, t), to first order around all tasks. Positive values help.
        """
        every = np.ones(self.task_count, dtype=bool)
        return np.asarray(sum(fit.transfer(every) for fit in self._fits) / len(self._fits))

    def _slopes(self) -> list[Floats]:
        """Return the gradient of the target's loss at each checkpoint (k,)."""
        return [self.validation_weights @ gradients for gradients in self._gradients]

    def _combined(self, of_points: list[Floats]) -> Floats:
        return np.asarray(sum(share * values for share, values in zip(self._shares, of_points, strict=True)))


def _solved(fit: Quadratic | Logistic, masks: Mask) -> Floats:
    """Return finite displacements (s, k).

    Raises:
        NumericalError: A system has no unique solution, or its solution exceeds float64.
    """
    try:
        found = fit.displacements(masks)
    except np.linalg.LinAlgError:
        found = np.full(1, np.nan)
    if not np.isfinite(found).all():
        raise NumericalError("equations of the estimates have no unique solution", hint="Raise estimate.ridge.")
    return found


def build_estimator(
    points: Sequence[CheckpointSums],
    final_losses: Floats,
    section: "EstimateSection",
    calibration: Calibration | None = None,
    *,
    scale: float = 1.0,
    names: Sequence[str] = (),
) -> TargetEstimator:
    """Make the estimator that the configuration names, with a ridge for each checkpoint.

    Args:
        points: Sums and validation examples at each checkpoint.
        final_losses: As for `TargetEstimator`.
        section: Section `[estimate]` of the configuration.
        calibration: As for `TargetEstimator`. It decides the factor of the ridge.
        scale: Factor of the ridge without a calibration.
        names: Names of the auxiliary tasks, for messages.

    Raises:
        NumericalError: Losses or gradients are not finite, or the ridge is too small to solve any system.
    """
    for point in points:
        # A trace sums the squares of all gradients, so it is finite only if all of them are.
        known = (point.sums.traces(), point.sums.gradient_sums, point.validation.losses, point.validation.gradients)
        if not all(np.isfinite(numbers).all() for numbers in known):
            raise NumericalError(
                f"gradients at {point.share:.0%} of meta-training are not finite, or their squares are not:"
                f" {_whose(point, names)}",
                hint="Run `curator gradients --fresh` with model.dtype = float32.",
            )
    factor = scale if calibration is None else calibration.scale
    if section.ridge != "auto" and section.method == "quadratic":
        for point in points:
            least = _LEAST_RIDGE * float(point.sums.traces().sum()) / _mean_weight(point)
            if factor * section.ridge < least:
                raise NumericalError(
                    f"estimate.ridge = {section.ridge:g} is too small for the gradients at {point.share:.0%} of"
                    " meta-training: the equations have no unique solution",
                    hint=f'Set estimate.ridge to "auto", or to {least:.1g} or more.',
                )
    ridges = [factor * (pick_ridge(point) if section.ridge == "auto" else section.ridge) for point in points]
    return TargetEstimator(points, final_losses, ridges, method=section.method, calibration=calibration)


def _whose(point: CheckpointSums, names: Sequence[str]) -> str:
    """Return the tasks with numbers that are not finite."""
    finite = np.isfinite(point.sums.traces()) & np.isfinite(point.sums.gradient_sums).all(axis=1)
    named = [repr(name) for name, good in zip(names, finite, strict=False) if not good]
    if not finite[-1] or not named:
        named.append("the target")
    return first_of(named, 5)


def pick_ridge(point: CheckpointSums) -> float:
    """Return the ridge of `ridge = "auto"`: a constant share of the trace of Σ A_t over an average subset.

    The trace is the squared length of the gradients of the target and of half of the tasks. The trace makes estimates
    independent of the number of examples, the scale of parameters and projection_dim. The share is an empirical value.
    docs/decisions/ has the measurements.

    Returns:
        Ridge c, in squared gradient units. 1 if all gradients are zero.
    """
    traces = point.sums.traces() / _mean_weight(point)
    return _RIDGE_SHARE * float(traces[:-1].sum() / 2 + traces[-1]) or 1.0


def _mean_weight(point: CheckpointSums) -> float:
    """Return the completion tokens of an average example. As the unit of ω, they make the ridge that of one token."""
    return float(point.sums.weights.sum() / point.sums.examples.sum())


__all__: Sequence[Any] = [
    "NORMAL_90",
    "ROUNDING",
    "CheckpointSums",
    "ExampleSet",
    "TargetEstimator",
    "build_estimator",
    "pick_ridge",
]
