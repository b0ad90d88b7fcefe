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
            errors=stream.errors,
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
