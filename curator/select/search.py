"""From estimates to a subset of tasks.

Four methods, each under the same `Constraints` (what must be in, what may be in, and what it may cost):

    forward    from nothing, add the task that helps most, over all that remain, until none helps by more than the noise
    backward   from everything, remove the task that helps least, down to nothing; take the best subset on the way
    exchange   from the better of the two, add, drop and swap until nothing improves
    ensemble   estimate many random subsets; take the tasks that lower the mean estimate of the subsets they are in

`select_scored` takes the best of any other score, such as those of curator/baselines.py.

`sample_affinities` is what the ensemble rests on, and what is shown beside every task whatever the method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats, Mask
from curator.estimate.affinity import Affinities, SubsetEstimator
from curator.estimate.estimator import ROUNDING

# Swaps that are worth an estimate of their own, ranked by what the two moves do separately.
_SWAPS_TRIED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What may be selected.

    Args:
        tokens: Training tokens of each task (t,).
        examples: Training examples of each task (t,).
        include: Tasks that must be in.
        exclude: Tasks that must not.
        k: Most tasks, or None.
        max_tokens: Most tokens of the selected tasks, or None.
        max_examples: Most examples of the selected tasks, or None.
        threshold: Least improvement in nats that is worth a task; None means the noise of the estimate.
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
        """Whether a subset (t,) keeps within the limits."""
        return (
            (self.k is None or int(mask.sum()) <= self.k)
            and (self.max_tokens is None or int(self.tokens[mask].sum()) <= self.max_tokens)
            and (self.max_examples is None or int(self.examples[mask].sum()) <= self.max_examples)
        )

    def cost(self) -> Floats:
        """What a task uses up of the tightest kind of budget (t,): tokens, else examples, else one each."""
        if self.max_tokens is not None:
            return np.maximum(self.tokens, 1).astype(np.float64)
        if self.max_examples is not None:
            return np.maximum(self.examples, 1).astype(np.float64)
        return np.ones(len(self.tokens))

    def start(self, *, full: bool) -> Mask:
        """The subset to begin with: all that may be in, or only what must be."""
        mask = np.full(len(self.tokens), full)
        mask[list(self.exclude)] = False
        mask[list(self.include)] = True
        return mask

    def free(self) -> list[int]:
        """Tasks that may be in or out."""
        return [t for t in range(len(self.tokens)) if t not in self.include and t not in self.exclude]


@dataclass(frozen=True, slots=True)
class Step:
    """One change that a method made, and the estimated loss after it."""

    change: str
    """`add`, `drop` or `swap`."""
    tasks: tuple[int, ...]
    loss: float


@dataclass(frozen=True, slots=True)
class Selection:
    """A subset and how it came about.

    Attributes:
        mask: Membership (t,).
        loss: Its estimated loss, with its weights if it has any.
        steps: The way to it.
        weights: How much each task counts (t,); None where all that are in count once.
    """

    mask: Mask
    loss: float
    steps: tuple[Step, ...] = field(default=())
    weights: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What some other method thinks of each task.

    Attributes:
        values: Score of each task (t,), higher is better.
        cutoff: Scores above it are worth a task where no budget and no threshold says how many.
        least: Scores up to it are worth none, whatever the budget.
    """

    values: Floats
    cutoff: float
    least: float = -np.inf


class _Search:
    """Estimates subsets for the methods, and knows how sure a difference is."""

    def __init__(self, estimator: SubsetEstimator, constraints: Constraints, on_step: Callable[[Step], None]) -> None:
        self.constraints, self._estimator, self._on_step = constraints, estimator, on_step
        self.steps: list[Step] = []

    def losses(self, masks: Sequence[Mask]) -> tuple[Floats, Floats]:
        """Estimated loss (s,) and estimated loss of each validation example (s, v)."""
        each = self._estimator.validation_losses(np.stack(masks))
        return each @ self._estimator.validation_weights, each

    def noise(self, differences: Floats) -> Floats:
        """Standard error (s,) of the mean of paired differences (s, v)."""
        weights = self._estimator.validation_weights
        centred = differences - (differences @ weights)[:, None]
        return np.asarray(np.sqrt((weights**2 * centred**2).sum(axis=1)))

    def record(self, change: str, tasks: tuple[int, ...], loss: float) -> None:
        step = Step(change, tasks, loss)
        self.steps.append(step)
        self._on_step(step)


def _ignore(_: Step) -> None:
    return None


def select_forward(
    estimator: SubsetEstimator, constraints: Constraints, on_step: Callable[[Step], None] = _ignore
) -> Selection:
    """Add tasks one at a time, each time the best of all that remain.

    A task is worth adding when it lowers the estimate by more than one standard error of that difference over the
    validation examples, or by more than `constraints.threshold`. Under a budget of tokens or examples, the
    improvement per token or example decides between those that are.

    Args:
        estimator: Of the target's loss.
        constraints: What may be selected.
        on_step: Called after each addition.

    Returns:
        The subset; only `constraints.include` when nothing helps.
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
        best = int(np.argmax(worth))
        if worth[best] == -np.inf:
            break
        mask = _with(mask, tried[best], True)
        loss, each = losses[best], per_example[best]
        remaining.remove(tried[best])
        search.record("add", (tried[best],), float(loss))
    return Selection(mask, float(loss), tuple(search.steps))


def select_backward(
    estimator: SubsetEstimator, constraints: Constraints, on_step: Callable[[Step], None] = _ignore
) -> Selection:
    """Remove tasks one at a time, each time the one that helps least, and take the best subset on the way.

    It goes on to the end rather than stopping where each removal does harm: of several copies of a harmful task
    none may be worth removing alone. While the budget is exceeded, what is lost per token or example decides what
    goes.

    Args, Returns: As for `select_forward`. Of subsets that are worse than the best by no more than
    `constraints.threshold` it is the smallest.
    """
    search = _Search(estimator, constraints, on_step)
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
    return Selection(*path[chosen], tuple(search.steps[:chosen]))


def select_exchange(
    estimator: SubsetEstimator, constraints: Constraints, on_step: Callable[[Step], None] = _ignore
) -> Selection:
    """Start from the better of forward and backward; add, drop and swap as long as the estimate falls.

    Args, Returns: As for `select_forward`; the steps are those of the better start and of the exchange.
    """
    starts = [method(estimator, constraints) for method in (select_forward, select_backward)]
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
    return Selection(mask, float(loss), tuple(search.steps))


def select_ensemble(
    estimator: SubsetEstimator,
    constraints: Constraints,
    affinities: Affinities,
    on_step: Callable[[Step], None] = _ignore,
) -> Selection:
    """Take the tasks whose affinity is above a threshold (default 0), best first, as far as the budget goes.

    The random ensemble of Li et al. 2024, section 3.

    Args:
        estimator: Of the target's loss.
        constraints: What may be selected; its `threshold` is one on the affinity.
        affinities: From `sample_affinities`.
        on_step: Called after each addition.

    Returns:
        The subset.
    """
    good = affinities.values > (constraints.threshold or 0.0)
    return _best_first(_Search(estimator, constraints, on_step), affinities.values / constraints.cost(), good)


def select_scored(
    estimator: SubsetEstimator, constraints: Constraints, scores: Scores, on_step: Callable[[Step], None] = _ignore
) -> Selection:
    """Take the tasks of the highest scores, as far as the budget goes; one that is too large for it is passed over.

    Args:
        estimator: Of the target's loss; it says what comes of the selection, and has no part in it.
        constraints: What may be selected; its `threshold` is one on the score.
        scores: Of all tasks.
        on_step: Called after each addition.

    Returns:
        The subset. Without a threshold a budget is used up as far as it goes, and without either the tasks above the
        scores' own cutoff are taken.
    """
    limited = (constraints.k, constraints.max_tokens, constraints.max_examples) != (None, None, None)
    lowest = scores.cutoff if not limited else -np.inf
    if constraints.threshold is not None:
        lowest = constraints.threshold
    good = scores.values > max(lowest, scores.least)
    return _best_first(_Search(estimator, constraints, on_step), scores.values, good)


def _best_first(search: _Search, worth: Floats, good: Mask) -> Selection:
    """Add tasks that are good (t,) in the order of what they are worth (t,), each if the budget allows it."""
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
