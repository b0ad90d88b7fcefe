"""Load of the machine: processor, memory, disk and GPUs."""

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_GB, _MB, _MIB = 1e9, 1e6, 2**20
_SMI_SECONDS = 2.0
# In seconds. A driver that did not answer is queried less often, because each query may take the whole time-out.
_SMI_PAUSE = 60.0
_SMI_QUERY = ("--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU. A GB is 10^9 bytes."""

    name: str
    percent: float
    """Utilization since the last reading, 0 to 100."""
    used_gb: float
    total_gb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One reading of the load. A GB is 10^9 bytes, a MB is 10^6 bytes."""

    cpu: float
    """Utilization of all cores together since the last reading, 0 to 100."""
    memory_used_gb: float
    memory_total_gb: float
    disk_mb_s: float
    """Reads and writes of all disks since the last reading, in MB per second."""
    disk_free_gb: float
    """Free space on the disk of the project."""
    gpus: tuple[Gpu, ...]


class MachineReader:
    """Reads the load of the machine. A slow graphics driver may take seconds, so use a thread.

    Args:
        path: File or folder on the disk whose free space is read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._smi = shutil.which("nvidia-smi")
        self._query_from = 0.0
        self._moment, self._moved = time.monotonic(), _moved_bytes()
        # The first reading covers the time since this call.
        psutil.cpu_percent(interval=None)

    def read(self) -> Machine:
        """Read the load since the last call."""
        memory = psutil.virtual_memory()
        moment, moved = time.monotonic(), _moved_bytes()
        seconds = max(moment - self._moment, 1e-3)
        rate = max(moved - self._moved, 0) / seconds
        self._moment, self._moved = moment, moved
        return Machine(
            cpu=psutil.cpu_percent(interval=None),
            memory_used_gb=(memory.total - memory.available) / _GB,
            memory_total_gb=memory.total / _GB,
            disk_mb_s=rate / _MB,
            disk_free_gb=_free_bytes(self._path) / _GB,
            gpus=self._gpus(),
        )

    def _gpus(self) -> tuple[Gpu, ...]:
        if self._smi is None or time.monotonic() < self._query_from:
            return ()
        try:
            done = subprocess.run(  # noqa: S603 - starts nvidia-smi, from a list of constant words
                [self._smi, *_SMI_QUERY],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SMI_SECONDS,
                check=True,
            )
            return parse_gpus(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            self._query_from = time.monotonic() + _SMI_PAUSE
            return ()


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Parse the output of nvidia-smi: percent, MiB used and MiB in total, one line for each GPU.

    Raises:
        ValueError: A line does not consist of three numbers.
    """
    gpus = []
    for number, line in enumerate(text.strip().splitlines()):
        percent, used, total = (float(word) for word in line.split(","))
        gpus.append(Gpu(name=f"gpu{number}", percent=percent, used_gb=used * _MIB / _GB, total_gb=total * _MIB / _GB))
    return tuple(gpus)


def _moved_bytes() -> int:
    try:
        counters = psutil.disk_io_counters()
    except (OSError, RuntimeError, NotImplementedError):
        return 0
    return 0 if counters is None else counters.read_bytes + counters.write_bytes


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0
