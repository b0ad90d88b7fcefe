"""`curator tui`: open the terminal interface here, or serve it to a browser."""

import gc
import os
import select
import shlex
import sys
import threading
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
    # Textual trusts these variables, and then misses changes of the terminal's size.
    for name in ("LINES", "COLUMNS"):
        os.environ.pop(name, None)
    # Textual waits one to two frames before it draws. At 60 frames a second that is most of an estimate's time.
    os.environ.setdefault("TEXTUAL_FPS", "120")
    # A full garbage collection takes longer than three frames. Young objects are collected as usual.
    gc.set_threshold(2000, 10, 1000)
    if sys.stdin.isatty():
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


def serve_tui(root: Path, *, host: str, port: int, public_url: str | None) -> None:
    """Serve the interface to a browser until interrupted.

    Args:
        root: The project's folder.
        host: Address to listen on.
        port: Port to listen on.
        public_url: URL that browsers use behind a proxy.

    Raises:
        ConfigError: Listening on the address fails, or textual-serve is not installed.
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
            raise ConfigError(f"cannot listen on {host}:{port}: {error}", hint="Choose another --port.") from error
    command = shlex.join(module_command("curator", "tui", "-p", str(root)))
    danger = "has no password: anyone who can connect can change this project and start jobs"
    print(f"warning: http://{host}:{port} {danger}", file=sys.stderr)
    if host == LOOPBACK:
        print(f"from another machine: ssh -L {port}:{LOOPBACK}:{port} THIS-HOST", file=sys.stderr)
    else:
        print(f"warning: {host} is open to the network. Pass --host {LOOPBACK} to close it.", file=sys.stderr)
    sys.stderr.flush()
    SameOriginServer(command, host=host, port=port, title=f"curator: {root.name}", public_url=public_url).serve()
