"""Run the interface for one browser window: a process that ends soon after its window, within limits."""

import asyncio
import contextlib
import json
import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, cast

import psutil
from aiohttp import ClientError, web
from textual_serve._binary_encode import DecodeError
from textual_serve._binary_encode import load as load_packed
from textual_serve.download_manager import DownloadManager

from curator.cli.peer_messages import Focus, Message, Ping, Resize, Stdin
from curator.core.text import clean

MEMORY = 2 * 2**30
"""Most resident memory of a session's process, in bytes."""
AWAY_SECONDS = 2.0
"""Time that a session waits for its window to come back, as after a reload."""
_QUIT_SECONDS, _TERM_SECONDS = 1.0, 1.0
_FEED_SECONDS = 3.0
_WATCH_SECONDS = 0.5
_LARGEST_PACKET = 64 * 2**20
_LARGEST_ERROR = 64 * 1024
_BEGINNING = b"__GANGLION__\n"
# What Textual sends once to a new terminal: alternate screen, mouse, hidden cursor, bracketed paste.
_PREPARE = b"\x1b[?1049h\x1b[?1000h\x1b[?1003h\x1b[?1015h\x1b[?1006h\x1b[?25l\x1b[?2004h"
# Errors of an output that has ended, or that is not of Textual's protocol.
_BROKEN = (EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, DecodeError)
_log = logging.getLogger("curator.serve")


class Session:
    """Connect one process of the interface with the socket of one window.

    Args:
        command: Command line of the process.
        downloads: Files that the process delivers to the browser.
    """

    def __init__(self, command: Sequence[str], downloads: DownloadManager) -> None:
        self.app_service_id = uuid.uuid4().hex
        self._command, self._downloads = command, downloads
        self._socket: web.WebSocketResponse | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._error = b""
        self._ending: asyncio.Task[None] | None = None
        self.is_left = False
        """Whether the window has closed, and has not come back."""
        self._size = (80, 24)

    @property
    def is_attached(self) -> bool:
        """Return whether a window is connected."""
        return self._socket is not None

    @property
    def is_ended(self) -> bool:
        """Return whether the process has ended, or is being ended."""
        return self._ending is not None or (self._process is not None and self._process.returncode is not None)

    async def start(self, width: int, height: int) -> None:
        """Start the process for a window of this size.

        Raises:
            OSError: The process cannot be started.
        """
        self._size = (width, height)
        environment = os.environ | {
            "TEXTUAL_DRIVER": "textual.drivers.web_driver:WebDriver",
            "TEXTUAL_FPS": "60",
            "TEXTUAL_COLOR_SYSTEM": "truecolor",
            "TERM_PROGRAM": "textual",
            "COLUMNS": str(width),
            "ROWS": str(height),
        }
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
        self._tasks = [asyncio.create_task(work) for work in (self._read(), self._read_error(), self._watch_memory())]

    async def attach(self, socket: web.WebSocketResponse, width: int, height: int) -> None:
        """Connect a window. A window that was connected before is closed."""
        earlier, self._socket, self.is_left = self._socket, socket, False
        if earlier is not None:
            await _close(earlier)
        self._size = (width, height)

    async def repaint(self) -> None:
        """Draw everything again, in a window that shows nothing yet. Textual draws all lines at a change of size."""
        width, height = self._size
        await self._send(_PREPARE)
        await self.send_meta({"type": "resize", "width": width, "height": max(height - 1, 1)})
        await asyncio.sleep(0.2)
        await self.send_meta({"type": "resize", "width": width, "height": height})

    def detach(self, socket: web.WebSocketResponse) -> bool:
        """Disconnect a window. Return whether the window was the connected one."""
        if self._socket is not socket:
            return False
        self._socket, self.is_left = None, True
        return True

    async def handle(self, message: Message) -> None:
        """Pass a message of the browser on to the process.

        Raises:
            TimeoutError: The process does not read its input.
        """
        match message:
            case Stdin(data):
                await self._feed(b"D", data)
            case Resize(width, height):
                self._size = (width, height)
                await self.send_meta({"type": "resize", "width": width, "height": height})
            case Focus(focused):
                await self.send_meta({"type": "focus" if focused else "blur"})
            case Ping(word):
                if self._socket is not None:
                    await self._socket.send_json(["pong", word])

    async def send_meta(self, data: dict[str, Any]) -> bool:
        """Send a command of Textual's protocol to the process. Return whether the process still reads."""
        return await self._feed(b"M", json.dumps(data).encode())

    async def end(self) -> None:
        """End the process: ask, then TERM, then KILL. Jobs that the session started continue."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await self.send_meta({"type": "quit"})
            for seconds, stop in ((_QUIT_SECONDS, process.terminate), (_TERM_SECONDS, process.kill)):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), seconds)
                    break
                with contextlib.suppress(ProcessLookupError):
                    stop()
            await process.wait()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        await self._downloads.cancel_app_downloads(app_service_id=self.app_service_id)
        socket, self._socket = self._socket, None
        if socket is not None:
            await _close(socket)

    async def _feed(self, kind: bytes, payload: bytes) -> bool:
        stdin = None if self._process is None else self._process.stdin
        if stdin is None or stdin.is_closing():
            return False
        try:
            stdin.write(kind + len(payload).to_bytes(4, "big") + payload)
            await asyncio.wait_for(stdin.drain(), _FEED_SECONDS)
        except (OSError, RuntimeError):
            return False
        return True

    async def _read(self) -> None:
        """Pass the output of the process on to the window, until the process ends."""
        assert self._process is not None
        assert self._process.stdout is not None
        stdout = self._process.stdout
        try:
            while (line := await stdout.readline()) != _BEGINNING:
                if not line:
                    raise EOFError
            while True:
                kind, size = await stdout.readexactly(1), int.from_bytes(await stdout.readexactly(4), "big")
                if size > _LARGEST_PACKET:
                    raise EOFError
                payload = await stdout.readexactly(size)
                if kind == b"D":
                    await self._send(payload)
                elif kind == b"M":
                    await self._handle_meta(json.loads(payload))
                elif kind == b"P":
                    _, key, chunk = cast("tuple[str, str, bytes]", load_packed(payload))
                    await self._downloads.chunk_received(key, chunk)
        except _BROKEN:
            pass
        finally:
            if error := self._error.decode("utf-8", "replace").strip():
                _log.error("%s", clean(error, lines=True))
            self._ending = self._ending or asyncio.create_task(self._end())

    async def _read_error(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(4096):
            self._error = (self._error + data)[-_LARGEST_ERROR:]

    async def _watch_memory(self) -> None:
        assert self._process is not None
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            while self._process.returncode is None:
                if process.memory_info().rss > MEMORY:
                    _log.error("a session used more than %d MiB of memory and was ended", MEMORY >> 20)
                    self._process.kill()
                    return
                await asyncio.sleep(_WATCH_SECONDS)

    async def _send(self, payload: bytes) -> None:
        # Output without a window is dropped. A window that comes back is painted whole.
        if self._socket is not None:
            with contextlib.suppress(ClientError, OSError):
                await self._socket.send_bytes(payload)

    async def _handle_meta(self, found: dict[str, Any]) -> None:
        answer: list[Any] = []
        if found["type"] == "exit":
            raise EOFError
        if found["type"] == "open_url":
            answer = ["open_url", {"url": found["url"], "new_tab": found["new_tab"]}]
        elif found["type"] == "deliver_file_start":
            await self._downloads.create_download(
                app_service=cast(Any, self),
                delivery_key=str(found["key"]),
                file_name=PurePath(found["path"]).name,
                open_method=found["open_method"],
                mime_type=found["mime_type"],
                encoding=found["encoding"],
                name=found.get("name"),
            )
            answer = ["deliver_file_start", str(found["key"])]
        if answer and self._socket is not None:
            with contextlib.suppress(ClientError, OSError):
                await self._socket.send_json(answer)


async def _close(socket: web.WebSocketResponse) -> None:
    """Close a socket without waiting long for a peer that does not answer."""
    with contextlib.suppress(TimeoutError, ClientError, OSError):
        await asyncio.wait_for(socket.close(), 1.0)
