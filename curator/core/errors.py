"""Errors that people can act on, and the exit codes they become.

    CuratorError            anything below; carries a message and a hint
    ├── ConfigError         2    usage or config
    ├── DataError           3    data or model cannot be read
    ├── ManifestMismatch    4    an artifact belongs to another config
    ├── StoreBusy           5    another process holds the store or the project
    └── NumericalError      6    NaN, no convergence

A message says what, where and which value; the hint says what to do next. Errors are raised anywhere and turned into an
exit code in one place, `curator.cli`. Exit code 1 is left for bugs, which keep their traceback.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a process that runs curator returns to its caller."""

    DONE = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    MISMATCH = 4
    BUSY = 5
    NUMERICAL = 6
    INTERRUPTED = 130


class CuratorError(Exception):
    """Base of every error that is meant for the user rather than for us.

    Args:
        message: What went wrong, where, and the offending value.
        hint: What to do next; empty where there is nothing to add.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(CuratorError):
    """The command line or `curator.toml` asks for something that cannot be."""

    exit_code = ExitCode.USAGE


class DataError(CuratorError):
    """Data, a model or a file cannot be read or written."""

    exit_code = ExitCode.DATA


class ManifestMismatch(CuratorError):
    """An artifact was made from something else than what is there now."""

    exit_code = ExitCode.MISMATCH


class StoreBusy(CuratorError):
    """Another process holds the store or the project."""

    exit_code = ExitCode.BUSY


class NumericalError(CuratorError):
    """Numbers went wrong: NaN, infinity, no convergence."""

    exit_code = ExitCode.NUMERICAL


def missing_extra(purpose: str, package: str, extra: str) -> ConfigError:
    """Return the error for a package that belongs to an extra and is not installed.

    Args:
        purpose: Subject of the message, for example "drawing a plot".
        package: Distribution that is missing.
        extra: Extra of curator-tasks that installs the package.
    """
    return ConfigError(f"{purpose} needs {package}", hint=f"Run `pip install 'curator-tasks[{extra}]'`.")
