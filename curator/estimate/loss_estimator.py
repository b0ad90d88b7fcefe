"""What every estimator of a target's loss offers: losses of subsets, their intervals, and gains of tasks and examples.

`LossEstimator` holds what does not depend on the method. `TargetEstimator` (quadratic, logistic) and
`TrajectoryEstimator` are its two kinds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import numpy as np
from threadpoolctl import get_cached_controller

from curator.core.arrays import Floats, Mask
from curator.core.interval import NORMAL_90, Interval
from curator.estimate.calibration import Calibration
from curator.estimate.correction import Correction, no_correction

ROUNDING = 1e-9
"""Largest difference of two equal losses, nats. Estimates are sums of rounded numbers."""
FEW_VALIDATION = 20
"""With fewer validation examples, intervals are rough."""


class LossEstimator(ABC):
    """Estimate the loss of one target after fine-tuning on any subset of tasks.

    Args:
        final_losses: Loss of each validation example at the end of meta-training (v,), nats.
        validation_weights: Weight of each validation example in the target's loss (v,). The weights sum to 1.
        task_count: Number t of auxiliary tasks.
        calibration: Correction fitted to measured subsets, if there is one.

    Attributes:
        all_tasks_loss: Loss of all tasks together, known from the end of meta-training, nats.
        ridges: Ridge at each checkpoint. Empty for a method without a ridge.
    """

    def __init__(
        self, final_losses: Floats, validation_weights: Floats, task_count: int, calibration: Calibration | None
    ) -> None:
        self.validation_weights = validation_weights
        self.task_count = task_count
        self.calibration = calibration
        self.ridges: list[float] = []
        self.all_tasks_loss = float(final_losses @ validation_weights)
        self._known = final_losses
        self._correction: Correction = no_correction(task_count) if calibration is None else calibration
        # Share of each task's examples that are not dropped. Measured terms belong to whole tasks.
        self._kept = np.ones(task_count)

    @property
    def note(self) -> str | None:
        """What limits the intervals, as a sentence for the user. None without a limit."""
        count = len(self.validation_weights)
        if count >= FEW_VALIDATION:
            return None
        examples = "1 validation example" if count == 1 else f"{count} validation examples"
        return f"intervals are rough: the target has {examples}, and {FEW_VALIDATION} or more make them reliable"

    @abstractmethod
    def validation_losses(self, masks: Mask) -> Floats:
        """Estimate the loss of each validation example (s, v) under each subset (s, t), nats."""

    @abstractmethod
    def changes(self, masks: Mask) -> Floats:
        """Estimate the uncalibrated difference to the loss of all tasks (s, p) by each reading alone, nats."""

    @abstractmethod
    def weighted(self, weights: Floats) -> tuple[float, Floats]:
        """Estimate the target's loss for weighted tasks, and its gradient.

        Args:
            weights: Weight of each auxiliary task (t,), ≥ 0. A subset has ones and zeros.

        Returns:
            The loss, nats, and its derivative by each task's weight (t,).

        Raises:
            ConfigError: The estimator is the logistic one, which has no weights.
        """

    @abstractmethod
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

    @abstractmethod
    def gains_of(self, task: int, mask: Mask) -> Floats:
        """Estimate the effect of each training example of a task on the target's loss, to first order around a subset.

        Args:
            task: Number of the auxiliary task. t stands for the target.
            mask: Membership of the auxiliary tasks (t,).

        Returns:
            Gain in nats (n,), > 0 if the example helps. Removing an example of the subset loses its gain. Adding
            another example adds its gain.

        Raises:
            CuratorError: The examples cannot be read.
        """

    @abstractmethod
    def transfer(self) -> Floats:
        """Estimate how much each auxiliary task lowers the mean training loss of each other, nats.

        Returns:
            Gain of the column's task by the row's task (t, t), to first order around all tasks. Positive values help.
        """

    def estimate(self, masks: Mask) -> list[Interval]:
        """Estimate the loss of each subset with its 90 % interval.

        Args:
            masks: Membership of the auxiliary tasks (s, t).

        Returns:
            One estimate per subset (s), nats per target token. With enough measured subsets, the intervals are those of
            the errors on these subsets. Otherwise `half_widths` says what the intervals cover.
        """
        each, readings = self.losses_and_readings(masks, self.validation_weights)
        losses = each @ self.validation_weights
        half = self.half_widths(each, readings)
        return [Interval.around(float(loss), float(width)) for loss, width in zip(losses, half, strict=True)]

    def losses_and_readings(self, masks: Mask, weights: Floats) -> tuple[Floats, Floats]:
        """Return `validation_losses`, and what each part of meta-training alone reads, from one pass.

        Args:
            masks: Membership of the auxiliary tasks (s, t).
            weights: Weight of each validation example (v,).

        Returns:
            Losses (s, v), and readings (s, p): estimated differences to the loss of all tasks, nats. The estimate is
            their weighted mean. p is 0 for an estimator whose parts are no estimates of their own.
        """
        return self.validation_losses(masks), np.zeros((len(masks), 0))

    def reading_noise(self, readings: Floats) -> Floats:
        """Return the standard error (…) of a mean of readings (…, p) or of their differences, nats. 0 without parts."""
        return np.zeros(readings.shape[:-1])

    def half_widths(self, each: Floats, readings: Floats) -> Floats:
        """Return half of the 90 % interval (s,) from validation losses (s, v) and readings (s, p), nats.

        Without a calibration, the intervals are those of the choice of validation examples.
        """
        known = None if self.calibration is None else self.calibration.half_width
        if known is not None:
            return np.full(len(each), known)
        centred = each - (each @ self.validation_weights)[:, None]
        return np.asarray(NORMAL_90 * np.sqrt(((self.validation_weights * centred) ** 2).sum(axis=1)))


def one_core_each() -> AbstractContextManager[Any]:
    """Keep BLAS to the calling thread.

    BLAS spreads every product over all cores. Its threads then wait for each other longer than they compute. This
    happens while threads work in parallel or other programs run. A waiting BLAS call blocks other Python threads.
    """
    return cast(AbstractContextManager[Any], get_cached_controller().limit(limits=1, user_api="blas"))
