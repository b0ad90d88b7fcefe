"""The memory of freed arrays."""

import subprocess
import sys

import pytest

_STORY = """
import numpy as np
import psutil
from curator.core.allocation import return_large_blocks
assert return_large_blocks()
np.ones(24 * 2**17)
before = psutil.Process().memory_info().rss
kept = []
for _ in range(8):
    kept.append((np.ones(8 * 2**17), np.ones(1000)))
blocks = [small for _, small in kept]
del kept
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_return_large_blocks_freed_arrays_leave_the_process() -> None:
    """Small arrays between large ones would otherwise keep the large ones in memory."""
    done = subprocess.run([sys.executable, "-P", "-c", _STORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 * 2**20, "one of eight arrays of 8 MiB"
