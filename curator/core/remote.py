"""Read remote files: `s3://`, `gs://`, `hf://` and other protocols of fsspec.

An address may contain a password or a signature. curator uses these secrets only for reading. Messages, the store and
manifests contain the address without secrets.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, cast
from urllib.parse import parse_qsl, unquote

from curator.core.errors import DataError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Package that pip installs for a protocol.
_PACKAGES = {
    "s3": "curator-tasks[s3]",
    "s3a": "curator-tasks[s3]",
    "gs": "curator-tasks[gcs]",
    "gcs": "curator-tasks[gcs]",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "oci": "ocifs",
    "oss": "ossfs",
}


def is_remote(path: str) -> bool:
    """Return whether a path is a remote address rather than a local path."""
    return _ADDRESS.match(path) is not None


def without_secrets(address: str) -> str:
    """Return an address without user, password, query and fragment."""
    start, _, rest = address.partition("://")
    place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    # On the hub `owner/name@revision` is part of the path.
    return f"{start}://{place.rpartition('@')[2]}{slash}{path}"


@dataclass(frozen=True, slots=True, order=True)
class RemoteFile:
    """Read one remote file, through some of the methods of `Path`.

    Args:
        address: Full address, secrets included.
    """

    address: str = field(repr=False)

    def __str__(self) -> str:
        return without_secrets(self.address)

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return PurePosixPath(str(self).partition("://")[2]).name

    @property
    def suffix(self) -> str:
        """Return the suffix of the name, for example `.jsonl`."""
        return PurePosixPath(self.name).suffix

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the file for reading bytes.

        Raises:
            DataError: The file cannot be opened.
        """
        with self.asking() as (system, path):
            return cast(IO[bytes], system.open(path, mode))

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes.

        Raises:
            DataError: The file cannot be read.
        """
        digest = hashlib.sha256()
        with self.asking(), self.open() as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def state(self) -> tuple[int, int]:
        """Return the size in bytes, and a number that changes when the file system reports a changed file.

        Raises:
            DataError: The file does not exist, or its state cannot be read.
        """
        with self.asking() as (system, path):
            return int(system.info(path).get("size") or 0), int(str(system.ukey(path))[:15], 16)

    @contextmanager
    def asking(self) -> Iterator[tuple[Any, str]]:
        """Yield the file system and the file's path in it.

        Raises:
            DataError: The block or fsspec raised an error. The message contains no secrets.
        """
        from fsspec.core import url_to_fs

        try:
            yield url_to_fs(self.address)
        except DataError:
            raise
        except ImportError as error:
            protocol = self.address.partition("://")[0].lower()
            package = _PACKAGES.get(protocol)
            raise DataError(
                f"cannot read {self}: {protocol}:// needs a package that is not installed",
                hint=f"Run `pip install '{package}'`." if package else self.without_secrets(str(error)),
            ) from error
        except FileNotFoundError as error:
            raise DataError(f"file does not exist: {self}", hint="Correct the path in curator.toml.") from error
        except Exception as error:
            # Each file system has its own error classes.
            reason = (str(error).splitlines() or [""])[0]
            raise DataError(
                f"cannot read {self}: {type(error).__name__}: {self.without_secrets(reason)}",
                hint="Check the address, the network and the credentials of the file system.",
            ) from error

    def without_secrets(self, text: str) -> str:
        """Return a library's message without the secrets of this address."""
        # Split by hand: `urlsplit` raises for an invalid address.
        rest, _, fragment = self.address.partition("://")[2].partition("#")
        rest, _, query = rest.partition("?")
        user = rest.partition("/")[0].rpartition("@")[0]
        secrets = [query, fragment, *(value for _, value in parse_qsl(query) if len(value) > 3), user, *user.split(":")]
        text = text.replace(self.address, str(self))
        for secret in sorted({*secrets, *map(unquote, secrets)} - {""}, key=len, reverse=True):
            text = text.replace(secret, "…")
        return text


def matches(address: str) -> list[RemoteFile]:
    """List the files that match an address, sorted by address, without hidden files.

    Args:
        address: A file, a folder, or a glob with `*`, `?` or `[`.

    Raises:
        DataError: The file system cannot list the files.
    """
    there = RemoteFile(address)
    with there.asking() as (system, path):
        folder = not has_wildcards(address)
        if folder and not system.isdir(path):
            return [there]
        found = system.ls(path, detail=False) if folder else system.glob(path)
        named = PurePosixPath(path).parts
        files = [str(f) for f in found if not _is_hidden(PurePosixPath(str(f)), named) and not system.isdir(f)]
    return sorted(RemoteFile(_address(there, path, file)) for file in files)


def _is_hidden(path: PurePosixPath, named: Sequence[str]) -> bool:
    return any(part.startswith(".") and part not in named for part in path.parts)


def has_wildcards(path: str) -> bool:
    """Return whether a path is a glob. In an http address, `?` starts the query instead."""
    return any(c in path for c in ("*[" if path.lower().startswith("http") and is_remote(path) else "*?["))


def _address(pattern: RemoteFile, root: str, path: str) -> str:
    """Return the address of a matched file, with the pattern's credentials."""
    protocol, _, rest = pattern.address.partition("://")
    user = rest.partition("/")[0].rpartition("@")
    bare = path.partition("://")[2] if is_remote(path) else path
    return f"{protocol}://{''.join(user[:2])}{bare if root.startswith('/') else bare.lstrip('/')}"
