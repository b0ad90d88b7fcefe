"""How often an example is trained on: the one rule by which `apply` trains and `export` writes."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def weighted(items: Sequence[T], weight: float, *, seed: str) -> list[T]:
    """Items as often as a weight says, in their order.

    Args:
        items: Training examples of a task (n).
        weight: 0.5 for half of them, 2 for all of them twice.
        seed: Decides which of them stand for what is left of a whole number; the task's name.

    Returns:
        round(weight · n) items; no two of them occur numbers of times that differ by more than one.
    """
    whole, more = divmod(round(weight * len(items)), max(len(items), 1))
    extra = set(random.Random(seed).sample(range(len(items)), more))
    return [item for number, item in enumerate(items) for _ in range(whole + (number in extra))]
