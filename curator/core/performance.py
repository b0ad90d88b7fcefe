"""Use the cores of a shared machine well, and find half precision that is slow.

Threads of one operation wait for each other. By default torch's threads spin while they wait. Two programs on the same
cores then slow each other down many times. `wait_passively` lets threads sleep instead. `try_threads` measures a step
with several numbers of threads, and `best_count` picks one.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Variables by which a user decides how threads wait. The first one is part of the OpenMP standard.
_WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
# Variables by which a user decides the number of threads.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")
# Rounds of a trial, and the time in seconds after which no further round starts.
_ROUNDS, _LONGEST = 5, 2.0
# A number of threads this many times slower than the best one ends the first round.
_HOPELESS = 1.5
# Fewer threads win if a step takes at most this many times as long, because they leave cores to other programs.
_AS_GOOD = 1.1
# Smallest ratio to the time in float32 that is reported.
_SLOW = 4.0


def wait_passively() -> None:
    """Let threads of OpenMP sleep while they wait, unless the user sets a policy.

    OpenMP reads the policy once, when torch loads. A later call has an effect on child processes only.
    """
    if not any(name in os.environ for name in _WAIT_VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def user_sets_threads() -> bool:
    """Return whether the environment decides the number of threads, by the user or by a launcher."""
    return any(os.environ.get(name) for name in _THREAD_VARIABLES)


def thread_counts(most: int) -> list[int]:
    """Return the numbers of threads to try: the largest, then half of the previous number down to 1."""
    counts = [most]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return counts


def try_threads(
    step: Callable[[], object], counts: Sequence[int], use: Callable[[int], object], *, longest: float = _LONGEST
) -> dict[int, float]:
    """Measure a step with several numbers of threads, in turns. A change of the load then affects all of them.

    Args:
        step: Does one step and waits for its end.
        counts: Numbers of threads, the largest first. Smaller numbers are left out once they are much slower.
        use: Sets the number of threads.
        longest: Time in seconds after which no further round starts.

    Returns:
        Median duration of a step in seconds, by number of threads. The last number in use is arbitrary.
    """
    use(counts[0])
    # The first step allocates memory and compiles kernels.
    step()
    began, tried = time.perf_counter(), list(counts)
    durations: dict[int, list[float]] = {}
    for turn in range(_ROUNDS):
        for count in tried:
            use(count)
            start = time.perf_counter()
            step()
            durations.setdefault(count, []).append(time.perf_counter() - start)
            best = min(min(taken) for taken in durations.values())
            if turn == 0 and durations[count][0] > _HOPELESS * best:
                break
        tried = list(durations)
        if time.perf_counter() - began > longest:
            break
    return {count: median(taken) for count, taken in durations.items()}


def best_count(seconds: Mapping[int, float]) -> int:
    """Return the smallest number of threads whose step is about as fast as the fastest.

    Args:
        seconds: Duration of a step by number of threads.
    """
    fastest = min(seconds.values())
    return min(count for count, taken in seconds.items() if taken <= _AS_GOOD * fastest)


def describe_trial(seconds: Mapping[int, float], chosen: int) -> str:
    """Return one line about a trial of threads."""
    tried = ", ".join(f"{1000 * taken:,.0f} ms with {count}" for count, taken in sorted(seconds.items()))
    return f"threads: {chosen} of {max(seconds)} (a training step takes {tried}). Set OMP_NUM_THREADS to decide."


def slow_arithmetic(device: "torch.device", dtype: "torch.dtype") -> str | None:
    """Return a warning if the device is a CPU that is slow in a dtype, else None."""
    import torch

    if device.type != "cpu" or dtype == torch.float32:
        return None
    ratio = _seconds(dtype) / _seconds(torch.float32)
    if ratio < _SLOW:
        return None
    return (
        f"this CPU takes {ratio:.0f} times as long in {str(dtype).removeprefix('torch.')} as in float32. "
        'Set dtype = "float32" under [model].'
    )


def peak_bytes() -> int:
    """Return the largest memory that this process has used, in bytes: of its CUDA device, else main memory."""
    import resource
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    # On Linux, the system's count includes the program that started this one.
    with suppress(OSError, LookupError, ValueError):
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
        return int(status["VmHWM"].split()[0]) * 1024
    # macOS counts bytes, Linux counts kibibytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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
