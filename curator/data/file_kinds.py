"""Refuse files that are not what their name says, before a reader reports every line of them."""

import json
import re
import zlib
from pathlib import Path

from curator.core.errors import DataError
from curator.core.files import open_regular
from curator.data.packed import PACKED, open_bytes, unpacked_name

_FIRST = 512
_PACKED = {
    b"\x1f\x8b": ("gzip", ".gz"),
    b"\x28\xb5\x2f\xfd": ("zstd", ".zst"),
    b"BZh": ("bzip2", ".bz2"),
    b"\xfd7zXZ\x00": ("xz", ".xz"),
    b"PK\x03\x04": ("zip", ".zip"),
}
# A mark of UTF-32 starts with a mark of UTF-16.
_BYTE_ORDER_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
# Programs whose files have a mark of their own, and what to do about such a file.
_SAVE = "Save it as CSV or JSON Lines in UTF-8."
_PROGRAMS = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an Excel workbook", _SAVE),
    b"SQLite format 3": ("an SQLite database", _SAVE),
    b"\x80\x04\x95": ("a pickle of Python", _SAVE),
    b"\x80\x05\x95": ("a pickle of Python", _SAVE),
    b"%PDF": ("a PDF", _SAVE),
    b"7z\xbc\xaf\x27\x1c": ("packed with 7z", "Unpack the file."),
    b"Rar!": ("packed with RAR", "Unpack the file."),
    b"\x04\x22\x4d\x18": ("packed with LZ4", "Unpack the file."),
    b"<?xml": ("XML", "Download the file itself. A server answers with XML if it refuses a download."),
    b"/annex/objects/": ("a pointer of git-annex, not the data", "Run `git annex get` in its repository."),
    b"# xet version": ("a pointer of Xet, not the data", "Install `git-xet` and pull its repository again."),
}
# Formats that curator reads, by their mark: name and ending.
_TABLES = {b"PAR1": ("Parquet", ".parquet"), b"ARROW1\0": ("Arrow", ".arrow")}
_OFFICE = (b"[Content_Types].xml", b"xl/", b"mimetypeapplication/vnd.oasis")
_TAR, _TAR_AT = b"ustar", 257
# The start of a list of objects. No cell of CSV in quotes starts so.
_JSON_LIST = re.compile(rb'\s*\[\s*\{\s*"[^"]*"\s*:')


def refuse_other_kinds_of_file(path: Path) -> None:
    """Look at the first bytes of a file, and refuse pointers, web pages, packed files, other formats and UTF-16.

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
        try:
            with open_bytes(path) as stream:
                first = stream.read(_FIRST)
        except (OSError, EOFError, zlib.error):
            # The reader says what is wrong with the file.
            return
        if first.startswith(b"\x1f\x8b"):
            raise DataError(f"{path} is packed twice", hint="Unpack the file once.")
        _refuse_text(path, first)
        return
    if kind == "zip" and any(name in first for name in _OFFICE):
        raise DataError(f"{path} is a workbook of a spreadsheet program", hint=_SAVE)
    if kind:
        rename = f", or rename it to {path.name}{ending}" if kind in PACKED.values() else ""
        raise DataError(f"{path} is packed with {kind}", hint=f"Unpack the file{rename}.")
    _refuse_text(path, first)


def _refuse_text(path: Path, first: bytes) -> None:
    """Refuse unpacked content that is not what the name of its file says."""
    for mark, (name, hint) in _PROGRAMS.items():
        if first.startswith(mark):
            raise DataError(f"{path} is {name}", hint=hint)
    if first[_TAR_AT:].startswith(_TAR):
        raise DataError(f"{path} is a tar archive", hint="Unpack the archive.")
    suffix = Path(unpacked_name(path)).suffix.lower()
    for mark, (name, ending) in _TABLES.items():
        if first.startswith(mark) and suffix != ending:
            raise DataError(f"{path} is {name}", hint=f"Rename the file: its name must end in {ending}.")
    for mark, name in _BYTE_ORDER_MARKS.items():
        if first.startswith(mark):
            raise DataError(f"{path} is {name}, not UTF-8", hint="Save the file as UTF-8.")
    if first.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{path} is a web page, not the data", hint="Download the file itself, not the page about it.")
    if _has_zeros(first):
        raise DataError(f"{path} is UTF-16 without a byte order mark", hint="Save the file as UTF-8.")
    if suffix in (".csv", ".tsv") and _is_json_line(first):
        raise DataError(f"{path} holds JSON Lines, not CSV", hint="Rename the file: its name must end in .jsonl.")
    if suffix in (".csv", ".tsv") and _JSON_LIST.match(first):
        raise DataError(f"{path} holds JSON, not CSV", hint="Rename the file: its name must end in .json.")


def _has_zeros(first: bytes) -> bool:
    """Return whether every second byte of the first characters is zero, as in English text in UTF-16."""
    start = first[:32]
    odd, even = start[1::2], start[::2]
    return len(start) > 7 and (not any(odd) or not any(even)) and any(start)


def _is_json_line(first: bytes) -> bool:
    """Return whether a first line is a JSON object. A line that is longer than the sample counts by its start."""
    line = first.split(b"\n", 1)[0].strip()
    if not line.startswith(b'{"'):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return len(first) == _FIRST and b"\n" not in first and b'": ' in first
