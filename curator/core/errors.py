"""Errors for users, each with an exit code.

    CuratorError            base class with a message and a hint
    ├── ConfigError         2    usage or config
    ├── DataError           3    data or model cannot be read
    ├── ManifestMismatch    4    an artifact belongs to another config
    ├── StoreBusy           5    another process holds the store or the project
    └── NumericalError      6    NaN, no convergence

A message names the failure, the place and the value. A hint names the next action. Any room raises these errors.
`curator.cli` alone converts them to exit codes. Exit code 1 is reserved for bugs, which keep their traceback.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the `curator` command."""

    DONE = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    MISMATCH = 4
    BUSY = 5
    NUMERICAL = 6
    INTERRUPTED = 130


class EndedEarly(Exception):
    """Base class of signals that end a verb before its work, without an error."""


class CuratorError(Exception):
    """Base class of all errors that users can act on.

    Args:
        message: The failure, its place and the invalid value.
        hint: The next action, as an imperative sentence. Empty if the message suffices.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(CuratorError):
    """The command line or `curator.toml` is invalid."""

    exit_code = ExitCode.USAGE


class DataError(CuratorError):
    """Data, a model or a file cannot be read or written."""

    exit_code = ExitCode.DATA


class ManifestMismatch(CuratorError):
    """An artifact belongs to another configuration or to other files than the current ones."""

    exit_code = ExitCode.MISMATCH


class StoreBusy(CuratorError):
    """Another process holds the store or the project."""

    exit_code = ExitCode.BUSY


class NumericalError(CuratorError):
    """A computation failed: NaN, infinity, or no convergence."""

    exit_code = ExitCode.NUMERICAL


def missing_extra(purpose: str, package: str, extra: str) -> ConfigError:
    """Return the error for a missing package of an extra.

    Args:
        purpose: Subject of the message, for example "drawing a plot".
        package: Distribution that is missing.
        extra: Extra of curator-tasks that installs the package.
    """
    return ConfigError(f"{purpose} needs {package}", hint=f"Run `pip install 'curator-tasks[{extra}]'`.")
