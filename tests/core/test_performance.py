"""Warnings about busy cores and slow half precision."""

import os
import subprocess
import sys
import time

import pytest
import torch

from curator.core.performance import OtherPrograms, _seconds, arithmetic, crowding, reasons


@pytest.mark.parametrize(
    ("others", "threads", "cores", "crowded"),
    [
        (0.0, 2, 2, False),
        (0.3, 2, 2, False),
        (1.0, 2, 2, True),
        (2.0, 1, 2, False),
        (1.0, 6, 8, False),
        (3.0, 6, 8, True),
    ],
)
def test_crowding_busy_cores_returns_warning(others: float, threads: int, cores: int, crowded: bool) -> None:
    words = crowding(others, threads, cores)
    assert (words is not None) == crowded
    assert words is None or f"{others:.1f} of {cores} cores" in words


def test_other_programs_cores_excludes_own_time() -> None:
    spin = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    other = subprocess.Popen([sys.executable, "-c", spin])
    try:
        seen = OtherPrograms()
        assert seen.cores() == 0.0
        time.sleep(1.0)
        # About one core, or less on a busy machine.
        assert seen.cores() > 0.4
        used, began = time.process_time(), time.monotonic()
        own = OtherPrograms()
        while time.monotonic() < began + 1.0:
            pass
        share = (time.process_time() - used) / (time.monotonic() - began)
        assert own.cores() <= 0.1 + (os.cpu_count() or 1) - share
    finally:
        other.kill()
        other.wait()


def test_arithmetic_slow_dtype_returns_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: 3.0, torch.float16: 20.0}
    with monkeypatch.context() as patched:
        patched.setattr("curator.core.performance._seconds", seconds.__getitem__)
        assert arithmetic(torch.float32) is None
        assert arithmetic(torch.bfloat16) is None
        words = arithmetic(torch.float16)
        assert words is not None
        assert words.startswith("this CPU takes 20 times as long in float16 as in float32")
        others = OtherPrograms()
        assert reasons(torch.device("cpu"), torch.float16, others) == [words]
        assert reasons(torch.device("cuda"), torch.float16, others) == []
    # Without the patch, durations are measured.
    assert _seconds(torch.bfloat16) > 0
