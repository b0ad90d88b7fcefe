"""Finish the work of a command although the reader of its output has stopped, as `head` does."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class _Outliving(io.TextIOWrapper):
    """Write text to a file of the system. After the reader has closed the pipe, discard all further output."""

    def write(self, text: str, /) -> int:
        """Write text, or discard it after the reader has stopped."""
        try:
            return super().write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        """Write waiting text, or discard it after the reader has stopped."""
        try:
            super().flush()
        except BrokenPipeError:
            self._discard()
            super().flush()

    def _discard(self) -> None:
        """Let the file descriptor, and thus the text that waits in the buffer, lead nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def open_standard_streams() -> bool:
    """Open standard streams that are closed, and return whether standard output was open.

    Otherwise the next file that curator opens takes the number of the stream, and output is written into the file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The system gives the smallest free number.
            os.open(os.devnull, os.O_RDWR)
    was_open = sys.stdout is not None
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Without a stream, `print` for standard error would write to standard output.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    return was_open


@contextmanager
def outliving_readers() -> Iterator[None]:
    """Let standard output and standard error ignore a reader that stops, within a `with` block.

    A stream that is closed from the start, or that is no file of the system, stays as it is.
    """
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    within = {
        name: _Outliving(
            stream.buffer,
            encoding=stream.encoding,
            # A terminal or a pipe may allow few characters, for example those of ASCII.
            errors="replace" if stream.errors == "strict" else stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        for name, stream in before.items()
        if isinstance(stream, io.TextIOWrapper) and _is_file(stream)
    }
    for name, stream in within.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in within.items():
            with suppress(OSError, ValueError):
                stream.flush()
            setattr(sys, name, before[name])
            # Otherwise the end of the stream would close the file.
            with suppress(OSError, ValueError):
                stream.detach()


def _is_file(stream: io.TextIOWrapper) -> bool:
    try:
        stream.flush()
        stream.fileno()
    except OSError:
        return False
    return True
