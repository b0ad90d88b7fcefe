"""Settings from the environment, and the log file."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from curator.cli import main as entry
from curator.cli.app import app
from curator.core.errors import DataError
from curator.core.events import Note, StageFinished, StageProgress, StageStarted
from curator.core.progress import LogFile

MakeProject = Callable[..., Path]


def _run(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["curator", *arguments])
        with pytest.raises(SystemExit) as ended:
            entry.main()
    return int(ended.value.code or 0)


def test_every_shared_option_has_a_variable() -> None:
    group = typer.main.get_command(app)
    shared = {"--project", "--target", "--fresh", "--dry-run", "--json", "--skip-bad-rows", "--quiet", "--verbose"}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            option = parameter.opts[-1]
            # `init --target` writes the target, and `export --dry-run` writes no file.
            if option in {*shared, "--log-file"} and (name, option) not in {
                ("init", "--target"),
                ("export", "--dry-run"),
            }:
                assert parameter.envvar == "CURATOR_" + option[2:].replace("-", "_").upper(), (name, option)


def test_environment_sets_options_and_command_line_wins(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CURATOR_PROJECT", str(make_project("one")))
    monkeypatch.setenv("CURATOR_JSON", "1")
    assert _run("status") == 0
    assert json.loads(capsys.readouterr().out)["project"] == "one"
    assert _run("status", "-p", str(make_project("two"))) == 0
    assert json.loads(capsys.readouterr().out)["project"] == "two"
    monkeypatch.setenv("CURATOR_JSON", "0")
    assert _run("status") == 0
    assert capsys.readouterr().out.startswith("one\n")


def test_environment_sets_several_targets(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CURATOR_TARGET", "alpha nope")
    assert _run("train", "-p", str(make_project())) == 2
    assert "unknown target: 'nope'" in capsys.readouterr().err


def test_log_file_receives_events_and_error_with_time(
    make_project: MakeProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, log = make_project(), tmp_path / "curator.log"
    assert _run("train", "-p", str(folder), "--quiet", "--log-file", str(log)) == 0
    assert _run("estimate", "nope", "-p", str(folder), "--quiet", "--log-file", str(log)) == 2
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ", line) for line in lines)
    words = [line.partition(" ")[2] for line in lines]
    assert any(line.startswith("train: started") for line in words)
    assert any(line.startswith("train: done in") for line in words)
    assert words[-1] == "error: unknown task: 'nope'"
    assert "train" not in capsys.readouterr().err


def test_log_file_of_dry_run_has_no_error(make_project: MakeProject, tmp_path: Path) -> None:
    log = tmp_path / "curator.log"
    assert _run("train", "-p", str(make_project()), "--dry-run", "--log-file", str(log)) == 0
    assert "error" not in log.read_text()


def test_log_file_unwritable_fails_before_any_stage(
    make_project: MakeProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_project()
    assert _run("train", "-p", str(folder), "--log-file", str(tmp_path / "missing" / "curator.log")) == 3
    assert "cannot write" in capsys.readouterr().err
    assert not (folder / ".curator" / "store.duckdb").exists()


def test_log_file_hostile_text_is_one_clean_line(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    log(Note(message="\x1b[31mred\nnext"))
    log.__exit__(DataError, DataError("bad\nname\x07"), None)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_log_file_writes_progress_every_few_seconds(tmp_path: Path) -> None:
    with LogFile(tmp_path / "log") as log:
        log(StageStarted(stage="train", total=100, unit="steps", time=1000.0))
        for done in range(100):
            moment = 1000.0 + done / 10
            log(StageProgress(stage="train", done=done, total=100, unit="steps", rate=10, seconds_left=1, time=moment))
        log(StageFinished(stage="train", seconds=10.0, summary="", time=1010.0))
    # The start, progress at 0 and 5 seconds, and the end.
    assert len((tmp_path / "log").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "value", "quiet"),
    [([], None, True), (["-v"], None, False), (["--verbose"], None, False), ([], "1", False), ([], "0", True)],
)
def test_verbose_by_option_or_variable_keeps_library_output(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], value: str | None, quiet: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["curator", "train", *arguments])
    monkeypatch.setattr(entry.os, "environ", {} if value is None else {"CURATOR_VERBOSE": value})
    monkeypatch.setattr(entry.warnings, "filterwarnings", lambda *_: None)
    entry._quiet_libraries()
    assert ("TRANSFORMERS_VERBOSITY" in entry.os.environ) is quiet
