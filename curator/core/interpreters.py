"""Start Python so that files of the working folder never shadow modules.

Without a safe path, `python -m MODULE` searches the working folder first. A project that holds `duckdb.py` would
run code there.
"""

import os
import sys

SAFE_PATH = "PYTHONSAFEPATH"
"""Environment variable that keeps the working folder off the module path of an interpreter."""
SET_BY_CURATOR = "curator"
"""Value of `SAFE_PATH` that curator sets. A command of the user does not need the variable with this value."""


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module in this Python, with a safe path.

    Args:
        module: Name of the module, for example `curator`.
        arguments: Command line of the module.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def protect_children() -> None:
    """Set `SAFE_PATH` for the interpreters that libraries start, unless the variable is set."""
    os.environ.setdefault(SAFE_PATH, SET_BY_CURATOR)


def user_environment() -> dict[str, str]:
    """Return the environment as the user set it, for programs of the user. They may import their neighbours."""
    return {name: value for name, value in os.environ.items() if (name, value) != (SAFE_PATH, SET_BY_CURATOR)}


def leave_working_folder(package: str) -> None:
    """Remove the working folder from the module path, where `python -m` without `-P` puts the folder.

    Args:
        package: Folder of the running package. If the working folder holds the package, the path stays.
    """
    if sys.flags.safe_path or not sys.path:
        return
    # `os` is loaded at the start of Python. Any other import would search the working folder.
    here = os.path.realpath(os.curdir)
    if os.path.realpath(sys.path[0] or os.curdir) == here != os.path.dirname(os.path.realpath(package)):
        del sys.path[0]
