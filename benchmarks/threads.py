"""Time `curator select` alone, and two at the same time on the same cores, with several settings of threads.

    python benchmarks/threads.py --work DIR

Each run works on a new copy of `sample_data/` with one epoch of training. A round runs every setting alone and side by
side, so that a change of the machine's load affects all settings. The results are in `benchmarks/results/threads.json`.
Each row is saved as it comes, and the same command resumes. A round takes ten minutes on two idle cores: torch's policy
takes over half of it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from measured import copy_project, provenance, write_report

from curator.core.events import StageFinished, read_events

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# curator sets no policy if the user sets any of these. The last one has no meaning for torch's OpenMP on Linux, so it
# gives the behaviour of earlier versions.
SETTINGS: dict[str, dict[str, str]] = {
    "curator": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "all threads, passive": {"OMP_NUM_THREADS": str(CORES), "OMP_WAIT_POLICY": "passive"},
    "all threads, torch's policy": {"OMP_NUM_THREADS": str(CORES), "KMP_BLOCKTIME": "200"},
}
NUMBERS = ("alone", "side_by_side", "ratio", "training_alone", "training_side_by_side", "training_ratio")
DECIDING = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY", "MKL_NUM_THREADS")


def seconds(work: Path, setting: str, count: int, examples: int) -> tuple[float, float, list[str]]:
    """Time `count` selections at the same time.

    Returns:
        Seconds until all have ended, seconds of the slowest training, and curator's lines about threads.
    """
    folders = [work / f"project-{number}" for number in range(count)]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        copy_project(Path(__file__).parents[1] / "sample_data", folder)
        path = folder / "curator.toml"
        text = path.read_text().replace("epochs = 3", "epochs = 1")
        path.write_text(text.replace("max_length = 128", f"max_length = 128\nmax_examples_per_task = {examples}"))
    environment = {name: value for name, value in os.environ.items() if name not in DECIDING} | SETTINGS[setting]
    command = [sys.executable, "-P", "-m", "curator", "select", "-p"]
    began = time.monotonic()
    started = [
        subprocess.Popen([*command, str(folder)], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for folder in folders
    ]
    outputs = [process.communicate()[1].decode() for process in started]
    took = time.monotonic() - began
    for process, output in zip(started, outputs, strict=True):
        if process.returncode:
            raise SystemExit(output)
    training = max(
        event.seconds
        for folder in folders
        for log in (folder / ".curator" / "runs").glob("*/events.jsonl")
        for event in read_events(log)
        if isinstance(event, StageFinished) and event.stage == "train"
    )
    lines = [line.partition("info: ")[2] for text in outputs for line in text.splitlines() if "threads: " in line]
    return took, training, lines


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the copies")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--examples", type=int, default=0, help="examples of each task; 0 for all")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="settings to run")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(__file__).parent / "results" / "threads.json",
        help="write the results to this file",
    )
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(arguments.json.read_text())["rows"] if arguments.json.exists() else []
    for turn in range(arguments.rounds):
        for setting in arguments.settings:
            if any(row["round"] == turn and row["setting"] == setting for row in rows):
                continue
            load = os.getloadavg()[0]
            alone, training, lines = seconds(arguments.work, setting, 1, arguments.examples)
            together, training_together, more = seconds(arguments.work, setting, 2, arguments.examples)
            rows.append(
                {
                    "round": turn,
                    "setting": setting,
                    "alone": round(alone, 1),
                    "side_by_side": round(together, 1),
                    "ratio": round(together / alone, 2),
                    "training_alone": round(training, 2),
                    "training_side_by_side": round(training_together, 2),
                    "training_ratio": round(training_together / training, 2),
                    "load_before": round(load, 1),
                    "threads": lines + more,
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
            _write(arguments.json, rows, arguments.examples)


def _write(path: Path, rows: list[dict[str, Any]], examples: int) -> None:
    summary = {
        setting: {"rounds": len(found)} | {name: median(row[name] for row in found) for name in NUMBERS}
        for setting in SETTINGS
        if (found := [row for row in rows if row["setting"] == setting])
    }
    report = {"cores": CORES, "examples_per_task": examples, "medians": summary, "rows": rows}
    write_report(path, provenance("python benchmarks/threads.py --work DIR") | report)


if __name__ == "__main__":
    main()
