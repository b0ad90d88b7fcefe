"""Serve the interface with textual-serve, to pages of the same site only."""

from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler
from textual_serve.server import Server

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
_REFUSED = "This page belongs to another site. Pass the site's URL with `curator tui --serve --public-url URL`."


class SameOriginServer(Server):
    """Refuse requests of other sites.

    Browsers let any page open a WebSocket to the loopback address. Without this check, any open page could type into
    the interface.
    """

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._same_origin)
        return app

    @web.middleware
    async def _same_origin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        public = urlsplit(self.public_url)
        # A foreign name that resolves to the loopback address is refused on every port.
        names = {*_LOOPBACK_NAMES, public.hostname}
        if self.host in _LOOPBACK_NAMES and urlsplit(f"//{request.host}").hostname not in names:
            raise web.HTTPForbidden(text=_REFUSED)
        origin = request.headers.get("Origin")
        pages = {request.host, public.netloc, *(f"{name}:{self.port}" for name in _LOOPBACK_NAMES)}
        if origin is not None and urlsplit(origin).netloc not in pages:
            raise web.HTTPForbidden(text=_REFUSED)
        return await handler(request)
