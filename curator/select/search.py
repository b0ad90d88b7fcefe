"""Search for the subset of tasks with the lowest estimated loss.

Four methods work under the same `Constraints`:

    forward    start from no task; add the task that helps most, until no task helps by more than the noise
    backward   start from all tasks; remove the task that helps least, down to no task; take the best subset on the way
    exchange   start from the better of the two; add, drop and swap until the loss stops falling
               (both then drop tasks as long as the loss rises by no more than the noise)
    ensemble   estimate many random subsets; take the tasks that lower the mean estimate of the subsets with them

`select_scored` takes the tasks with the best score, for example a score of baselines.py.
`sample_affinities` gives the affinities for the ensemble.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.estimate.affinity import Affinities, SubsetEstimator
from curator.estimate.estimator import ROUNDING

# Maximum number of swaps to estimate. The sum of the two single moves ranks the swaps.
_SWAPS_TRIED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Limits of a selection.

    Args:
        tokens: Training tokens of each task (t,).
        examples: Training examples of each task (t,).
        include: Tasks that must be in.
        exclude: Tasks that must not be in.
        k: Maximum number of tasks, or None.
        max_tokens: Maximum number of tokens of the selected tasks, or None.
        max_examples: Maximum number of examples of the selected tasks, or None.
        threshold: Minimum improvement of a task in nats. None means the noise of the estimate.
    """

    tokens: npt.NDArray[np.int64]
    examples: npt.NDArray[np.int64]
    include: frozenset[int] = frozenset()
    exclude: frozenset[int] = frozenset()
    k: int | None = None
    max_tokens: int | None = None
    max_examples: int | None = None
    threshold: float | None = None

    def allows(self, mask: Mask) -> bool:
        """Return whether a subset (t,) keeps within the limits."""
        return (
            (self.k is None or int(mask.sum()) <= self.k)
            and (self.max_tokens is None or int(self.tokens[mask].sum()) <= self.max_tokens)
            and (self.max_examples is None or int(self.examples[mask].sum()) <= self.max_examples)
        )

    def cost(self) -> Floats:
        """Return the cost of each task (t,): its tokens or examples if they are limited, else 1."""
        if self.max_tokens is not None:
            return np.maximum(self.tokens, 1).astype(np.float64)
        if self.max_examples is not None:
            return np.maximum(self.examples, 1).astype(np.float64)
        return np.ones(len(self.tokens))

    def start(self, *, full: bool) -> Mask:
        """Return the first subset: all allowed tasks if `full`, else only the included tasks."""
        mask = np.full(len(self.tokens), full)
        mask[list(self.exclude)] = False
        mask[list(self.include)] = True
        return mask

    def free(self) -> list[int]:
        """Return the tasks that may be in or out."""
        return [t for t in range(len(self.tokens)) if t not in self.include and t not in self.exclude]


@dataclass(frozen=True, slots=True)
class Step:
    """One change by a method, and the estimated loss after it."""

    change: str
    """`add`, `drop` or `swap`."""
    tasks: tuple[int, ...]
    loss: float


@dataclass(frozen=True, slots=True)
class Selection:
    """A subset, and the steps that led to it.

    Attributes:
        mask: Membership (t,).
        loss: Estimated loss of the subset with its weights, nats.
        steps: Steps from the start to the subset.
        weights: Weight of each task (t,). None if all selected tasks have weight 1.
    """

    mask: Mask
    loss: float
    steps: tuple[Step, ...] = field(default=())
    weights: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of the tasks by another method.

    Attributes:
        values: Score of each task (t,). Higher is better.
        cutoff: Without a budget and a threshold, tasks with a higher score are selected.
        least: Tasks with at most this score are never selected.
    """

    values: Floats
    cutoff: float
    least: float = -np.inf


class _Search:
    """Estimates of subsets for the methods, with the noise of differences."""

    def __init__(self, estimator: SubsetEstimator, constraints: Constraints, on_step: Callable[[Step], None]) -> None:
        self.constraints, self._estimator, self._on_step = constraints, estimator, on_step
        self.steps: list[Step] = []

    def losses(self, masks: Sequence[Mask]) -> tuple[Floats, Floats]:
        """Return the estimated loss (s,) and the estimated loss of each validation example (s, v), nats."""
        each = self._estimator.validation_losses(np.stack(masks))
        return each @ self._estimator.validation_weights, each

    def noise(self, differences: Floats) -> Floats:
        """Return the standard error (s,) of the mean of paired differences (s, v), nats."""
        weights = self._estimator.validation_weights
        centred = differences - (differences @ weights)[:, None]
        return np.asarray(np.sqrt((weights**2 * centred**2).sum(axis=1)))

    def spread(self, first: Mask, second: Mask) -> float:
        """Return the standard error of a difference of two subsets from the parts of meta-training, nats.

        The parts disagree about a task with wrong labels. It helps early, and harms later.
        """
        pair, weights = np.stack([first, second]), self._estimator.validation_weights
        _, readings = self._estimator.losses_and_readings(pair, weights)
        return float(self._estimator.reading_noise(readings[0] - readings[1]))

    def record(self, change: str, tasks: tuple[int, ...], loss: float) -> None:
        step = Step(change, tasks, loss)
        self.steps.append(step)
        self._on_step(step)


def _ignore(_: Step) -> None:
    return None


def select_forward(
    estimator: SubsetEstimator, constraints: Constraints, on_step: Callable[[Step], None] = _ignore
) -> Selection:
    """Add tasks one at a time, each time the best of all remaining tasks.

    A task must lower the estimate by more than one standard error of that difference. The standard error comes from the
    validation examples, and from the spread between the parts of meta-training.
    With `constraints.threshold`, a task must lower the estimate by more than the threshold instead.
    Under a budget of tokens or examples, the improvement per token or example decides between the tasks.

    Args:
        estimator: Estimates the target's loss.
        constraints: Limits of the selection.
        on_step: Called after each addition.

    Returns:
        The subset. It holds only `constraints.include` if no task helps.
    """
    search = _Search(estimator, constraints, on_step)
    mask = constraints.start(full=False)
    (loss,), (each,) = search.losses([mask])
    remaining = [t for t in constraints.free() if not mask[t]]
    while True:
        tried = [t for t in remaining if constraints.allows(_with(mask, t, True))]
        if not tried:
            break
        losses, per_example = search.losses([_with(mask, t, True) for t in tried])
        needed = (
            search.noise(each - per_example)
            if constraints.threshold is None
            else np.full(len(tried), constraints.threshold)
        )
        gain = loss - losses
        worth = np.where(gain > np.maximum(needed, ROUNDING), gain / constraints.cost()[tried], -np.inf)
        ranked = [int(number) for number in np.argsort(-worth, kind="stable") if worth[number] > -np.inf]
        if constraints.threshold is None:
            # The spread costs two more estimates, so only tasks up to the first that passes get one.
            spreads = ((number, search.spread(mask, _with(mask, tried[number], True))) for number in ranked)
            best = next((number for number, spread in spreads if gain[number] > np.hypot(needed[number], spread)), None)
        else:
            best = next(iter(ranked), None)
        if best is None:
            break
        mask = _with(mask, tried[best], True)
        loss, each = losses[best], per_example[best]
        remaining.remove(tried[best])
        search.record("add", (tried[best],), float(loss))
    return Selection(mask, float(loss), tuple(search.steps))


def select_backward(
    estimator: SubsetEstimator, constraints: Constraints, on_step: Callable[[Step], None] = _ignore
) -> Selection:
    """Remove tasks one at a time, each time the task that helps least. Take the best subset on the way.

    The method does not stop where each removal does harm. Of several copies of a harmful task, removing a single one
    may do harm. While the budget is exceeded, the loss per token or example decides between the tasks.

    Args:
        estimator: Estimates the target's loss.
        constraints: Limits of the selection.
        on_step: Called after each removal.

    Returns:
        The smallest subset that is worse than the best by at most the noise of their difference, or by at most
        `constraints.threshold`.
    """
    search = _Search(estimator, constraints, on_step)
    mask, loss = _on_the_way_down(search)
    if constraints.threshold is None:
        mask, loss = _pruned(search, mask, loss)
    return Selection(mask, loss, tuple(search.steps))


def _on_the_way_down(search: _Search) -> tuple[Mask, float]:
    """Return the subset of `select_backward` before it drops tasks within the noise, and its loss, nats."""
    constraints = search.constraints
    mask = constraints.start(full=True)
    (loss,), _ = search.losses([mask])
    path = [(mask, float(loss))]
    while tried := [t for t in constraints.free() if mask[t]]:
        losses, _ = search.losses([_with(mask, t, False) for t in tried])
        rise = losses - loss
        best = int(np.argmin(rise if constraints.allows(mask) else rise / constraints.cost()[tried]))
        mask, loss = _with(mask, tried[best], False), losses[best]
        path.append((mask, float(loss)))
        search.record("drop", (tried[best],), float(loss))
    allowed = [number for number, (mask, _) in enumerate(path) if constraints.allows(mask)]
    least = min(path[number][1] for number in allowed)
    chosen = max(number for number in allowed if path[number][1] <= least + (constraints.threshold or 0.0))
    del search.steps[chosen:]
    return path[chosen]


def select_exchange(
    estimator: SubsetEstimator, constraints: Constraints, on_step: Callable[[Step], None] = _ignore
) -> Selection:
    """Start from the better of forward and backward. Add, drop and swap tasks while the estimate falls.

    Args:
        estimator: Estimates the target's loss.
        constraints: Limits of the selection.
        on_step: Called after each step.

    Returns:
        The subset, with the steps of the better start and of the exchange.
    """
    down = _Search(estimator, constraints, _ignore)
    starts = [select_forward(estimator, constraints), Selection(*_on_the_way_down(down), tuple(down.steps))]
    begin = min(starts, key=lambda start: start.loss)
    search = _Search(estimator, constraints, on_step)
    for step in begin.steps:
        search.record(step.change, step.tasks, step.loss)
    mask, loss = begin.mask, begin.loss
    least = max(constraints.threshold or 0.0, ROUNDING)
    while True:
        singles = constraints.free()
        if not singles:
            break
        single_losses, _ = search.losses([_with(mask, t, not mask[t]) for t in singles])
        change = dict(zip(singles, single_losses - loss, strict=True))
        moves: list[tuple[int, ...]] = [(t,) for t in singles]
        inside, outside = [t for t in singles if mask[t]], [t for t in singles if not mask[t]]
        swaps = sorted(((i, o) for i in inside for o in outside), key=lambda swap: change[swap[0]] + change[swap[1]])
        moves += swaps[:_SWAPS_TRIED]
        moves = [move for move in moves if constraints.allows(_flipped(mask, move))]
        if not moves:
            break
        losses, _ = search.losses([_flipped(mask, move) for move in moves])
        best = int(np.argmin(losses))
        if losses[best] > loss - least:
            break
        move = moves[best]
        name = "swap" if len(move) == 2 else "drop" if mask[move[0]] else "add"
        mask, loss = _flipped(mask, move), float(losses[best])
        search.record(name, move, loss)
    if constraints.threshold is None:
        mask, loss = _pruned(search, mask, float(loss))
    return Selection(mask, float(loss), tuple(search.steps))


def _pruned(search: _Search, best: Mask, least: float) -> tuple[Mask, float]:
    """Drop tasks of the best subset while the loss rises by at most its noise. The least useful task goes first.

    The search finds the subset with the lowest of many estimates, so part of its lead is noise. Tasks with wrong labels
    come in that way. This is the rule of one standard error (Breiman et al. 1984, "Classification and Regression
    Trees", section 3.4.3). The noise is that of `select_forward`.

    Args:
        search: The search. It records the steps.
        best: The best subset (t,).
        least: Its estimated loss, nats.

    Returns:
        The subset, and its estimated loss, nats.
    """
    (_,), (of_best,) = search.losses([best])
    mask, loss = best, least
    while tried := [t for t in search.constraints.free() if mask[t]]:
        losses, each = search.losses([_with(mask, t, False) for t in tried])
        lowest = int(np.argmin(losses))
        smaller = _with(mask, tried[lowest], False)
        noise = np.hypot(search.noise(each[[lowest]] - of_best)[0], search.spread(smaller, best))
        if losses[lowest] - least > max(noise, ROUNDING):
            break
        mask, loss = smaller, float(losses[lowest])
        search.record("drop", (tried[lowest],), loss)
    return mask, loss


def select_ensemble(
    estimator: SubsetEstimator,
    constraints: Constraints,
    affinities: Affinities,
    on_step: Callable[[Step], None] = _ignore,
) -> Selection:
    """Take the tasks with an affinity above the threshold (default 0), best first, within the budget.

    Args:
        estimator: Estimates the target's loss.
        constraints: Limits of the selection. `threshold` is a limit of the affinity.
        affinities: Affinities from `sample_affinities`.
        on_step: Called after each addition.

    Returns:
        The subset.

    Source:
        Li et al., "Scalable Fine-tuning from Multiple Data Sources", EMNLP Findings 2024, section 3 (random ensemble).
    """
    good = affinities.values > (constraints.threshold or 0.0)
    return _best_first(_Search(estimator, constraints, on_step), affinities.values / constraints.cost(), good)


def select_scored(
    estimator: SubsetEstimator, constraints: Constraints, scores: Scores, on_step: Callable[[Step], None] = _ignore
) -> Selection:
    """Take the tasks with the highest scores within the budget. Skip a task that exceeds the rest of the budget.

    Args:
        estimator: Estimates the loss of the selection. The estimate does not affect the selection.
        constraints: Limits of the selection. `threshold` is a limit of the score.
        scores: Scores of all tasks.
        on_step: Called after each addition.

    Returns:
        The subset. A budget without a threshold is used up as far as possible. Without both, the cutoff of the scores
        decides.
    """
    limited = (constraints.k, constraints.max_tokens, constraints.max_examples) != (None, None, None)
    lowest = scores.cutoff if not limited else -np.inf
    if constraints.threshold is not None:
        lowest = constraints.threshold
    good = scores.values > max(lowest, scores.least)
    return _best_first(_Search(estimator, constraints, on_step), scores.values, good)


def _best_first(search: _Search, worth: Floats, good: Mask) -> Selection:
    """Add the `good` tasks (t,) by falling worth (t,), each if the budget allows it."""
    constraints = search.constraints
    mask = constraints.start(full=False)
    for task in sorted(constraints.free(), key=lambda t: (-worth[t], t)):
        if good[task] and constraints.allows(_with(mask, task, True)):
            mask = _with(mask, task, True)
            (loss,), _ = search.losses([mask])
            search.record("add", (task,), float(loss))
    (loss,), _ = search.losses([mask])
    return Selection(mask, float(loss), tuple(search.steps))


def _with(mask: Mask, task: int, member: bool) -> Mask:
    changed = mask.copy()
    changed[task] = member
    return changed


def _flipped(mask: Mask, tasks: tuple[int, ...]) -> Mask:
    changed = mask.copy()
    changed[list(tasks)] ^= True
    return changed
