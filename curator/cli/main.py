"""`main`: run the command line. Only here do errors become exit codes."""

import contextlib
import errno
import os
import sys
import traceback
import warnings
from contextlib import suppress

from curator.cli.closed_pipes import open_standard_streams, outliving_readers
from curator.cli.interrupt import WORDS, Interrupt, leave_at_once
from curator.cli.memory import is_out_of_memory, out_of_memory, refuse_small_memory
from curator.core.errors import CuratorError, ExitCode
from curator.core.interpreters import protect_children

_DISTRIBUTION = "curator-tasks"
# Values of a variable that switch an option off, in lower case.
_OFF = {"", "0", "false", "f", "no", "n", "off"}


def main() -> None:
    """Run the command line, and exit with a documented code."""
    if not open_standard_streams():
        _say("error: standard output is closed", "Redirect the output to a file. To discard it, name /dev/null.")
        sys.exit(ExitCode.USAGE)
    with outliving_readers():
        _run()


def _run() -> None:
    protect_children()
    _quiet_libraries()
    interrupt = Interrupt()
    code = int(ExitCode.DONE)
    try:
        with interrupt:
            if not _only_describes(sys.argv[1:]):
                refuse_small_memory()
            from curator.cli.app import app

            try:
                app()
            finally:
                # The system reports a full disk here, and not at the end of the interpreter.
                sys.stdout.flush()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except CuratorError as error:
        _say(f"error: {error.message}", error.hint)
        code = error.exit_code
    except BrokenPipeError:
        # The reader has closed the pipe, and all output was bytes, such as Parquet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        code, words = _explained(error)
        failed_import = isinstance(error, ImportError | AttributeError)
        if failed_import and (owners := other_owners()):
            _say(*_conflict(owners))
            code = ExitCode.USAGE
        elif not interrupt.asked:
            _say(*words)
    # A library that is interrupted may raise another error.
    if code == ExitCode.INTERRUPTED or (interrupt.asked and code != ExitCode.DONE):
        _say(WORDS)
        code = ExitCode.INTERRUPTED
        if interrupt.asked:
            leave_at_once()
    _drop_unwritable_output()
    sys.exit(code)


def _drop_unwritable_output() -> None:
    """Keep the interpreter from writing output at its end that a full disk has already refused."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explained(error: Exception) -> tuple[ExitCode, tuple[str, str]]:
    """Return exit code, message and hint of an error that curator does not raise itself."""
    if is_out_of_memory(error):
        return ExitCode.DATA, out_of_memory(error)
    if isinstance(error, OSError):
        long = error.errno == errno.ENAMETOOLONG
        hint = "Use a shorter name." if long else "Check the path, its permissions, and the free disk space."
        return ExitCode.DATA, (f"error: {error}", hint)
    if "home directory" in str(error):
        # `Path.home` raises a RuntimeError for a user without an entry in the list of users.
        return ExitCode.USAGE, (f"error: no home folder: {error}", "Set the environment variable HOME to a folder.")
    return ExitCode.BUG, (_bug(), "")


def _only_describes(arguments: list[str]) -> bool:
    return not arguments or not {"-h", "--help", "--version"}.isdisjoint(arguments)


def _quiet_libraries() -> None:
    """Silence the libraries, unless --verbose is given: standard error carries curator's progress."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if {"-v", "--verbose"} & set(sys.argv) or os.environ.get("CURATOR_VERBOSE", "0").lower() not in _OFF:
        return
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore")


def _bug() -> str:
    return traceback.format_exc() + "This is a bug in curator. Please report it with the lines above."


def _say(message: str, hint: str = "") -> None:
    from curator.core.text import clean

    # After a lost connection, standard error may be closed.
    with contextlib.suppress(OSError):
        print(clean(message, lines=True), file=sys.stderr)
        if hint:
            print(clean(hint, lines=True), file=sys.stderr)
        sys.stderr.flush()


def report_other_owners() -> None:
    """Name the distributions that own files of the package `curator`, and exit."""
    _say(*_conflict(other_owners()))
    sys.exit(ExitCode.USAGE)


def other_owners() -> list[str]:
    """Return the names of other installed distributions that own files of the package `curator`.

    The search reads the file list of every distribution, so only a failed start calls it.
    """
    from importlib.metadata import distributions

    owners = set()
    for distribution in distributions():
        name = distribution.metadata["Name"] or ""
        if name.lower().replace("_", "-") != _DISTRIBUTION and any(
            file.parts[:1] == ("curator",) for file in distribution.files or ()
        ):
            owners.add(name)
    return sorted(owners)


def _conflict(owners: list[str]) -> tuple[str, str]:
    return (
        f"error: another distribution owns files of the package `curator`: {', '.join(owners)}",
        f"Install curator in its own environment: `uv tool install {_DISTRIBUTION}` or `pipx install {_DISTRIBUTION}`.",
    )
