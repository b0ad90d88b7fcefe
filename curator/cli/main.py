"""The command line. `main` is the only place where errors become exit codes."""

import contextlib
import os
import sys
import traceback
import warnings

from curator.cli.interrupt import WORDS, Interrupt
from curator.core.errors import CuratorError, ExitCode


def main() -> None:
    """Run the command line, and exit as the contract says."""
    _quiet_libraries()
    interrupt = Interrupt()
    code = int(ExitCode.DONE)
    try:
        with interrupt:
            from curator.cli.app import app

            app()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except CuratorError as error:
        _say(f"error: {error.message}", error.hint)
        code = error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _say(f"error: {error}", "Is the disk full, or a file not yours to write?")
        code = ExitCode.DATA
    except MemoryError as error:
        _say(f"error: there is not enough memory: {error}", "Lower what is large under [gradients], [lora] or [model].")
        code = ExitCode.DATA
    except Exception:
        if not interrupt.asked:
            _say(_bug())
        code = ExitCode.BUG
    # A library that is interrupted may make another error of it.
    if code == ExitCode.INTERRUPTED or (interrupt.asked and code != ExitCode.DONE):
        _say(WORDS)
        code = ExitCode.INTERRUPTED
    sys.exit(code)


def _quiet_libraries() -> None:
    """Standard error is for our progress; libraries speak under --verbose only."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "--verbose" in sys.argv:
        return
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore")


def _bug() -> str:
    return traceback.format_exc() + "This is a bug in curator: please report it with the lines above."


def _say(message: str, hint: str = "") -> None:
    from curator.core.text import clean

    # Where a connection was lost, there is nobody left to tell.
    with contextlib.suppress(OSError):
        print(clean(message, lines=True), file=sys.stderr)
        if hint:
            print(clean(hint, lines=True), file=sys.stderr)
        sys.stderr.flush()
