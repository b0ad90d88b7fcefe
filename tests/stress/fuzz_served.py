"""Parsers of what a browser and a session's process send to the served interface."""

import asyncio
import contextlib
import functools
import json
import logging
import os
import shlex
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from textual_serve._binary_encode import dump
from textual_serve.download_manager import DownloadManager

from curator.cli import serve
from curator.cli.peer_access import Access
from curator.cli.peer_messages import LONGEST, TALLEST, WIDEST, MalformedError, Resize, asked_window, parse
from curator.cli.peer_session import Session

_MESSAGES = [
    b'["stdin", "a\\u001b[A"]',
    b'["resize", {"width": 100, "height": 30}]',
    b'["ping", "1700000000"]',
    b'["focus"]',
    b'["blur"]',
]
_ADDRESSES = [
    b"127.0.0.1:8000",
    b"localhost",
    b"[::1]:8000",
    b"http://localhost:8000",
    b"https://user@example.org:1/a?b#c",
    b"100",
]
_ACCESS = Access(host="localhost", addresses=("127.0.0.1", "::1"), port=8000, public_url="https://example.org/a")
_KNOWN = {"localhost", "127.0.0.1", "::1", "example.org"}


def _frame(code: int, payload: bytes, *, is_last: bool = True) -> bytes:
    """Write a frame as a browser does: masked, here with a mask of zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return bytes([code | (0x80 if is_last else 0)]) + length + bytes(4) + payload


_FRAMES = [
    b"".join(_frame(1, message) for message in _MESSAGES),
    _frame(1, b'["stdin", ', is_last=False) + _frame(9, b"a") + _frame(0, b'"a"]') + _frame(8, b"\x03\xe8"),
    _frame(2, b"\0\1\2") + _frame(1, b"x" * 300),
]
_PACKETS = [
    b"noise\n__GANGLION__\n" + b"".join(kind + len(payload).to_bytes(4, "big") + payload for kind, payload in packets)
    for packets in (
        [(b"D", b"\x1b[31ma"), (b"M", b'{"type": "open_url", "url": "http://a", "new_tab": true}')],
        [
            (
                b"M",
                json.dumps(
                    {
                        "type": "deliver_file_start",
                        "key": "k",
                        "path": "/a/b.svg",
                        "open_method": "download",
                        "mime_type": "image/svg+xml",
                        "encoding": None,
                    }
                ).encode(),
            ),
            (b"P", dump(("deliver_chunk", "k", b"abc"))),
            (b"M", b'{"type": "exit"}'),
        ],
    )
]


def _message(folder: Path, content: bytes) -> None:
    with contextlib.suppress(MalformedError):
        found = parse(content.decode("utf-8", "replace"))
        if isinstance(found, Resize):
            assert 1 <= found.width <= WIDEST
            assert 1 <= found.height <= TALLEST


def _address(folder: Path, content: bytes) -> None:
    """Read the query and the headers of a request."""
    # aiohttp reads headers as UTF-8, with surrogates for bytes that are not.
    text = content.decode("utf-8", "surrogateescape")
    width, height = asked_window(text, text)
    assert 1 <= width <= WIDEST
    assert 1 <= height <= TALLEST
    assert not _ACCESS.knows_token(text)
    if _ACCESS.allows_host([text]):
        assert any(name in text.lower() for name in _KNOWN), text
    _ACCESS.allows_origin(text, "localhost")
    _ACCESS.allows_origin("http://localhost", text)


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop of all texts. An error that no task handles becomes an error of the next text."""
    return asyncio.new_event_loop()


class _Errors(logging.Handler):
    """Keep tracebacks that a server logs instead of raising."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # A malformed request is answered with 400. `curator tui --serve` logs nothing about it.
        if record.exc_info and not isinstance(record.exc_info[1], HttpProcessingError):
            self.found.append(logging.Formatter().format(record))


@functools.cache
def _errors() -> _Errors:
    errors = _Errors()
    for name in ("aiohttp.server", "asyncio", "curator.serve"):
        logging.getLogger(name).addHandler(errors)
        logging.getLogger(name).propagate = False
    return errors


def _run(work: Coroutine[Any, Any, None]) -> None:
    errors, loop = _errors(), _loop()
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    loop.run_until_complete(asyncio.wait_for(work, 60))
    found, errors.found = errors.found, []
    assert not found, found[0]
    assert not unhandled, unhandled[0]


def _packet(folder: Path, content: bytes) -> None:
    """Read the output of a session's process. The process here writes the damaged output."""
    (folder / "output").write_bytes(content)

    async def work() -> None:
        session = Session(["cat", str(folder / "output")], DownloadManager())
        await session.start(80, 24)
        reading = session._tasks[0]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(reading, 10)
        await session.end()
        assert session.is_ended

    _run(work())


# Ends at the `q` of the command to quit, as the interface does.
_QUITTING = shlex.split("bash -c 'read -r -d q'")


@functools.cache
def _server() -> tuple[serve.PeerServer, Access, int]:
    """Serve sessions on a port of this machine."""
    # A window that closed is not awaited. Each text opens another.
    vars(serve)["AWAY_SECONDS"] = 0.0
    access = Access(host="127.0.0.1", addresses=("127.0.0.1",), port=8000)
    server = serve.PeerServer(_QUITTING, access, title="a", sessions=8)

    async def start() -> int:
        runner = web.AppRunner(server.app(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

    return server, access, _loop().run_until_complete(start())


def _frames(folder: Path, content: bytes) -> None:
    """Open a socket as a browser does, and send damaged frames."""
    server, access, port = _server()

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        key = os.urandom(16).hex()[:22] + "=="
        writer.write(
            f"GET /ws?width=90&height=30 HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {access.cookie}={access.token}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        with contextlib.suppress(ConnectionError):
            assert (await reader.readline()).split()[1] == b"101"
            writer.write(content)
            await writer.drain()
            writer.write_eof()
            while await reader.read(LONGEST):
                pass
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        # A session ends within five seconds of its window.
        for _ in range(500):
            if not server._sessions:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("a session lives after its window")

    _run(work())


def _request(folder: Path, content: bytes) -> None:
    """Send a damaged request. Nothing but refusals comes back without the token."""
    _, _, port = _server()

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = b""
        with contextlib.suppress(ConnectionError):
            writer.write(content)
            writer.write_eof()
            answer = await reader.read(LONGEST)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        if answer:
            code = int(answer.split()[1])
            assert 400 <= code < 500, answer

    _run(work())


_REQUESTS = [
    b"GET /?token=a HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nCookie: curator-8000=a; b=c\r\n\r\n",
    b"GET /ws/name?width=1&height=1 HTTP/1.1\r\nHost: localhost:8000\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    b"POST /static/../a HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
]

PARSERS: dict[str, tuple[Callable[[], Sequence[bytes]], Callable[[Path, bytes], None]]] = {
    "socket message": (lambda: _MESSAGES, _message),
    "query and headers": (lambda: _ADDRESSES, _address),
    "socket frames": (lambda: _FRAMES, _frames),
    "request": (lambda: _REQUESTS, _request),
    "output of a session": (lambda: _PACKETS, _packet),
}
"""Valid texts and the call of a parser, by the name of the parser."""
