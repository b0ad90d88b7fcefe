"""Measure time and memory of each command on a store with 2,000 tasks and 200,000 gradients.

    python tests/stress/soak.py --json FILE [--work DIR] [--tasks 2000] [--rows 100]

The gradients are random. `benchmarks/synthetic_project.py` writes them through the store's own interface, for one
checkpoint of meta-training. Each command then runs twice in a separate process. The second run uses cached results.
`peak_mb` is the peak memory of the process. `idle` is the baseline: Python with the imports of every command.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# The benchmarks are scripts, not a package. They come last on the path: `benchmarks/tui.py` would hide package `tui`.
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from measured import provenance
from tui_speed import Terminal, cursor_task, estimate, loss

DIM = 256
COMMANDS = {
    "idle": ["-c", "import torch, duckdb, scipy.stats, transformers, curator.project"],
    "open": ["-c", "from curator import Project; p = Project.open('.'); p.corpus(p.config.data.targets)"],
    "check --store": ["-m", "curator", "check", "--store", "--json"],
    "status": ["-m", "curator", "status", "--json"],
    "estimate": ["-m", "curator", "estimate", "task0000", "task0001", "--json"],
    "select --k 20": ["-m", "curator", "select", "--k", "20", "--json"],
    "sql": ["-m", "curator", "sql", "SELECT task, count(*) FROM examples GROUP BY task", "--json"],
}


def run(root: Path, arguments: list[str]) -> dict[str, float]:
    """Measure seconds and peak memory of one command.

    Args:
        root: The project's folder.
        arguments: Arguments of Python.
    """
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments], cwd=root, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"command failed with exit code {process.returncode}: {arguments}")
    return {"seconds": round(time.monotonic() - began, 2), "peak_mb": round(usage.ru_maxrss / 1024)}


def run_tui(root: Path) -> dict[str, float]:
    """Measure the seconds until the interface shows an estimate, and its peak memory after 50 toggles."""
    command = [sys.executable, "-m", "curator", "tui", "-p", str(root)]
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_CONFIG_HOME": home}
        environment.pop("NO_COLOR", None)
        (root / ".curator" / "tui.json").write_text(json.dumps({"version": 1, "mode": "tasks"}))
        with Terminal(command, environment) as terminal:
            ready = terminal.wait_for(loss, seconds=600) - terminal.began
            for number in range(100):
                terminal.press("j" if number % 2 else " ", cursor_task if number % 2 else estimate)
            return {"seconds": round(ready, 2), "peak_mb": terminal.peak_mb}


def main() -> None:
    """Make the project if it is missing, and measure every command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True, help="write the results to FILE")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the project in DIR; default: a temporary folder")
    parser.add_argument("--tasks", type=int, default=2000, help="number of tasks (default: 2000)")
    parser.add_argument("--rows", type=int, default=100, help="examples of each task (default: 100)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (arguments.work or Path(temporary)) / f"soak-{arguments.tasks}-{arguments.rows}"
        began = time.monotonic()
        if not (root / ".curator" / "store.duckdb").exists():
            # Make it in a separate process: a child process inherits the peak memory of its parent.
            sizes = {"--tasks": arguments.tasks, "--rows": arguments.rows, "--dim": DIM, "--points": 1}
            words = [word for pair in sizes.items() for word in map(str, pair)]
            subprocess.run([sys.executable, BENCHMARKS / "synthetic_project.py", root, *words], check=True)
        made = time.monotonic() - began
        gradients = arguments.tasks * arguments.rows + arguments.rows + 60
        store = root / ".curator" / "store.duckdb"
        document: dict[str, Any] = {
            **provenance(f"python tests/stress/soak.py --tasks {arguments.tasks} --rows {arguments.rows} --json FILE"),
            "gradients": gradients,
            "seconds_to_make": round(made, 1),
            "raw_mb": round(gradients * DIM * 4 / 2**20, 1),
            "store_mb": round(store.stat().st_size / 2**20, 1),
            "store_over_raw": round(store.stat().st_size / (gradients * DIM * 4), 3),
            "rows": [],
        }

        def keep(name: str, time_of: str, measured: dict[str, float]) -> None:
            document["rows"].append({"command": name, "run": time_of, **measured})
            document["store_mb_at_the_end"] = round(store.stat().st_size / 2**20, 1)
            arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            print(json.dumps(document["rows"][-1]), flush=True)

        for name, command in COMMANDS.items():
            for time_of in ("first", "again"):
                keep(name, time_of, run(root, command))
        keep("tui", "first", run_tui(root))
        print(f"store: {document['store_mb']} MB, {document['store_over_raw']} × the raw floats")


if __name__ == "__main__":
    main()
