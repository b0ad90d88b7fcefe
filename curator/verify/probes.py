"""Choose the subsets to measure: the selection, all tasks, the target alone, then subsets spread over size and loss."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import qmc

from curator.core.arrays import Floats, Mask
from curator.select.selections import Selections

# Random subsets of which those are taken that lie nearest to where they should.
_CANDIDATES = 512


def probe_subsets(
    estimate: Callable[[Mask], Floats], task_count: int, *, count: int, seed: int, there: Sequence[Mask] = ()
) -> list[Mask]:
    """Choose subsets to be measured: spread evenly over size and over estimated loss.

    Candidates of all sizes are ranked by both; a low-discrepancy sequence (Halton's) says which ranks are wanted next,
    so that any first part of the answer is spread as evenly as the whole, and later calls go on with the same
    sequence.

    Args:
        estimate: Estimated losses (s,) of subsets (s, t).
        task_count: Number t of auxiliary tasks.
        count: How many to choose.
        seed: Of the candidates and the sequence.
        there: Subsets that are measured already (t,), of which none is chosen again.

    Returns:
        Memberships (t,); fewer than `count` where there are no more subsets.
    """
    rng = np.random.default_rng(seed)
    taken = {mask.tobytes() for mask in there}
    if task_count <= 9:
        candidates = (np.arange(2**task_count)[:, None] >> np.arange(task_count)) & 1 > 0
    else:
        sizes = rng.integers(1, task_count, _CANDIDATES)
        candidates = rng.permuted(np.arange(task_count) < sizes[:, None], axis=1)
    # In an order of no meaning: among those that lie at the same place, the first is taken.
    candidates = rng.permutation(np.unique(candidates, axis=0))
    places = np.c_[_ranks(candidates.sum(axis=1).astype(np.float64)), _ranks(estimate(candidates))]
    free = np.array([mask.tobytes() not in taken for mask in candidates])
    # How much of the sequence is used up shows in what is there.
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
    """Ranks from 0 to 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.asarray(middle[inverse] / len(values))


def plan(selections: Selections, *, count: int, seed: int) -> list[frozenset[str]]:
    """Subsets to measure beside those that are, in the order in which they should be.

    Args:
        selections: Of the target.
        count: How many; the current selection, all tasks and the target alone come first.
        seed: As for `probe_subsets`.
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
