"""Decide who may connect to the served interface: by address, name, origin and token.

Any page in a browser can connect to this machine. A foreign name can resolve to the loopback address. The server
therefore answers only names that it knows, pages of its own, and browsers that opened the printed URL.
"""

import functools
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from curator.core.errors import ConfigError

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
NETWORK = (
    "Everyone who reaches this machine and knows the URL can change the project and start jobs."
    " The connection is not encrypted."
)
"""Meaning of an address that other machines reach."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host as the system resolves it: `127.1` is `127.0.0.1`.

    Raises:
        ConfigError: The host has no address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot resolve --host {host}: {error}", hint="Choose another --host.") from error
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address."""
    found = _address(address)
    return found is not None and found.is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Check the requests of one server.

    Attributes:
        host: Host as the user wrote it.
        addresses: Addresses that the server listens on, from `resolve`.
        port: Port that the server listens on.
        public_url: URL of a proxy in front of the server, or an empty text.
        token: Secret of the printed URL.
    """

    host: str
    addresses: tuple[str, ...]
    port: int
    public_url: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def is_open(self) -> bool:
        """Return whether other machines reach the server."""
        return not all(map(is_loopback, self.addresses))

    @property
    def url(self) -> str:
        """Return the URL that a browser opens, with the token."""
        return f"{self._base}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """Return the name of the cookie. Browsers share cookies between the ports of a host."""
        return f"curator-{self.port}"

    @property
    def is_encrypted(self) -> bool:
        """Return whether browsers use https."""
        return self.public_url.startswith("https:")

    def knows_token(self, given: str | None) -> bool:
        """Return whether a text is the token."""
        return given is not None and secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def allows_host(self, hosts: Iterable[str]) -> bool:
        """Return whether the `Host` headers of a request are one known name. Tunnels change the port.

        Args:
            hosts: All `Host` headers of the request.
        """
        given = list(hosts)
        name = _name(f"//{given[0]}") if len(given) == 1 else None
        return name is not None and name in self._names()

    def allows_origin(self, origin: str | None, host: str) -> bool:
        """Return whether the page that sent a request is a page of this server.

        Args:
            origin: Header `Origin`. Browsers send it with every WebSocket. None if missing.
            host: Header `Host`.
        """
        if origin is None:
            return True
        try:
            found = urlsplit(origin)
            public = urlsplit(self.public_url)
        except ValueError:
            return False
        if found.scheme not in ("http", "https"):
            return False
        if self.public_url and (found.scheme, found.netloc.lower()) == (public.scheme, public.netloc.lower()):
            return True
        return found.netloc.lower() == host.lower()

    @property
    def _base(self) -> str:
        if self.public_url:
            return self.public_url.rstrip("/")
        # Browsers do not know every spelling of an address, for example `127.1`.
        host = self.addresses[0] if _is_number(self.host) else self.host
        host = socket.gethostname() if _is_any(host) else host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def _names(self) -> set[str]:
        names = {self.host.lower(), *self.addresses}
        if self.public_url:
            names.add(_name(self.public_url) or "")
        if any(is_loopback(address) or _is_any(address) for address in self.addresses):
            names |= {*_LOOPBACK_NAMES, *(address for address in self.addresses if is_loopback(address))}
        if any(_is_any(address) for address in self.addresses):
            names |= {*_own_names(), *_own_addresses()}
        # No peer has the address of all interfaces.
        return {_plain(name) for name in names if name and not _is_any(name)}


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _is_number(host: str) -> bool:
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True


def _is_any(address: str) -> bool:
    found = _address(address)
    return found is not None and found.is_unspecified


def _plain(name: str) -> str:
    """Return one spelling of a name or an address."""
    found = _address(name)
    return name.lower().rstrip(".") if found is None else str(found)


def _name(url: str) -> str | None:
    # `urlsplit` drops line breaks and tabs, so that another text would become a known name.
    if not url.isprintable():
        return None
    try:
        found = urlsplit(url).hostname
    except ValueError:
        return None
    return _plain(found) if found else None


@functools.cache
def _own_names() -> frozenset[str]:
    """Return the names of this machine. A name server answers slowly, and requests without the token need no answer."""
    return frozenset((socket.gethostname().lower(), socket.getfqdn().lower()))


def _own_addresses() -> set[str]:
    import psutil

    kinds = (socket.AF_INET, socket.AF_INET6)
    return {each.address for found in psutil.net_if_addrs().values() for each in found if each.family in kinds}
