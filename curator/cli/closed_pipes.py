"""Finish the work of a command although the reader of its output has stopped, as `head` does."""

import io
import os
import sys
from typing import TextIO


class _Pipe(io.FileIO):
    """Write to a file descriptor. After the reader has closed the pipe, discard all further output."""

    def write(self, content: "io.ReadableBuffer", /) -> int:  # type: ignore[name-defined]
        """Write bytes, or discard them if nobody reads them."""
        try:
            return super().write(content) or 0
        except BrokenPipeError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            return memoryview(content).nbytes


def outlive_readers() -> None:
    """Make standard output and standard error ignore a reader that stops. The command goes on and keeps its exit code.

    A stream that is closed from the start, or that is no file of the system, stays as it is.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _outliving(stream))


def _outliving(stream: io.TextIOWrapper) -> TextIO:
    try:
        stream.flush()
        number = stream.fileno()
    except OSError:
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Pipe(number, "wb", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
