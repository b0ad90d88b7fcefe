"""The real interface: in tmux on the sample project, next to another process, and in a browser."""

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tui_tmux import CURATOR, Tmux, make_sample, needs_tmux, tmux

from curator.select.manifest import read_manifest

__all__ = ["tmux"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compute every stage of the sample project, with one epoch, one checkpoint and few rows to save time."""
    return make_sample(tmp_path_factory.mktemp("sample") / "sample")


def _loss(shown: str) -> str:
    found = re.search(r" loss (\d\.\d{4}) ", shown)
    return found[1] if found else ""


@needs_tmux
def test_terminal_selection_is_edited_saved_and_exported(sample: Path, tmux: Tmux, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tmux.type(f"{sys.executable} -m curator tui -p {sample}")
    tmux.keys("Enter")
    tmux.until(lambda shown: "pipeline" in shown)
    tmux.keys("2")
    before = tmux.until(lambda shown: _loss(shown) and "hypernym" in shown)

    # A second terminal selects at the same time.
    other = subprocess.Popen(
        [*CURATOR, "select", "-p", str(sample), "--method", "backward", "--name", "other", "--json", "-q"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    tmux.keys("g", "Space")
    toggled = tmux.until(lambda shown: _loss(shown) not in ("", _loss(before)))
    first = next(line for line in before.splitlines() if line.startswith("▌"))
    changed = next(line for line in toggled.splitlines() if line.startswith("▌"))
    assert {first[2], changed[2]} == {"●", "○"}
    tmux.keys("u")
    tmux.until(lambda shown: _loss(shown) == _loss(before))
    tmux.keys("U")
    tmux.until(lambda shown: _loss(shown) == _loss(toggled))
    stdout, stderr = other.communicate(timeout=60)
    assert (other.returncode, stderr) == (0, "")
    assert json.loads(stdout)["name"] == "other"

    tmux.keys("w")
    tmux.until(lambda shown: "save selection" in shown)
    tmux.keys("C-u")
    tmux.until(lambda shown: "enter a name" in shown)
    tmux.type("by hand")
    tmux.keys("Enter")
    tmux.until(lambda shown: "vs by hand same" in shown)
    tmux.resize(40, 12)
    tmux.until(lambda shown: "too small" in shown)
    tmux.resize(80, 24)
    tmux.until(lambda shown: "vs by hand same" in shown)
    tmux.keys("e")
    tmux.until(lambda shown: "curator export" in shown)
    tmux.keys("Tab")
    tmux.keys("C-u")
    tmux.until(lambda shown: "name a folder" in shown)
    tmux.type(str(out))
    tmux.until(lambda shown: "will be created" in shown and f"preview {out.name}/" in shown)
    tmux.keys("Enter")
    tmux.until(lambda shown: "exported" in shown)
    tmux.keys("q")
    tmux.until(lambda shown: "bash-" in shown)

    name = first.split()[2]
    manifest = read_manifest(out / "curator-manifest.json")
    assert manifest.name == "by hand"
    assert f"{manifest.estimated_loss:.4f}" == _loss(toggled)
    assert [(edit.task, edit.by) for edit in manifest.edits] == [(name, "curator tui")]
    selected = {task.name for task in manifest.tasks if task.selected}
    assert (name in selected) == (changed[2] == "●")
    assert {path.stem for path in out.glob("*.jsonl")} == selected | {"topic", "validation"}


@needs_tmux
def test_terminal_job_outlives_terminal(sample: Path, tmux: Tmux, tmp_path: Path) -> None:
    # The last test may have left another screen open.
    command = f"{sys.executable} -m curator tui -p {sample}"
    tmux.type(command)
    tmux.keys("Enter")
    tmux.until(lambda shown: "topic" in shown and "? help" in shown)
    tmux.keys("4")
    tmux.until(lambda shown: "[4 Jobs]" in shown)
    tmux.keys("R")
    tmux.until(lambda shown: "run a stage" in shown)
    tmux.keys("j", "Enter")
    tmux.until(lambda shown: "▶" in shown)
    runs = sample / ".curator" / "runs"
    newest = sorted(runs.glob("*/run.json"))[-1]
    pid = int(json.loads(newest.read_text())["pid"])
    tmux.close()
    time.sleep(0.5)
    os.kill(pid, 0)
    again = Tmux(tmp_path)
    again.type(command)
    again.keys("Enter")
    again.until(lambda shown: "[4 Jobs]" in shown and "train" in shown)
    again.keys("g", "x")
    again.until(lambda shown: "y yes" in shown)
    again.keys("y")
    again.until(lambda shown: "interrupted" in shown)
    again.close()


def test_tui_without_terminal_names_alternative(sample: Path) -> None:
    done = subprocess.run(
        [*CURATOR, "tui", "-p", str(sample)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
    assert "curator select --json" in done.stderr
    nowhere = subprocess.run([*CURATOR, "tui", "-p", "/nowhere"], capture_output=True, text=True, check=False)
    assert (nowhere.returncode, nowhere.stdout) == (2, "")
    assert "curator.toml" in nowhere.stderr


# -- in a browser -------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@pytest.fixture
def served(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    port = _free_port()
    process = subprocess.Popen(
        [*CURATOR, "tui", "-p", str(sample), "--serve", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    yield port, process
    process.send_signal(signal.SIGINT)
    process.wait(20)


def test_serve_foreign_page_is_refused(served: tuple[int, "subprocess.Popen[str]"]) -> None:
    port, process = served
    assert process.stderr is not None
    warning = process.stderr.readline()
    assert "no password" in warning
    assert f"127.0.0.1:{port}" in warning

    async def status(path: str, **headers: str) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer,
        ):
            return answer.status

    async def main() -> None:
        assert await status("/") == 200
        assert await status("/", Host=f"localhost:{port + 1}") == 200, "through a tunnel from another port"
        assert await status("/", Host="evil.example") == 403
        assert await status("/ws", Origin="http://evil.example") == 403
        assert await status("/ws", Origin=f"http://localhost:{port + 1}") == 403
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/ws?width=80&height=24"
            async with session.ws_connect(url, headers={"Origin": f"http://127.0.0.1:{port}"}) as opened:
                assert not opened.closed

    asyncio.run(main())


def test_serve_port_in_use_is_error(sample: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        command = [*CURATOR, "tui", "-p", str(sample), "--serve", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--port" in done.stderr


def test_tui_closed_terminal_ends_process(sample: Path, tmp_path: Path) -> None:
    # The terminal is not the controlling terminal, so that no signal reports its end. Containers do the same.
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "XDG_CONFIG_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [*CURATOR, "tui", "-p", str(sample)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    try:
        assert os.read(master, 1)
        os.close(master)
        process.wait(timeout=20)
    finally:
        process.kill()


class Browser:
    """A page of a headless Chromium, controlled by the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._last = socket, 0

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call a method and return its result."""
        self._last += 1
        await self._socket.send_json({"id": self._last, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._last:
                return message["result"]

    async def text(self) -> str:
        """Return the text of the terminal in the page."""
        code = "[...document.querySelectorAll('.xterm-rows > div')].map(row => row.innerText).join('\\n')"
        found = await self.call("Runtime.evaluate", expression=code, returnByValue=True)
        return str(found["result"].get("value", "")).replace("\xa0", " ")

    async def until(self, test: Callable[[str], Any], seconds: float = 40) -> str:
        """Wait until the page passes a test."""
        deadline = time.monotonic() + seconds
        while not test(shown := await self.text()):
            assert time.monotonic() < deadline, f"the wait timed out:\n{shown}"
            await asyncio.sleep(0.1)
        return shown

    async def press(self, key: str) -> None:
        """Press a key that types a letter."""
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=key, key=key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)


@needs_chromium
def test_serve_browser_shows_task_table(served: tuple[int, "subprocess.Popen[str]"], tmp_path: Path) -> None:
    port, _ = served
    assert CHROMIUM is not None
    debugging = _free_port()
    chromium = subprocess.Popen(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage",
            f"--remote-debugging-port={debugging}", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,800",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    async def pages(session: aiohttp.ClientSession) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 40
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{debugging}/json") as answer:
                    found: list[dict[str, Any]] = await answer.json()
                    return found
            except aiohttp.ClientError:
                assert time.monotonic() < deadline, "Chromium does not start"
                await asyncio.sleep(0.2)

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            page = next(page for page in await pages(session) if page["type"] == "page")
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as opened:
                browser = Browser(opened)
                await browser.call("Page.enable")
                # Without a canvas, the terminal in the page consists of readable text.
                source = "HTMLCanvasElement.prototype.getContext = () => null"
                await browser.call("Page.addScriptToEvaluateOnNewDocument", source=source)
                await browser.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
                await browser.until(lambda shown: "pipeline" in shown or "? help" in shown)
                focus = "document.querySelector('.xterm-helper-textarea').focus()"
                await browser.call("Runtime.evaluate", expression=focus)
                await browser.press("2")
                shown = await browser.until(lambda shown: _loss(shown) and "hypernym" in shown)
                await browser.press(" ")
                await browser.until(lambda now: _loss(now) not in ("", _loss(shown)))

    try:
        asyncio.run(main())
    finally:
        chromium.kill()
        chromium.wait()
