"""One writer, four readers, two terminal interfaces and `curator select` in a loop, all on one project.

    python benchmarks/concurrency.py --json FILE [--seconds 600] [--readers 4] [--tuis 2] [--tasks 100]

Each is a process of its own. The writer adds gradients and says how many it was told are kept; in the end all of them
must be there, once. Readers measure how long they wait for the store, and how long a read takes in all. The interfaces
run in terminals of their own and are sent keys that make them read and write. Any error is a row in `problems`. Each
does what it does once at least, also where everything is so slow that the time is over before it begins.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from curator.workspace.store.tables import Store

_ROWS, _DIM = 64, 256
_WRITER_PAUSE, _READER_PAUSE = 0.2, 0.05
_KEYS = ("j", " ", "j", " ", "u", "k")

Answer = dict[str, Any]


def write(root: Path, until: float) -> Answer:
    """Add gradients, a transaction at a time."""
    store, seconds = _store(root), list[float]()
    rows = np.random.default_rng(0).random((_ROWS, _DIM), np.float32)
    while not seconds or time.time() < until:
        began = time.monotonic()
        hashes = [f"{len(seconds)}-{n}" for n in range(_ROWS)]
        store.put_gradients("written", hashes, np.full(_ROWS, len(seconds), dtype=np.float64), rows)
        seconds.append(time.monotonic() - began)
        time.sleep(_WRITER_PAUSE)
    return {"count": len(seconds), "longest": max(seconds), "median": float(np.median(seconds))}


def read(root: Path, until: float) -> Answer:
    """Read what others write, and measure how long it takes to be let in."""
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
            raise RuntimeError(f"{count} rows of {last} transactions: one was read in part")
        time.sleep(_READER_PAUSE)
    return {
        "count": len(waits),
        "longest": max(seconds),
        "longest_wait": max(waits),
        "median": float(np.median(seconds)),
    }


def select(root: Path, until: float) -> Answer:
    """Run `curator select` over and over, each time for something else."""
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
        raise RuntimeError(f"selections {missing} are lost")
    return {"count": len(seconds), "longest": max(seconds), "median": float(np.median(seconds))}


def look(root: Path, until: float) -> Answer:
    """Press keys in a terminal interface."""
    from tui_speed import Terminal

    pressed, waits = 0, list[float]()
    (root / ".curator" / "tui.json").write_text(json.dumps({"version": 1, "mode": "tasks"}))
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_CONFIG_HOME": home}
        with Terminal([sys.executable, "-m", "curator", "tui", "-p", str(root)], environment) as terminal:
            terminal.wait_for(re.compile(b"examples"))
            while not waits or time.time() < until:
                # To the first sign of it; an estimate that comes out as it was is not drawn again.
                waits.append(terminal.press(_KEYS[pressed % len(_KEYS)], re.compile(b"(?s).")) / 1000)
                pressed += 1
                time.sleep(0.3)
            if terminal.ended:
                raise RuntimeError("the interface has ended")
    return {"count": pressed, "longest": max(waits, default=0.0), "median": float(np.median(waits or [0.0]))}


def _store(root: Path) -> Store:
    return Store(root / ".curator" / "store.duckdb")


def _run(name: str, work: Callable[[Path, float], Answer], root: Path, until: float, answers: Any) -> None:
    try:
        answers.put((name, work(root, until)))
    except BaseException as error:
        answers.put((name, {"error": f"{type(error).__name__}: {error}"}))


def measure(root: Path, *, seconds: float, readers: int, tuis: int) -> dict[str, Any]:
    """Run all of them at once, and see what became of it."""
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    works = [("writer", write), ("select", select)]
    works += [(f"reader {n + 1}", read) for n in range(readers)] + [(f"tui {n + 1}", look) for n in range(tuis)]
    until = time.time() + seconds
    processes = [spawn.Process(target=_run, args=(name, work, root, until, answers)) for name, work in works]
    for process in processes:
        process.start()
    found: dict[str, Answer] = {}
    collector = threading.Thread(target=lambda: [found.update([answers.get()]) for _ in works], daemon=True)
    collector.start()
    collector.join(seconds + 240)
    for process in processes:
        process.join(10)
        process.kill()
    problems = [f"{name}: {answer['error']}" for name, answer in found.items() if "error" in answer]
    problems += [f"{name}: did not answer" for name, _ in works if name not in found]
    hashes, losses, _ = _store(root).gradients("written")
    written = found.get("writer", {}).get("count", 0)
    if len(hashes) != len(set(hashes)) or len(hashes) != written * _ROWS or len(set(losses.tolist())) != written:
        problems.append(f"{written} transactions of {_ROWS} rows were acknowledged, {len(set(hashes))} rows are there")
    return {"seconds": seconds, "processes": dict(sorted(found.items())), "problems": problems}


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--tuis", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--project", type=Path, metavar="DIR", help="in place of one that is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.project or Path(temporary) / "project"
        if arguments.project is None:
            # Not in the processes that are started from here.
            from synthetic_project import make_project

            make_project(root, arguments.tasks)
        found = measure(root, seconds=arguments.seconds, readers=arguments.readers, tuis=arguments.tuis)
    document = {
        "command": f"python benchmarks/concurrency.py --seconds {arguments.seconds:.0f} --json FILE",
        "machine": f"{os.cpu_count()} × {platform.machine()}, Python {platform.python_version()}",
        "load": os.getloadavg(),
        "versions": {name: version(name) for name in ("duckdb", "textual")},
        **found,
    }
    arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
