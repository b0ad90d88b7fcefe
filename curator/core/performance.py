"""Detect two causes of slow computation that users can fix: busy cores and slow half precision.

Threads of one operation wait for each other. If other programs occupy the core of one thread, all threads are many
times slower. A CPU without half-precision arithmetic is many times slower in half precision than in float32.
"""

import os
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

# Minimum duration of a measurement in seconds. The system counts CPU time in hundredths of a second.
_TOO_SHORT = 0.3
# Number of cores by which threads and other programs must exceed the machine's cores.
_MUCH = 0.5
# Smallest ratio to the time in float32 that is reported.
_SLOW = 4.0


class OtherPrograms:
    """Measure how many cores other programs use, from the creation of this object on."""

    def __init__(self) -> None:
        self._began, self._taken, self._own = time.monotonic(), _taken(), time.process_time()

    def cores(self) -> float:
        """Return the mean number of cores that other programs used. 0 if too little time has passed."""
        seconds = time.monotonic() - self._began
        if seconds < _TOO_SHORT:
            return 0.0
        return max(_taken() - self._taken - (time.process_time() - self._own), 0.0) / seconds


def reasons(device: "torch.device", dtype: "torch.dtype", others: OtherPrograms) -> list[str]:
    """Return a warning for each cause of slow computation.

    Args:
        device: Device of the model.
        dtype: Dtype of the model.
        others: Measurement of other programs.
    """
    import torch

    if device.type != "cpu":
        return []
    return [words for words in (crowding(others.cores(), torch.get_num_threads()), arithmetic(dtype)) if words]


def crowding(others: float, threads: int, cores: int | None = None) -> str | None:
    """Return a warning if too few cores are free for the threads of this program, else None.

    Args:
        others: Number of cores that other programs use.
        threads: Number of threads that one operation of this program uses.
        cores: Number of cores of this machine. None detects the number.
    """
    cores = cores or os.cpu_count() or 1
    if threads == 1 or others + threads < cores + _MUCH:
        return None
    return (
        f"other programs use {others:.1f} of {cores} cores, so {threads} threads wait for each other. "
        "Set OMP_NUM_THREADS=1: curator may be many times faster."
    )


def arithmetic(dtype: "torch.dtype") -> str | None:
    """Return a warning if this CPU is slow in a dtype, else None."""
    import torch

    if dtype == torch.float32:
        return None
    ratio = _seconds(dtype) / _seconds(torch.float32)
    if ratio < _SLOW:
        return None
    return (
        f"this CPU takes {ratio:.0f} times as long in {str(dtype).removeprefix('torch.')} as in float32. "
        'Set dtype = "float32" under [model].'
    )


def _seconds(dtype: "torch.dtype") -> float:
    """Return the shortest of 20 durations of a small matrix product, forward and backward."""
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
