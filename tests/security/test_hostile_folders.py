"""Folders that are deeper than Python's limit of recursion, and globs that reach hidden folders."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MakeProject, pair_rows, write_rows
from hostile import deep_folder, run_cli

from curator.core.errors import DataError
from curator.core.files import partial_name, whole_folder
from curator.data import layouts

GLOBS = ["tasks/**/*.jsonl", "tasks/**/d/**/*.jsonl"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pattern", GLOBS)
def test_check_glob_of_deep_folder_finds_its_file(make_project: MakeProject, pattern: str) -> None:
    """`pathlib` ended with a RecursionError: "this is a bug in curator"."""
    folder = make_project(data={"tasks": pattern})
    write_rows(folder / "tasks/d/target.jsonl", pair_rows("target", 12))
    (folder / "tasks/target.jsonl").unlink()
    with deep_folder(folder / "tasks/d/d", json.dumps(pair_rows("x", 1)[0]).encode()):
        assert " x " in run_cli("check", "-p", folder, "-q").check(0).out


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pattern", GLOBS)
def test_init_glob_of_deep_folder_finds_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.chdir(tmp_path)
    with deep_folder(tmp_path / "tasks/d", b'{"prompt": "a", "completion": "b"}\n'):
        run_cli("init", tmp_path / "project", "--from", pattern).check(0)


@pytest.mark.parametrize("pattern", ["**/*.jsonl", "*/*.jsonl"])
def test_check_glob_takes_no_hidden_file(make_project: MakeProject, pattern: str) -> None:
    """Backups of editors became tasks, and so did the logs of curator's jobs."""
    folder = make_project(data={"tasks": pattern})
    for name in (".ipynb_checkpoints/old.jsonl", ".curator/runs/1/events.jsonl", "tasks/.backup.jsonl"):
        write_rows(folder / name, pair_rows("old", 4))
    done = run_cli("check", "-p", folder, "-q", "--json").check(0)
    assert [task["name"] for task in json.loads(done.out)["tasks"]] == ["alpha", "beta", "gamma", "target"]


def test_whole_folder_deep_left_over_is_ignored(tmp_path: Path) -> None:
    """A killed export leaves a temporary folder, which a later export removes as far as possible."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = partial_name("out").rpartition("-")[0] + f"-{dead.pid}.partial"
    with deep_folder(tmp_path / name), whole_folder(tmp_path / "out") as folder:
        (folder / "a.jsonl").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.jsonl"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "readme", ["", "---\nconfigs:\n- {config_name: a, data_dir: l0}\n- {config_name: b, data_dir: l1}\n---\n"]
)
def test_tasks_of_folder_links_in_a_circle_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readme: str
) -> None:
    """Sixty links to their own folder looked like 60³ folders. Two configurations looked like 2^40."""
    monkeypatch.setattr(layouts, "_MOST_FOLDERS", 500)
    for number in range(20):
        (tmp_path / f"l{number}").symlink_to(".")
    if readme:
        (tmp_path / "README.md").write_text(readme)
    with pytest.raises(DataError, match="entered over 500 folders") as caught:
        layouts.tasks_of_folder(tmp_path)
    assert "links" in caught.value.hint


@pytest.mark.timeout(60)
def test_check_pattern_through_links_in_a_circle_is_refused(make_project: MakeProject) -> None:
    folder = make_project(data={"tasks": "tasks/" + "*/" * 35 + "*.jsonl"})
    for number in range(4):
        (folder / "tasks" / f"l{number}").symlink_to(".")
    assert "links in a circle" in run_cli("check", "-p", folder, "-q").check(2).err
