"""`curator tui`: the one door to the terminal interface, and its way into a browser."""

import gc
import os
import select
import shlex
import sys
import threading
from pathlib import Path

from curator.core.errors import ConfigError, ExitCode, missing_extra

LOOPBACK = "127.0.0.1"


def open_tui(root: Path, *, mouse: bool | None) -> None:
    """Open a project in this terminal.

    Raises:
        ConfigError: This is no terminal.
    """
    # A browser's session has no terminal but a driver that textual-serve names.
    if "TEXTUAL_DRIVER" not in os.environ and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(
            "`curator tui` needs a terminal", hint="In scripts use `curator select --json` and `curator status --json`."
        )
    # Where these are exported, Textual believes them, and no longer sees that the terminal changes its size.
    for name in ("LINES", "COLUMNS"):
        os.environ.pop(name, None)
    # Textual draws one to two beats of this after the frame before: at 60 a second that is most of an estimate's way.
    os.environ.setdefault("TEXTUAL_FPS", "120")
    # To walk all that torch's and DuckDB's neighbours keep takes longer than three frames; what is young goes as ever.
    gc.set_threshold(2000, 10, 1000)
    if sys.stdin.isatty():
        _end_with_terminal(sys.stdin.fileno())
    from tui.app import run

    if code := run(root, mouse=mouse):
        sys.exit(code)


def _end_with_terminal(descriptor: int) -> None:
    """See to it that the process ends when its terminal does, and does not read from where nothing is for ever.

    A signal says so only where the terminal is the controlling one. Nothing is lost: edits are kept as they are made.
    """
    hung_up = select.poll()
    hung_up.register(descriptor, 0)

    def wait() -> None:
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in hung_up.poll()):
            os._exit(ExitCode.INTERRUPTED)

    threading.Thread(target=wait, name="terminal", daemon=True).start()


def serve_tui(root: Path, *, host: str, port: int, public_url: str | None) -> None:
    """Offer the interface to a browser, until interrupted.

    Args:
        root: The project's folder.
        host: Address to listen on.
        port: Port to listen on.
        public_url: Where browsers find it, behind a proxy.

    Raises:
        ConfigError: The address cannot be listened on, or textual-serve is not installed.
    """
    import socket

    try:
        from curator.cli.serve import SameOriginServer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"aiohttp", "textual_serve"}:
            raise
        raise missing_extra("`curator tui --serve`", "textual-serve", "serve") from error

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{host}:{port}: cannot be listened on: {error}", hint="Choose another --port."
            ) from error
    command = shlex.join([sys.executable, "-m", "curator", "tui", "-p", str(root)])
    danger = "has no password: whoever can reach it can change this project and start runs"
    print(f"warning: http://{host}:{port} {danger}", file=sys.stderr)
    if host == LOOPBACK:
        print(f"from elsewhere: ssh -L {port}:{LOOPBACK}:{port} THIS-HOST", file=sys.stderr)
    else:
        print(f"warning: {host} is open to the network; --host {LOOPBACK} is not", file=sys.stderr)
    sys.stderr.flush()
    SameOriginServer(command, host=host, port=port, title=f"curator: {root.name}", public_url=public_url).serve()
