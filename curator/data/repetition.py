"""How often an example is trained on: the one rule by which `apply` trains and `export` writes."""

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def counts_of(tasks: Mapping[str, tuple[float, int]]) -> dict[str, int]:
    """How many examples of each task are trained on, by the largest remainder.

    Args:
        tasks: Weight and number of examples, by the task's name.

    Returns:
        Whole numbers that sum to the rounded sum of all weights times examples, each its own rounded down or up. The
        order of the tasks does not matter.
    """
    quotas = {name: weight * size for name, (weight, size) in tasks.items()}
    counts = {name: int(quota + 1e-9) for name, quota in quotas.items()}
    missing = round(sum(quotas.values())) - sum(counts.values())
    by_remainder = sorted(quotas, key=lambda name: (round(counts[name] - quotas[name], 9), name))
    for name in by_remainder[: max(missing, 0)]:
        counts[name] += 1
    return counts


def repeated(items: Sequence[T], count: int, *, seed: str) -> list[T]:
    """Items as often as makes `count` of them, in their order.

    Args:
        items: Training examples of a task (n).
        count: How many there are to be.
        seed: Decides which of them stand for what is left of a whole number; the task's name.

    Returns:
        No two items occur numbers of times that differ by more than one.
    """
    whole, more = divmod(count, max(len(items), 1))
    extra = set(random.Random(seed).sample(range(len(items)), more))  # noqa: S311 - a reproducible draw, not a secret
    return [item for number, item in enumerate(items) for _ in range(whole + (number in extra))]
