"""First-order estimates of the target's loss after fine-tuning on any subset of tasks.

At a point θ* of meta-training the model is linearised: fine-tuning on a subset S and the target's training examples
T is a displacement w of the projected parameters, and the loss of validation example i becomes ℓ_i + ⟨g_i, w⟩.

    quadratic   w = −(Σ_{t∈S∪T} A_t + c·I)⁻¹ Σ_{t∈S∪T} b_t,   with b_t = Σ ω_i g_i and A_t = Σ ω_i g_i g_iᵀ per task
    logistic    w = argmin Σ_{i∈S∪T} ω_i softplus(−(m_i + ⟨h_i, w⟩)) + c/2·‖w‖²   (Li et al. 2024)

with m_i = log(q_i / (1 − q_i)) the margin of the geometric mean token probability q_i = exp(−ℓ_i), for which
softplus(−m_i) = ℓ_i exactly, and h_i = ∇m_i = −g_i / (1 − q_i). ω_i is the example's share of completion tokens,
because training weighs tokens, not examples.

The first needs sums per task only (statistics.py, quadratic.py), the second every example (logistic.py).

The estimates of several points are averaged, each as a difference to the estimate of all tasks together, whose loss is
known: it is what meta-training came to. Where subsets were really fine-tuned on, these correct the estimates and say
    how far they may be wrong (calibration.py).
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from threadpoolctl import get_cached_controller

from curator.core.arrays import Floats, Mask
from curator.core.errors import ConfigError, NumericalError
from curator.core.interval import Interval
from curator.estimate.calibration import Calibration
from curator.estimate.logistic import Logistic
from curator.estimate.quadratic import Quadratic
from curator.estimate.task_sums import ExampleSet, TaskSums

if TYPE_CHECKING:
    from curator.core.config import EstimateSection


NORMAL_90 = 1.6448536269514722
"""Half of the width of a 90 % interval of a normal distribution, in standard deviations."""
ROUNDING = 1e-9
"""Estimates are sums of rounded numbers: two losses that differ by less count as equal, nats."""
# Of the trace of an average subset's matrix, see `pick_ridge`.
_RIDGE_SHARE = 0.003
# Of the trace of all tasks together: what float32 loses of their sums.
_LEAST_RIDGE = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSums:
    """Everything that is known at one point of meta-training.

    Attributes:
        share: Share of meta-training's steps.
        sums: Sums of each auxiliary task (t), and those of the target last.
        validation: Held-out examples of the targets.
        read: Reads the training examples of several tasks, the target being the last; it may take long and may fail.
    """

    share: float
    sums: TaskSums
    validation: ExampleSet
    read: Callable[[Sequence[int]], list[ExampleSet]]


class TargetEstimator:
    """Estimates of one target's loss, from gradients at one or more points of meta-training.

    Args:
        points: Gradients at each point of meta-training.
        final_losses: Loss of each validation example at the end of meta-training (v,).
        ridges: Ridge c at each point; it belongs to the sum over examples, not to their mean.
        method: `quadratic` or `logistic`.
        calibration: What was learned from subsets that were really fine-tuned on, if any were.
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
        unit = _mean_weight(points[0])
        self.calibration = calibration
        self.ridges = list(ridges)
        self.task_count = len(points[0].sums.weights) - 1
        self.validation_weights: Floats = points[0].validation.weights
        self._points = list(points)
        self._fits: list[Quadratic | Logistic] = [
            Quadratic(point.sums, ridge * unit)
            if method == "quadratic"
            else Logistic(point.read(range(self.task_count + 1)), ridge, unit)
            for point, ridge in zip(points, ridges, strict=True)
        ]
        self._gradients = [point.validation.gradients for point in points]
        # Matrices of some hundred rows are too small for more than one core each, but points are independent.
        self._threads = ThreadPoolExecutor(min(len(points), os.cpu_count() or 1), thread_name_prefix="point")
        # All tasks together are what meta-training trained on: their loss is measured, not estimated.
        every = np.ones((1, self.task_count), dtype=bool)
        self._every = [_solved(fit, every) for fit in self._fits]
        self._known = final_losses
        self.all_tasks_loss = float(self._known @ self.validation_weights)
        self._shares = np.full(len(points), 1 / len(points)) if calibration is None else calibration.slopes
        self._effects = np.zeros(self.task_count) if calibration is None else calibration.effects
        self._offset = 0.0 if calibration is None else calibration.offset

    def validation_losses(self, masks: Mask) -> Floats:
        """Estimated loss of each validation example (s, v) under each subset (s, t)."""
        moves = self._moves(masks)
        losses = np.repeat(self._known[None], len(masks), axis=0)
        losses += (self._offset + masks @ self._effects)[:, None]
        for share, move, gradients in zip(self._shares, moves, self._gradients, strict=True):
            losses += share * (move @ gradients.T)
        return losses

    def changes(self, masks: Mask) -> Floats:
        """Estimated difference to the loss of all tasks (s, p), by each point alone, not calibrated."""
        pairs = zip(self._moves(masks), self._slopes(), strict=True)
        return np.stack([move @ slope for move, slope in pairs], axis=1)

    def _moves(self, masks: Mask) -> list[Floats]:
        """Displacements at each point (s, k), as seen from that of all tasks together."""
        with _one_core_each():
            found = list(self._threads.map(lambda fit: _solved(fit, masks), self._fits))
        return [displacements - every for displacements, every in zip(found, self._every, strict=True)]

    def weighted(self, weights: Floats) -> tuple[float, Floats]:
        """The target's estimated loss where tasks count more or less, and its gradient.

        Args:
            weights: How much each auxiliary task counts (t,), ≥ 0; a subset has ones and zeros.

        Returns:
            The loss, and by how much it rises for each unit of a task's weight (t,).

        Raises:
            ConfigError: The estimator is the logistic one, whose sums have no weights.
        """
        loss = self.all_tasks_loss + self._offset + float(weights @ self._effects)
        gradient = self._effects.copy()
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
        """What each auxiliary task does to the target's estimated loss, to first order around a subset.

        The sums of `gains_of` over the tasks' examples, without reading these, and what calibration adds to a task.

        Args:
            mask: Membership of the auxiliary tasks (t,).
            stop: Asked now and then whether to give up.

        Returns:
            Gain in nats (t,), > 0 where the task helps; NaN of those that were left when it was given up.
        """
        pairs = zip(self._fits, self._slopes(), strict=True)
        with _one_core_each():
            return self._combined([fit.task_gains(mask, slope, stop) for fit, slope in pairs]) - self._effects

    def gains_of(self, task: int, mask: Mask) -> Floats:
        """What each training example of a task does to the target's estimated loss, to first order around a subset.

        An influence function: the gain of example i is ḡᵀ H⁻¹ ∇f_i(w), with ḡ the mean validation gradient and H the
        curvature of the subset's objective at its displacement w.

        Args:
            task: Number of the auxiliary task; t stands for the target.
            mask: Membership of the auxiliary tasks (t,).

        Returns:
            Gain in nats (n,), > 0 where the example helps. An example that is in the subset would be missed by that
            much, another one would add it.

        Raises:
            CuratorError: The examples cannot be read.
        """
        found = []
        for point, fit, slope in zip(self._points, self._fits, self._slopes(), strict=True):
            (examples,) = point.read([task])
            found.append(fit.gains(examples, mask, slope))
        return self._combined(found)

    def transfer(self) -> Floats:
        """How much each auxiliary task lowers the mean training loss of each other (t, t), row → column, in nats.

        To first order, around all tasks together; > 0 where the row helps the column.
        """
        every = np.ones(self.task_count, dtype=bool)
        return np.asarray(sum(fit.transfer(every) for fit in self._fits) / len(self._fits))

    def _slopes(self) -> list[Floats]:
        """Gradient of the target's loss at each point (k,)."""
        return [self.validation_weights @ gradients for gradients in self._gradients]

    def _combined(self, of_points: list[Floats]) -> Floats:
        return np.asarray(sum(share * values for share, values in zip(self._shares, of_points, strict=True)))

    def estimate(self, masks: Mask) -> list[Interval]:
        """Estimated loss and interval of each subset.

        Args:
            masks: Membership of the auxiliary tasks (s, t).

        Returns:
            One estimate per subset (s), nats per target token. With enough measured subsets, the intervals are those of
            the errors on these subsets. Otherwise the intervals are those of the choice of validation examples.
        """
        each = self.validation_losses(masks)
        losses = each @ self.validation_weights
        half = self.half_widths(each)
        return [Interval.around(float(loss), float(width)) for loss, width in zip(losses, half, strict=True)]

    def half_widths(self, each: Floats) -> Floats:
        """Half of the 90 % interval (s,) of subsets with given losses of each validation example (s, v)."""
        known = None if self.calibration is None else self.calibration.half_width
        if known is not None:
            return np.full(len(each), known)
        centred = each - (each @ self.validation_weights)[:, None]
        return np.asarray(NORMAL_90 * np.sqrt(((self.validation_weights * centred) ** 2).sum(axis=1)))


def _one_core_each() -> AbstractContextManager[Any]:
    """Keep BLAS to the thread that calls it.

    It spreads every product over all cores. Where points are solved side by side, or other programs are at work, its
    threads wait for each other longer than they compute, and whoever waits there keeps Python from other threads.
    """
    return cast(AbstractContextManager[Any], get_cached_controller().limit(limits=1, user_api="blas"))


def _solved(fit: Quadratic | Logistic, masks: Mask) -> Floats:
    """Displacements (s, k) that are numbers.

    Raises:
        NumericalError: A system has no single solution, or one that float64 does not hold.
    """
    try:
        found = fit.displacements(masks)
    except np.linalg.LinAlgError:
        found = np.full(1, np.nan)
    if not np.isfinite(found).all():
        raise NumericalError("the estimates' equations have no single solution", hint="Raise estimate.ridge.")
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
    """Make the estimator that the configuration names, with a ridge for each point.

    Args:
        points: From the store.
        final_losses: As for `TargetEstimator`.
        section: `[estimate]`.
        calibration: As for `TargetEstimator`; it says by how much the ridge is multiplied.
        scale: By how much it is multiplied where there is no calibration.
        names: The auxiliary tasks, for messages.

    Raises:
        NumericalError: Losses or gradients are not finite, or the ridge is too small for any system to be solved.
    """
    for point in points:
        # A trace holds every gradient squared: it is finite only where all of them are.
        known = (point.sums.traces(), point.sums.gradient_sums, point.validation.losses, point.validation.gradients)
        if not all(np.isfinite(numbers).all() for numbers in known):
            raise NumericalError(
                f"the gradients at {point.share:.0%} of meta-training hold NaN or infinity, or their squares do"
                f" ({_whose(point, names)})",
                hint="Run `curator gradients --fresh`, with model.dtype = float32.",
            )
    factor = scale if calibration is None else calibration.scale
    if section.ridge != "auto" and section.method == "quadratic":
        for point in points:
            least = _LEAST_RIDGE * float(point.sums.traces().sum()) / _mean_weight(point)
            if factor * section.ridge < least:
                raise NumericalError(
                    f"estimate.ridge = {section.ridge:g} is nothing beside the gradients at {point.share:.0%} of"
                    " meta-training: there is no single solution",
                    hint=f'Set it to "auto", or to {least:.1g} or more.',
                )
    ridges = [factor * (pick_ridge(point) if section.ridge == "auto" else section.ridge) for point in points]
    return TargetEstimator(points, final_losses, ridges, method=section.method, calibration=calibration)


def _whose(point: CheckpointSums, names: Sequence[str]) -> str:
    """Which tasks have numbers that are not finite."""
    finite = np.isfinite(point.sums.traces()) & np.isfinite(point.sums.gradient_sums).all(axis=1)
    named = [repr(name) for name, good in zip(names, finite, strict=False) if not good]
    if not finite[-1] or not named:
        named.append("the target")
    return ", ".join(named[:5])


def pick_ridge(point: CheckpointSums) -> float:
    """The ridge that `auto` stands for: a fixed share of the squared length of the gradients of half of the tasks.

    In other words of the trace of Σ A_t over an average subset, so that neither the number of examples, nor the
    scale of the parameters, nor projection_dim moves the estimates. That it is a constant share is found, not
    derived: docs/decisions/ has the figures.

    Returns:
        Ridge c, in squared gradient units; 1 where there is no gradient at all.
    """
    traces = point.sums.traces() / _mean_weight(point)
    return _RIDGE_SHARE * float(traces[:-1].sum() / 2 + traces[-1]) or 1.0


def _mean_weight(point: CheckpointSums) -> float:
    """Completion tokens of an average example: the unit of ω, by which the ridge is what it is for one token each."""
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
