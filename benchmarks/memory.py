"""Measure the memory of a process that answers what-if questions, at the size of FLAN: 1,700 tasks of 100 examples.

    python benchmarks/memory.py --work DIR --json FILE

The script makes a project of random gradients in DIR for each method (synthetic_project.py). A process of its own then
opens the project. It makes one estimate, ten toggles, the gains of all tasks and 20 flips. After each, it notes the
resident memory, the peak of this memory, and the CPU time so far.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measured import provenance, write_report

from curator.core.allocation import return_large_blocks
from curator.estimate.whatif import estimate_selection, flips
from curator.project.project import Project

METHODS = ("trajectory", "quadratic")


def measure(folder: Path) -> list[dict[str, Any]]:
    """Open a project and ask it questions. Return what each step took."""
    return_large_blocks()
    process, found = psutil.Process(), list[dict[str, Any]]()

    def note(step: str) -> None:
        found.append(
            {
                "step": step,
                "resident_mb": round(process.memory_info().rss / 1e6),
                "peak_mb": round(_peak() / 1e6),
                "cpu_seconds": round(time.process_time(), 1),
            }
        )

    note("start")
    project = Project.open(folder)
    estimates = project.estimates(project.config.data.targets)
    note("project")
    estimator = estimates.estimator
    mask = np.arange(len(estimates.tasks)) % 2 == 0
    estimator.estimate(mask[None])
    note("first estimate")
    for task in range(10):
        mask[task] ^= True
        estimator.estimate(mask[None])
    note("ten toggles")
    estimator.task_gains(mask)
    note("gains of all tasks")
    current = estimate_selection(estimator, mask)
    for task in range(20):
        flips(estimator, current, np.array([task]))
    note("20 flips")
    return found


def _peak() -> int:
    """Return the largest resident memory of this process so far, bytes. `getrusage` would include its parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    """Make the projects that are missing, and measure each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the projects")
    parser.add_argument("--json", type=Path, help="file of results")
    parser.add_argument("--tasks", type=int, default=1700, help="number of tasks (default: 1700)")
    parser.add_argument("--rows", type=int, default=100, help="rows of each task (default: 100)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="methods of estimates")
    parser.add_argument("--open", type=Path, help="measure one project, and print the result")
    given = parser.parse_args()
    if given.open is not None:
        print(json.dumps(measure(given.open)))
        return
    found = {}
    for method in given.methods:
        folder = given.work / f"{method}-{given.tasks}-{given.rows}"
        if not (folder / "curator.toml").exists():
            # Its libraries would stay in the memory of the process that is measured.
            from synthetic_project import make_project

            make_project(folder, given.tasks, rows=given.rows, method=method)
        run = [sys.executable, __file__, "--work", str(given.work), "--open", str(folder)]
        found[method] = json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
        print(method, found[method][-1], flush=True)
    report = {
        **provenance("python benchmarks/memory.py --work DIR --json FILE"),
        "tasks": given.tasks,
        "rows": given.rows,
        "methods": found,
    }
    if given.json is not None:
        write_report(given.json, report)


if __name__ == "__main__":
    main()
