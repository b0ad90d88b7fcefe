"""Refuse files of a model that are pointers or incomplete, by their size and their first bytes."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from curator.core.errors import DataError
from curator.core.files import open_regular

_POINTER = b"version https://git-lfs"
# Size of the number that says how long the header of a safetensors file is, and of the largest header.
_LENGTH, _LARGEST = 8, 100_000_000


def refuse_incomplete(files: Iterable[Path]) -> None:
    """Read the start of each file of a model, and refuse pointers of Git LFS and safetensors of another size.

    Args:
        files: Files of the model.

    Raises:
        DataError: A file is a pointer, or has another size than its header says.
        OSError: A file cannot be read.
    """
    for file in files:
        with open_regular(file) as stream:
            start = stream.read(len(_POINTER))
            if start.startswith(_POINTER):
                raise DataError(
                    f"{file} is a Git LFS pointer, not a file of the model",
                    hint="Run `git lfs pull` in the model's repository, or download the model again.",
                )
            if file.suffix != ".safetensors":
                continue
            stream.seek(0)
            expected = _expected_size(stream.read(_LENGTH), stream.read)
        size = file.stat().st_size
        if expected != size:
            said = f"{size:,} of {expected:,} bytes" if expected is not None else "its header is not valid"
            raise DataError(f"weights are incomplete: {file} ({said})", hint="Download the model again.")


def _expected_size(length: bytes, read: Callable[[int], bytes]) -> int | None:
    """Return the size of a safetensors file by its header, or None if the header is not valid."""
    size = int.from_bytes(length, "little")
    if len(length) < _LENGTH or size > _LARGEST:
        return None
    try:
        header = json.loads(read(size))
        ends = [int(part["data_offsets"][1]) for name, part in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return _LENGTH + size + max(ends, default=0)
