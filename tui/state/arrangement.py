"""The order of tasks in which similar tasks are neighbours. Arrays in, arrays out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curator.core.arrays import Floats

Rows = npt.NDArray[np.intp]

MOST_GROUPS = 8
# The best order of the leaves takes time cubic in the number of tasks.
_BEST_ORDER_BELOW = 300
_FULL_SCALE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """Tasks ordered and grouped by similarity.

    Attributes:
        order: Row numbers (t,). Similar tasks are neighbours.
        groups: Number of the group of each task (t,), from 0, in the order of first appearance in `order`.
        medoids: The most central task of each group.
    """

    order: Rows
    groups: Rows
    medoids: tuple[int, ...]


def similarity(transfer: Floats) -> Floats:
    """Compare tasks by the tasks that they help and the tasks that help them.

    Args:
        transfer: Effect of each task, by row, on each task, by column (t, t), in nats.

    Returns:
        Cosine similarity of each pair of tasks (t, t), from −1 to 1.
    """
    profile = np.nan_to_num(transfer + transfer.T) / 2
    apart = ~np.eye(len(profile), dtype=bool)
    # The effect of a task on itself is far larger than all others. At full size, no two tasks would be similar.
    # Without the effect, two tasks that help each other would have nothing in common.
    np.fill_diagonal(profile, np.where(apart, np.abs(profile), 0.0).max(axis=1, initial=0.0))
    lengths = np.linalg.norm(profile, axis=1, keepdims=True)
    profile = profile / np.where(lengths > 0, lengths, 1.0)
    return np.asarray(profile @ profile.T)


def arrange(transfer: Floats) -> Arrangement:
    """Order tasks so that similar tasks are neighbours, and cut the order into at most eight groups.

    The clustering uses average linkage.

    Args:
        transfer: Effect of each task, by row, on each task, by column (t, t), in nats.
    """
    count = len(transfer)
    alike = similarity(transfer)
    if count < 2:
        return Arrangement(np.arange(count, dtype=np.intp), np.zeros(count, dtype=np.intp), tuple(range(count)))
    # This import takes a second.
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
        # Rounding breaks ties in the same way on every machine.
        closeness = alike[np.ix_(inside, inside)].sum(axis=1).round(9)
        medoids.append(int(inside[np.argmax(closeness)]))
    return Arrangement(order, groups, tuple(medoids))


def group_names(arrangement: Arrangement, names: Sequence[str], tags: Sequence[str]) -> list[str]:
    """Name each group by the tag of most of its tasks, or by its most central task.

    Args:
        arrangement: Order and groups of the tasks.
        names: Names of the tasks (t).
        tags: Tags of each task, joined by spaces (t).
    """
    found = []
    for group, medoid in enumerate(arrangement.medoids):
        inside = np.flatnonzero(arrangement.groups == group)
        counts = Counter(tag for row in inside.tolist() for tag in set(tags[row].split()))
        tag, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
        found.append(tag if 2 * count > len(inside) else names[medoid])
    return found


def full_scale(transfer: Floats) -> float:
    """Return the full scale of the glyphs in nats: the 95 % quantile of the effects of tasks on other tasks.

    A few pairs often have many times the effect of the rest. At their scale, all other cells would look empty.
    """
    others = np.abs(transfer[~np.eye(len(transfer), dtype=bool)])
    others = others[np.isfinite(others)]
    if not others.size:
        return 0.0
    return float(np.quantile(others, _FULL_SCALE)) or float(others.max())


def share_beyond(transfer: Floats, scale: float) -> float:
    """Return the share of the pairs of different tasks with an effect larger than a scale, from 0 to 1."""
    others = np.abs(transfer[~np.eye(len(transfer), dtype=bool)])
    others = others[np.isfinite(others)]
    return float((others > scale).mean()) if others.size else 0.0
