"""Runs the command line in this process, on whatever strangers may have put into a project."""

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
    """What a command came to."""

    code: int
    out: str
    err: str

    def check(self, *codes: int) -> "Outcome":
        """Make sure that it ended in one of the ways named, in few words that steer no terminal."""
        said = self.out + self.err
        assert "Traceback" not in said, self.err
        assert self.code in codes, (self.code, self.err)
        assert not {c for c in said if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
        assert len(self.err) < 5000
        return self


def run_cli(*arguments: str | Path) -> Outcome:
    """Run `curator` with arguments, as a shell would."""
    from transformers.utils import logging

    # In a process of its own the environment says so before it is imported.
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


@contextlib.contextmanager
def nothing_changes(folder: Path, *, but: str) -> Iterator[None]:
    """Make sure that no file of a folder is made, changed or removed, but in the subfolder named."""
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
