"""List, rename, delete, restore and annotate saved selections, in Python and by the command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import run_cli

import curator
from curator.core.errors import ConfigError, DataError
from curator.select.manifest import Manifest

DrawnProject = Callable[..., Path]


@pytest.fixture
def project(drawn_project: DrawnProject) -> curator.Project:
    """Return a project with the selection `first` and a note on it."""
    project = curator.Project.open(drawn_project("12"))
    project.select(name="first")
    project.note("for the paper", selection="first")
    return project


def _names(project: curator.Project) -> list[tuple[str, bool]]:
    return [(entry.name, entry.deleted) for entry in project.saved_selections().selections]


def test_rename_selection_keeps_subset_note_and_cache(project: curator.Project) -> None:
    before = project.manifest("first")[0]
    project.rename_selection("first", "best of all")
    after = project.manifest("best of all")[0]
    assert after == before.model_copy(update={"name": "best of all"})
    assert [entry.note for entry in project.saved_selections().selections if entry.name == "best of all"] == [
        "for the paper"
    ]
    with pytest.raises(DataError, match="first"):
        project.manifest("first")
    # The same request under the new name finds it, and under the old name makes another one.
    assert project.select(name="best of all").cached
    assert not project.select(name="first").cached
    assert project.manifest("first")[0].name == "first"
    with pytest.raises(ConfigError, match="already named 'best of all'"):
        project.rename_selection("first", "best of all")
    with pytest.raises(ConfigError, match="not a name"):
        project.rename_selection("first", "  ")


def test_delete_selection_and_restore_keep_measured_losses(project: curator.Project) -> None:
    (kept, *_) = project.store.selections()
    measured = Manifest.model_validate_json(kept.manifest).model_copy(update={"measured_loss": 0.25})
    project.store.put_manifest(kept.key, measured.model_dump_json())
    project.store.put_measurement("recipe", "target", {"a": "b"}, seed=0, loss=0.25, seconds=1.0)
    project.delete_selection("first")
    assert ("first", True) in _names(project)
    assert ("first", False) not in _names(project)
    assert [run.loss for run in project.store.measurements("recipe")] == [0.25]
    with pytest.raises(ConfigError, match="unknown selection: 'first'"):
        project.delete_selection("first")
    project.restore_selection("first")
    assert ("first", True) not in _names(project)
    assert project.manifest("first")[0].measured_loss == 0.25
    with pytest.raises(ConfigError, match="no deleted selection is named 'first'"):
        project.restore_selection("first")


def test_status_names_saved_selections_as_they_are_now(project: curator.Project) -> None:
    def shown() -> tuple[str, str]:
        (stage,) = [stage for stage in project.status().stages if stage.stage == "select"]
        return stage.state, stage.detail

    project.select(name="second", k=1)
    assert shown() == ("done", "first, second")
    project.rename_selection("first", "best")
    project.delete_selection("second")
    assert shown() == ("done", "best")
    project.delete_selection("best")
    assert shown() == ("missing", "run `curator select`")


def test_restore_selection_with_name_in_use_is_refused(project: curator.Project) -> None:
    project.delete_selection("first")
    project.select(name="first", k=1)
    with pytest.raises(ConfigError, match="already named 'first'"):
        project.restore_selection("first")


def test_selections_command_renames_deletes_restores_and_annotates(project: curator.Project) -> None:
    root = str(project.root)
    run_cli("selections", "rename", "first", "\x1b[31mred", "-p", root).check(0)
    run_cli("selections", "annotate", "\x1b[31mred", "read this", "-p", root).check(0)
    document = json.loads(run_cli("selections", "delete", "\x1b[31mred", "--json", "-p", root).check(0).out)
    found = [entry for entry in document["selections"] if entry["name"] == "\x1b[31mred"]
    assert [(entry["note"], entry["deleted"]) for entry in found] == [("read this", True)]
    shown = run_cli("selections", "restore", "\x1b[31mred", "-p", root).check(0).out
    assert "read this" in shown
    assert "\x1b[31mred" not in shown
    assert "rename NAME NEW" in run_cli("selections", "rename", "x", "-p", root).check(2).err
