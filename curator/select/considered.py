"""The subsets that compete with a selection: subsets near it, and subsets of all sizes within the same limits."""

from collections.abc import Sequence

import numpy as np

from curator.core.arrays import Mask
from curator.estimate.target import TargetEstimates
from curator.select.posterior import spread_of
from curator.select.search import Constraints
from curator.select.selected_interval import Considered

# Numbers of random subsets and of subsets with one task toggled. A selection considers more, but near copies of these.
_RANDOM, _NEAR = 192, 64
# Random subsets that are drawn for each one that the limits allow, at most.
_TRIES = 20


def random_subsets(tasks: int, *, count: int, seed: int, constraints: Constraints | None = None) -> Mask:
    """Draw different subsets of all sizes that the limits allow (s, t). Fewer than `count` if the limits are narrow.

    Args:
        tasks: Number t of auxiliary tasks.
        count: Number of subsets.
        seed: Seed of the draws.
        constraints: Limits. None for no limits.
    """
    rng = np.random.default_rng(seed)
    found: dict[bytes, Mask] = {}
    for _ in range(_TRIES * count):
        mask = rng.random(tasks) < rng.random()
        if constraints is not None:
            mask &= constraints.start(full=True)
            mask |= constraints.start(full=False)
            if not constraints.allows(mask):
                continue
        found.setdefault(mask.tobytes(), mask)
        if len(found) == count:
            break
    return np.array(list(found.values()), dtype=bool).reshape(-1, tasks)


def neighbours(mask: Mask, *, count: int, seed: int, constraints: Constraints | None = None) -> Mask:
    """Return subsets that differ from a subset (t,) by one task and that the limits allow (s, t).

    Args:
        mask: The subset.
        count: Maximum number. With more tasks, the tasks are drawn.
        seed: Seed of the draw.
        constraints: Limits. None for no limits.
    """
    free: Sequence[int] = range(len(mask)) if constraints is None else constraints.free()
    toggled = np.random.default_rng(seed).permutation(np.array(free, dtype=np.intp))[:count]
    near = np.repeat(mask[None], len(toggled), axis=0)
    near[np.arange(len(toggled)), toggled] ^= True
    allowed = [one for one in near if constraints is None or constraints.allows(one)]
    return np.array(allowed, dtype=bool).reshape(-1, len(mask))


def considered_with(estimates: TargetEstimates, mask: Mask, constraints: Constraints | None) -> Considered:
    """Return the subsets that compete with a selection (t,), the selection first, with their estimated changes.

    Args:
        estimates: Estimates for the target.
        mask: The selection.
        constraints: Limits of the selection. None for no limits.
    """
    seed = estimates.workspace.config.select.seed
    others = random_subsets(len(mask), count=_RANDOM, seed=seed, constraints=constraints)
    near = neighbours(mask, count=_NEAR, seed=seed, constraints=constraints)
    every = np.concatenate([mask[None], near, others])
    _, first = np.unique(every, axis=0, return_index=True) if len(mask) else (None, np.zeros(1, dtype=np.intp))
    masks = every[np.sort(first)]
    changes = estimates.estimator.changes(masks)
    return Considered(masks=masks, changes=changes, unit=unit_of(estimates))


def unit_of(estimates: TargetEstimates) -> float:
    """Return the unit of the joint priors: the spread of the estimated changes of subsets of all sizes, nats."""
    estimator, seed = estimates.estimator, estimates.workspace.config.select.seed
    anywhere = random_subsets(estimator.task_count, count=_RANDOM, seed=seed)
    return spread_of(estimator.changes(anywhere).mean(axis=1), estimator.all_tasks_loss)
