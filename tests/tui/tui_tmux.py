"""A terminal for tests: tmux with the real interface in it."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CURATOR = [sys.executable, "-m", "curator"]
needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


def sentences(shown: str) -> str:
    """Return the words of a screen in one line, without the edges of boxes: lines that break are whole again."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown).split())


def has(*words: str) -> Callable[[str], bool]:
    """Return a test of a screen: it shows all words, which may break between lines."""
    return lambda shown: all(word in shown or word in sentences(shown) for word in words)


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

    def click(self, column: int, row: int) -> None:
        """Click a cell, as a terminal reports it (SGR mode). The first column and row are 1."""
        self.type(f"\x1b[<0;{column};{row}M\x1b[<0;{column};{row}m")

    def click_on(self, words: str, row: int) -> None:
        """Click the first cell of a text on one row of the screen. -1 is the last row."""
        lines = self.pane().rstrip("\n").splitlines()
        self.click(lines[row].index(words) + 1, range(len(lines))[row] + 1)

    def press(self, keys: str, test: Callable[[str], Any]) -> str:
        """Press keys that blanks separate, and wait until the screen passes a test. Return the screen."""
        self.keys(*keys.split())
        return self.until(test)

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

    def take_clipboard(self) -> None:
        """Let programs set the clipboard, as a user with `set-clipboard on` does."""
        self._run("set-option", "-g", "set-clipboard", "on")

    def clipboard(self) -> str:
        """Return the newest text in the buffers of tmux; "" without one."""
        return self._run("show-buffer") if self._run("list-buffers").strip() else ""

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
