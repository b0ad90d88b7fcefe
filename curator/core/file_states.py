"""Notice that a file changes: its state, and the hash of what was read from it."""

import hashlib
import io
from typing import IO, NamedTuple, cast

from curator.core.errors import DataError
from curator.core.files import File, open_regular, sha256_of
from curator.core.remote import RemoteFile

# Bytes that are read and hashed at a time.
_BLOCK = 1 << 18


class FileState(NamedTuple):
    """Hold what the file system says about a file. A change of the content changes the state."""

    size: int
    """Size in bytes."""
    mtime_ns: int
    """Time of the last write in nanoseconds, which programs can set. The version of a remote file, as a number."""
    changed_ns: int
    """Time of the last change in nanoseconds, which programs cannot set. 0 for a remote file."""
    inode: int
    """Number of the file in its file system. 0 for a remote file."""

    @classmethod
    def of(cls, file: File) -> "FileState":
        """Return the present state of a file.

        Raises:
            OSError: The state of a local file cannot be read.
            DataError: The state of a remote file cannot be read.
        """
        if isinstance(file, RemoteFile):
            return cls(*file.state(), 0, 0)
        stat = file.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


class FileChanged(DataError):
    """A file changed while curator worked on it.

    Args:
        file: The file.
    """

    def __init__(self, file: File) -> None:
        super().__init__(f"{file} changed while curator read it", hint="Run the same command again.")
        self.file = file


class _Hashing(io.RawIOBase):
    """Hash the bytes of a stream while they are read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self._digest.update(data)
        buffer[: len(data)] = data
        return len(data)

    def sha256(self) -> str:
        """Read the rest of the stream, and return the hash of the whole stream."""
        while block := self._stream.read(_BLOCK):
            self._digest.update(block)
        return self._digest.hexdigest()

    def end(self) -> None:
        """Close the stream. `close` leaves it open, so that the rest can still be hashed."""
        self._stream.close()


class Witness:
    """Check that what was read from a file has the hash that its rows are stored under.

    Between hashing and reading, another process may change the file, and may change it back.
    A witness hashes what is read while it is read. A library that opens the file itself cannot be observed.
    Then the file is hashed again, and its state must be unchanged.

    Args:
        file: The file.
        sha256: Expected SHA-256 of the file.

    Raises:
        OSError, DataError: The state of the file cannot be read.
    """

    def __init__(self, file: File, sha256: str) -> None:
        self._file, self._sha256 = file, sha256
        self._before = FileState.of(file)
        self._streams: list[_Hashing] = []

    def open(self) -> IO[bytes]:
        """Open the file for reading from its start to its end.

        Raises:
            OSError, DataError: The file cannot be read, or is not a regular file.
        """
        file = self._file
        hashing = _Hashing(file.open() if isinstance(file, RemoteFile) else open_regular(file))
        self._streams.append(hashing)
        return cast(IO[bytes], io.BufferedReader(hashing, _BLOCK))

    def close(self) -> None:
        """Close the file."""
        for stream in self._streams:
            stream.end()

    def check(self) -> None:
        """Check the hash of what was read.

        Raises:
            FileChanged: The file has another hash, or has changed meanwhile.
            DataError: The file cannot be read.
        """
        try:
            # With several passes, an earlier pass decides how the last one reads. The state covers all passes.
            one_pass = len(self._streams) == 1
            if self._streams:
                found = self._streams[-1].sha256()
            else:
                found = self._sha256 if isinstance(self._file, RemoteFile) else sha256_of(self._file)
            same = found == self._sha256 and (one_pass or FileState.of(self._file) == self._before)
        except OSError as error:
            raise FileChanged(self._file) from error
        if not same:
            raise FileChanged(self._file)
