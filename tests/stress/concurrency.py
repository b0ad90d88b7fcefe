"""Use one project from a writer, readers, terminal interfaces and `curator select` at the same time.

    python tests/stress/concurrency.py --json FILE [--seconds 600] [--readers 4] [--tuis 2] [--tasks 100]

Each worker is a separate process.

- The writer adds gradients and counts the commits. At the end, the store must hold every committed row exactly once.
- Readers measure how long they wait for the store, and how long a whole read takes.
- Each terminal interface runs in its own terminal and receives keys that make the interface read and write.
- `curator select` runs in a loop and saves selections. At the end, the store must hold every selection.

Every error becomes a row of `problems`. Each worker does its work at least once, even if starting takes longer than
`--seconds`.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from curator.workspace.store.tables import Store

# The benchmarks are scripts, not a package. They come last on the path: `benchmarks/tui.py` would hide package `tui`.
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

_ROWS, _DIM = 64, 256
_WRITER_PAUSE, _READER_PAUSE = 0.2, 0.05
_KEYS = ("j", " ", "j", " ", "u", "k")

Result = dict[str, Any]


def write(root: Path, until: float) -> Result:
    """Add gradients, one transaction at a time."""
    store, seconds = _store(root), list[float]()
    rows = np.random.default_rng(0).random((_ROWS, _DIM), np.float32)
    while not seconds or time.time() < until:
        began = time.monotonic()
        hashes = [f"{len(seconds)}-{n}" for n in range(_ROWS)]
        store.put_gradients("written", hashes, np.full(_ROWS, len(seconds), dtype=np.float64), rows)
        seconds.append(time.monotonic() - began)
        time.sleep(_WRITER_PAUSE)
    return {"count": len(seconds), "longest": max(seconds), "median": float(np.median(seconds))}


def read(root: Path, until: float) -> Result:
    """Read the written gradients, and measure the wait for the store.

    Raises:
        RuntimeError: A read saw a part of a transaction.
    """
    store, waits, seconds = _store(root), list[float](), list[float]()
    while not seconds or time.time() < until:
        began = time.monotonic()
        with store.read() as connection:
            waits.append(time.monotonic() - began)
            assert connection is not None
            count, last = connection.execute(
                "SELECT count(*), max(loss) FROM gradients WHERE set_key = 'written'"
            ).fetchall()[0]
        seconds.append(time.monotonic() - began)
        if count != (0 if last is None else (last + 1) * _ROWS):
            raise RuntimeError(f"read a part of a transaction: {count} rows, highest transaction {last}")
        time.sleep(_READER_PAUSE)
    return {
        "count": len(waits),
        "longest": max(seconds),
        "longest_wait": max(waits),
        "median": float(np.median(seconds)),
    }


def select(root: Path, until: float) -> Result:
    """Run `curator select` in a loop, with another name and size each time.

    Raises:
        RuntimeError: A command failed, or a saved selection is missing at the end.
    """
    seconds: list[float] = []
    while not seconds or time.time() < until:
        began = time.monotonic()
        name = f"s{len(seconds)}"
        command = [sys.executable, "-m", "curator", "select", "-p", str(root), "-q", "--json", "--name", name]
        command += ["--k", str(len(seconds) % 7), "-o", str(root / "selected.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"curator select: exit code {done.returncode}: {done.stderr}")
        seconds.append(time.monotonic() - began)
    names = {kept.name for kept in _store(root).selections()}
    missing = [n for n in range(len(seconds)) if f"s{n}" not in names]
    if missing:
        raise RuntimeError(f"saved selections are missing: {missing}")
    return {"count": len(seconds), "longest": max(seconds), "median": float(np.median(seconds))}


def use_tui(root: Path, until: float) -> Result:
    """Press keys in a terminal interface.

    Raises:
        RuntimeError: The interface ended before its time.
    """
    from tui_speed import Terminal

    pressed, waits = 0, list[float]()
    (root / ".curator" / "tui.json").write_text(json.dumps({"version": 1, "mode": "tasks"}))
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_CONFIG_HOME": home}
        with Terminal([sys.executable, "-m", "curator", "tui", "-p", str(root)], environment) as terminal:
            terminal.wait_for(lambda lines: any("examples" in line for line in lines))
            while not waits or time.time() < until:
                # Wait for any output, because the interface does not redraw an unchanged estimate.
                waits.append(terminal.press(_KEYS[pressed % len(_KEYS)]) / 1000)
                pressed += 1
                time.sleep(0.3)
            if terminal.ended:
                raise RuntimeError("the terminal interface ended")
    return {"count": pressed, "longest": max(waits, default=0.0), "median": float(np.median(waits or [0.0]))}


def _store(root: Path) -> Store:
    return Store(root / ".curator" / "store.duckdb")


def _run(name: str, work: Callable[[Path, float], Result], root: Path, until: float, results: Any) -> None:
    try:
        results.put((name, work(root, until)))
    except BaseException as error:
        results.put((name, {"error": f"{type(error).__name__}: {error}"}))


def measure(root: Path, *, seconds: float, readers: int, tuis: int) -> dict[str, Any]:
    """Run all workers at the same time, and collect their results and problems.

    Args:
        root: The project's folder.
        seconds: How long each worker runs.
        readers: Number of readers.
        tuis: Number of terminal interfaces.
    """
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    works = [("writer", write), ("select", select)]
    works += [(f"reader {n + 1}", read) for n in range(readers)] + [(f"tui {n + 1}", use_tui) for n in range(tuis)]
    until = time.time() + seconds
    processes = [spawn.Process(target=_run, args=(name, work, root, until, results)) for name, work in works]
    for process in processes:
        process.start()
    found: dict[str, Result] = {}
    collector = threading.Thread(target=lambda: [found.update([results.get()]) for _ in works], daemon=True)
    collector.start()
    collector.join(seconds + 240)
    for process in processes:
        process.join(10)
        process.kill()
    problems = [f"{name}: {result['error']}" for name, result in found.items() if "error" in result]
    problems += [f"{name}: returned no result" for name, _ in works if name not in found]
    hashes, losses, _ = _store(root).gradients("written")
    written = found.get("writer", {}).get("count", 0)
    if len(hashes) != len(set(hashes)) or len(hashes) != written * _ROWS or len(set(losses.tolist())) != written:
        problems.append(
            f"committed {written} transactions of {_ROWS} rows, but the store holds {len(set(hashes))} rows"
        )
    return {"seconds": seconds, "processes": dict(sorted(found.items())), "problems": problems}


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True, help="write the results to FILE")
    parser.add_argument("--seconds", type=float, default=600, help="run for so many seconds (default: 600)")
    parser.add_argument("--readers", type=int, default=4, help="number of readers (default: 4)")
    parser.add_argument("--tuis", type=int, default=2, help="number of terminal interfaces (default: 2)")
    parser.add_argument("--tasks", type=int, default=100, help="number of tasks of the new project (default: 100)")
    parser.add_argument("--project", type=Path, metavar="DIR", help="use the project in DIR; default: a new project")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.project or Path(temporary) / "project"
        if arguments.project is None:
            # The worker processes must not import torch and transformers through this module.
            from synthetic_project import make_project

            make_project(root, arguments.tasks)
        found = measure(root, seconds=arguments.seconds, readers=arguments.readers, tuis=arguments.tuis)
    from measured import provenance

    document = {
        **provenance(f"python tests/stress/concurrency.py --seconds {arguments.seconds:.0f} --json FILE"),
        "load": os.getloadavg(),
        **found,
    }
    arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
