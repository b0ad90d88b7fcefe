"""Open packed files as streams: gzip, zstd, bzip2 and xz."""

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import IO, cast

from curator.core.files import File, open_regular

PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
"""Name of the packing by ending."""


def is_packed(file: File) -> bool:
    """Return whether the ending of a file names a packing."""
    return file.suffix.lower() in PACKED


def unpacked_name(file: File) -> str:
    """Return the name of a file without the ending of a packing."""
    return file.name[: -len(file.suffix)] if is_packed(file) else file.name


def open_bytes(file: File, stream: IO[bytes] | None = None) -> IO[bytes]:
    """Open a file for reading bytes. The stream of a packed file unpacks while it is read.

    Args:
        file: The file. The ending of its name decides about the packing.
        stream: The open file. None opens it.

    Raises:
        DataError: A remote file cannot be opened.
        OSError: A local file cannot be opened, or is not a regular file.
    """
    packing = PACKED.get(file.suffix.lower())
    if stream is None:
        stream = open_regular(file) if isinstance(file, Path) else file.open("rb")
    if packing == "gzip":
        return cast(IO[bytes], gzip.open(stream))
    if packing == "bzip2":
        return cast(IO[bytes], bz2.open(stream))
    if packing == "xz":
        return cast(IO[bytes], _Xz(stream))
    if packing == "zstd":
        import pyarrow as pa

        # Arrow refuses a window above 128 MiB. Its streams read no lines, so a buffer does.
        unpacked = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
        return cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, unpacked)))
    return stream


class _Xz(lzma.LZMAFile):
    """Read an xz file. An invalid file raises an `OSError`, as the other packings do."""

    def readline(self, size: int | None = -1) -> bytes:
        try:
            return super().readline(-1 if size is None else size)
        except lzma.LZMAError as error:
            raise OSError(str(error)) from error

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except lzma.LZMAError as error:
            raise OSError(str(error)) from error
