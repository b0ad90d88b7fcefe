"""Files that another process changes while curator works: rows are stored only under the hash of what was read."""

import gzip
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import MakeProject, pair_rows, write_rows
from hostile import run_cli

from curator.core.errors import DataError
from curator.core.file_states import FileChanged, FileState
from curator.core.files import sha256_of
from curator.data import encoding, readers, task_rows
from curator.data.model_files import hash_files
from curator.project.project import Project
from curator.training import model as training_model

OLD, NEW = pair_rows("old", 8), pair_rows("new", 8)


def write_as(kind: str, folder: Path, rows: list[dict[str, str]]) -> None:
    """Write rows to the file `changing` in one format."""
    if kind == "jsonl.gz":
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "changing.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    elif kind == "saved":
        shutil.rmtree(folder / "changing", ignore_errors=True)
        datasets.disable_progress_bars()
        datasets.Dataset.from_list(rows).save_to_disk(str(folder / "changing"))
    elif kind == "jsonl":
        write_rows(folder / "changing.jsonl", rows)
    elif kind == "json":
        (folder / "changing.json").write_text(json.dumps(rows))
    elif kind == "csv":
        lines = "".join(f"{row['prompt']},{row['completion']}\n" for row in rows)
        (folder / "changing.csv").write_text(f"prompt,completion\n{lines}")
    else:
        pq.write_table(pa.Table.from_pylist(rows), folder / "changing.parquet")


def texts_of(folder: Path) -> str:
    """Return the stored texts of the tasks that a test changes."""
    with Project.open(folder).store.read() as connection:
        if connection is None:
            return ""
        rows = connection.execute("SELECT text FROM examples WHERE task IN ('changing', 'alpha')").fetchall()
    return " ".join(row[0] for row in rows)


@pytest.mark.parametrize("kind", ["jsonl", "json", "jsonl.gz", "csv", "parquet", "saved"])
@pytest.mark.parametrize("restored", [False, True], ids=["stays", "is changed back"])
def test_check_file_changed_after_hashing_stores_no_row(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch, kind: str, restored: bool
) -> None:
    """The old code stored the new rows under the hash of the old bytes, for good."""
    folder = make_project(data={"tasks": "tasks/*"})
    write_as(kind, folder / "tasks", OLD)
    read_together = task_rows._read_together

    def changed_meanwhile(sources: Any, *rest: Any) -> Any:
        if all(source.name != "changing" for source in sources.values()):
            return read_together(sources, *rest)
        write_as(kind, folder / "tasks", NEW)
        try:
            return read_together(sources, *rest)
        finally:
            if restored:
                write_as(kind, folder / "tasks", OLD)

    with monkeypatch.context() as patched:
        patched.setattr(task_rows, "_read_together", changed_meanwhile)
        done = run_cli("check", "-p", folder, "-q").check(3)
    assert "changed while curator read it" in done.err
    assert "old 0" not in texts_of(folder)
    assert "new 0" not in texts_of(folder)
    # The hint says: run the same command again.
    assert "Run the same command again." in done.err
    run_cli("check", "-p", folder, "-q").check(0)
    assert ("old 0" in texts_of(folder)) == restored
    assert ("new 0" in texts_of(folder)) != restored


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_read_file_changed_between_two_passes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A file that has its first content again at the end was another file in between."""
    write_as(kind, tmp_path, OLD)
    path = tmp_path / f"changing.{kind}"
    sha256 = sha256_of(path)
    read_any = readers._read_any

    def meanwhile(*arguments: Any) -> Iterator[Any]:
        for number, row in enumerate(read_any(*arguments)):
            if number == 3:
                write_as(kind, tmp_path, NEW)
                write_as(kind, tmp_path, OLD)
            yield row

    monkeypatch.setattr(readers, "_read_any", meanwhile)
    time.sleep(0.02)
    with pytest.raises(FileChanged, match="changed while curator read it"):
        list(readers.read_file(path, readers.ReadOptions(sha256=sha256)))


def test_read_file_damaged_during_a_change_is_not_remembered_as_damaged(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project()
    path = write_rows(folder / "tasks" / "changing.jsonl", OLD)
    whole = path.read_bytes()
    read_together = task_rows._read_together

    def half_written(sources: Any, *rest: Any) -> Any:
        path.write_bytes(b"" if "changing" in {source.name for source in sources.values()} else whole)
        try:
            return read_together(sources, *rest)
        finally:
            path.write_bytes(whole)

    with monkeypatch.context() as patched:
        patched.setattr(task_rows, "_read_together", half_written)
        assert "changed while curator read it" in run_cli("check", "-p", folder, "-q").check(3).err
    run_cli("check", "-p", folder, "-q").check(0)


def test_check_tokenizer_changed_after_hashing_stores_no_row(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_project()
    load = encoding.load_tokenizer

    def changed(*arguments: Any) -> Any:
        path = folder / "model" / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 7}))
        return load(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(encoding, "load_tokenizer", changed)
        assert "changed while curator read it" in run_cli("check", "-p", folder, "-q").check(3).err
    assert texts_of(folder) == ""


def test_train_weights_changed_after_hashing_are_refused(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old code stored results of the new weights under the hash of the old ones."""
    folder = make_project()
    load = training_model.load_model

    def changed(*arguments: Any) -> Any:
        path = folder / "model" / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        return load(*arguments)

    monkeypatch.setattr(training_model, "load_model", changed)
    with pytest.raises(DataError, match="changed while curator read it"):
        Project.open(folder).train()


def in_place(path: Path) -> None:
    """Change the words of a file, and keep size, inode and the time of the last write."""
    before = path.stat()
    with path.open("r+b") as file:
        content = file.read()
        file.seek(0)
        file.write(content.replace(b" =", b" +"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)


@pytest.fixture
def selected(make_project: MakeProject) -> Path:
    """Return a project with a selection that has stored the hashes of its files."""
    folder = make_project(select={"subsets": 50})
    for path in (folder / "tasks").iterdir():
        os.utime(path, (1, 1))
    time.sleep(1.1)
    run_cli("select", "-p", folder, "-q", "--include", "alpha").check(0)
    assert Project.open(folder).store.file_hashes([str(folder / "tasks" / "alpha.jsonl")])
    return folder


def export(folder: Path) -> Callable[[], Any]:
    return lambda: run_cli("export", folder / "curator-manifest.json", "--format", "jsonl", "-o", folder.parent / "out")


def test_select_edit_in_place_with_old_time_is_seen(selected: Path) -> None:
    in_place(selected / "tasks" / "alpha.jsonl")
    assert "has changed: sha256" in export(selected)().check(4).err
    run_cli("select", "-p", selected, "-q", "--include", "alpha").check(0)
    export(selected)().check(0)


def test_export_hint_of_a_wrong_stored_hash_leads_out(selected: Path) -> None:
    """A stored hash can be wrong, for example after the clock of the machine was set back."""
    path = selected / "tasks" / "alpha.jsonl"
    stored = sha256_of(path)
    in_place(path)
    Project.open(selected).store.put_file_hashes([(str(path), FileState.of(path), stored)])
    hint = export(selected)().check(4).err
    run_cli("select", "-p", selected, "-q", "--include", "alpha").check(0)
    export(selected)().check(4)
    assert "Run `curator select --rehash` in the project" in hint
    run_cli("select", "--rehash", "-p", selected, "-q", "--include", "alpha").check(0)
    export(selected)().check(0)


def test_export_file_changed_after_its_check_is_refused(selected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curator.export import examples

    read = examples.read_task

    def changed(*arguments: Any, **options: Any) -> Any:
        in_place(selected / "tasks" / "alpha.jsonl")
        return read(*arguments, **options)

    monkeypatch.setattr(examples, "read_task", changed)
    assert "changed while curator read it" in export(selected)().check(3).err
    assert not (selected.parent / "out").exists()


def test_hash_files_change_during_hashing_is_not_stored(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curator.data import model_files

    folder = make_project()
    path = folder / "tasks" / "alpha.jsonl"
    os.utime(path, (1, 1))
    time.sleep(1.1)
    store = Project.open(folder).store

    def slow(file: Path) -> str:
        found = sha256_of(file)
        in_place(file)
        return found

    monkeypatch.setattr(model_files, "sha256_of", slow)
    hash_files(store, [path])
    assert store.file_hashes([str(path)]) == {}
