"""Start `curator tui --serve`, and be its client on a WebSocket, as a browser is."""

import asyncio
import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")


def free_port() -> int:
    """Return a port of the loopback address that no process uses."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running `curator tui --serve`."""

    process: "subprocess.Popen[str]"
    port: int
    url: str
    """The printed URL, with the token if there is one."""
    words: str
    """The text on standard error until the URL."""

    @property
    def token(self) -> str:
        """Return the token of the URL, or an empty text."""
        found = re.search(r"token=([\w-]+)", self.url)
        return found[1] if found else ""

    def sessions(self) -> list[int]:
        """Return the ids of the running processes of the sessions, without their own child processes."""
        return self.children(recursive=False)

    def children(self, *, recursive: bool = True) -> list[int]:
        """Return the ids of the running processes below the server."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children(recursive=recursive)
            return [child.pid for child in found if child.status() != psutil.STATUS_ZOMBIE]
        return []


@contextlib.contextmanager
def serving(
    folder: Path,
    *options: str,
    cwd: Path | None = None,
    host: str = "127.0.0.1",
    environment: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Serve a project within a `with` block. Wait until the server prints its URL and listens."""
    port = free_port()
    words = [sys.executable, "-P", "-m", "curator", "tui", "--serve", "--host", host, "--port", str(port)]
    process = subprocess.Popen(
        [*words, "-p", str(folder), *options],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_CONFIG_HOME": str(folder.parent / "config")} | (environment or {}),
    )
    assert process.stderr is not None
    printed, deadline = "", time.monotonic() + 60
    try:
        while not (found := re.search(r"https?://\S+(?=\s)", printed)) or not _listens(host, port):
            assert process.poll() is None, printed
            assert time.monotonic() < deadline, printed
            if select.select([process.stderr], [], [], 0.05)[0]:
                # Not `readline`: its buffer hides lines from `select`.
                printed += os.read(process.stderr.fileno(), 65536).decode("utf-8", "replace")
        yield Server(process=process, port=port, url=found[0], words=printed)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        process.stderr.close()


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


class Served:
    """A client of a served session: it opens the page, and then the socket with the cookie that the page set."""

    def __init__(self, server: Server, *, width: int = 100, height: int = 30) -> None:
        self._server, self._size = server, (width, height)
        # Cookies of addresses are unsafe for aiohttp by default.
        self._client = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self.shown = b""

    async def __aenter__(self) -> Self:
        async with self._client.get(self._server.url) as page:
            assert page.status == 200, await page.text()
            origin = f"{page.url.scheme}://{page.url.authority}"
        width, height = self._size
        self.socket = await self._client.ws_connect(
            f"{origin}/ws?width={width}&height={height}", headers={"Origin": origin}
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.socket.close()
        await self._client.close()

    async def until_text(self, *words: str, seconds: float = 60) -> str:
        """Read output until each of the words has been shown."""
        async with asyncio.timeout(seconds):
            while not all(word in self.text() for word in words):
                await self.read()
        return self.text()

    async def read(self) -> None:
        """Read one message.

        Raises:
            EOFError: The server closed the socket.
        """
        message = await self.socket.receive()
        if message.type == aiohttp.WSMsgType.BINARY:
            self.shown += message.data
        elif message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
            raise EOFError(self.text()[-2000:])

    async def until_closed(self, seconds: float = 20) -> int | None:
        """Read until the server closes the socket. Return the code of the close."""
        async with asyncio.timeout(seconds):
            with contextlib.suppress(EOFError):
                while True:
                    await self.read()
        return self.socket.close_code

    async def send(self, *message: Any) -> None:
        """Send one message of textual-serve: a type and its value."""
        await self.socket.send_json(list(message))

    def text(self) -> str:
        """Return all printed text, without escape sequences."""
        return _ESCAPES.sub("", self.shown.decode("utf-8", "replace"))


def host_of(url: str) -> str:
    """Return host and port of a URL."""
    return urlsplit(url).netloc
