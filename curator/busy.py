"""Whether other programs have the cores that this one's threads count on.

Threads of one operation wait for each other: where one of them has no core of its own, all are many times slower.
"""

import os
import time

import psutil

# In seconds; the system counts in hundredths.
_TOO_SHORT = 0.3
# Of a core.
_MUCH = 0.5


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


def _taken() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system)
