"""The program of a `command:` metric: endless output, processes that outlive it, and folders that it replaces."""

import fcntl
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from curator.core.errors import CuratorError, DataError, NumericalError
from curator.core.metric_name import parse_metric
from curator.metrics.command import Command
from curator.workspace.workspace import Workspace


class Adapter:
    """Stands for a model in training. A program of the user sees a folder only."""

    def save_adapter(self, folder: Path) -> None:
        folder.mkdir()


Measure = Callable[..., float]


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """Return a function that measures by a script, and returns the number."""
    folder = tmp_path / "project"
    folder.mkdir()
    corpus: Any = SimpleNamespace(model=SimpleNamespace(folder=tmp_path), target_label="target")

    def run(script: str, seconds: float = 60.0) -> float:
        (folder / "curator.toml").write_text(
            f'[model]\nname_or_path = "m"\n[data]\ntasks = "*.jsonl"\n[verify]\ncommand_seconds = {seconds}\n'
        )
        (folder / "script.py").write_text(script)
        name = parse_metric(f"command:{sys.executable} '{folder / 'script.py'}'")
        found: Any = Command(Workspace.open(folder), corpus, name).measure(Adapter(), [])  # type: ignore[arg-type]
        return float(found.value)

    return run


def test_command_output_of_gigabytes_is_not_stored(measure: Measure) -> None:
    """The script prints the size of all files next to the adapter. The old code wrote its output there."""
    sizes = "sum(os.path.getsize(os.path.join('..', name)) for name in os.listdir('..'))"
    script = f"import os, sys\nfor _ in range(300):\n    sys.stdout.write('x' * 10**6)\nprint()\nprint({sizes})"
    assert measure(script) < 100_000


@pytest.mark.parametrize(
    "script",
    [
        "while True:\n    print('x' * 1000)",
        "import sys\nwhile True:\n    print('x' * 1000, file=sys.stderr)",
        "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(60)",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)",
    ],
    ids=["output", "errors", "closed", "deaf"],
)
def test_command_without_end_is_killed_after_its_time(measure: Measure, script: str) -> None:
    began = time.monotonic()
    with pytest.raises(DataError, match="ran longer than 1 seconds"):
        measure(script, 1.0)
    assert time.monotonic() - began < 15


def test_command_child_that_outlives_it_is_killed(measure: Measure, tmp_path: Path) -> None:
    """The child holds a lock and the pipe of the output. The old code left the child running."""
    held = tmp_path / "held"
    child = (
        f"import fcntl, time\nf = open({str(held)!r}, 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\n"
        "f.write('x')\nf.flush()\ntime.sleep(600)"
    )
    script = (
        f"import os, subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"place = {str(held)!r}\nwhile not os.path.exists(place) or not os.path.getsize(place):\n    time.sleep(0.01)\n"
        "print(7)"
    )
    assert measure(script) == 7
    with held.open() as file:
        deadline = time.monotonic() + 10
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline, "the child still holds its lock"
                time.sleep(0.05)


@pytest.mark.parametrize(
    ("printed", "error"),
    [("nan", NumericalError), ("-inf", NumericalError), ("1e400", NumericalError), ("0x10", DataError)],
)
def test_command_number_that_is_not_finite_is_refused(
    measure: Measure, printed: str, error: type[CuratorError]
) -> None:
    with pytest.raises(error, match="metric command printed"):
        measure(f"print('{printed}')")


@pytest.mark.parametrize("level", ["adapter", "call", "metric"])
def test_command_that_replaces_a_folder_by_a_link_changes_nothing_outside(
    measure: Measure, tmp_path: Path, level: str
) -> None:
    """The next call must not remove or write files where the link leads."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious").write_text("x")
    up = {"adapter": "here", "call": "os.path.dirname(here)", "metric": "os.path.dirname(os.path.dirname(here))"}
    script = (
        f"import os\nhere = os.getcwd()\nplace = {up[level]}\nos.chdir('/')\n"
        f"os.rename(place, {str(tmp_path / 'moved')!r} + str(os.getpid()))\nos.symlink({str(mine)!r}, place)\nprint(1)"
    )
    assert measure(script) == 1
    work = tmp_path / "project" / ".curator" / "adapters" / "metric"
    if level == "metric":
        # Every command refuses the link.
        with pytest.raises(DataError, match="symbolic link in the results folder"):
            measure(script)
        work.unlink()
    assert measure("print(2)") == 2
    assert [path.name for path in mine.iterdir()] == ["precious"]
    assert os.listdir(work) == []
