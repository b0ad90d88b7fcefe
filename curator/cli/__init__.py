"""The `curator` command.

Takes command-line arguments.
Opens a project and calls one verb.
Prints the report as a table or as JSON, and exits with a documented code.
"""

from collections.abc import Callable


def __getattr__(name: str) -> Callable[[], None]:
    """Return the entry point that elasticsearch-curator's `curator` command calls, if that command replaced ours."""
    if name == "cli":
        from curator.cli.main import other_owners, report_other_owners

        if other_owners():
            return report_other_owners
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
