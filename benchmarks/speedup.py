"""Measure what the estimates cost beside plain training, and how much faster they are than fine-tuning.

    python benchmarks/speedup.py --work DIR --json speedup.json
    python benchmarks/speedup.py --work DIR --json speedup.json --settings sample --repetitions 1

A repetition trains on all tasks without the capture of gradients, trains again with it, adds the gradients stage and
selects from 1,000 estimated subsets. Then it fine-tunes on some subsets of about half of the tasks.
All of this runs in one process with one thread, in turn. Times are CPU time of the process, so that other programs
distort them less. The file receives each repetition when it ends. A repetition that the file holds is not repeated.

`cost_ratio` is meta-training and gradients ÷ meta-training without capture. `speedup` at n subsets is the time of n
fine-tuning runs ÷ the time of everything that the estimates need.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from measured import Measurer, copy_project, provenance
from trust import draw_subsets, make_setting

from curator import Project

SETTINGS = ("sample", "generated-noisy", "generated-conflicting", "real-tasks")
# Number of fine-tuned subsets of a repetition.
_SUBSETS = 3


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call, of all threads of this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def repetition(source: Path, folder: Path) -> dict[str, Any]:
    """Measure all parts once, in copies of a project without results."""
    import torch

    torch.set_num_threads(1)
    shutil.rmtree(folder, ignore_errors=True)
    plain, captured = folder / "plain", folder / "captured"
    copy_project(source, plain)
    copy_project(source, captured)
    config = plain / "curator.toml"
    config.write_text(config.read_text() + '\n[estimate]\nmethod = "quadratic"\n')
    found: dict[str, Any] = {}
    for name, place in (("plain", plain), ("captured", captured)):
        project = Project.open(place)
        project.corpus(project.config.data.targets)
        project._pipeline.load()
        found[f"train_{name}"] = seconds(project.train)
    found["gradients"] = seconds(project.gradients)
    found["select"] = seconds(lambda: project.select(output=folder / "manifest.json"))
    names = sorted(task.name for task in project.corpus(project.config.data.targets).auxiliary)
    middle = sorted(draw_subsets(names, 40), key=lambda subset: abs(2 * len(subset) - len(names)))[:_SUBSETS]
    measurer = Measurer(project, folder / "runs.jsonl")
    found["fine_tuning"] = [seconds(lambda subset=subset: measurer.measure(subset, 0)) for subset in middle]  # type: ignore[misc]
    shutil.rmtree(folder, ignore_errors=True)
    return found


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over repetitions, with the range of the ratio."""
    ratios = [(row["train_captured"] + row["gradients"]) / row["train_plain"] for row in rows]
    ups = [
        (sum(row["fine_tuning"]) / len(row["fine_tuning"])) / (row["train_captured"] + row["gradients"] + row["select"])
        for row in rows
    ]
    return {
        "repetitions": len(rows),
        "cost_ratio": round(median(ratios), 3),
        "cost_ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "speedup_100_subsets": round(100 * median(ups), 1),
        "speedup_1000_subsets": round(1000 * median(ups), 1),
    }


def main() -> None:
    """Measure what is missing, and add it to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the projects")
    parser.add_argument("--json", type=Path, required=True, help="file of results")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS[:3])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--wheel", type=Path, help="wheel of SmolLM2, for real-tasks")
    parser.add_argument("--bigbench", type=Path, help="archive of BIG-bench, for real-tasks")
    parser.add_argument("--dtype", default="float32", help="number format of SmolLM2")
    given = parser.parse_args()
    known = json.loads(given.json.read_text()) if given.json.exists() else {"settings": {}}
    for name in given.settings:
        make_setting(name, given.work / name / "project", given)
        rows = known["settings"].get(name, {}).get("runs", [])
        while len(rows) < given.repetitions:
            rows.append(repetition(given.work / name / "project", given.work / name / "speedup"))
            known["settings"][name] = {**summarise(rows), "runs": rows}
            report = {**provenance("python benchmarks/speedup.py --work DIR --json FILE"), **known}
            given.json.write_text(json.dumps(report, indent=1) + "\n")
            print(name, summarise(rows), flush=True)


if __name__ == "__main__":
    main()
