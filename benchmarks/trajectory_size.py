"""Measure time and memory of the trajectory's estimates at the size of FLAN: 1,700 tasks of 100 examples.

    python benchmarks/trajectory_size.py --json trajectory_size.json

The sums are random, of the sizes that the defaults give: four segments, 2,048 dimensions, a basis of 64 directions,
and 300 validation examples. A process of its own measures each number of tasks. "What-if" is the estimate after one
toggle. Times are medians of CPU time and of elapsed time.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from measured import provenance, write_report

from curator.estimate.task_sums import ExampleSet
from curator.estimate.trajectory import Segment, Trajectory, TrajectoryEstimator

SEGMENTS, DIM, RANK, VALIDATION, EXAMPLES = 4, 2048, 64, 300, 100
TASKS = (100, 1700)
_TOGGLES, _REPETITIONS, _SUBSETS = 30, 3, 1000


def make_trajectory(tasks: int) -> Trajectory:
    """Return a trajectory of random sums, of which the target is the last task."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((DIM, RANK)))[0]
    rows, columns = np.triu_indices(RANK)
    segments = []
    for number in range(SEGMENTS):
        within = rng.standard_normal((tasks + 1, RANK)).astype(np.float32)
        sums = (within @ basis.T.astype(np.float32)) + 0.1 * rng.standard_normal((tasks + 1, DIM), dtype=np.float32)
        segments.append(
            Segment(
                share=(number + 1) / SEGMENTS,
                step=1e-3 / tasks,
                weights=np.full(tasks + 1, 5.0 * EXAMPLES),
                examples=np.full(tasks + 1, EXAMPLES),
                gradient_sums=sums,
                curvatures=(within[:, rows] * within[:, columns]).astype(np.float32),
                rest=np.full(tasks + 1, 0.1),
                validation=ExampleSet(
                    losses=rng.uniform(0.5, 2, VALIDATION),
                    gradients=rng.standard_normal((VALIDATION, DIM)),
                    weights=np.full(VALIDATION, 1 / VALIDATION),
                ),
                moved=-(1e-3 / tasks) * sums.sum(axis=0),
                read=lambda _: [],
            )
        )
    return Trajectory(basis, segments)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the elapsed and the CPU time of a call, seconds."""
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - cpu


def measure(tasks: int) -> dict[str, Any]:
    """Measure one number of tasks in this process."""
    process = psutil.Process()
    empty = process.memory_info().rss
    trajectory = make_trajectory(tasks)
    made = time.perf_counter()
    estimator = TrajectoryEstimator(trajectory, np.ones(VALIDATION))
    made = time.perf_counter() - made
    rng = np.random.default_rng(1)
    mask = rng.random(tasks) < 0.5
    estimator.estimate(mask[None])
    toggles = []
    for _ in range(_TOGGLES):
        mask[rng.integers(tasks)] ^= True
        toggles.append(timed(lambda: estimator.validation_losses(mask[None])))
    many = rng.random((_SUBSETS, tasks)) < 0.5
    subsets = [timed(lambda: estimator.validation_losses(many)) for _ in range(_REPETITIONS)]
    gains = [timed(lambda: estimator.task_gains(mask)) for _ in range(_REPETITIONS)]
    return {
        "tasks": tasks,
        "seconds_to_build": round(made, 2),
        "what_if_ms": round(1000 * median(t[0] for t in toggles), 2),
        "what_if_cpu_ms": round(1000 * median(t[1] for t in toggles), 2),
        "seconds_1000_subsets": round(median(t[0] for t in subsets), 2),
        "cpu_seconds_1000_subsets": round(median(t[1] for t in subsets), 2),
        "all_gains_ms": round(1000 * median(t[0] for t in gains), 1),
        "resident_mb": round(process.memory_info().rss / 1e6),
        "resident_before_mb": round(empty / 1e6),
    }


def main() -> None:
    """Measure each number of tasks in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file of results")
    parser.add_argument("--tasks", type=int, help="measure one number of tasks, and print it")
    given = parser.parse_args()
    if given.tasks is not None:
        print(json.dumps(measure(given.tasks)))
        return
    found = []
    for tasks in TASKS:
        run = [sys.executable, __file__, "--tasks", str(tasks)]
        found.append(json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout))
    report = {**provenance("python benchmarks/trajectory_size.py --json FILE"), "results": found}
    if given.json is not None:
        write_report(given.json, report)
    else:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
