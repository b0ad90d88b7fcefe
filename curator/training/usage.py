"""Measure the largest memory of a fine-tuning run, and name the machine that runs it."""

import contextlib
import os
import platform
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def machine_name(device: "torch.device") -> str:
    """Return the GPU, or the processor with its number of cores."""
    if device.type == "cuda":
        import torch

        return str(torch.cuda.get_device_name(device))
    return f"{platform.system()} {platform.machine()}, {os.cpu_count() or 1} cores, {device.type}"


class PeakMemory:
    """Measure the largest memory from the creation of this object on.

    Args:
        device: Device of the model. On a GPU, the memory is that of the GPU. Else it is that of the process.
    """

    def __init__(self, device: "torch.device") -> None:
        self._device = device
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            return
        # Linux: sets the recorded peak of this process to its present size. Otherwise the peak covers its whole life.
        with contextlib.suppress(OSError):
            _RESET.write_text("5")

    def read(self) -> int:
        """Return the largest memory in bytes."""
        if self._device.type == "cuda":
            import torch

            return int(torch.cuda.max_memory_allocated(self._device))
        try:
            lines = _STATUS.read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
        except (OSError, StopIteration, ValueError, IndexError):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else 1024 * peak
