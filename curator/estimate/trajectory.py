"""Estimate the target's loss from the whole of meta-training: follow each subset's difference from all tasks.

Meta-training on all tasks is cut into segments. Each segment has its own gradients, captured at every visit of an
example in Adam's metric of that moment. The difference δ between the adapter of a subset and that of all tasks follows
implicit Euler steps (implicit_steps.py). This is SOURCE (Bae et al. 2024) for whole subsets instead of infinitesimal
weights.

The estimate is the loss of all tasks, which is known, plus the mean gap between the two learning curves. Each gap is
read with the validation gradients of its own segment (readings.py), and weighted by the segment's learning rates. The
result is an area between the curves. It has less noise than the gap at the end, and no place of reading is chosen.

The recorded movement of the adapter gives the size of the steps (`step_scale`). There is no ridge.
docs/decisions/ has the measurements behind each rule.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask, release
from curator.core.errors import NumericalError
from curator.core.figures import first_of
from curator.core.interval import NORMAL_90
from curator.estimate.calibration import Calibration
from curator.estimate.implicit_steps import DroppedSums, ImplicitSteps, StepSums
from curator.estimate.loss_estimator import LossEstimator, one_core_each
from curator.estimate.readings import bounded, bounded_slope
from curator.estimate.task_sums import ExampleSet

# Subsets that one thread estimates at once.
_CHUNK = 128
# Standard deviation of the error of an estimate: as a share of the estimated change, and of the loss of all tasks.
_DISCREPANCY, _RUN_NOISE = 0.25, 0.08
# Smallest loss of all tasks for `_RUN_NOISE`, nats, so that no interval has zero width.
_LEAST_LOSS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """Sums over one segment of meta-training, for each auxiliary task (t), then for the target.

    Gradients g are projected in Adam's metric, g = P D^(−1/2) ∇ℓ with D = √(second moment) + ε.

    Attributes:
        share: End of the segment, as a share of meta-training's steps.
        step: τ = Σ learning rates of the segment's steps ÷ Σ completion tokens of all training examples. So τ·b is
            the movement in the metric's coordinates.
        weights: Σ ω of the examples (t + 1,).
        examples: Number of examples (t + 1,).
        gradient_sums: b = Σ ω_i g_i over all examples (t + 1, k), float32.
        curvatures: Upper triangle, row by row, of Σ ω_i (Rᵀg_i)(Rᵀg_i)ᵀ in the basis R (t + 1, r(r + 1)/2), float32.
        rest: Σ ω_i (‖g_i‖² − ‖Rᵀg_i‖²) / (k − r), the mean curvature outside of the basis (t + 1,).
        validation: Held-out examples of the targets, each at the mean adapter of one part of the segment: losses (v,),
            gradients (v, k), weights (v,).
        moved: Movement of the adapter from the mean of the previous segment, or from the start, to the mean of this
            one, P D^(1/2) Δθ (k,).
        read: Reads training examples of several tasks by number, with gradients (n, k) or in the basis only (n, r).
            Reading may be slow and may raise a `CuratorError`.
    """

    share: float
    step: float
    weights: Floats
    examples: npt.NDArray[np.int64]
    gradient_sums: npt.NDArray[np.float32]
    curvatures: npt.NDArray[np.float32]
    rest: Floats
    validation: ExampleSet
    moved: Floats
    read: Callable[[Sequence[int]], list[ExampleSet]]


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """What one meta-training left behind.

    Attributes:
        basis: Orthonormal basis R (k, r).
        segments: Segments in order.
        trained: Which auxiliary tasks (t,) meta-training trained on. None stands for all. Others were added later.
    """

    basis: Floats
    segments: Sequence[Segment]
    trained: Mask | None = None

    def check(self, names: Sequence[str] = ()) -> None:
        """Check that all numbers are finite.

        Args:
            names: Names of the auxiliary tasks, for the message.

        Raises:
            NumericalError: A sum, loss or gradient is not finite.
        """
        for segment in self.segments:
            of_tasks = (segment.gradient_sums, segment.curvatures, segment.rest[:, None])
            finite = np.logical_and.reduce([np.isfinite(part).all(axis=1) for part in of_tasks])
            release(segment.gradient_sums, segment.curvatures)
            named = [repr(name) for name, good in zip(names, finite, strict=False) if not good]
            whole = (segment.validation.losses, segment.validation.gradients, segment.moved, self.basis)
            if not finite[-1] or (not named and not finite.all()) or not all(np.isfinite(x).all() for x in whole):
                named.append("the target")
            if named:
                raise NumericalError(
                    f"gradients before {segment.share:.0%} of meta-training are not finite, or their squares are not:"
                    f" {first_of(named, 5)}",
                    hint="Run `curator gradients --fresh` with model.dtype = float32.",
                )


def top_directions(covariance: Floats, rank: int) -> Floats:
    """Return the directions of largest curvature (k, r), from a sum of outer products of gradients (k, k)."""
    from scipy.linalg import eigh

    size = len(covariance)
    rank = min(rank, size)
    return np.ascontiguousarray(eigh(covariance, subset_by_index=[size - rank, size - 1])[1][:, ::-1])


@dataclass(frozen=True, slots=True, eq=False)
class ExampleSums:
    """Gradient sum (k,), packed curvature inside the basis (r(r + 1)/2,), and mean curvature outside, of one task."""

    gradient_sum: npt.NDArray[np.float32]
    curvature: npt.NDArray[np.float32]
    rest: float


def example_sums(examples: ExampleSet, basis: Floats) -> ExampleSums:
    """Sum the examples of one task in one segment.

    Args:
        examples: Gradients (n, k) and weights (n,).
        basis: Directions (k, r).
    """
    dim, rank = basis.shape
    weights, g = examples.weights, examples.gradients
    within = g @ basis
    rows, columns = np.triu_indices(rank)
    curvature = ((weights[:, None] * within).T @ within)[rows, columns].astype(np.float32)
    outside = (g**2).sum(axis=1) - (within**2).sum(axis=1)
    rest = float(weights @ np.maximum(outside, 0.0)) / (dim - rank) if dim > rank else 0.0
    return ExampleSums((weights @ g).astype(np.float32), curvature, rest)


def step_scale(segments: Sequence[Segment], trained: Mask | None = None) -> float:
    """Return the factor of all steps: the movement that was recorded, relative to the predicted one.

    The factor contains what τ does not know, above all the clipping of gradients. It is the median over the segments
    of the regression of the recorded movement on the predicted one. From mean to mean, the predicted
    movement is half of the movement of each of the two segments. The first movement follows the warm-up, where
    Adam's second moment is not settled. The median keeps it out.

    Args:
        segments: The segments.
        trained: As in `Trajectory`. Tasks that were added later moved nothing.
    """
    seen = slice(None) if trained is None else np.append(trained, True)
    before: Floats | float = 0.0
    ratios = []
    for segment in segments:
        own = -segment.step * segment.gradient_sums[seen].sum(axis=0, dtype=np.float64)
        release(segment.gradient_sums)
        predicted = (before + own) / 2
        size = float(predicted @ predicted)
        if size > 0:
            ratios.append(float(segment.moved @ predicted) / size)
        before = own
    positive = [ratio for ratio in ratios if ratio > 0]
    return float(np.median(positive)) if positive else 1.0


def step_sums(segment: Segment, scale: float) -> StepSums:
    """Return what the implicit steps need of a segment.

    The loss of an example is a mean over its tokens. If the model's probabilities are right, its curvature
    over n tokens is (n g)(n g)ᵀ on average.
    This is n times ω g gᵀ. So each task's curvature is multiplied by the tokens of
    its average example.
    """
    tokens = segment.weights / np.maximum(segment.examples, 1)
    return StepSums(
        step=scale * segment.step,
        gradient_sums=segment.gradient_sums,
        curvatures=segment.curvatures,
        rest=segment.rest,
        factors=tokens,
        validation=segment.validation.gradients,
    )


class TrajectoryEstimator(LossEstimator):
    """Estimates of one target's loss, from the segments of meta-training.

    Args:
        trajectory: Sums of the segments. There is at least one.
        final_losses: Loss of each validation example at the end of meta-training (v,), nats.
        calibration: Correction fitted to measured subsets, if there is one.
        names: Names of the auxiliary tasks, for messages.

    Raises:
        NumericalError: A sum, loss or gradient is not finite.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        final_losses: Floats,
        calibration: Calibration | None = None,
        *,
        names: Sequence[str] = (),
    ) -> None:
        first = trajectory.segments[0]
        super().__init__(final_losses, first.validation.weights, len(first.weights) - 1, calibration)
        trajectory.check(names)
        if not np.isfinite(final_losses).all():
            raise NumericalError(
                "losses at the end of meta-training are not finite", hint="Lower train.learning_rate, and train again."
            )
        self._segments = list(trajectory.segments)
        self.scale = step_scale(self._segments, trajectory.trained)
        self._shares = _reading_shares(self._segments)
        self._slope = 1.0 if calibration is None else float(calibration.slopes.sum())
        self._step_sums = [step_sums(s, self.scale) for s in self._segments]
        self._steps = ImplicitSteps(trajectory.basis, self._step_sums, trajectory.trained)
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="trajectory")

    def without(self, dropped: Sequence[DroppedSums]) -> Self:
        """Return an estimator of the same tasks without some of their examples.

        The loss of all tasks with all examples stays the known one. The two estimators share their arrays.

        Args:
            dropped: Sums over the dropped examples in each segment.
        """
        found, tasks = copy(self), dropped[0].tasks
        steps = [part.steps(whole) for whole, part in zip(self._step_sums, dropped, strict=True)]
        found._steps = self._steps.without(tasks, steps)
        found._kept = self._kept.copy()
        found._kept[tasks] *= 1 - dropped[0].shares
        return found

    def validation_losses(self, masks: Mask) -> Floats:
        """Estimate the loss of each validation example (s, v) under each subset (s, t), nats."""
        return self.losses_and_readings(masks, self.validation_weights)[0]

    def losses_and_readings(self, masks: Mask, weights: Floats) -> tuple[Floats, Floats]:
        """Return `validation_losses`, and the gap to the loss of all tasks by each segment alone (s, L), nats."""
        shift = self._correction.shifts(masks * self._kept)
        gaps, readings = self._gaps(masks, weights)
        return np.asarray(self._known + shift[:, None] + self._slope * gaps), self._slope * readings

    def changes(self, masks: Mask) -> Floats:
        """Estimate the uncalibrated difference to the loss of all tasks (s, 1), nats."""
        gaps, _ = self._gaps(masks, self.validation_weights)
        return np.asarray(gaps @ self.validation_weights)[:, None]

    def _gaps(self, masks: Mask, weights: Floats) -> tuple[Floats, Floats]:
        """Return the mean gap of each validation example (s, v), and each segment's mean over examples (s, L), nats."""
        parts = [masks[start : start + _CHUNK] for start in range(0, len(masks), _CHUNK)]
        work = partial(self._gaps_of, weights=weights)
        with one_core_each():
            if len(parts) == 1:
                return work(parts[0])
            found = list(self._threads.map(work, parts))
        nothing = np.zeros((0, len(self._known))), np.zeros((0, len(self._segments)))
        gaps, readings = zip(nothing, *found, strict=True)
        return np.concatenate(gaps), np.concatenate(readings)

    def _gaps_of(self, masks: Mask, weights: Floats) -> tuple[Floats, Floats]:
        mean, readings = np.zeros((len(masks), len(self._known))), []
        for share, gap in zip(self._shares, self._readings(self._removed(masks)), strict=True):
            mean += share * gap
            readings.append(gap @ weights)
        return mean, np.stack(readings, axis=1)

    def reading_noise(self, readings: Floats) -> Floats:
        """Return the standard error of the mean of readings (…, L), from the spread between the segments, nats."""
        if len(self._segments) < 2:
            return np.zeros(readings.shape[:-1])
        away = readings - (readings @ self._shares)[..., None]
        return np.asarray(np.sqrt((away**2) @ self._shares / (len(self._segments) - 1)))

    def _readings(self, removed: Floats) -> list[Floats]:
        """Return the gap of each validation example at each segment (s, v), nats."""
        try:
            changes = self._steps.changes(removed)
        except np.linalg.LinAlgError:
            changes = [np.full(1, np.nan)]
        if not all(np.isfinite(change).all() for change in changes):
            raise NumericalError(
                "equations of the estimates have no finite solution",
                hint="Run `curator gradients --fresh` with model.dtype = float32.",
            )
        pairs = zip(changes, self._segments, strict=True)
        return [bounded(change, segment.validation.losses) for change, segment in pairs]

    def weighted(self, weights: Floats) -> tuple[float, Floats]:
        """Estimate the target's loss for weighted tasks (t,), nats, and its derivative by each weight (t,)."""
        removed = np.asarray(self._steps.trained - weights)
        slopes, gap = self._slopes(removed)
        members = weights * self._kept
        loss = self.all_tasks_loss + float(self._correction.shifts(members[None])[0]) + self._slope * gap
        corrected = self._correction.derivatives(members) * self._kept
        with one_core_each():
            return loss, corrected + self._steps.derivatives(removed, slopes)[:-1]

    def task_gains(self, mask: Mask, *, stop: Callable[[], bool] = lambda: False) -> Floats:
        """Estimate the effect of each auxiliary task on the target's loss, to first order around a subset.

        One pass backwards through the segments serves all tasks. If the work stops, all gains are NaN.
        """
        removed = self._removed(mask)
        with one_core_each():
            slopes, _ = self._slopes(removed)
            gains = -self._steps.derivatives(removed, slopes, stop=stop)[:-1]
        return gains + self._correction.gains(mask, self._kept)

    def gains_of(self, task: int, mask: Mask) -> Floats:
        """Estimate the effect of each training example of a task on the target's loss, to first order around a subset.

        The gain of an example is the derivative of the loss by the example's weight, with the opposite sign.
        """
        removed = self._removed(mask)
        read = [segment.read([task])[0] for segment in self._segments]
        slopes, _ = self._slopes(removed)
        return -self._steps.examples(task, removed, slopes, [e.gradients for e in read], [e.weights for e in read])

    def transfer(self) -> Floats:
        """Estimate how much each auxiliary task lowers the mean training loss of each other (t, t), nats."""
        found = np.zeros((self.task_count, self.task_count))
        for share, segment, (inside, outside) in zip(
            self._shares, self._segments, self._steps.responses(), strict=True
        ):
            means = segment.gradient_sums[:-1] / np.maximum(segment.weights[:-1], 1e-30)[:, None]
            within = means.astype(np.float64) @ self._steps.basis
            found += share * (inside @ within.T + outside @ means.astype(np.float32).T)
            release(segment.gradient_sums)
        return found

    def half_widths(self, each: Floats, readings: Floats) -> Floats:
        """Return half of the 90 % interval (s,) from validation losses (s, v) and readings (s, L), nats.

        With a calibration, the intervals are those of the errors on measured subsets. Without one, they are for one
        run. They cover the choice of validation examples, and the spread of the segments' readings. They also cover an
        error in the size of the change, and the noise of runs. docs/decisions/ has the figures behind the last two.
        """
        if self.calibration is not None and self.calibration.half_width is not None:
            return super().half_widths(each, readings)
        gaps = each - self._known
        change = gaps @ self.validation_weights
        noise = ((self.validation_weights * (gaps - change[:, None])) ** 2).sum(axis=1)
        constant = _RUN_NOISE * max(self.all_tasks_loss, _LEAST_LOSS)
        size = (_DISCREPANCY * change) ** 2 + constant**2
        return np.asarray(NORMAL_90 * np.sqrt(noise + self.reading_noise(readings) ** 2 + size))

    def _slopes(self, removed: Floats) -> tuple[list[Floats], float]:
        """Return the derivative of the calibrated loss by the linear changes of each segment (v,), and the gap."""
        changes = self._steps.changes(removed[None])
        slopes, gap = [], 0.0
        for share, change, segment in zip(self._shares, changes, self._segments, strict=True):
            factor = share * self.validation_weights
            gap += float(factor @ bounded(change[0], segment.validation.losses))
            slopes.append(self._slope * factor * bounded_slope(change[0], segment.validation.losses))
        return slopes, gap

    def _removed(self, masks: Mask) -> Floats:
        """Return what each task loses of its weight in meta-training: 1 if a subset leaves it out, −1 if it joins."""
        return np.asarray(self._steps.trained - masks, dtype=np.float64)


def _reading_shares(segments: Sequence[Segment]) -> Floats:
    """Return the weight of each segment's reading (L,): its share of the sum of learning rates.

    The adapter moves most while the learning rate is high. Equal shares if no segment has a step.
    """
    steps = np.array([segment.step for segment in segments])
    return np.asarray(steps / steps.sum()) if steps.sum() > 0 else np.full(len(segments), 1 / len(segments))
