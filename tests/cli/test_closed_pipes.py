"""Test that a command finishes its work although the reader of its output has stopped, as `head` does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MakeProject, pair_rows, write_rows
from manifests import manifest_of, rows_of

from curator.select.manifest import render


def _run_without_reader(*arguments: str, errors_too: bool = False) -> tuple[int, str]:
    """Run the command line with an output that no program reads. Return the exit code and standard error."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "curator", *arguments],
            stdout=writer,
            stderr=writer if errors_too else subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("errors_too", [False, True])
def test_export_with_a_closed_output_writes_its_files(tmp_path: Path, errors_too: bool) -> None:
    for name in ("target", "one"):
        write_rows(tmp_path / "data" / f"{name}.jsonl", pair_rows(name, 3))
    (tmp_path / "data" / "m.json").write_text(render(manifest_of(tmp_path / "data", "target", "one")))
    code, errors = _run_without_reader(
        "export", str(tmp_path / "data" / "m.json"), "-o", str(tmp_path / "out"), errors_too=errors_too
    )
    assert (code, "rror" in errors) == (0, False)
    assert len(rows_of(tmp_path / "out" / "one.jsonl")) == 3


def test_select_with_closed_outputs_writes_the_manifest(make_project: MakeProject) -> None:
    folder = make_project(train={"epochs": 1})
    code, _ = _run_without_reader("select", "-p", str(folder), "-o", str(folder / "m.json"), errors_too=True)
    assert code == 0
    assert json.loads((folder / "m.json").read_text())["target"] == "target"


def test_init_and_sql_with_closed_output_write_their_files(tmp_path: Path, make_project: MakeProject) -> None:
    folder = make_project()
    code, errors = _run_without_reader("init", str(tmp_path / "new"), "--from", str(folder / "tasks"))
    assert (code, errors.count("rror")) == (0, 0)
    assert (tmp_path / "new" / "curator.toml").is_file()
    assert _run_without_reader("check", "-p", str(folder))[0] == 0
    query = ("sql", "-p", str(folder), "SELECT 1 AS one", "-o", str(tmp_path / "one.csv"))
    assert _run_without_reader(*query)[0] == 0
    assert (tmp_path / "one.csv").read_text().split() == ["one", "1"]


def test_error_with_a_closed_output_keeps_its_exit_code(tmp_path: Path) -> None:
    assert _run_without_reader("check", "-p", str(tmp_path))[0] == 2
