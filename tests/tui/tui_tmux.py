"""A terminal for tests: tmux with the real interface in it, and the sample project to show."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from curator.project.project import Project

CURATOR = [sys.executable, "-m", "curator"]
needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


def make_sample(folder: Path) -> Path:
    """Compute every stage of the sample project, with one epoch, one checkpoint and few rows to save time.

    Args:
        folder: A new folder.
    """
    source = Path(__file__).parents[2] / "sample_data"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".curator", "curator-manifest.json", "exports"))
    config = (folder / "curator.toml").read_text()
    config, count = re.subn(r"(?m)^epochs = .*$", "epochs = 1", config)
    assert count == 1
    if "[gradients]" in config:
        config = config.replace("[gradients]", "[gradients]\npoints = [0.7]")
    else:
        config += "\n[gradients]\npoints = [0.7]\n"
    config, count = re.subn(r"(?m)^\[data\]$", "[data]\nmax_examples_per_task = 20", config)
    assert count == 1
    (folder / "curator.toml").write_text(config)
    Project.open(folder).select(name="forward")
    return folder


class Tmux:
    """A tmux server with one window of 80 × 24."""

    def __init__(self, folder: Path) -> None:
        self._socket = str(folder / "tmux")
        self._run("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "bash --norc")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", "-S", self._socket, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    def keys(self, *keys: str) -> None:
        """Press keys."""
        self._run("send-keys", *keys)

    def type(self, words: str) -> None:
        """Type a text."""
        self._run("send-keys", "-l", words)

    def pane(self, *, colors: bool = False) -> str:
        """Return the screen. With `colors`, the escape sequences of colors are part of it."""
        return self._run("capture-pane", "-p", *(["-e"] if colors else []))

    def resize(self, width: int, height: int) -> None:
        """Resize the window."""
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def until(self, test: Callable[[str], Any], seconds: float = 120) -> str:
        """Wait until the screen passes a test and is finished: two looks in a row show the same."""
        deadline = time.monotonic() + seconds
        before = ""
        while not (test(shown := self.pane()) and shown == before):
            assert time.monotonic() < deadline, f"the wait timed out:\n{shown}"
            before = shown
            time.sleep(0.1)
        return shown

    def open(self, project: Path, mode: str = "") -> None:
        """Open a project in the interface, and go to a screen by its key."""
        self.type(f"{sys.executable} -m curator tui -p {project}")
        self.keys("Enter")
        self.until(lambda shown: "? help" in shown and "reading …" not in shown)
        if mode:
            self.keys(mode)
            self.until(lambda shown: f"[{mode} " in shown)

    def quit(self) -> None:
        """Quit the interface."""
        self.keys("q")
        self.until(lambda shown: "bash-" in (shown.rstrip().splitlines() or [""])[-1])

    def close(self) -> None:
        """Stop the server."""
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False)


@pytest.fixture
def tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tmux]:
    """Return a terminal whose user has no settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    made = Tmux(tmp_path)
    yield made
    made.close()
