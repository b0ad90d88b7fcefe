"""Choose examples inside tasks under a budget of tokens, by the trajectory estimator.

The search is greedy. In each of several rounds it estimates the gain of every example around the present choice, to
first order. It then adds the examples with the highest gain per token, up to the round's share of the budget. Gains
change as the choice grows, so examples that say the same are not all taken. Exchange rounds follow: they drop the worst
examples and take better ones for their tokens, while the full estimate falls. A second search exchanges examples from
the best whole tasks within the budget. The choice with the lower estimate is the result.

Copies of an example in one task are one unit, because a selection drops them together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.data.corpus import Task
from curator.estimate.dropped_sums import sums_of_dropped
from curator.estimate.task_sums import ExampleSet
from curator.estimate.trajectory import Segment, Trajectory, TrajectoryEstimator

# Rounds that build up the choice, exchange rounds, and largest share of the budget that an exchange round replaces.
_ROUNDS, _EXCHANGES, _EXCHANGED = 10, 8, 0.1
# Bytes of gradients that stay in memory between rounds.
_MEMORY = 2**30


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Different examples of all tasks (u).

    Attributes:
        tasks: Number of the task of each unit (u,).
        hashes: Content hash of each unit.
        tokens: Training tokens of each unit, of all of its copies (u,).
        of_example: Unit of each training example, by task.
    """

    tasks: npt.NDArray[np.intp]
    hashes: list[str]
    tokens: npt.NDArray[np.int64]
    of_example: list[npt.NDArray[np.intp]]

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> "Units":
        """List the units of tasks, in the order of the tasks and of their examples."""
        owners: list[int] = []
        hashes: list[str] = []
        tokens: list[int] = []
        of_example = []
        for number, task in enumerate(tasks):
            index, there = task.version.index, dict[str, int]()
            own = []
            for n in task.split.train:
                unit = there.get(index.hashes[n])
                if unit is None:
                    unit = there[index.hashes[n]] = len(hashes)
                    owners.append(number)
                    hashes.append(index.hashes[n])
                    tokens.append(0)
                tokens[unit] += index.lengths[n]
                own.append(unit)
            of_example.append(np.array(own, dtype=np.intp))
        return cls(np.array(owners, dtype=np.intp), hashes, np.array(tokens, dtype=np.int64), of_example)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Which units are chosen (u,), and the estimated loss of the choice, nats."""

    kept: Mask
    loss: float


def with_examples_in_memory(trajectory: Trajectory) -> Trajectory:
    """Return a trajectory that keeps the examples it has read, up to a limit of memory."""
    kept: dict[tuple[int, int], ExampleSet] = {}
    left = _MEMORY

    def read(number: int, segment: Segment, tasks: Sequence[int]) -> list[ExampleSet]:
        nonlocal left
        found = []
        for task in tasks:
            examples = kept.get((number, task))
            if examples is None:
                (examples,) = segment.read([task])
                if examples.gradients.nbytes <= left:
                    kept[number, task] = examples
                    left -= examples.gradients.nbytes
            found.append(examples)
        return found

    segments = [replace(s, read=partial(read, number, s)) for number, s in enumerate(trajectory.segments)]
    return replace(trajectory, segments=segments)


class ExampleSearch:
    """Search for the examples with the lowest estimated loss under a budget.

    Args:
        estimator: Estimates the loss of the tasks with all examples.
        trajectory: What meta-training left behind.
        units: Examples of the tasks.
        max_tokens: Maximum number of tokens of the chosen examples.
        include: Tasks whose examples are all chosen (t,).
        exclude: Tasks without a chosen example (t,).
        follow: Called with the loss of each round.
    """

    def __init__(
        self,
        estimator: TrajectoryEstimator,
        trajectory: Trajectory,
        units: Units,
        *,
        max_tokens: int,
        include: Mask,
        exclude: Mask,
        follow: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._estimator, self._trajectory, self._units = estimator, trajectory, units
        self._budget, self._follow = max_tokens, follow
        self._must, self._may = include[units.tasks], ~exclude[units.tasks]

    def best(self, whole: Mask) -> Chosen:
        """Return the better of two searches.

        Args:
            whole: The best whole tasks within the budget (t,). The second search starts from them.
        """
        empty = self._chosen(self._must.copy())
        for number in range(1, _ROUNDS + 1):
            empty = self._chosen(self._filled(empty, self._budget * number // _ROUNDS))
        starts = [empty, self._chosen((whole[self._units.tasks] & self._may) | self._must)]
        return min((self._exchanged(start) for start in starts), key=lambda found: found.loss)

    def _state(self, kept: Mask) -> tuple[TrajectoryEstimator, Mask]:
        """Return the estimator without the other examples of the tasks in use, and the tasks in use (t,)."""
        mask = np.zeros(len(self._units.of_example), dtype=bool)
        mask[self._units.tasks[kept]] = True
        dropped = {
            int(task): np.flatnonzero(~kept[self._units.of_example[task]]).tolist() for task in np.flatnonzero(mask)
        }
        dropped = {task: positions for task, positions in dropped.items() if positions}
        if not dropped:
            return self._estimator, mask
        return self._estimator.without(sums_of_dropped(self._trajectory, dropped)), mask

    def _chosen(self, kept: Mask) -> Chosen:
        estimator, mask = self._state(kept)
        loss = float(estimator.validation_losses(mask[None])[0] @ estimator.validation_weights)
        self._follow(loss)
        return Chosen(kept, loss)

    def _gains(self, kept: Mask) -> Floats:
        """Return the gain of each unit around a choice (u,), nats."""
        estimator, mask = self._state(kept)
        gains = np.zeros(len(self._units.tasks))
        for task, units in enumerate(self._units.of_example):
            np.add.at(gains, units, estimator.gains_of(task, mask))
        return gains

    def _filled(self, start: Chosen, limit: int) -> Mask:
        """Return a choice without its harmful examples, with the most helpful others per token up to a limit."""
        gains = self._gains(start.kept)
        kept = (start.kept & (gains > 0)) | self._must
        return self._added(kept, gains, limit)

    def _added(self, kept: Mask, gains: Floats, limit: int) -> Mask:
        kept, tokens = kept.copy(), self._units.tokens
        left = limit - int(tokens[kept].sum())
        rates = gains / np.maximum(tokens, 1)
        for unit in np.argsort(-rates, kind="stable"):
            if gains[unit] <= 0:
                break
            if self._may[unit] and not kept[unit] and tokens[unit] <= left:
                kept[unit] = True
                left -= int(tokens[unit])
        return kept

    def _exchanged(self, found: Chosen) -> Chosen:
        """Replace the worst examples by better ones, while the estimated loss falls."""
        tokens = self._units.tokens
        for _ in range(_EXCHANGES):
            gains = self._gains(found.kept)
            order = np.argsort(np.where(found.kept & ~self._must, gains / np.maximum(tokens, 1), np.inf), kind="stable")
            spent = np.cumsum(tokens[order])
            out = order[(spent <= _EXCHANGED * self._budget) & (found.kept & ~self._must)[order]]
            kept = found.kept.copy()
            kept[out] = False
            tried = self._chosen(self._added(kept, gains, self._budget))
            if tried.loss >= found.loss:
                break
            found = tried
        return found
