"""Why this machine is slower than it could be, where people can mend that.

Threads of one operation wait for each other: where one of them has no core of its own, all are many times slower. And
a CPU without arithmetic for half precision takes many times as long in it as in float32.
"""

import os
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

# In seconds; the system counts in hundredths.
_TOO_SHORT = 0.3
# Of a core.
_MUCH = 0.5
# Times as long as in float32.
_SLOW = 4.0


class OtherPrograms:
    """What other programs take of this machine's cores from now on."""

    def __init__(self) -> None:
        self._began, self._taken, self._own = time.monotonic(), _taken(), time.process_time()

    def cores(self) -> float:
        """Cores that others kept busy on average; 0 where too little time went by to tell."""
        seconds = time.monotonic() - self._began
        if seconds < _TOO_SHORT:
            return 0.0
        return max(_taken() - self._taken - (time.process_time() - self._own), 0.0) / seconds


def reasons(device: "torch.device", dtype: "torch.dtype", others: OtherPrograms) -> list[str]:
    """What to tell people whose model computes on a device in a dtype, beside other programs."""
    import torch

    if device.type != "cpu":
        return []
    return [words for words in (crowding(others.cores(), torch.get_num_threads()), arithmetic(dtype)) if words]


def crowding(others: float, threads: int, cores: int | None = None) -> str | None:
    """What to tell people about threads that have no cores of their own, if there are such.

    Args:
        others: Cores that other programs keep busy.
        threads: Threads that one operation of this program uses.
        cores: Of this machine; found out by default.
    """
    cores = cores or os.cpu_count() or 1
    if threads == 1 or others + threads < cores + _MUCH:
        return None
    return (
        f"other programs keep {others:.1f} of {cores} cores busy, and {threads} threads wait for each other: "
        "with OMP_NUM_THREADS=1 this may be many times faster"
    )


def arithmetic(dtype: "torch.dtype") -> str | None:
    """What to tell people about a dtype that this CPU is slow in, if it is."""
    import torch

    if dtype == torch.float32:
        return None
    ratio = _seconds(dtype) / _seconds(torch.float32)
    if ratio < _SLOW:
        return None
    return (
        f"this CPU takes {ratio:.0f} times as long in {str(dtype).removeprefix('torch.')} as in float32: "
        'set dtype = "float32" under [model]'
    )


def _seconds(dtype: "torch.dtype") -> float:
    """Of a small product of matrices, forward and back: the least of some tries."""
    import torch

    rows, square = torch.ones(32, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        rows @ square.T @ square
        times.append(time.perf_counter() - began)
    return min(times)


def _taken() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system)
