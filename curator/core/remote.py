"""Files that are elsewhere: `s3://`, `gs://`, `hf://` and whatever else fsspec reads.

An address may hold a password or a signature. It is used for reading alone: all that is shown, stored or written to a
manifest is the address without them.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, cast
from urllib.parse import parse_qsl, unquote

from curator.core.errors import DataError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What pip installs for a protocol; most have an extra of the same name.
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
    """Whether a path is an address that fsspec reads, rather than a path on this machine."""
    return _ADDRESS.match(path) is not None


def without_secrets(address: str) -> str:
    """An address as it may be shown: without user, password, query and fragment."""
    start, _, rest = address.partition("://")
    place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    # On the hub `owner/name@revision` is part of the path.
    return f"{start}://{place.rpartition('@')[2]}{slash}{path}"


@dataclass(frozen=True, slots=True, order=True)
class RemoteFile:
    """One file elsewhere; it answers to the same names as a `Path`.

    Args:
        address: With all that it takes to read it.
    """

    address: str = field(repr=False)

    def __str__(self) -> str:
        return without_secrets(self.address)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(str(self).partition("://")[2]).name

    @property
    def suffix(self) -> str:
        """The ending of its name."""
        return PurePosixPath(self.name).suffix

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open it for reading.

        Raises:
            DataError: It cannot be opened.
        """
        with self.asking() as (system, path):
            return cast(IO[bytes], system.open(path, mode))

    def sha256(self) -> str:
        """SHA-256 of its bytes.

        Raises:
            DataError: It cannot be read.
        """
        digest = hashlib.sha256()
        with self.asking(), self.open() as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def state(self) -> tuple[int, int]:
        """Its size, and a number that changes when the file system says that the file did.

        Raises:
            DataError: It does not exist, or cannot be asked for.
        """
        with self.asking() as (system, path):
            return int(system.info(path).get("size") or 0), int(str(system.ukey(path))[:15], 16)

    @contextmanager
    def asking(self) -> Iterator[tuple[Any, str]]:
        """The file system and the path in it; what it raises becomes a `DataError` without secrets."""
        from fsspec.core import url_to_fs

        try:
            yield url_to_fs(self.address)
        except DataError:
            raise
        except ImportError as error:
            protocol = self.address.partition("://")[0].lower()
            package = _PACKAGES.get(protocol)
            raise DataError(
                f"{self}: {protocol}:// needs a package that is not installed",
                hint=f"Run `pip install '{package}'`." if package else self.without_secrets(str(error)),
            ) from error
        except FileNotFoundError as error:
            raise DataError(f"{self}: does not exist", hint="Correct the path in curator.toml.") from error
        except Exception as error:
            # Every file system has errors of its own.
            said = (str(error).splitlines() or [""])[0]
            raise DataError(
                f"{self}: cannot be read: {type(error).__name__}: {self.without_secrets(said)}",
                hint="Check the address, the network, and the credentials that its file system asks for.",
            ) from error

    def without_secrets(self, text: str) -> str:
        """A message of a library without what this address must not show."""
        # By hand: `urlsplit` raises for what is no address.
        rest, _, fragment = self.address.partition("://")[2].partition("#")
        rest, _, query = rest.partition("?")
        user = rest.partition("/")[0].rpartition("@")[0]
        secrets = [query, fragment, *(value for _, value in parse_qsl(query) if len(value) > 3), user, *user.split(":")]
        text = text.replace(self.address, str(self))
        for secret in sorted({*secrets, *map(unquote, secrets)} - {""}, key=len, reverse=True):
            text = text.replace(secret, "…")
        return text


def matches(address: str) -> list[RemoteFile]:
    """The files that an address with `*`, `?` or `[` stands for, or a folder; by name, hidden ones left out.

    Raises:
        DataError: The file system cannot be asked.
    """
    there = RemoteFile(address)
    with there.asking() as (system, path):
        folder = not has_wildcards(address)
        if folder and not system.isdir(path):
            return [there]
        found = system.ls(path, detail=False) if folder else system.glob(path)
        files = [str(f) for f in found if not PurePosixPath(str(f)).name.startswith(".") and not system.isdir(f)]
    return sorted(RemoteFile(_address(there, path, file)) for file in files)


def has_wildcards(path: str) -> bool:
    """Whether a path is a glob; in an address of the web `?` begins the query."""
    return any(c in path for c in ("*[" if path.lower().startswith("http") and is_remote(path) else "*?["))


def _address(pattern: RemoteFile, root: str, path: str) -> str:
    """The address of what a pattern has matched, with the pattern's credentials."""
    protocol, _, rest = pattern.address.partition("://")
    user = rest.partition("/")[0].rpartition("@")
    bare = path.partition("://")[2] if is_remote(path) else path
    return f"{protocol}://{''.join(user[:2])}{bare if root.startswith('/') else bare.lstrip('/')}"
