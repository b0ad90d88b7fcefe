"""How busy the machine is. Knows no Textual."""

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_GB = 2**30
_MB = 2**20
_SMI_SECONDS = 2.0
# A driver that did not answer is not asked at every reading: each question may take the whole time-out.
_SMI_PAUSE = 60.0
_SMI_QUERY = ("--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator. A GB is 2^30 bytes."""

    name: str
    percent: float
    """Share of the time since the last reading in which it computed."""
    used_gb: float
    total_gb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One reading. A GB is 2^30 bytes, a MB 2^20."""

    cpu: float
    """Percent of all cores together, since the last reading."""
    memory_used_gb: float
    memory_total_gb: float
    disk_mb_s: float
    """Read and written by all disks, in MB per second since the last reading, or since the reader was made."""
    disk_free_gb: float
    """On the disk that the project is on."""
    gpus: tuple[Gpu, ...]


class MachineReader:
    """Reads the machine; may take seconds where the graphics driver is slow, so do it in a thread.

    Args:
        path: A file or folder on the disk whose free space is wanted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._smi = shutil.which("nvidia-smi")
        self._ask_from = 0.0
        self._moment, self._moved = time.monotonic(), _moved_bytes()
        # The first answer covers the time since the last question.
        psutil.cpu_percent(interval=None)

    def read(self) -> Machine:
        """How busy the machine has been since the last call."""
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
        if self._smi is None or time.monotonic() < self._ask_from:
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
            self._ask_from = time.monotonic() + _SMI_PAUSE
            return ()


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Read what nvidia-smi prints: percent, MiB used and MiB in all, one line for each GPU.

    Raises:
        ValueError: It is something else.
    """
    gpus = []
    for number, line in enumerate(text.strip().splitlines()):
        percent, used, total = (float(word) for word in line.split(","))
        gpus.append(Gpu(name=f"gpu{number}", percent=percent, used_gb=used / 1024, total_gb=total / 1024))
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
