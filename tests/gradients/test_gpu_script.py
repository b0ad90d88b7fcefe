"""The rehearsal of benchmarks/gpu.py on the CPU, which shows that the script runs. It measures no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the folder benchmarks is missing in an sdist")
def test_gpu_script_rehearsal_on_the_cpu_passes_its_checks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--device", "cpu", "--json", str(tmp_path / "gpu.json")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["passed"] is report["rehearsal"] is True
    assert set(report["parts"]) == {"float32", "bfloat16", "capture", "passes"}
    assert set(report["left_out"]) == {"4bit", "8bit", "device-map"}
    assert report["parts"]["float32"]["largest_relative_error"] < 1e-5
    assert report["parts"]["capture"]["time_ratio"] > 0


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the folder benchmarks is missing in an sdist")
def test_gpu_script_after_its_time_leaves_out_every_part(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--minutes", "0", "--json", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["parts"] == {}
    assert set(report["left_out"].values()) == {"the time is up"}
