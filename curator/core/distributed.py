"""Several processes under `torchrun` or `accelerate launch`: who speaks, waiting for each other, collecting results.

In a single process, which is the usual case, all of this costs nothing and imports nothing.
"""

import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process reads new data, writes to the store and speaks."""
    return rank() == 0


def wait() -> None:
    """Return when every process has come here."""
    if world_size() > 1:
        _join().wait_for_everyone()


def gather(value: list[T]) -> list[T]:
    """Lists of all processes, joined in the order of their ranks."""
    if world_size() == 1:
        return value
    from accelerate.utils import gather_object

    _join()
    return list(gather_object(value))


def from_main(value: T) -> T:
    """The main process's value, in every process."""
    if world_size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    _join()
    box = [value]
    broadcast_object_list(box)
    return box[0]


def _join() -> "PartialState":
    import torch
    from accelerate import PartialState

    # Unless told, it takes a machine without a GPU for one with a single process.
    return PartialState(cpu=not torch.cuda.is_available())
