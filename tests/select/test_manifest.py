"""The manifest's file: the same bytes for the same selection, whole or not at all."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import manifest_of
from pydantic import ValidationError

from curator.core.errors import ConfigError, DataError, ExitCode, ManifestMismatch
from curator.core.files import located, relative_to, sha256_of, write_whole
from curator.export import export
from curator.export.plan import first_plan
from curator.export.recipe import recipe_of
from curator.select.manifest import (
    Manifest,
    ModelIdentity,
    TargetEntry,
    TaskEntry,
    TaskFile,
    check_files,
    is_same_selection,
    now,
    read_manifest,
    rebased,
    record_measured,
    render,
    write_manifest,
)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    for name in ("target", "Käse"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
    return manifest_of(tmp_path, "target", "Käse")


def test_round_trip(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "sub" / "deeper" / "m.json"
    assert write_manifest(manifest, path)
    assert read_manifest(path) == manifest
    assert path.read_text(encoding="utf-8") == render(manifest)
    assert render(read_manifest(path)) == render(manifest)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert list(document)[:4] == ["schema_version", "created", "curator_version", "project"]
    assert document["tasks"][0]["name"] == "Käse"
    assert path.read_text(encoding="utf-8") == json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    assert document["measured_loss"] is None
    assert [p.name for p in path.parent.iterdir()] == ["m.json"], "nothing is left beside it"


def test_a_file_that_says_the_same_is_left(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "m.json"
    write_manifest(manifest, path)
    before = path.stat()
    assert not write_manifest(manifest.model_copy(update={"created": "2027-01-01T00:00:00Z"}), path)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert write_manifest(manifest.model_copy(update={"name": "other"}), path)
    path.write_text("{broken")
    assert write_manifest(manifest, path)
    assert read_manifest(path) == manifest


def test_a_write_that_fails_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_whole(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no manifest that this curator knows"),
        ("[]", "no manifest"),
        ('{"schema_version": 2}', "schema_version"),
        ("\xff", "cannot be read"),
        (None, "cannot be read"),
        ("{", "knows: the file: "),
        ('{"targets": [{}]}', r"knows: [a-z_]+: "),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "m.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(tmp_path / "m.json")
    assert caught.value.hint == "Name a manifest that `curator select` wrote."


def test_where_a_manifest_is_wrong(tmp_path: Path, manifest: Manifest) -> None:
    values = json.loads(render(manifest))
    values["tasks"][0]["affinity"] = "much"
    (tmp_path / "m.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"knows: tasks\.0\.affinity: "):
        read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"program": "rm"}, "'program' says nothing of where rows come from"),
        ({"hub": 3}, "hub is of the wrong type"),
        ({"hub": ["a"]}, "hub is of the wrong type"),
        ({"columns": {"prompt": 3}}, "columns must be text"),
    ],
)
def test_a_source_says_where_rows_come_from_in_plain_words(
    manifest: Manifest, source: dict[str, Any], message: str
) -> None:
    values = json.loads(render(manifest))
    values["tasks"][0]["source"] = {"hub": "some/where", "split": "train"}
    assert _changed(manifest, tasks=values["tasks"]).tasks[0].source == {"hub": "some/where", "split": "train"}
    values["tasks"][0]["source"] = source
    with pytest.raises(ValidationError, match=message):
        _changed(manifest, tasks=values["tasks"])


def test_a_path_is_one(manifest: Manifest) -> None:
    values = json.loads(render(manifest))
    values["tasks"][0]["files"][0]["path"] = "a\0b"
    with pytest.raises(ValidationError, match="a path holds no NUL"):
        _changed(manifest, tasks=values["tasks"])


def test_unwritable(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "m.json", tmp_path):
        with pytest.raises(DataError, match=f"^{path}: cannot be written: ") as caught:
            write_manifest(manifest, path)
        assert caught.value.hint == "Choose another place with -o."


_CHANGED = r"'Käse'.*has changed: sha256 [0-9a-f]{12}… in the manifest, [0-9a-f]{12}… now$"


def test_changed_files(tmp_path: Path, manifest: Manifest) -> None:
    check_files(manifest, tmp_path)
    (tmp_path / "Käse.jsonl").write_text("{}\n\n")
    with pytest.raises(ManifestMismatch, match=_CHANGED) as caught:
        check_files(manifest, tmp_path)
    assert caught.value.exit_code == ExitCode.MISMATCH
    assert caught.value.hint == "Run `curator select` again, or pass --allow-changed."
    assert str(tmp_path / "Käse.jsonl") in caught.value.message
    of_a_hub = manifest.tasks[0].model_copy(update={"source": {"hub": "some/where"}})
    check_files(manifest.model_copy(update={"tasks": (of_a_hub, *manifest.tasks[1:])}), tmp_path)
    unselected = manifest.tasks[0].model_copy(update={"selected": False})
    check_files(manifest.model_copy(update={"tasks": (unselected,)}), tmp_path)
    (tmp_path / "target.jsonl").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        check_files(manifest, tmp_path)


def test_changed_validation_files(tmp_path: Path, manifest: Manifest) -> None:
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text("{}\n")
    values = json.loads(render(manifest))
    values["targets"][0]["validation_files"] = [{"path": held_out.name, "sha256": sha256_of(held_out), "rows": 1}]
    judged = Manifest.model_validate_json(json.dumps(values))
    check_files(judged, tmp_path)
    held_out.write_text("{}\n{}\n")
    with pytest.raises(ManifestMismatch, match=r"'target'.*held-out"):
        check_files(judged, tmp_path)


def _changed(manifest: Manifest, **changes: Any) -> Manifest:
    return Manifest.model_validate_json(json.dumps(json.loads(render(manifest)) | changes))


def test_the_same_selection_is_so_wherever_and_whenever(manifest: Manifest) -> None:
    values = json.loads(render(manifest))
    values["targets"][0]["validation_files"] = [dict(values["targets"][0]["files"][0])]
    manifest = _changed(manifest, targets=values["targets"])
    for entry in (*values["targets"], *values["tasks"]):
        for file in (*entry["files"], *entry.get("validation_files", ())):
            file["path"] = f"../elsewhere/{file['path']}"
    model = values["model"] | {"name_or_path": "../elsewhere/m"}
    moved = _changed(manifest, targets=values["targets"], tasks=values["tasks"], model=model)
    assert moved != manifest
    assert is_same_selection(moved, manifest)
    assert is_same_selection(_changed(manifest, created="2027-01-01T00:00:00Z", measured_loss=0.5), manifest)
    for entry in ("targets", "tasks"):
        other = json.loads(render(manifest))
        other[entry][0]["files"][0]["sha256"] = "0" * 64
        assert not is_same_selection(_changed(manifest, **{entry: other[entry]}), manifest)
    other_model = values["model"] | {"sha256": "y"}
    for changes in ({"estimated_loss": 1.5}, {"name": "other"}, {"method": "backward"}, {"model": other_model}):
        assert not is_same_selection(_changed(manifest, **changes), manifest)


def test_a_measured_loss_is_all_that_is_written(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.json"
    write_manifest(manifest, path)
    # What a later curator may add stays.
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    assert record_measured(path, manifest, 0.75)
    assert (
        path.read_text(encoding="utf-8")
        == json.dumps(document | {"measured_loss": 0.75}, indent=2, ensure_ascii=False) + "\n"
    )
    before = path.stat()
    assert record_measured(path, manifest, 0.75)
    assert path.stat().st_ino == before.st_ino, "nothing to write"
    assert record_measured(path, manifest, 0.5)
    assert read_manifest(path).measured_loss == 0.5
    assert not record_measured(path, _changed(manifest, name="another"), 0.25)
    assert read_manifest(path).measured_loss == 0.5

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("curator.select.manifest.write_whole", full)
    with pytest.raises(DataError, match=f"^{path}: cannot be written: .*No space") as caught:
        record_measured(path, manifest, 0.25)
    assert caught.value.hint == "Is it yours to write?"


def test_the_present_is_told_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    there = datetime.strptime(now(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    monkeypatch.undo()
    time.tzset()
    assert abs((datetime.now(UTC) - there).total_seconds()) < 5


def test_relative_paths(tmp_path: Path) -> None:
    assert relative_to("/a/b/c", Path("/a/d")) == "../b/c"


# -- paths ----------------------------------------------------------------------------------------------------------

_NAMES = st.lists(st.sampled_from(["a", "b", "é c", "d.jsonl"]), min_size=1, max_size=3)
_PATHS = st.builds(lambda up, names: "/".join([".."] * up + names), st.integers(0, 2), _NAMES)
_FOLDERS = st.builds(lambda names: "/".join(names), st.lists(st.sampled_from(["x", "y"]), max_size=3))


@given(paths=st.lists(_PATHS, min_size=4, max_size=4), old=_FOLDERS, new=_FOLDERS, model_is_local=st.booleans())
@settings(max_examples=60, deadline=None)
def test_rebased_to_another_folder_and_back_gives_the_same_manifest(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], old: str, new: str, model_is_local: bool
) -> None:
    root = tmp_path_factory.getbasetemp() / "rebased" / "1" / "2"
    here, there = root / old, root / new
    for folder in (here / "model", there):
        folder.mkdir(parents=True, exist_ok=True)
    manifest = _with_paths(paths, model="model" if model_is_local else "org/model")
    moved = rebased(manifest, here, there)
    assert [located(path, there) for path in _local_paths(moved)] == [
        located(path, here) for path in _local_paths(manifest)
    ]
    assert (there / moved.model.name_or_path).is_dir() == model_is_local
    assert rebased(moved, there, here) == manifest


def test_rebased_hub_ids_addresses_and_absolute_models_stay(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    paths = ["s3://bucket/a.jsonl", "b.jsonl", str(tmp_path / "c.jsonl"), "../d.jsonl"]
    manifest = _with_paths(paths, model=str(tmp_path / "model"))
    moved = rebased(manifest, tmp_path, tmp_path / "out")
    assert _local_paths(moved) == ["s3://bucket/a.jsonl", "../b.jsonl", "../c.jsonl", "../../d.jsonl"]
    assert moved.model == manifest.model
    assert moved.tasks[-1] == manifest.tasks[-1], "a hub data set"
    assert moved.model_copy(update={"targets": manifest.targets, "tasks": manifest.tasks}) == manifest


def _with_paths(paths: list[str], *, model: str) -> Manifest:
    """Make a manifest with a target, its validation file, two tasks of files, and a task of a hub data set."""
    held, *others = [TaskFile(path=path, sha256="x", rows=1) for path in paths]
    entry: dict[str, Any] = {"examples": 1, "tokens": 2}
    scored: dict[str, Any] = {"selected": True, "affinity": 0.1, "affinity_standard_error": None, **entry}
    hub = TaskFile(path="org/data", sha256="x", rows=1)
    target = TargetEntry(name="t", validation_examples=1, files=(others[0],), validation_files=(held,), **entry)
    tasks = [TaskEntry(name=f"n{n}", files=(file,), **scored) for n, file in enumerate(others[1:])]
    return Manifest(
        created="2026-11-23T12:00:00Z",
        curator_version="0.1.0",
        project="p",
        name="n",
        target="t",
        method="forward",
        model=ModelIdentity(name_or_path=model, revision="", sha256="x"),
        **{section: {} for section in ("lora", "train", "data", "gradients", "estimate")},
        targets=(target,),
        tasks=(*tasks, TaskEntry(name="hub", files=(hub,), source={"hub": "org/data"}, **scored)),
        estimated_loss=1.0,
        estimated_loss_low=0.9,
        estimated_loss_high=1.1,
    )


def _local_paths(manifest: Manifest) -> list[str]:
    """Return the path of every file but those of hub data sets."""
    (target,) = manifest.targets
    tasks = [task for task in manifest.tasks if not task.source]
    return [file.path for entry in (target, *tasks) for file in (*getattr(entry, "validation_files", ()), *entry.files)]


# -- manifests of strangers ---------------------------------------------------------------------------------------


def test_a_manifest_takes_the_place_of_files_only(tmp_path: Path, manifest: Manifest) -> None:
    """Nobody would have a device replaced, or wait for a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="no regular file"):
        write_manifest(manifest, pipe)
    with pytest.raises(OSError, match="no regular file"):
        write_whole(pipe, b"")
    assert pipe.is_fifo()
    (tmp_path / "out").mkdir()
    pipe.rename(tmp_path / "out" / "curator-export.json")
    with pytest.raises(ConfigError, match="is no export"):
        export(manifest, tmp_path, format="jsonl", folder=tmp_path / "out")


def test_a_task_is_named_once(tmp_path: Path, manifest: Manifest) -> None:
    document = manifest.model_dump(mode="json")
    for tasks in (document["tasks"] * 2, [document["tasks"][0] | {"name": "target"}]):
        (tmp_path / "m.json").write_text(json.dumps(document | {"tasks": tasks}))
        with pytest.raises(DataError, match="named more than once"):
            read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("section", "values"),
    [
        *(("train", {"learning_rate": value}) for value in ("x", None, -1)),
        *(("train", {"epochs": value}) for value in ("x", -1, 1e308)),
        *(("train", {"batch_size": value}) for value in (0, None, 10**30)),
        ("train", {"schedule": 5}),
        ("lora", {"r": "x"}),
        ("lora", {"r": 2**31}),
        ("data", {"max_length": "x"}),
        ("data", {"max_length": None}),
    ],
)
def test_settings_that_are_none_are_named(
    tmp_path: Path, manifest: Manifest, section: str, values: dict[str, Any]
) -> None:
    (name,) = values
    found = manifest.model_copy(update={section: values})
    with pytest.raises(DataError, match=f"the manifest's {section}.{name}: "):
        recipe_of(first_plan(found, tmp_path, format="trl", folder=tmp_path / "out"))


@pytest.mark.parametrize("number", [-1, 10**400])
def test_counts_are_numbers_that_something_can_be_of(tmp_path: Path, manifest: Manifest, number: int) -> None:
    document = manifest.model_dump(mode="json")
    document["tasks"][0]["files"][0]["rows"] = number
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"tasks\.0\.files\.0\.rows"):
        read_manifest(tmp_path / "m.json")


def test_the_record_of_an_earlier_export_is_only_data(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "curator-export.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="is no export"):
        export(manifest, tmp_path, format="jsonl", folder=tmp_path / "out")
