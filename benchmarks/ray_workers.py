"""Measure encoding, gradients and fine-tuning runs in one process, and on a local Ray cluster of 1 and 2 workers.

    python benchmarks/ray_workers.py [--small] --work DIR --json ray_workers.json

The project is a copy of `sample_data/` with its trained adapter. Another copy has a task of many more rows to encode.
Each place is a process of its own, which starts its cluster. The time of the cluster's start is apart. CPU time covers
the process, the cluster and its workers, so it also says what a start of a worker costs. Losses, gradients and tokens
must equal those of one process in every bit.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import psutil
from measured import provenance, write_report

import curator
from curator.core.provenance import hash_of
from curator.project.toml_text import toml_of
from curator.workers import ray_cluster

SAMPLE = Path(__file__).parents[1] / "sample_data"
PLACES = (0, 1, 2)
"""Workers of each place. 0 is this process, without Ray."""
ROWS = 16_000
"""Rows of the large task, of about 280 characters."""
EQUAL = ("tokens", "gradients", "loss", "losses")
"""What must be equal in all places."""
_HIDDEN = shutil.ignore_patterns(".curator", "curator-manifest.json")


class Clock(threading.Thread):
    """Add up the CPU time of this process and all processes that it starts, while they live."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seen: dict[tuple[int, float], float] = {}
        self._own = psutil.Process()
        self.start()

    def run(self) -> None:
        while True:
            self.look()
            time.sleep(0.25)

    def look(self) -> float:
        """Return the CPU seconds until now. Those of a process since its last look are lost when it ends."""
        for process in [self._own, *self._own.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                took = process.cpu_times()
                self._seen[process.pid, process.create_time()] = took.user + took.system
        return sum(self._seen.copy().values())


def measure(base: Path, work: Path, workers: int, runs: int) -> dict[str, Any]:
    """Measure one place.

    Args:
        base: Project with a trained adapter and no gradients.
        work: Folder for copies of the project.
        workers: Workers of the cluster. 0 for this process.
        runs: Number of fine-tuning runs.
    """
    clock, found, begun = Clock(), dict[str, Any](workers=workers), [0.0, 0.0]

    def lap(name: str) -> None:
        now = [time.perf_counter(), clock.look()]
        if name:
            found[f"seconds_{name}"], found[f"cpu_seconds_{name}"] = (
                round(b - a, 1) for a, b in zip(begun, now, strict=True)
            )
        begun[:] = now

    folder, large = work / f"workers-{workers}", work / f"large-{workers}"
    for place in (folder, large):
        shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base, folder)
    shutil.copytree(base, large, ignore=_HIDDEN)
    with (large / "tasks" / "large.jsonl").open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            words = " ".join(str(number * turn % 9973) for turn in range(1, 61))
            file.write(json.dumps({"prompt": words[:150], "completion": words[150:]}) + "\n")
    lap("")
    if workers:
        ray_cluster._usable_cpus = lambda: workers
        ray_cluster.prepare("local")
        ray_cluster.connect("local")
        lap("start")
    ray = "local" if workers else ""
    corpus = curator.Project.open(large, ray=ray).corpus(())
    lap("encode")
    found["tokens"] = [hash_of(task.version.index.token_hashes) for task in corpus.tasks]
    found["encoded"] = sum(len(task.version.index.hashes) for task in corpus.tasks)
    project = curator.Project.open(folder, ray=ray)
    found["gradients"] = project.gradients().computed
    lap("gradients")
    found["loss"] = project.select().estimated_loss
    lap("")
    report = project.verify(runs=runs, seeds=1)
    lap("verify")
    return found | {"runs": len(report.runs), "losses": [run.measured_loss for run in report.runs]}


def configure(folder: Path, small: bool) -> None:
    """Let a project compute gradients in a pass of their own.

    Args:
        folder: The project.
        small: Whether to use few examples and one epoch, for a busy machine.
    """
    path = folder / "curator.toml"
    settings: dict[str, dict[str, Any]] = {"estimate": {"method": "quadratic"}}
    if small:
        settings |= {"data": {"validation": 0.2, "max_examples_per_task": 8}, "train": {"epochs": 1}}
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    lines = []
    for table in {**values, **settings}:
        lines.append(f"[{table}]")
        found = values.get(table, {}) | settings.get(table, {})
        lines += [f"{key} = {toml_of(value)}" for key, value in found.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure each place in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the projects")
    parser.add_argument("--runs", type=int, default=2, help="number of fine-tuning runs")
    parser.add_argument("--small", action="store_true", help="use few examples and one epoch")
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
        configure(base, given.small)
    # Resumes a training that was interrupted.
    curator.Project.open(base).train()
    load = os.getloadavg()[0]
    found = []
    for workers in PLACES:
        run = [sys.executable, __file__, "--work", str(given.work), "--runs", str(given.runs)]
        done = subprocess.run([*run, "--workers", str(workers)], stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    equal = all(place[name] == found[0][name] for place in found for name in EQUAL)
    for place in found:
        del place["tokens"]
    report = {
        **provenance("python benchmarks/ray_workers.py " + ("--small " * given.small) + "--work DIR --json FILE"),
        "load_of_the_machine_before": round(load, 1),
        "results_equal_in_every_bit": equal,
        "results": found,
    }
    if given.json is not None:
        write_report(given.json, report)
    else:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
