"""Repeat examples by task weight. `curator apply` and `curator export` share this rule."""

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def counts_of(tasks: Mapping[str, tuple[float, int]]) -> dict[str, int]:
    """Return the number of training examples of each task by the largest-remainder method.

    Args:
        tasks: (weight, number of examples) by task name.

    Returns:
        Count by task name. Each count is `weight * examples`, rounded down or up. The counts sum to the rounded total.
        The order of the tasks does not matter.
    """
    quotas = {name: weight * size for name, (weight, size) in tasks.items()}
    counts = {name: int(quota + 1e-9) for name, quota in quotas.items()}
    missing = round(sum(quotas.values())) - sum(counts.values())
    by_remainder = sorted(quotas, key=lambda name: (round(counts[name] - quotas[name], 9), name))
    for name in by_remainder[: max(missing, 0)]:
        counts[name] += 1
    return counts


def repeated(items: Sequence[T], count: int, *, seed: str) -> list[T]:
    """Repeat or drop items until `count` items remain, in their order.

    Args:
        items: Training examples of a task (n).
        count: Number of items to return.
        seed: Seed of the draw of items that occur once more than others. Callers pass the task's name.

    Returns:
        List (count,). The numbers of times that two items occur differ by at most one.
    """
    whole, more = divmod(count, max(len(items), 1))
    extra = set(random.Random(seed).sample(range(len(items)), more))  # noqa: S311 - a reproducible draw, not a secret
    return [item for number, item in enumerate(items) for _ in range(whole + (number in extra))]
