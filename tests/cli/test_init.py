"""`curator init` writes a project that opens, with the tasks it says it found."""

import os
from pathlib import Path

import pytest
from conftest import MakeProject, pair_rows, write_rows

from curator.core.config import Config
from curator.core.errors import ConfigError, DataError
from curator.core.load_config import load_config
from curator.data.discovery import find_tasks
from curator.project.new_project import write_project
from curator.project.project import Project


def found(path: Path) -> list[str]:
    return [source.name for source in find_tasks(load_config(path).data, path.parent)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.jsonl", "b.v1.csv", ".hidden.jsonl", 'quote"d\\.jsonl', "sub/c.jsonl"):
        write_rows(tmp_path / "data" / name, pair_rows("x", 2))
    (tmp_path / "data" / "notes.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["data/*"], ["a", "b.v1", 'quote"d\\']),
        (["data"], ["a", "b.v1", 'quote"d\\']),
        (["data/**/*.jsonl"], ["a", "c", 'quote"d\\']),
        (["data/a.jsonl", "data/sub/*.jsonl"], ["a", "c"]),
        (["data/a.jsonl"], ["a"]),
    ],
)
def test_init_from_sources_prints_the_tasks_it_writes(data: Path, sources: list[str], names: list[str]) -> None:
    written = write_project(data / "new" / "project", sources, model="model", target="a")
    path, said = written.path, written.tasks
    assert sorted(said) == names
    assert found(path) == names
    assert load_config(path).data.targets == ("a",)


def test_init_hub_ids_become_tasks(data: Path) -> None:
    written = write_project(data / "p", ["owner/name", "data/a.jsonl"], model="owner/model", target=None)
    path, said = written.path, written.tasks
    config = load_config(path)
    assert said == ["name", "a"]
    assert [(task.hub, bool(task.path)) for task in config.data.task] == [("owner/name", False), ("", True)]
    assert config.model.name_or_path == "owner/model"
    assert config.data.targets == ()


def test_init_without_sources_writes_the_defaults(data: Path) -> None:
    written = write_project(data / 'na"me', [], model="m", target="t")
    path, said = written.path, written.tasks
    written = load_config(path)
    assert said == []
    assert written.project.name == 'na"me'
    bare = {
        "project": {"name": 'na"me'},
        "model": {"name_or_path": "m"},
        "data": {"tasks": "tasks/*.jsonl", "target": "t"},
    }
    assert written == Config.model_validate(bare)
    for section in Config.model_fields.values():
        for key in section.annotation.model_fields:  # type: ignore[union-attr]
            assert f"{key}" in path.read_text(), f"{key} is not explained"


def test_init_model_folder_is_relative_to_the_project(data: Path) -> None:
    (data / "models" / "tiny").mkdir(parents=True)
    path = write_project(data / "x" / "p", [], model="models/tiny", target=None).path
    assert load_config(path).model.name_or_path == os.path.join("..", "..", "models", "tiny")


def test_init_bad_arguments_name_the_mistake(data: Path) -> None:
    write_rows(data / "other" / "a.jsonl", pair_rows("x", 1))
    for sources, kind, message in (
        (["gone.jsonl"], DataError, "not found: --from gone.jsonl"),
        (["data/*.parquet"], DataError, "no task file found"),
        (["data/notes.txt"], DataError, "no task file found"),
        (["data/a.jsonl", "other/a.jsonl"], ConfigError, "duplicate task name: 'a'"),
    ):
        with pytest.raises(kind, match=message):
            write_project(data / "p", sources, model="m", target=None)
    (data / "data" / "rows.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="no task file found") as packed:
        write_project(data / "p", ["data/rows.zip"], model="m", target=None)
    assert packed.value.hint.startswith("Unpack the archive. ")
    (data / "data" / "rows.zip").unlink()
    with pytest.raises(ConfigError, match="unknown target: 'x'"):
        write_project(data / "p", ["data"], model="m", target="x")
    assert not (data / "p").exists()
    write_project(data / "p", [], model="m", target=None)
    with pytest.raises(ConfigError, match="project exists already"):
        write_project(data / "p", [], model="m", target=None)
    with pytest.raises(DataError, match="cannot write"):
        write_project(data / "data" / "notes.txt", [], model="m", target=None)


def test_init_and_check_files_of_unknown_type_are_named(data: Path, make_project: MakeProject) -> None:
    """A glob or a folder leaves no file out in silence."""
    folder = make_project()
    config = folder / "curator.toml"
    config.write_text(config.read_text().replace("tasks/*.jsonl", "tasks/*"))
    (folder / "tasks" / "delta.xlsx").write_bytes(b"PK")
    (folder / "tasks" / ".hidden").write_text("x")
    written = write_project(folder / "new", [str(folder / "tasks")], model="m", target=None)
    assert written.left_out == [f"{folder / 'tasks' / 'delta.xlsx'}: unknown type of file"]
    problems = Project.open(folder).check().problems
    assert "1 file is not read, because of an unknown type: tasks/delta.xlsx" in problems


def test_init_clone_of_a_data_set_has_training_rows_only(data: Path) -> None:
    clone = data / "plants"
    for number in range(5):
        write_rows(clone / "data" / f"train-{number:05}-of-00005.jsonl", pair_rows(f"x{number}", 2))
    write_rows(clone / "data" / "test-00000-of-00001.jsonl", pair_rows("t", 2))
    written = write_project(data / "p", ["plants"], model="m", target=None)
    assert written.tasks == ["plants"]
    held_out = Path("plants", "data", "test-00000-of-00001.jsonl")
    assert written.left_out == [f"{held_out}: test or validation split, not trained on"]
    config = load_config(written.path)
    assert config.data.task[0].path == "../plants/data/train-*-of-00005.jsonl", "many shards are one pattern"
    (source,) = find_tasks(config.data, written.path.parent)
    assert [Path(str(file)).name for file in source.files] == [f"train-{n:05}-of-00005.jsonl" for n in range(5)]


def test_init_clone_with_configurations_has_a_task_for_each(data: Path) -> None:
    clone = data / "plants"
    for name in ("en/a.jsonl", "en/b.jsonl", "de/a.jsonl", "de/held.jsonl"):
        write_rows(clone / name, pair_rows(name, 2))
    (clone / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files: en/*.jsonl\n- config_name: de\n  data_files:\n"
        "  - split: train\n    path: de/a.jsonl\n  - split: test\n    path: de/held.jsonl\n---\n"
    )
    written = write_project(data / "p", ["plants"], model="m", target="plants-en")
    assert written.tasks == ["plants-en", "plants-de"]
    assert [Path(line.partition(":")[0]).name for line in written.left_out] == ["held.jsonl"]
    paths = {task.name: task.paths for task in load_config(written.path).data.task}
    assert paths == {
        "plants-en": ("../plants/en/a.jsonl", "../plants/en/b.jsonl"),
        "plants-de": ("../plants/de/a.jsonl",),
    }


@pytest.mark.parametrize("source", ["tasks", "tasks/*", "tasks/*/train.jsonl"])
def test_init_folders_with_splits_name_the_tasks(data: Path, source: str) -> None:
    for name in ("oak", "fern"):
        for split in ("train", "test"):
            write_rows(data / "tasks" / name / f"{split}.jsonl", pair_rows(name, 2))
    written = write_project(data / "p", [source], model="m", target="oak")
    assert sorted(written.tasks) == found(written.path) == ["fern", "oak"]
    assert len(written.left_out) == 2
    assert all(line.endswith("test.jsonl: test or validation split, not trained on") for line in written.left_out)
