"""`app`: the Typer application with every command, in the order of `curator --help`."""

from typing import Annotated

import typer

from curator.cli.options import Shared, app, shared_options
from curator.core.version import __version__

# Each module adds its commands to `app`. The order is that of `curator --help`.
# isort: split
from curator.cli import stage_commands

# isort: split
from curator.cli import selection_commands

# isort: split
from curator.cli import output_commands

__all__ = ["app", "output_commands", "selection_commands", "stage_commands"]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"curator {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: curator tui -p sample_data")
@shared_options("project")
def tui(
    shared: Shared,
    mouse: Annotated[
        bool | None, typer.Option("--mouse/--no-mouse", help="Use the pointer. [default: as in the settings]")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve the interface to a browser, at a secret URL.")] = False,
    host: Annotated[str, typer.Option("--host", help="Set the address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Set the port to serve on.")] = 8000,
    public_url: Annotated[
        str | None, typer.Option("--public-url", metavar="URL", help="Set the URL that browsers use behind a proxy.")
    ] = None,
    allow_network: Annotated[
        bool, typer.Option("--allow-network", help="Serve other machines too. Everyone with the URL can start jobs.")
    ] = False,
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="Allow at most this number of open windows.")] = 8,
) -> None:
    """Open the terminal interface: tasks, live estimates, examples, runs and export."""
    from curator.cli.tui import open_tui, serve_tui
    from curator.core.files import check_results_folder, find_project

    root = find_project(shared.project)
    # The interface writes the user's place there, also if it cannot read the project.
    check_results_folder(root / ".curator")
    if serve:
        serve_tui(root, host=host, port=port, public_url=public_url, allow_network=allow_network, sessions=sessions)
    else:
        open_tui(root, mouse=mouse)


@app.command(epilog="Example: curator mcp -p sample_data")
@shared_options("project")
def mcp(
    shared: Shared,
    allow_runs: Annotated[
        bool, typer.Option("--allow-runs", help="Allow training, and files written into the project.")
    ] = False,
) -> None:
    """Serve the project to an assistant by the Model Context Protocol, over standard input and output."""
    from curator.cli.mcp import serve
    from curator.core.files import find_project

    serve(find_project(shared.project), allow_runs=allow_runs)
