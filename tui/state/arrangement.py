"""The order of tasks in which those that help the same ones stand together. Arrays in, arrays out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats

Rows = npt.NDArray[np.intp]

MOST_GROUPS = 8
# The best order of the leaves takes time that grows with the cube of the number of tasks.
_BEST_ORDER_BELOW = 300
_FULL_SCALE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """Tasks by what they help.

    Attributes:
        order: Row numbers (t,), those that are alike beside each other.
        groups: Number of the group of each task (t,), from 0, in the order in which they appear in `order`.
        medoids: Of each group, the task that is most like the others in it.
    """

    order: Rows
    groups: Rows
    medoids: tuple[int, ...]


def similarity(transfer: Floats) -> Floats:
    """How alike tasks are in whom they help and who helps them (t, t), from −1 to 1.

    Args:
        transfer: What each task, by row, does for each, by column (t, t).
    """
    profile = np.nan_to_num(transfer + transfer.T) / 2
    apart = ~np.eye(len(profile), dtype=bool)
    # What a task does for itself is far above all else: at full size every task would be like itself alone, and
    # without it two that help each other would have nothing in common.
    np.fill_diagonal(profile, np.where(apart, np.abs(profile), 0.0).max(axis=1, initial=0.0))
    lengths = np.linalg.norm(profile, axis=1, keepdims=True)
    profile = profile / np.where(lengths > 0, lengths, 1.0)
    return np.asarray(profile @ profile.T)


def arrange(transfer: Floats) -> Arrangement:
    """Put tasks that are alike beside each other, by average linkage, in at most eight groups.

    Args:
        transfer: As for `similarity`.
    """
    count = len(transfer)
    alike = similarity(transfer)
    if count < 2:
        return Arrangement(np.arange(count, dtype=np.intp), np.zeros(count, dtype=np.intp), tuple(range(count)))
    # It takes a second to import.
    from scipy.cluster.hierarchy import fcluster, leaves_list, linkage

    distances = np.clip(1 - alike, 0.0, 2.0)[np.triu_indices(count, 1)]
    tree = linkage(distances, "average", optimal_ordering=count < _BEST_ORDER_BELOW)
    order = np.asarray(leaves_list(tree), dtype=np.intp)
    found = np.asarray(fcluster(tree, MOST_GROUPS, criterion="maxclust"))
    _, first, inverse = np.unique(found[order], return_index=True, return_inverse=True)
    groups = np.empty(count, dtype=np.intp)
    groups[order] = np.argsort(np.argsort(first))[inverse]
    medoids = []
    for group in range(len(first)):
        inside = np.flatnonzero(groups == group)
        # Of two that are alike, each is as good; rounding makes it the same one on every machine.
        likeness = alike[np.ix_(inside, inside)].sum(axis=1).round(9)
        medoids.append(int(inside[np.argmax(likeness)]))
    return Arrangement(order, groups, tuple(medoids))


def group_names(arrangement: Arrangement, names: Sequence[str], tags: Sequence[str]) -> list[str]:
    """What each group is called: the tag that most of it has, or the task in its middle.

    Args:
        arrangement: Of the tasks.
        names: Of the tasks (t).
        tags: Of each task, joined by spaces (t).
    """
    found = []
    for group, medoid in enumerate(arrangement.medoids):
        inside = np.flatnonzero(arrangement.groups == group)
        counts = Counter(tag for row in inside.tolist() for tag in set(tags[row].split()))
        tag, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
        found.append(tag if 2 * count > len(inside) else names[medoid])
    return found


def full_scale(transfer: Floats) -> float:
    """The size of transfer beyond which all looks the same: 95 % of what tasks do for others is smaller. In nats.

    A few pairs are often many times the rest; at their scale nothing else would be seen.
    """
    others = np.abs(transfer[~np.eye(len(transfer), dtype=bool)])
    others = others[np.isfinite(others)]
    if not others.size:
        return 0.0
    return float(np.quantile(others, _FULL_SCALE)) or float(others.max())
