"""Run parts of a stage on the GPUs of this machine, with one process for each GPU."""

import os
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, context
from typing import Any

from curator.core.errors import DataError
from curator.core.events import Event
from curator.workers.pool import BENCH, Ended, Failed, Follow, Work

TRIES = 3
"""Number of times that a part is started before its worker counts as broken."""
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_Message = tuple[str, Any]


def local_gpus() -> list[str]:
    """Return the names of this machine's CUDA devices, as `CUDA_VISIBLE_DEVICES` lists them."""
    import torch

    # Counting does not start CUDA in this process.
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    return (named or [str(number) for number in range(count)])[:count]


@dataclass(slots=True)
class _Worker:
    device: str
    process: Any
    pipe: Any
    number: int | None = None


class GpuPool:
    """Run parts in one process for each device.

    Args:
        devices: Values of `CUDA_VISIBLE_DEVICES`, one for each process. Empty values hide all GPUs.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = list(devices)

    @property
    def size(self) -> int:
        """Return the number of processes."""
        return len(self._devices)

    def run(self, work: Work, parts: Sequence[Any], follow: Follow) -> Ended:
        """Do all parts, as `Pool.run` says."""
        away = work.without_store()
        waiting, tries = deque(range(len(parts))), [0] * len(parts)
        workers = [_started(device, away) for device in self._devices[: len(parts)]]
        left = len(parts)
        try:
            while left:
                for worker in workers:
                    if worker.number is None and waiting:
                        worker.number = waiting.popleft()
                        tries[worker.number] += 1
                        worker.pipe.send((worker.number, parts[worker.number]))
                for pipe in connection.wait([worker.pipe for worker in workers if worker.number is not None]):
                    worker = next(worker for worker in workers if worker.pipe is pipe)
                    number = worker.number
                    assert number is not None
                    try:
                        kind, value = worker.pipe.recv()
                    except (EOFError, OSError):
                        worker.process.join()
                        if tries[number] == TRIES:
                            raise DataError(
                                f"a worker process died {TRIES} times, the last time with {worker.process.exitcode}",
                                hint="Check the memory of the machine. Run the same command again to resume.",
                            ) from None
                        workers[workers.index(worker)] = _started(worker.device, away)
                        waiting.appendleft(number)
                        continue
                    if kind == "event":
                        follow(number, value)
                        continue
                    if isinstance(value, Failed):
                        raise value.error
                    if kind == "bug":
                        raise RuntimeError(f"a worker process failed:\n{value}")
                    worker.number, left = None, left - 1
                    yield number, value
        finally:
            for worker in workers:
                worker.process.kill()
            for worker in workers:
                worker.process.join()
                worker.pipe.close()


def _started(device: str, work: Work) -> _Worker:
    # A fork would copy the threads' locks of torch.
    spawn = context.SpawnContext()
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, kwargs={"pipe": theirs, "device": device}, daemon=True)
    process.start()
    theirs.close()
    ours.send(work)
    return _Worker(device, process, ours)


def serve(*, pipe: Any, device: str) -> None:
    """Do parts until the other end closes the pipe. The process of a worker runs this function.

    Args:
        pipe: Brings the work, then numbered parts, and takes events and results.
        device: Value of `CUDA_VISIBLE_DEVICES`.
    """
    import traceback

    # CUDA reads the variable when the model loads. Ctrl-C goes to the process that started this one.
    os.environ[_VISIBLE] = device
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work: Work = pipe.recv()

    def report(event: Event) -> None:
        pipe.send(("event", event))

    while True:
        try:
            _, part = pipe.recv()
            found = "result", BENCH.perform(work.key, lambda: work, part, report)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            # The process that started this one has ended.
            return
        except Exception:
            found = "bug", traceback.format_exc()
        with suppress(BrokenPipeError, ConnectionResetError):
            pipe.send(found)
