"""Serve the interface to browsers that opened the printed URL. Each window has its own process."""

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import textual_serve
from aiohttp import WSMsgType, web
from aiohttp.typedefs import Handler
from textual_serve.download_manager import DownloadManager

from curator.cli.peer_access import Access
from curator.cli.peer_messages import LONGEST, MalformedError, asked_window, parse
from curator.cli.peer_page import headers, page
from curator.cli.peer_session import AWAY_SECONDS, Session
from curator.core.text import clean

_STATIC = Path(textual_serve.__file__).parent / "static"
_HEARTBEAT_SECONDS = 10.0
_NO_TOKEN = "Open the URL that `curator tui --serve` printed. It holds a token."  # noqa: S105 - a message
_FOREIGN = "This page belongs to another site. Pass the site's URL with `curator tui --serve --public-url URL`."
_FULL = "Too many sessions are open. Close a window, or pass a larger --sessions."
_log = logging.getLogger("curator.serve")


class PeerServer:
    """Serve the page, its files and the sockets of sessions.

    Args:
        command: Command line of a session's process.
        access: Who may connect.
        title: Title of the page.
        sessions: Most sessions at the same time.
    """

    def __init__(self, command: Sequence[str], access: Access, *, title: str, sessions: int) -> None:
        self._command, self._access, self._title, self._most = command, access, title, sessions
        self._sessions: dict[str, Session] = {}
        self._downloads = DownloadManager()

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/ws", self._socket),
                web.get("/ws/{name}", self._socket),
                web.get("/download/{key}", self._download),
                web.static("/static", _STATIC),
            ]
        )
        app.on_shutdown.append(self._shut_down)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer known names, own pages and browsers with the token. Refuse all others."""
        access = self._access
        if not access.allows_host(request.headers.getall("Host", [])):
            raise web.HTTPForbidden(text=_FOREIGN)
        if not access.allows_origin(request.headers.get("Origin"), request.host):
            raise web.HTTPForbidden(text=_FOREIGN)
        by_url = access.knows_token(request.query.get("token"))
        if not by_url and not access.knows_token(request.cookies.get(access.cookie)):
            raise web.HTTPForbidden(text=_NO_TOKEN)
        if by_url and request.path == "/":
            # The address without the token stays in the browser's history.
            answer: web.StreamResponse = web.Response(status=303, headers={"Location": access.public_url or "/"})
            answer.set_cookie(
                access.cookie, access.token, httponly=True, samesite="Lax", secure=access.is_encrypted, path="/"
            )
        else:
            answer = await handler(request)
        if not answer.prepared:
            answer.headers["Referrer-Policy"] = "no-referrer"
            answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer

    async def _page(self, request: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        return web.Response(text=page(self._title, nonce), content_type="text/html", headers=headers(nonce))

    async def _download(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        try:
            found = await self._downloads.get_download_metadata(key)
        except KeyError:
            raise web.HTTPNotFound from None
        name = re.sub(r'[^\w. -]|"', "_", found.file_name)
        answer = web.StreamResponse(headers={"Content-Disposition": f'attachment; filename="{name}"'})
        await answer.prepare(request)
        async for chunk in self._downloads.download(key):
            await answer.write(chunk)
        await answer.write_eof()
        return answer

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """Connect a window to its session: the session of the same window before a reload, or a new one."""
        name = request.match_info.get("name") or secrets.token_hex(16)
        if not re.fullmatch(r"[\w-]{1,64}", name, re.ASCII):
            raise web.HTTPNotFound
        size = asked_window(request.query.get("width"), request.query.get("height"))
        session = self._sessions.get(name)
        if session is not None and session.is_ended:
            session = None
        if session is None and len(self._sessions) >= self._most:
            await self._end_left()
        if session is None and len(self._sessions) >= self._most:
            raise web.HTTPServiceUnavailable(text=_FULL)
        is_new = session is None
        if session is None:
            # Counted before the first wait, so that no other request takes the place.
            session = self._sessions[name] = Session(self._command, self._downloads)
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_SECONDS, max_msg_size=LONGEST)
        well = False
        try:
            await socket.prepare(request)
            await session.attach(socket, *size)
            await (session.start(*size) if is_new else session.repaint())
            well = await self._pass_on(socket, session)
        except (OSError, TimeoutError) as error:
            _log.error("a session was ended: %s", clean(str(error) or "its process does not answer"))
        finally:
            await asyncio.shield(self._leave(name, session, socket, wait=well))
        return socket

    async def _pass_on(self, socket: web.WebSocketResponse, session: Session) -> bool:
        """Pass the messages of a window on. Return whether the window closed as browsers do."""
        async for message in socket:
            try:
                if message.type != WSMsgType.TEXT:
                    raise MalformedError("not text")
                await session.handle(parse(message.data))
            except MalformedError as error:
                _log.warning("a session was closed: malformed message: %s", error)
                await socket.close(code=1002, message=b"malformed message")
                return False
        return socket.close_code not in (1002, 1007, 1009)

    async def _leave(self, name: str, session: Session, socket: web.WebSocketResponse, *, wait: bool) -> None:
        if not session.detach(socket) and not session.is_ended:
            # The window was replaced by its own reload.
            return
        if wait and not session.is_ended:
            await asyncio.sleep(AWAY_SECONDS)
            if session.is_attached:
                return
        await session.end()
        if self._sessions.get(name) is session:
            del self._sessions[name]

    async def _end_left(self) -> None:
        """End the sessions whose windows have closed, without waiting for the windows to come back."""
        left = {name: session for name, session in self._sessions.items() if session.is_left}
        await asyncio.gather(*(session.end() for session in left.values()))
        for name, session in left.items():
            if self._sessions.get(name) is session:
                del self._sessions[name]

    async def _shut_down(self, app: web.Application) -> None:
        await asyncio.gather(*(session.end() for session in self._sessions.values()), return_exceptions=True)


def serve(server: PeerServer, access: Access) -> None:
    """Serve until the process is interrupted.

    Raises:
        OSError: Listening on an address fails.
    """
    # Errors are one line each. aiohttp would print tracebacks.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("aiohttp.access", "aiohttp.server", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.suppress(KeyboardInterrupt):
        web.run_app(server.app(), host=list(access.addresses), port=access.port, print=None, shutdown_timeout=3.0)
