"""Measure the terminal interface from outside: a process on a pseudo-terminal, its bytes, its screen and its memory.

    python benchmarks/tui.py --json FILE [--work DIR] [--tasks 100 1700 5000] [--method trajectory]

For each number of tasks, the script makes a project with random gradients (synthetic_project.py). It starts
`curator tui` in a terminal of 140 × 40, and sends keys. It measures

    first_s         from the start of the first process on the project to its first estimate
    progress_s      longest time without a change of the screen until that estimate
    first_paint_s   from the start of the process to the first frame
    ready_s         from the start of the process to the table and its estimate
    key_p95_ms      from a key (down, up) to the moved cursor
    page_p95_ms     from page down or page up to the moved cursor
    sort_p95_ms     from the key to sort by the next column to the sorted table
    toggle_p95_ms   from the space bar to the new estimate
    first_cpu_s     processor time of the process until its first estimate, threads and ended children included
    peak_mb         peak memory of the process, after the flips of the visible tasks

`p95` is the 95th percentile. For terminals of 80 × 24 and 140 × 40, it also measures the bytes that the process writes:

    idle_bytes_s    largest number of bytes in a second in which nothing happens, over all screens
    toggle_bytes    after the space bar, until nothing changes any more: the largest of several
    screen_bytes    after the key of another screen: the largest of several
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
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from terminal_screen import ScreenText

STARTS, KEYS, TOGGLES = 5, 60, 5
IDLE_SECONDS = 5
SIZES = ((80, 24), (140, 40))
_LOSS = re.compile(r" loss (-?\d+\.\d+) ")
_SELECTED = re.compile(r"^ \d+/\d+ in ", re.MULTILINE)

Screen = list[str]


def cursor(lines: Screen) -> int:
    """Return the row of the cursor of the table; −1 without a cursor."""
    return next((row for row, line in enumerate(lines) if line.startswith("▌")), -1)


def loss(lines: Screen) -> str:
    """Return the estimated loss of the selection; "" if it is not on the screen."""
    found = _LOSS.search("\n".join(lines))
    return found[1] if found else ""


def estimate(lines: Screen) -> str:
    """Return the number of selected tasks with their estimated loss; "" without the loss.

    One task of many changes the loss by less than its last digit, but it always changes the number of tasks.
    """
    selected = _SELECTED.search("\n".join(lines))
    return f"{selected[0]}{loss(lines)}" if selected and loss(lines) else ""


def order(lines: Screen) -> str:
    """Return the column that the table is sorted by."""
    return lines[3].split("·")[-1]


class Terminal:
    """Runs a process on a pseudo-terminal, and kills the process at the end of a `with` block.

    Args:
        command: Program and arguments.
        environment: Environment of the process.
        size: Columns and rows.
    """

    def __init__(self, command: list[str], environment: dict[str, str], size: tuple[int, int] = (140, 40)) -> None:
        self.began = time.perf_counter()
        self.received = 0
        self._screen = ScreenText(*size)
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
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

    @property
    def lines(self) -> Screen:
        """Return the rows of the screen."""
        return self._screen.lines

    @property
    def peak_mb(self) -> int:
        """Return the peak memory of the process."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        peak = re.search(r"VmHWM:\s+(\d+)", status)
        return round(int(peak[1]) / 1024) if peak else 0

    @property
    def cpu_seconds(self) -> float:
        """Return the processor time of the process so far, with that of its ended children."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        # Fields 14 to 17 of proc(5). The first two come before the parenthesis.
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def read(self, seconds: float) -> bool:
        """Read output for at most some seconds. Return whether there was any."""
        if not select.select([self.master], [], [], max(seconds, 0))[0]:
            return False
        data = os.read(self.master, 1 << 16)
        self.received += len(data)
        self._screen.feed(data)
        return True

    def wait_for(self, test: Callable[[Screen], object], seconds: float = 120) -> float:
        """Wait until the screen passes a test, and return the time of `time.perf_counter`.

        Args:
            test: The test.
            seconds: The longest wait.

        Raises:
            TimeoutError: The screen does not pass in time.
        """
        deadline = time.perf_counter() + seconds
        while not test(self.lines):
            if not self.read(deadline - time.perf_counter()):
                raise TimeoutError(f"not on the screen after {seconds:.0f} s:\n" + "\n".join(self.lines))
        return time.perf_counter()

    def settle(self, quiet: float = 0.15, most: float = 60) -> None:
        """Wait until the process has written nothing for `quiet` seconds, but not longer than `most` seconds."""
        deadline = time.perf_counter() + most
        while time.perf_counter() < deadline and self.read(quiet):
            pass

    def press(self, key: str, watched: Callable[[Screen], object] | None = None) -> float:
        """Press a key, and return the milliseconds until a part of the screen changes.

        Args:
            key: The key.
            watched: Returns the part of the screen. None waits for any output.
        """
        self.settle()
        before, received = watched(self.lines) if watched is not None else None, self.received
        began = time.perf_counter()
        os.write(self.master, key.encode())
        if watched is None:
            return (self.wait_for(lambda _: self.received > received) - began) * 1000
        return (self.wait_for(lambda lines: watched(lines) not in ("", -1, before)) - began) * 1000

    def bytes_after(self, key: str) -> int:
        """Press a key, and return the bytes until the screen is finished."""
        self.settle(0.5)
        before = self.received
        os.write(self.master, key.encode())
        self.settle(1.0, 20)
        return self.received - before

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self.master)


def command_of(root: Path) -> list[str]:
    """Return the command that opens a project."""
    return [sys.executable, "-m", "curator", "tui", "-p", str(root)]


def environment_of(home: str) -> dict[str, str]:
    """Return the environment of a user with true color and without settings."""
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_CONFIG_HOME": home}
    environment.pop("NO_COLOR", None)
    return environment


def remember_tasks(root: Path) -> None:
    """Let the interface open on Tasks."""
    (root / ".curator" / "tui.json").write_text(json.dumps({"version": 1, "mode": "tasks"}), encoding="utf-8")


def measure(root: Path) -> dict[str, Any]:
    """Measure one project, and return its row."""
    with tempfile.TemporaryDirectory() as home:
        environment = environment_of(home)
        remember_tasks(root)
        found = measure_first(root, environment)
        paints, readies = [], []
        times: dict[str, list[float]] = {}
        for start in range(STARTS):
            with Terminal(command_of(root), environment) as terminal:
                paints.append(terminal.wait_for(lambda lines: "curator" in lines[0]) - terminal.began)
                readies.append(terminal.wait_for(loss) - terminal.began)
                if start < STARTS - 1:
                    continue
                times = {
                    "key": [terminal.press("k" if n % 3 == 2 else "j", cursor) for n in range(KEYS)],
                    "page": [
                        terminal.press("\x1b[6~" if n % 4 < 2 else "\x1b[5~", cursor_task) for n in range(KEYS // 2)
                    ],
                    "sort": [terminal.press("s", order) for _ in range(KEYS // 2)],
                    "toggle": [terminal.press(" ", estimate) for _ in range(KEYS // 2)],
                }
        for size in SIZES:
            found |= {
                f"{name}_{size[0]}x{size[1]}": value for name, value in measure_bytes(root, environment, size).items()
            }
    return {
        **found,
        "first_paint_s": round(float(np.median(paints)), 3),
        "ready_s": round(float(np.median(readies)), 3),
        **{f"{name}_p95_ms": round(float(np.percentile(found, 95)), 1) for name, found in times.items()},
        **{f"{name}_median_ms": round(float(np.median(found)), 1) for name, found in times.items()},
    }


def cursor_task(lines: Screen) -> str:
    """Return the line under the cursor of the table."""
    row = cursor(lines)
    return lines[row][:40] if row >= 0 else ""


def measure_first(root: Path, environment: dict[str, str]) -> dict[str, float]:
    """Measure the first opening of a project, with its flips."""
    with Terminal(command_of(root), environment) as terminal:
        seen, changed, longest = "", terminal.began, 0.0
        while not loss(terminal.lines):
            terminal.read(1.0)
            if time.perf_counter() - terminal.began > 300:
                raise TimeoutError("no estimate after 300 s")
            if (shown := "\n".join(terminal.lines)) != seen:
                longest = max(longest, time.perf_counter() - changed)
                seen, changed = shown, time.perf_counter()
        first, used = time.perf_counter() - terminal.began, terminal.cpu_seconds
        terminal.settle(3.0)
        for _ in range(3):
            terminal.press(" ", estimate)
            terminal.settle(2.0)
        return {
            "first_s": round(first, 2),
            "first_cpu_s": round(used, 2),
            "progress_s": round(longest, 2),
            "peak_mb": terminal.peak_mb,
        }


def measure_bytes(root: Path, environment: dict[str, str], size: tuple[int, int]) -> dict[str, int]:
    """Measure the bytes that the interface writes in a terminal of a size."""
    remember_tasks(root)
    with Terminal(command_of(root), environment, size) as terminal:
        terminal.wait_for(loss)
        terminal.settle(2.0)
        toggles = [terminal.bytes_after(" ") for _ in range(TOGGLES)]
        screens = [terminal.bytes_after(key) for key in "1234512345"]
        idle = []
        for key in "12345":
            os.write(terminal.master, key.encode())
            terminal.settle(2.0)
            for _ in range(IDLE_SECONDS):
                before, end = terminal.received, time.perf_counter() + 1
                while (left := end - time.perf_counter()) > 0:
                    terminal.read(left)
                idle.append(terminal.received - before)
    return {"idle_bytes_s": max(idle), "toggle_bytes": max(toggles), "screen_bytes": max(screens)}


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
        "--tasks", type=int, nargs="+", default=[100, 1700, 5000], help="numbers of tasks (default: 100 1700 5000)"
    )
    parser.add_argument("--method", default="trajectory", help="method of the estimator (default: trajectory)")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for tasks in arguments.tasks:
            root = work / f"synthetic-{arguments.method}-{tasks}"
            if not (root / ".curator" / "store.duckdb").exists():
                make_project(root, tasks, method=arguments.method)
            rows.append({"tasks": tasks, "method": arguments.method, **measure(root)})
            print(json.dumps(rows[-1]), flush=True)
            if arguments.json:
                versions = {name: version(name) for name in ("textual", "numpy", "duckdb")}
                document = {
                    "command": f"python benchmarks/tui.py --tasks {' '.join(map(str, arguments.tasks))}",
                    "machine": f"{os.cpu_count()} × {platform.machine()}, Python {platform.python_version()}",
                    "versions": versions,
                    "rows": rows,
                }
                arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
