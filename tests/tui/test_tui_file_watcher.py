"""Test what counts as a change of the project's files."""

import os
from pathlib import Path

from tui.background.file_watcher import FileWatcher


def _touch(path: Path, time: int) -> None:
    path.touch()
    os.utime(path, ns=(time, time))


def _project(tmp_path: Path) -> Path:
    for name in ("tasks", "elsewhere"):
        (tmp_path / name).mkdir()
    for name in ("curator.toml", "tasks/a.jsonl", "elsewhere/b.jsonl"):
        _touch(tmp_path / name, 10)
    return tmp_path


def test_has_changed_without_task_files_looks_at_the_configuration(tmp_path: Path) -> None:
    watcher = FileWatcher(_project(tmp_path))
    assert not watcher.has_changed()
    _touch(tmp_path / "tasks" / "a.jsonl", 11)
    assert not watcher.has_changed()
    _touch(tmp_path / "curator.toml", 11)
    assert [watcher.has_changed(), watcher.has_changed()] == [True, False]
    (tmp_path / "curator.toml").unlink()
    assert [watcher.has_changed(), watcher.has_changed()] == [True, False]


def test_has_changed_relative_and_absolute_files_are_watched_with_their_folders(tmp_path: Path) -> None:
    watcher = FileWatcher(_project(tmp_path))
    watcher.watch(["tasks/a.jsonl", str(tmp_path / "elsewhere" / "b.jsonl")])
    assert not watcher.has_changed()
    for name in ("tasks/a.jsonl", "elsewhere/b.jsonl", "tasks/new.jsonl"):
        _touch(tmp_path / name, 12)
        assert [watcher.has_changed(), watcher.has_changed()] == [True, False]


def test_watch_change_of_a_watched_file_before_the_next_look_is_kept(tmp_path: Path) -> None:
    watcher = FileWatcher(_project(tmp_path))
    _touch(tmp_path / "curator.toml", 11)
    watcher.watch(["tasks/a.jsonl"])
    assert watcher.has_changed()
    _touch(tmp_path / "tasks" / "a.jsonl", 11)
    watcher.watch(["tasks/a.jsonl", "elsewhere/b.jsonl"])
    assert [watcher.has_changed(), watcher.has_changed()] == [True, False]


def test_watch_other_files_is_not_a_change(tmp_path: Path) -> None:
    watcher = FileWatcher(_project(tmp_path))
    watcher.watch(["tasks/a.jsonl"])
    watcher.watch(["elsewhere/b.jsonl"])
    assert not watcher.has_changed()
    _touch(tmp_path / "tasks" / "a.jsonl", 11)
    assert not watcher.has_changed()


def test_has_changed_many_files_are_looked_at_each_tenth_time(tmp_path: Path) -> None:
    watcher = FileWatcher(_project(tmp_path))
    watcher.watch([f"tasks/{number}.jsonl" for number in range(600)])
    _touch(tmp_path / "tasks" / "7.jsonl", 11)
    assert [watcher.has_changed() for _ in range(11)] == [False] * 9 + [True, False]
