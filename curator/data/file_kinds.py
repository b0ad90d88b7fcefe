"""Refuse files that are not what their name says, before a reader reports every line of them."""

from pathlib import Path

from curator.core.errors import DataError
from curator.core.files import open_regular
from curator.data.packed import PACKED

_FIRST = 512
_PACKED = {
    b"\x1f\x8b": ("gzip", ".gz"),
    b"\x28\xb5\x2f\xfd": ("zstd", ".zst"),
    b"BZh": ("bzip2", ".bz2"),
    b"\xfd7zXZ\x00": ("xz", ".xz"),
    b"PK\x03\x04": ("zip", ".zip"),
}
_BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def refuse_other_kinds_of_file(path: Path) -> None:
    """Look at the first bytes of a file, and refuse pointers, web pages, packed files and UTF-16.

    Args:
        path: A file whose name ends like a supported format.

    Raises:
        DataError: The file is of another kind.
        OSError: The file cannot be read.
    """
    with open_regular(path) as stream:
        first = stream.read(_FIRST)
    if first.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a Git LFS pointer, not the data", hint="Run `git lfs pull` in its repository.")
    kind, ending = next((found for mark, found in _PACKED.items() if first.startswith(mark)), ("", ""))
    packing = PACKED.get(path.suffix.lower(), "")
    if packing:
        if first and kind != packing:
            raise DataError(
                f"{path} is not a {packing} file", hint=f"Rename the file without {path.suffix}, or pack it again."
            )
        return
    if kind:
        raise DataError(f"{path} is packed with {kind}", hint=f"Unpack the file, or rename it to {path.name}{ending}.")
    for mark, name in _BYTE_ORDER_MARKS.items():
        if first.startswith(mark):
            raise DataError(f"{path} is {name}, not UTF-8", hint="Save the file as UTF-8.")
    if first.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{path} is a web page, not the data", hint="Download the file itself, not the page about it.")
