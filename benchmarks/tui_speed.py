"""Measure the speed of the terminal interface: a process on a pseudo-terminal, timed from outside.

    python benchmarks/tui.py --json FILE [--work DIR] [--tasks 100 1000 5000]

For each number of tasks, the script makes a project with random gradients (synthetic_project.py). It starts
`curator tui` in a terminal of 140 × 40, and sends keys. It measures

    first_paint_s   from the start of the process to the first frame
    ready_s         from the start of the process to the table and its estimate
    key_p95_ms      from a key (down, up) to the moved cursor
    page_p95_ms     from page down or page up to the moved cursor
    sort_p95_ms     from the key to sort by the next column to the sorted table
    toggle_p95_ms   from the space bar to the new estimate

`p95` is the 95th percentile.
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
    """Runs a process on a pseudo-terminal of 140 × 40, and kills the process at the end of a `with` block.

    Args:
        command: Program and arguments.
        environment: Environment of the process.
    """

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
        """Return the process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Report whether the process has ended."""
        return self._process.poll() is not None

    def wait_for(self, pattern: "re.Pattern[bytes]", seconds: float = 120) -> float:
        """Wait until output matches a pattern, and return the time of `time.perf_counter`.

        Args:
            pattern: The pattern.
            seconds: The longest wait.

        Raises:
            TimeoutError: No output matches in time.
        """
        seen, deadline = b"", time.perf_counter() + seconds
        while not pattern.search(seen):
            left = deadline - time.perf_counter()
            if left < 0 or not select.select([self.master], [], [], left)[0]:
                raise TimeoutError(f"pattern is not on the screen after {seconds:.0f} s: {pattern.pattern!r}")
            seen += os.read(self.master, 1 << 16)
        return time.perf_counter()

    def settle(self, quiet: float = 0.15) -> None:
        """Wait until the process has written nothing for `quiet` seconds."""
        while select.select([self.master], [], [], quiet)[0]:
            os.read(self.master, 1 << 16)

    def press(self, key: str, pattern: "re.Pattern[bytes]") -> float:
        """Press a key, and return the milliseconds until output matches a pattern."""
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
    """Measure one project, and return its row."""
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
    """Measure, and write each row as soon as it is measured."""
    # Import torch only here: tests/stress imports `Terminal` from this file, and must not load torch.
    from synthetic_project import make_project

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keep the projects in DIR; default: a temporary folder"
    )
    parser.add_argument(
        "--tasks", type=int, nargs="+", default=[100, 1000, 5000], help="numbers of tasks (default: 100 1000 5000)"
    )
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
