"""Measure the speed of estimates, and compare with one logistic regression per subset.

    python benchmarks/estimates.py --json FILE [--work DIR] [--tasks 1700] [--dim 256] [--rows 10]

The script makes two projects with random gradients at three checkpoints (synthetic_project.py): one with `--tasks`
tasks, one with 100. It measures

    fill_s, first_load_s           computing and storing the sums of a new project, and reading them the first time
    load_s, bytes                  reading the sums again, and their size in memory
    seconds_1000_subsets_1700_tasks    estimates of 1,000 random halves of all tasks
    toggle_ms_1700, toggle_ms_100  median time of an estimate after one task is added or removed
    forward_100_tasks_s            forward selection until no task helps
    forward_every_step_s           forward selection that adds every task: 100 + 99 + … + 1 candidates
    speedup_over_sklearn           scikit-learn's time per subset and checkpoint, divided by curator's

scikit-learn is optional (`pip install "curator-tasks[peers]"`). Without it, the last value is null. For each subset,
scikit-learn fits a logistic regression to the projected gradients of the subset's examples, as the paper's official
code does. Labels are random signs, and the ridge is the same.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_project import make_project

from curator.estimate.estimator import TargetEstimator
from curator.estimate.loss_estimator import LossEstimator
from curator.estimate.points import fill_sums, read_points
from curator.estimate.target import TargetEstimates
from curator.gradients.stage import gradient_sets
from curator.project.project import Project
from curator.select.search import Constraints, select_forward
from curator.training.meta_init import find_meta_init

SUBSETS, AT_ONCE, TOGGLES, COMPARED = 1000, 256, 60, 5


def estimates_of(project: Project) -> TargetEstimates:
    """Return the estimates for the project's target, from stored gradients."""
    corpus = project.corpus(project.config.data.targets)
    meta = find_meta_init(project.workspace, corpus)
    assert meta is not None
    return TargetEstimates(project.workspace, corpus, meta)


def measure_statistics(project: Project) -> dict[str, Any]:
    """Measure the time to compute, store and read the sums of all tasks, and their size."""
    corpus = project.corpus(project.config.data.targets)
    meta = find_meta_init(project.workspace, corpus)
    assert meta is not None
    sets = gradient_sets(project.config, meta)
    begin = time.perf_counter()
    fill_sums(project.workspace, corpus, sets)
    times, size = [time.perf_counter()], 0
    for _ in range(2):
        points = read_points(project.workspace, corpus, sets)
        times.append(time.perf_counter())
        size = sum(point.sums.nbytes for point in points)
        del points
    return {
        "fill_s": round(times[0] - begin, 3),
        "first_load_s": round(times[1] - times[0], 3),
        "load_s": round(times[2] - times[1], 3),
        "bytes": size,
    }


def measure_subsets(estimator: LossEstimator, masks: np.ndarray) -> float:
    """Measure the seconds to estimate all subsets, 256 at a time.

    Args:
        estimator: The estimator.
        masks: Members of each subset, shape (subsets, tasks).
    """
    begin = time.perf_counter()
    for start in range(0, len(masks), AT_ONCE):
        estimator.validation_losses(masks[start : start + AT_ONCE])
    return time.perf_counter() - begin


def measure_toggle(estimator: LossEstimator, rng: np.random.Generator) -> float:
    """Measure the median milliseconds of an estimate after one task is added or removed."""
    mask = rng.random(estimator.task_count) < 0.5
    estimator.estimate(mask[None])
    times = []
    for task in rng.integers(0, estimator.task_count, TOGGLES):
        mask[task] ^= True
        begin = time.perf_counter()
        estimator.estimate(mask[None])
        times.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(times))


def measure_forward(estimator: LossEstimator) -> float:
    """Measure the seconds of a forward selection until no task helps."""
    ones = np.ones(estimator.task_count, dtype=np.int64)
    begin = time.perf_counter()
    select_forward(estimator, Constraints(tokens=ones, examples=ones, threshold=0.0))
    return time.perf_counter() - begin


def measure_every_step(estimator: LossEstimator) -> float:
    """Measure the seconds of a forward selection that adds every task, the best remaining task at each step."""
    mask = np.zeros(estimator.task_count, dtype=bool)
    begin = time.perf_counter()
    while (remaining := np.flatnonzero(~mask)).size:
        masks = mask | np.eye(len(mask), dtype=bool)[remaining]
        losses = estimator.validation_losses(masks) @ estimator.validation_weights
        mask[remaining[np.argmin(losses)]] = True
    return time.perf_counter() - begin


def measure_sklearn(estimator: LossEstimator, masks: np.ndarray, rng: np.random.Generator) -> float | None:
    """Measure scikit-learn's median seconds for one subset at one checkpoint, or return None without scikit-learn."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        return None
    assert isinstance(estimator, TargetEstimator)
    point = estimator._points[0]
    sets = point.read(range(estimator.task_count + 1))
    times = []
    for mask in masks[:COMPARED]:
        gradients = np.concatenate([s.gradients for s, member in zip(sets, [*mask, True], strict=True) if member])
        signs = rng.choice([-1.0, 1.0], len(gradients))
        model = LogisticRegression(C=1 / estimator.ridges[0], fit_intercept=False, max_iter=1000)
        begin = time.perf_counter()
        model.fit(gradients * signs[:, None], signs)
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def versions() -> dict[str, str | None]:
    """Return the versions of the compared packages, with None for a missing package."""
    found: dict[str, str | None] = {}
    for name in ("numpy", "duckdb", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def processor() -> str:
    """Return the processor's name if the system reports it, otherwise the machine's type."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keep the projects in DIR; default: a temporary folder"
    )
    parser.add_argument("--tasks", type=int, default=1700, help="tasks of the large project (default: 1700)")
    parser.add_argument("--dim", type=int, default=256, help="dimension of the projected gradients (default: 256)")
    parser.add_argument("--rows", type=int, default=10, help="rows of each task (default: 10)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        projects = []
        for tasks in (arguments.tasks, 100):
            root = (arguments.work or Path(temporary)) / f"estimates-{tasks}-{arguments.rows}-{arguments.dim}"
            if root.exists():
                projects.append(Project.open(root))
            else:
                projects.append(make_project(root, tasks, rows=arguments.rows, dim=arguments.dim))
        figures |= measure_statistics(projects[0])
        many = estimates_of(projects[0]).estimator
        masks = rng.random((SUBSETS, many.task_count)) < 0.5
        seconds = measure_subsets(many, masks)
        peer = measure_sklearn(many, masks, rng)
        own = seconds / SUBSETS / len(many.ridges)
        figures |= {
            "seconds_1000_subsets_1700_tasks": round(seconds, 3),
            "toggle_ms_1700": round(measure_toggle(many, rng), 3),
            "sklearn_seconds_per_subset": None if peer is None else round(peer, 4),
            "speedup_over_sklearn": None if peer is None else round(peer / own, 1),
        }
        del many
        few = estimates_of(projects[1]).estimator
        figures |= {
            "toggle_ms_100": round(measure_toggle(few, rng), 3),
            "forward_100_tasks_s": round(measure_forward(few), 3),
            "forward_every_step_s": round(measure_every_step(few), 3),
        }
    left_out = [] if peer is not None else ["speedup_over_sklearn: scikit-learn is not installed"]
    document = {
        "command": f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', os.cpu_count())} python benchmarks/estimates.py"
        f" --tasks {arguments.tasks} --dim {arguments.dim} --rows {arguments.rows}",
        "machine": f"{os.cpu_count()} × {processor()}, Python {platform.python_version()}",
        "versions": versions(),
        "tasks": arguments.tasks,
        "projection_dim": arguments.dim,
        "points": len(few.ridges),
        **figures,
        "left_out": left_out,
    }
    print(json.dumps(document, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
