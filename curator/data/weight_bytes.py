"""Refuse files of a model that are pointers or incomplete, by their size and their first bytes."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from curator.core.errors import DataError
from curator.core.files import open_regular
from curator.core.text import clean

# Starts of files that stand for another file, what they are, and how to get the other file.
_POINTERS = {
    b"version https://git-lfs": ("a Git LFS pointer", "Run `git lfs pull` in the model's repository"),
    b"/annex/objects/": ("a pointer of git-annex", "Run `git annex get` in the model's repository"),
    b"# xet version": ("a pointer of Xet", "Install `git-xet` and pull the model's repository again"),
}
_START = max(map(len, _POINTERS))
# Size of the number that says how long the header of a safetensors file is, and of the largest header.
_LENGTH, _LARGEST = 8, 100_000_000


def refuse_incomplete(files: Iterable[Path]) -> None:
    """Read the start of each file of a model, and refuse pointers and safetensors of another size.

    Args:
        files: Files of the model.

    Raises:
        DataError: A file is a pointer, a link to a missing file, or has another size than its header says.
        OSError: A file cannot be read.
    """
    for file in files:
        _refuse_dead_link(file)
        with open_regular(file) as stream:
            start = stream.read(_START)
            for mark, (kind, hint) in _POINTERS.items():
                if start.startswith(mark):
                    raise DataError(
                        f"{file} is {kind}, not a file of the model", hint=f"{hint}, or download the model again."
                    )
            if file.suffix != ".safetensors":
                continue
            stream.seek(0)
            expected = _expected_size(stream.read(_LENGTH), stream.read)
        size = file.stat().st_size
        if expected != size:
            said = f"{size:,} of {expected:,} bytes" if expected is not None else "its header is not valid"
            raise DataError(f"weights are incomplete: {file} ({said})", hint="Download the model again.")


def _refuse_dead_link(file: Path) -> None:
    if not file.is_symlink() or file.exists():
        return
    target = os.readlink(file)
    hint = "Run `git annex get` in the model's repository." if "annex" in target else "Download the model again."
    raise DataError(f"{file} is a link to a missing file: {clean(target, limit=200)}", hint=hint)


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
