"""Helpers of the security tests: run the command line in this process and check its output."""

import contextlib
import io
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from curator.cli.main import main


@dataclass(frozen=True, slots=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    def check(self, *codes: int) -> "Outcome":
        """Assert that the exit code is one of `codes` and that the output is short and free of control characters."""
        text = self.out + self.err
        assert "Traceback" not in text, self.err
        assert self.code in codes, (self.code, self.err)
        # Joiners are part of words and emoji.
        kept = {"\n", "\u200c", "\u200d", "\xad"}
        assert not {
            c for c in text if c not in kept and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        }
        assert len(self.err) < 5000
        return self


def run_cli(*arguments: str | Path) -> Outcome:
    """Run `curator` with arguments, as a shell does."""
    from transformers.utils import logging

    # In a separate process, an environment variable has this effect before the import.
    logging.disable_progress_bar()
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["curator", *map(str, arguments)]),
        mock.patch.dict(os.environ),
        mock.patch("signal.signal"),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as done:
            code = done.code
    assert isinstance(code, int)
    return Outcome(code, out.getvalue(), err.getvalue())


# More levels than Python's limit of recursion, in a path that is short enough for the system.
DEEP = 1500


@contextlib.contextmanager
def deep_folder(folder: Path, content: bytes = b"") -> Iterator[None]:
    """Make a folder with 1,500 folders in each other, and a file `x.jsonl` in the last one.

    The folders are removed at the end, because neither pytest nor `shutil` can remove them.
    """
    inner = [folder, *(folder.joinpath(*["d"] * level) for level in range(1, DEEP + 1))]
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in inner:
        path.mkdir()
    (inner[-1] / "x.jsonl").write_bytes(content)
    try:
        yield
    finally:
        (inner[-1] / "x.jsonl").unlink(missing_ok=True)
        for path in reversed(inner):
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()


@contextlib.contextmanager
def nothing_changes(folder: Path, *, but: str) -> Iterator[None]:
    """Assert that the block creates, changes and removes no file of a folder, except in the subfolder `but`."""
    before = _everything(folder, but)
    yield
    assert _everything(folder, but) == before


def _everything(folder: Path, but: str) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(but):
            found[name] = (path.lstat().st_mode, path.read_bytes())
    return found
