"""Coordinate several processes under `torchrun` or `accelerate launch`.

In a single process, the usual case, these functions return at once and import nothing.
"""

import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Return whether this process reads new data, writes to the store and reports progress."""
    return rank() == 0


def wait() -> None:
    """Wait until every process has called this function."""
    if world_size() > 1:
        join().wait_for_everyone()


def gather(value: list[T]) -> list[T]:
    """Return the lists of all processes, joined in the order of the ranks."""
    if world_size() == 1:
        return value
    from accelerate.utils import gather_object

    join()
    return list(gather_object(value))


def from_main(value: T) -> T:
    """Return the main process's value in every process."""
    if world_size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    join()
    box = [value]
    broadcast_object_list(box)
    return box[0]


def join() -> "PartialState":
    """Connect this process with the others, unless it is connected. Every process calls it."""
    import torch
    from accelerate import PartialState

    # On a machine without a GPU, `PartialState` assumes a single process unless `cpu` is set.
    return PartialState(cpu=not torch.cuda.is_available())
