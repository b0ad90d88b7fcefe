"""Measure fine-tuning runs and a pass of gradients in one process, and on a local Ray cluster of 1 and 2 workers.

    python benchmarks/ray_workers.py --work DIR --json ray_workers.json

The project is a copy of `sample_data/` with its trained adapter. Each place is a process of its own, which starts its
cluster. The time of the cluster's start is apart. Losses must equal those of one process in every bit.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measured import provenance, write_report

import curator
from curator.core.config import Config
from curator.workers import ray_cluster

SAMPLE = Path(__file__).parents[1] / "sample_data"
PLACES = (0, 1, 2)
"""Workers of each place. 0 is this process, without Ray."""
_HIDDEN = shutil.ignore_patterns(".curator", "curator-manifest.json")


def measure(base: Path, work: Path, workers: int, runs: int) -> dict[str, Any]:
    """Measure one place.

    Args:
        base: Project with a trained adapter and no gradients.
        work: Folder for a copy of the project.
        workers: Workers of the cluster. 0 for this process.
        runs: Number of fine-tuning runs.
    """
    folder = work / f"workers-{workers}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    start = 0.0
    if workers:
        ray_cluster._usable_cpus = lambda: workers
        ray_cluster.prepare("local")
        began = time.perf_counter()
        ray_cluster.connect("local")
        start = time.perf_counter() - began
    project = curator.Project.open(folder, ray="local" if workers else "")
    began = time.perf_counter()
    computed = project.gradients().computed
    gradients = time.perf_counter() - began
    project.select()
    began = time.perf_counter()
    report = project.verify(runs=runs, seeds=1)
    verify = time.perf_counter() - began
    return {
        "workers": workers,
        "seconds_start": round(start, 1),
        "gradients": computed,
        "seconds_gradients": round(gradients, 1),
        "runs": len(report.runs),
        "seconds_verify": round(verify, 1),
        "losses": [run.measured_loss for run in report.runs],
    }


def quadratic(folder: Path) -> Config:
    """Let a project compute gradients in a pass of their own, and return its configuration."""
    path = folder / "curator.toml"
    text = path.read_text(encoding="utf-8")
    if "[estimate]" in text:
        text = text.replace("[estimate]", '[estimate]\nmethod = "quadratic"', 1)
    else:
        text += '\n[estimate]\nmethod = "quadratic"\n'
    path.write_text(text, encoding="utf-8")
    return curator.Project.open(folder).config


def main() -> None:
    """Measure each place in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the projects")
    parser.add_argument("--runs", type=int, default=6, help="number of fine-tuning runs")
    parser.add_argument("--json", type=Path, help="file of results")
    parser.add_argument("--workers", type=int, help="measure one place, and print it")
    given = parser.parse_args()
    base = given.work / "base"
    if given.workers is not None:
        print(json.dumps(measure(base, given.work, given.workers, given.runs)))
        return
    if not (base / ".curator").exists():
        shutil.rmtree(base, ignore_errors=True)
        shutil.copytree(SAMPLE, base, ignore=_HIDDEN)
        quadratic(base)
        curator.Project.open(base).train()
    load = os.getloadavg()[0]
    found = []
    for workers in PLACES:
        run = [sys.executable, __file__, "--work", str(given.work), "--runs", str(given.runs)]
        done = subprocess.run([*run, "--workers", str(workers)], stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    equal = all(place["losses"] == found[0]["losses"] for place in found)
    report = {
        **provenance("python benchmarks/ray_workers.py --work DIR --json FILE"),
        "load_of_the_machine_before": round(load, 1),
        "losses_equal_in_every_bit": equal,
        "results": found,
    }
    if given.json is not None:
        write_report(given.json, report)
    else:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
