"""`curator tui`: open the terminal interface here, or serve it to a browser."""

import gc
import os
import select
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from curator.core.errors import ConfigError, ExitCode, missing_extra
from curator.core.interpreters import module_command

LOOPBACK = "127.0.0.1"


def open_tui(root: Path, *, mouse: bool | None) -> None:
    """Open a project in this terminal.

    Raises:
        ConfigError: Standard input or output is not a terminal.
    """
    # A session in a browser has no terminal. textual-serve names a driver instead.
    if "TEXTUAL_DRIVER" not in os.environ and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "`curator tui` needs a terminal", hint="Run `curator select --json` or `curator status --json` in scripts."
        )
    # Textual trusts these variables, and then misses changes of the terminal's size. In a browser, they are the size.
    if "TEXTUAL_DRIVER" not in os.environ:
        for name in ("LINES", "COLUMNS"):
            os.environ.pop(name, None)
    # Textual waits one to two frames before it draws. At 60 frames a second that is most of an estimate's time.
    os.environ.setdefault("TEXTUAL_FPS", "120")
    # A full garbage collection takes longer than three frames. Young objects are collected as usual.
    gc.set_threshold(2000, 10, 1000)
    # In a browser, standard input is a pipe, which closes when the server ends.
    if sys.stdin.isatty() or "TEXTUAL_DRIVER" in os.environ:
        # Standard input may be a stream without a descriptor.
        with suppress(OSError):
            _end_with_terminal(sys.stdin.fileno())
    from tui.app import run

    if code := run(root, mouse=mouse):
        sys.exit(code)


def _end_with_terminal(descriptor: int) -> None:
    """End the process when its terminal closes, instead of reading from a closed terminal for ever.

    A signal arrives only if the terminal is the controlling one. Nothing is lost: every edit is stored at once.
    """
    hung_up = select.poll()
    hung_up.register(descriptor, 0)

    def wait() -> None:
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in hung_up.poll()):
            os._exit(ExitCode.INTERRUPTED)

    threading.Thread(target=wait, name="terminal", daemon=True).start()


def serve_tui(
    root: Path, *, host: str, port: int, public_url: str | None, allow_network: bool = False, sessions: int = 8
) -> None:
    """Serve the interface to a browser until interrupted.

    Args:
        root: The project's folder.
        host: Address to listen on.
        port: Port to listen on.
        public_url: URL that browsers use behind a proxy.
        allow_network: Whether other machines may reach the address.
        sessions: Most sessions at the same time.

    Raises:
        ConfigError: Listening on the address fails, other machines reach the address, or textual-serve is not
            installed.
    """
    try:
        from curator.cli.peer_access import NETWORK, Access, resolve
        from curator.cli.serve import PeerServer, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"aiohttp", "textual_serve"}:
            raise
        raise missing_extra("`curator tui --serve`", "textual-serve", "serve") from error

    access = Access(host=host, addresses=tuple(resolve(host, port)), port=port, public_url=public_url or "")
    if access.is_open and not allow_network:
        raise ConfigError(
            f"--host {host} is open to the network: {NETWORK}",
            hint=f"Pass --allow-network to accept that, or --host {LOOPBACK} to serve this machine only.",
        )
    _try_to_listen(access.addresses, port)
    if access.is_open:
        print(f"warning: {host} is open to the network: {NETWORK}", file=sys.stderr)
    else:
        print(f"from another machine: ssh -L {port}:{LOOPBACK}:{port} THIS-HOST", file=sys.stderr)
    # Scripts read the URL from standard output.
    if not sys.stdout.isatty():
        print(access.url, flush=True)
    print(f"open {access.url}\nThe URL is the key to this project: keep it secret.", file=sys.stderr, flush=True)
    command = module_command("curator", "tui", "-p", str(root))
    serve(PeerServer(command, access, title=f"curator: {root.name}", sessions=sessions), access)


def _try_to_listen(addresses: Sequence[str], port: int) -> None:
    import socket

    for address in addresses:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise ConfigError(
                    f"cannot listen on {address}:{port}: {error}", hint="Choose another --port."
                ) from error
