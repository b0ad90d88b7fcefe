"""How fast the terminal interface is: a real process on a real pseudo-terminal, timed from outside.

    python benchmarks/tui.py --json FILE [--work DIR] [--tasks 100 1000 5000]

For each number of tasks, a project is made (drawn gradients; see synthetic_project.py), `curator tui` is started on it
in a terminal of 140 × 40, and keys are sent. Measured are

    first_paint_s   from the start of the process to the first frame
    ready_s         until the table and its estimate are on the screen
    key_p95_ms      from a key (down, up) to the table with the cursor elsewhere
    page_p95_ms     the same for a page
    sort_p95_ms     the same for sorting by the next column
    toggle_p95_ms   from the space bar to the new estimate
"""

import argparse
import fcntl
import json
import os
import platform
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

CURSOR = "▌".encode()
ESTIMATE = re.compile(rb" loss (\x1b\[[\d;]*m)*-?\d+\.\d")
STARTS, KEYS = 5, 60


class Terminal:
    """A process on a pseudo-terminal of 140 × 40."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.began = time.perf_counter()
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.master = master

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def wait_for(self, pattern: "re.Pattern[bytes]", seconds: float = 120) -> float:
        """When output first matches, on `time.perf_counter`."""
        seen, deadline = b"", time.perf_counter() + seconds
        while not pattern.search(seen):
            left = deadline - time.perf_counter()
            if left < 0 or not select.select([self.master], [], [], left)[0]:
                raise TimeoutError(f"{pattern.pattern!r} is not on the screen after {seconds:.0f} s")
            seen += os.read(self.master, 1 << 16)
        return time.perf_counter()

    def settle(self, quiet: float = 0.15) -> None:
        """Wait until nothing has been written for a while."""
        while select.select([self.master], [], [], quiet)[0]:
            os.read(self.master, 1 << 16)

    def press(self, key: str, pattern: "re.Pattern[bytes]") -> float:
        """Milliseconds from a key to output that matches."""
        self.settle()
        began = time.perf_counter()
        os.write(self.master, key.encode())
        return (self.wait_for(pattern) - began) * 1000

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self.master)


def measure(root: Path) -> dict[str, float | int]:
    """One row."""
    command = [sys.executable, "-m", "curator", "tui", "-p", str(root)]
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_CONFIG_HOME": home}
        environment.pop("NO_COLOR", None)
        place = root / ".curator" / "tui.json"
        place.write_text(json.dumps({"version": 1, "mode": "tasks"}))
        paints, readies = [], []
        cursor = re.compile(CURSOR)
        times: dict[str, list[float]] = {}
        for start in range(STARTS):
            with Terminal(command, environment) as terminal:
                paints.append(terminal.wait_for(re.compile(b"curator")) - terminal.began)
                readies.append(terminal.wait_for(ESTIMATE) - terminal.began)
                if start < STARTS - 1:
                    continue
                times = {
                    "key": [terminal.press("k" if n % 3 == 2 else "j", cursor) for n in range(KEYS)],
                    "page": [terminal.press("\x1b[6~" if n % 4 < 2 else "\x1b[5~", cursor) for n in range(KEYS // 2)],
                    "sort": [terminal.press("s", cursor) for _ in range(KEYS // 2)],
                    "toggle": [terminal.press(" ", ESTIMATE) for _ in range(KEYS // 2)],
                }
    return {
        "first_paint_s": round(float(np.median(paints)), 3),
        "ready_s": round(float(np.median(readies)), 3),
        **{f"{name}_p95_ms": round(float(np.percentile(found, 95)), 1) for name, found in times.items()},
        **{f"{name}_median_ms": round(float(np.median(found)), 1) for name, found in times.items()},
    }


def main() -> None:
    """Measure, and write rows as they come."""
    # What is measured from here is not to begin with what this imports.
    from synthetic_project import make_project

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the rows")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps the projects; default: a temporary folder")
    parser.add_argument("--tasks", type=int, nargs="+", default=[100, 1000, 5000])
    arguments = parser.parse_args()
    rows: list[dict[str, float | int]] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for tasks in arguments.tasks:
            root = work / f"synthetic-{tasks}"
            if not (root / ".curator" / "store.duckdb").exists():
                make_project(root, tasks)
            rows.append({"tasks": tasks, **measure(root)})
            print(json.dumps(rows[-1]), flush=True)
            if arguments.json:
                versions = {name: version(name) for name in ("textual", "numpy", "duckdb")}
                document = {
                    "command": "python benchmarks/tui.py",
                    "machine": f"{os.cpu_count()} × {platform.machine()}, Python {platform.python_version()}",
                    "versions": versions,
                    "rows": rows,
                }
                arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
