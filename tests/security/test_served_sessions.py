"""Who may connect to `curator tui --serve`, and the limits of served sessions."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from conftest import pair_rows, write_rows
from served import Served, Server, free_port, serving
from textual_serve.download_manager import DownloadManager

from curator.cli import peer_access, peer_messages
from curator.cli.peer_access import Access, is_loopback, resolve
from curator.cli.peer_messages import MalformedError, Resize, parse
from curator.cli.peer_session import Session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("served") / "project"
    write_rows(folder / "tasks" / "target.jsonl", pair_rows("target", 6))
    (folder / "curator.toml").write_text(
        f'[model]\nname_or_path = {json.dumps(str(tiny_llama_folder))}\n[data]\ntasks = "tasks/*"\ntarget = "target"\n'
    )
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--sessions", "2") as made:
        yield made


async def _status(server: Server, path: str = "/", *, token: bool = True, **headers: str) -> int:
    async with aiohttp.ClientSession() as client:
        given = {"Cookie": f"curator-{server.port}={server.token}"} if token else {}
        url = f"http://127.0.0.1:{server.port}{path}"
        async with client.get(url, headers=given | headers, allow_redirects=False) as answer:
            return answer.status


async def _no_sessions(server: Server, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while server.children():
        assert time.monotonic() < deadline, "a session lives on"
        await asyncio.sleep(0.1)


# -- who may connect ----------------------------------------------------------------------------------------------


def test_serve_request_without_token_is_refused(server: Server) -> None:
    async def main() -> None:
        for path in ("/", "/ws", "/ws/name", "/static/js/textual.js", "/download/x", "/?token=wrong", "/nowhere"):
            assert await _status(server, path, token=False) == 403, path
        assert await _status(server, "/", token=False, Cookie=f"curator-{server.port}=wrong") == 403
        assert await _status(server, "/") == 200
        async with aiohttp.ClientSession() as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(f"http://127.0.0.1:{server.port}/ws?width=80&height=24")
            assert refused.value.status == 403
        assert server.children() == []

    assert len(server.token) >= 32
    asyncio.run(main())


def test_serve_url_with_token_sets_cookie_that_scripts_cannot_read(server: Server) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as client, client.get(server.url, allow_redirects=False) as answer:
            assert answer.status == 303
            assert server.token not in answer.headers["Location"]
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Lax" in cookie
            assert answer.headers["Referrer-Policy"] == "no-referrer"
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
            client.get(server.url) as page,
        ):
            assert server.token not in str(page.url)
            text = await page.text()
            assert server.token not in text
            assert "https://" not in text, "the page loads nothing from other servers"
            assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]

    asyncio.run(main())


def test_serve_foreign_host_or_origin_is_refused(server: Server) -> None:
    """A foreign name that resolves to this machine is refused, even with the token."""
    port = server.port

    async def main() -> None:
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.1", "[::2]"):
            assert await _status(server, Host=host) == 403, host
        for host in ("localhost", f"localhost:{port + 1}", "127.0.0.1:1", f"[::1]:{port}", "LOCALHOST"):
            assert await _status(server, Host=host) == 200, host
        for origin in ("http://evil.example", f"http://localhost:{port}", f"http://127.0.0.1:{port + 1}", "null"):
            assert await _status(server, "/ws", Origin=origin) == 403, origin
            assert await _status(server, Origin=origin) == 403, origin
        assert await _status(server, Origin=f"http://127.0.0.1:{port}") == 200

    asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.2", "127.1"])
def test_serve_every_spelling_of_loopback_refuses_foreign_names(folder: Path, host: str) -> None:
    with serving(folder, host=host) as server:

        async def main() -> None:
            async with aiohttp.ClientSession() as client:
                base = server.url.partition("?")[0]
                cookie = {"Cookie": f"curator-{server.port}={server.token}"}
                for foreign in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                    async with client.get(base, headers=cookie | foreign) as answer:
                        assert answer.status == 403, foreign
                async with client.get(base, headers=cookie) as answer:
                    assert answer.status == 200

        asyncio.run(main())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])
def test_serve_open_address_needs_allow_network(folder: Path, host: str) -> None:
    words = [sys.executable, "-P", "-m", "curator", "tui", "--serve", "-p", str(folder), "--host", host]
    done = subprocess.run([*words, "--port", str(free_port())], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "--allow-network" in done.stderr
    assert "can change the project and start jobs" in done.stderr


def test_serve_open_address_with_allow_network_refuses_foreign_names(folder: Path) -> None:
    with serving(folder, "--allow-network", host="0.0.0.0") as server:

        async def main() -> None:
            assert await _status(server, Host="evil.example") == 403
            assert await _status(server, Host="0.0.0.0") == 403
            assert await _status(server, token=False) == 403
            assert await _status(server) == 200

        assert "is open to the network" in server.words
        asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "addresses", "public_url", "given", "allowed"),
    [
        ("127.0.0.1", ("127.0.0.1",), "", "localhost", True),
        ("127.0.0.1", ("127.0.0.1",), "", "127.0.0.2", False),
        ("::1", ("::1",), "", "[0:0:0:0:0:0:0:1]:8000", True),
        ("127.0.0.1", ("127.0.0.1",), "https://lab.example/x", "lab.example", True),
        ("127.0.0.1", ("127.0.0.1",), "https://lab.example/x", "other.example", False),
        ("10.0.0.5", ("10.0.0.5",), "", "10.0.0.5:8000", True),
        ("10.0.0.5", ("10.0.0.5",), "", "localhost", False),
        ("127.0.0.1", ("127.0.0.1",), "", "", False),
        ("127.0.0.1", ("127.0.0.1",), "", "[", False),
        ("127.0.0.1", ("127.0.0.1",), "", "127.0.0\n.1:8000", False),
        ("127.0.0.1", ("127.0.0.1",), "", "local\thost", False),
    ],
)
def test_access_host_is_checked_against_known_names(
    host: str, addresses: tuple[str, ...], public_url: str, given: str, allowed: bool
) -> None:
    access = Access(host=host, addresses=addresses, port=8000, public_url=public_url)
    assert access.allows_host([given]) == allowed
    assert not access.allows_host([given, given]), "two Host headers"


def test_access_many_requests_ask_the_name_server_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(socket, "getfqdn", lambda: asked.append(1) or "machine.example")
    peer_access._own_names.cache_clear()
    access = Access(host="0.0.0.0", addresses=("0.0.0.0",), port=8000)
    assert [access.allows_host([host]) for host in ("machine.example", "evil.example")] == [True, False]
    assert len(asked) == 1
    peer_access._own_names.cache_clear()


def test_access_origin_of_proxy_needs_its_scheme() -> None:
    access = Access(host="127.0.0.1", addresses=("127.0.0.1",), port=8000, public_url="https://lab.example")
    assert access.allows_origin("https://lab.example", "127.0.0.1:8000")
    assert not access.allows_origin("http://lab.example", "127.0.0.1:8000")
    assert not access.allows_origin("file://127.0.0.1:8000", "127.0.0.1:8000")
    assert access.url.startswith("https://lab.example/?token=")
    assert access.token not in repr(access)


def test_resolve_spellings_of_loopback_are_equal() -> None:
    assert resolve("127.1", 80) == resolve("127.0.0.1", 80) == ["127.0.0.1"]
    assert all(map(is_loopback, ("127.0.0.2", "::1", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "name")))


# -- messages -----------------------------------------------------------------------------------------------------

MALFORMED = [
    "",
    "nothing",
    "{}",
    "[]",
    "[1]",
    '["stdin"]',
    '["stdin", 5]',
    '["stdin", "\\ud800"]',
    '["resize", null]',
    '["resize", {"width": "x", "height": 3}]',
    '["resize", {"width": 1.5, "height": 3}]',
    '["resize", {"width": true, "height": 3}]',
    '["resize", {"width": NaN, "height": 3}]',
    '["resize", {"width": 80}]',
    '["ping", {"a": 1}]',
    '["quit"]',
    '["deliver_chunk_request", {"key": "x"}]',
    "[" * 100_000,
    "1" * 5000,
]


@pytest.mark.parametrize("text", MALFORMED)
def test_parse_malformed_message_raises_malformed_error(text: str) -> None:
    with pytest.raises(MalformedError):
        parse(text)


@pytest.mark.parametrize(
    "packet",
    [
        *(b"P\0\0\0\2t0", b"P\0\0\0\1i", b"M\0\0\0\2[]", b"M\0\0\0\2{}"),
        *(b"M\0\1\0\0" + b"[" * 2**16, b"D\xff\0\0\0"),
    ],
)
def test_session_malformed_output_of_process_ends_session(packet: bytes, tmp_path: Path) -> None:
    (tmp_path / "output").write_bytes(b"__GANGLION__\n" + packet)

    async def main() -> None:
        session = Session(["cat", str(tmp_path / "output")], DownloadManager())
        await session.start(80, 24)
        reading = session._tasks[0]
        await asyncio.wait_for(asyncio.wait([reading]), 30)
        await session.end()
        assert reading.cancelled() or reading.exception() is None
        assert session.is_ended

    asyncio.run(main())


def test_parse_huge_window_is_limited() -> None:
    assert parse('["resize", {"width": 100000, "height": 100000}]') == Resize(500, 200)
    assert parse('["resize", {"width": -5, "height": 0}]') == Resize(1, 1)
    assert peer_messages.asked_window("9" * 5000, "²") == (80, 24)
    assert peer_messages.asked_window("100000", "100000") == (500, 200)


@pytest.mark.parametrize(
    ("message", "code"),
    [("nothing", 1002), ('["resize", {"width": "x", "height": 1}]', 1002), (b"\x00", 1002), ("x" * 300_000, 1009)],
)
def test_serve_malformed_message_closes_session_without_traceback(
    folder: Path, message: str | bytes, code: int
) -> None:
    with serving(folder) as server:

        async def main() -> None:
            async with Served(server) as session:
                await session.until_text("target")
                await (session.socket.send_str if isinstance(message, str) else session.socket.send_bytes)(message)
                assert await session.until_closed() == code
                await _no_sessions(server, 5)

        asyncio.run(main())
        server.process.terminate()
        assert server.process.stderr is not None
        assert "Traceback" not in server.process.stderr.read()


# -- sessions -----------------------------------------------------------------------------------------------------


def test_serve_huge_window_needs_little_memory(server: Server) -> None:
    async def main() -> None:
        async with Served(server, width=100_000, height=100_000) as session:
            await session.until_text("target")
            await session.send("resize", {"width": 100_000, "height": 100_000})
            await asyncio.sleep(2)
            (child,) = server.sessions()
            assert psutil.Process(child).memory_info().rss < 2**30
        await _no_sessions(server, 5)

    asyncio.run(main())


def test_serve_too_many_sessions_are_refused(server: Server) -> None:
    async def main() -> None:
        async with Served(server) as one, Served(server) as other:
            await one.until_text("target")
            await other.until_text("target")
            assert len(server.sessions()) == 2
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with Served(server):
                    pass
            assert refused.value.status == 503
        await _no_sessions(server, 6)
        async with Served(server) as session:
            await session.until_text("target")
        await _no_sessions(server, 6)

    asyncio.run(main())


def test_serve_client_leaves_session_ends_within_five_seconds(server: Server) -> None:
    async def main() -> None:
        async with Served(server) as session:
            await session.until_text("target")
            # The client dies: it closes the connection without a word.
            session.socket._response.close()
            start = time.monotonic()
            await _no_sessions(server, 6)
            assert time.monotonic() - start < 5.5

    asyncio.run(main())


def test_serve_stopped_session_is_killed(server: Server) -> None:
    """A process that answers neither `quit` nor TERM ends by KILL."""

    async def main() -> None:
        async with Served(server) as session:
            await session.until_text("target")
            (child,) = server.sessions()
            psutil.Process(child).suspend()
        start = time.monotonic()
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() - start < 6
            await asyncio.sleep(0.1)

    asyncio.run(main())


def test_serve_killed_server_leaves_no_session(folder: Path) -> None:
    with serving(folder) as server:

        async def main() -> None:
            session = Served(server)
            await session.__aenter__()
            await session.until_text("target")
            (child,) = server.sessions()
            server.process.kill()
            deadline = time.monotonic() + 5
            while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            await session.__aexit__()

        asyncio.run(main())


def test_serve_greedy_session_is_ended(folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, threading, time\n"
        "if 'TEXTUAL_DRIVER' in os.environ:\n"
        "    def grow():\n        time.sleep(4)\n        kept = []\n"
        "        while True:\n            kept.append(bytearray(os.urandom(1) * 2**26))\n            time.sleep(0.05)\n"
        "    threading.Thread(target=grow, daemon=True).start()\n"
    )
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    with serving(folder, environment={"PYTHONPATH": paths}) as server:

        async def main() -> None:
            async with Served(server) as session:
                await session.until_closed(60)
                await _no_sessions(server, 5)

        asyncio.run(main())


async def _connect(client: aiohttp.ClientSession, server: Server, name: str) -> Any:
    url = f"http://127.0.0.1:{server.port}/ws/{name}?width=100&height=30"
    return await client.ws_connect(url, headers={"Cookie": f"curator-{server.port}={server.token}"})


def test_serve_reload_finds_same_session_and_paints_it(server: Server) -> None:
    async def read_until(socket: Any, word: bytes) -> bytes:
        seen = b""
        async with asyncio.timeout(60):
            while word not in re.sub(rb"\x1b\[[0-?]*[ -/]*[@-~]", b"", seen):
                seen += (await socket.receive()).data
        return seen

    async def main() -> None:
        async with aiohttp.ClientSession() as client:
            first = await _connect(client, server, "window")
            await read_until(first, b"target")
            (child,) = server.sessions()
            await first.close()
            again = await _connect(client, server, "window")
            shown = await read_until(again, b"target")
            assert b"\x1b[?1049h" in shown, "the new terminal is prepared"
            assert server.sessions() == [child]
            # A reload can arrive before the old socket closes.
            third = await _connect(client, server, "window")
            await read_until(third, b"target")
            assert server.sessions() == [child]
            assert (await again.receive()).type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.CLOSE)
            await third.close()
        await _no_sessions(server, 6)

    asyncio.run(main())
