"""Choose the subsets to measure: the selection, all tasks, the target alone, then subsets spread over size and loss."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import qmc

from curator.core.arrays import Floats, Mask
from curator.select.selections import Selections

# Number of random candidates.
_CANDIDATES = 512


def probe_subsets(
    estimate: Callable[[Mask], Floats], task_count: int, *, count: int, seed: int, there: Sequence[Mask] = ()
) -> list[Mask]:
    """Choose subsets to measure, spread evenly over size and over estimated loss.

    Candidates of all sizes are ranked by both. A low-discrepancy sequence (Halton's) gives the next wanted ranks.
    Any first part of the result is therefore as evenly spread as the whole. Later calls continue the sequence.

    Args:
        estimate: Returns estimated losses (s,) of subsets (s, t), nats.
        task_count: Number t of auxiliary tasks.
        count: Number of subsets to choose.
        seed: Seed of the candidates and the sequence.
        there: Measured subsets (t,). They are not chosen again.

    Returns:
        Memberships (t,). Fewer than `count` if all candidates are taken.
    """
    rng = np.random.default_rng(seed)
    taken = {mask.tobytes() for mask in there}
    if task_count <= 9:
        candidates = (np.arange(2**task_count)[:, None] >> np.arange(task_count)) & 1 > 0
    else:
        sizes = rng.integers(1, task_count, _CANDIDATES)
        candidates = rng.permuted(np.arange(task_count) < sizes[:, None], axis=1)
    # A random order decides between candidates at the same place.
    candidates = rng.permutation(np.unique(candidates, axis=0))
    places = np.c_[_ranks(candidates.sum(axis=1).astype(np.float64)), _ranks(estimate(candidates))]
    free = np.array([mask.tobytes() not in taken for mask in candidates])
    # Measured subsets have used up the start of the sequence.
    wanted = qmc.Halton(2, rng=seed).random(len(there) + count)[len(there) :]
    chosen: list[Mask] = []
    for place in wanted:
        if not free.any():
            break
        distance = np.where(free, ((places - place) ** 2).sum(axis=1), np.inf)
        best = int(distance.argmin())
        free[best] = False
        chosen.append(candidates[best])
    return chosen


def _ranks(values: Floats) -> Floats:
    """Return ranks from 0 to 1. Equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.asarray(middle[inverse] / len(values))


def plan(selections: Selections, *, count: int, seed: int) -> list[frozenset[str]]:
    """Return new subsets to measure, in order.

    Args:
        selections: Selections for the target.
        count: Number of subsets. The current selection, all tasks and the target alone are first.
        seed: Seed of the candidates and the sequence of `probe_subsets`.
    """
    estimates = selections.estimates
    names = [task.name for task in estimates.tasks]
    there = {m.subset for m in estimates.measured} | {subset for subset, _ in estimates.diverged}
    always = dict.fromkeys((frozenset(selections.last_names_or_select()), frozenset(names), frozenset[str]()))
    found = [subset for subset in always if subset not in there][:count]
    masks = [estimates.mask(subset) for subset in (*there, *found)]
    estimator = estimates.estimator
    more = probe_subsets(
        lambda asked: estimator.validation_losses(asked) @ estimator.validation_weights,
        len(names),
        count=count - len(found),
        seed=seed,
        there=masks,
    )
    return found + [frozenset(np.array(names)[mask].tolist()) for mask in more]
