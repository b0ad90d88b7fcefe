"""Control a headless Chromium by the DevTools protocol."""

import asyncio
import base64
import contextlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from served import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


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

    async def open(self, url: str) -> None:
        """Open a page whose terminal consists of readable text, which needs a browser without a canvas."""
        await self.call("Page.enable")
        source = "HTMLCanvasElement.prototype.getContext = () => null"
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=source)
        await self.call("Page.navigate", url=url)

    async def focus(self) -> None:
        """Give the focus to the terminal."""
        await self.call("Runtime.evaluate", expression="document.querySelector('.xterm-helper-textarea').focus()")

    async def resize(self, width: int, height: int) -> None:
        """Set the size of the window, in pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def screenshot(self) -> bytes:
        """Return a picture of the window, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


@contextlib.asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Browser]:
    """Start a Chromium for an `async with` block. Its profile lies in `folder`."""
    assert CHROMIUM is not None
    debugging = free_port()
    chromium = subprocess.Popen(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage",
            f"--remote-debugging-port={debugging}", f"--user-data-dir={folder / 'profile'}", "--window-size=1200,800",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            page = next(page for page in await _pages(session, debugging) if page["type"] == "page")
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as opened:
                yield Browser(opened)
    finally:
        chromium.kill()
        chromium.wait()


async def _pages(session: aiohttp.ClientSession, debugging: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 40
    while True:
        try:
            async with session.get(f"http://127.0.0.1:{debugging}/json") as answer:
                found: list[dict[str, Any]] = await answer.json()
                return found
        except aiohttp.ClientError:
            assert time.monotonic() < deadline, "Chromium does not start"
            await asyncio.sleep(0.2)
