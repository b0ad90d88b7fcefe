"""Test the file of a manifest: equal bytes for equal selections, complete or missing."""

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


def test_write_manifest_read_back_gives_an_equal_manifest(tmp_path: Path, manifest: Manifest) -> None:
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
    assert [p.name for p in path.parent.iterdir()] == ["m.json"], "no other file is left"


def test_write_manifest_equal_file_stays_untouched(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "m.json"
    write_manifest(manifest, path)
    before = path.stat()
    assert not write_manifest(manifest.model_copy(update={"created": "2027-01-01T00:00:00Z"}), path)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert write_manifest(manifest.model_copy(update={"name": "other"}), path)
    path.write_text("{broken")
    assert write_manifest(manifest, path)
    assert read_manifest(path) == manifest


def test_write_whole_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        ("{", "not a manifest of this version of curator"),
        ("[]", "not a manifest"),
        ('{"schema_version": 2}', "schema_version"),
        ("\xff", "cannot read"),
        (None, "cannot read"),
        ("{", "m.json: the whole text: "),
        ('{"targets": [{}]}', r"m\.json: [a-z_]+: "),
    ],
)
def test_read_manifest_invalid_file_is_refused_with_the_reason(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "m.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(tmp_path / "m.json")
    assert caught.value.hint == "Name a manifest that `curator select` wrote."


def test_read_manifest_wrong_value_names_its_place(tmp_path: Path, manifest: Manifest) -> None:
    values = json.loads(render(manifest))
    values["tasks"][0]["affinity"] = "much"
    (tmp_path / "m.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"m\.json: tasks\.0\.affinity: "):
        read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"program": "rm"}, "unknown key of a source: 'program'"),
        ({"hub": 3}, "wrong type: hub"),
        ({"hub": ["a"]}, "wrong type: hub"),
        ({"columns": {"prompt": 3}}, "not a table of texts: columns"),
        ({"rows": ["a"]}, "wrong type: rows"),
        ({"csv": {"delimiter": ";;"}}, "wrong options: csv"),
        ({"csv": {"program": "rm"}}, "wrong options: csv"),
    ],
)
def test_manifest_source_invalid_key_or_type_is_refused(
    manifest: Manifest, source: dict[str, Any], message: str
) -> None:
    values = json.loads(render(manifest))
    values["tasks"][0]["source"] = {"hub": "some/where", "split": "train"}
    assert _changed(manifest, tasks=values["tasks"]).tasks[0].source == {"hub": "some/where", "split": "train"}
    values["tasks"][0]["source"] = source
    with pytest.raises(ValidationError, match=message):
        _changed(manifest, tasks=values["tasks"])


def test_manifest_path_with_nul_is_refused(manifest: Manifest) -> None:
    values = json.loads(render(manifest))
    values["tasks"][0]["files"][0]["path"] = "a\0b"
    with pytest.raises(ValidationError, match="a path must not hold a NUL"):
        _changed(manifest, tasks=values["tasks"])


def test_write_manifest_unwritable_path_is_reported(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "m.json", tmp_path):
        with pytest.raises(DataError, match=f"^cannot write {path}: ") as caught:
            write_manifest(manifest, path)
        assert caught.value.hint == "Choose another place with -o."


_CHANGED = r"'Käse'.*has changed: sha256 [0-9a-f]{12}… in the manifest, [0-9a-f]{12}… now$"


def test_check_files_changed_file_names_task_and_hashes(tmp_path: Path, manifest: Manifest) -> None:
    check_files(manifest, tmp_path)
    (tmp_path / "Käse.jsonl").write_text("{}\n\n")
    with pytest.raises(ManifestMismatch, match=_CHANGED) as caught:
        check_files(manifest, tmp_path)
    assert caught.value.exit_code == ExitCode.MISMATCH
    assert caught.value.hint == "Run `curator select --rehash` in the project, or pass --allow-changed."
    assert str(tmp_path / "Käse.jsonl") in caught.value.message
    of_a_hub = manifest.tasks[0].model_copy(update={"source": {"hub": "some/where"}})
    check_files(manifest.model_copy(update={"tasks": (of_a_hub, *manifest.tasks[1:])}), tmp_path)
    unselected = manifest.tasks[0].model_copy(update={"selected": False})
    check_files(manifest.model_copy(update={"tasks": (unselected,)}), tmp_path)
    (tmp_path / "target.jsonl").unlink()
    with pytest.raises(DataError, match="cannot read "):
        check_files(manifest, tmp_path)


def test_check_files_changed_validation_file_is_refused(tmp_path: Path, manifest: Manifest) -> None:
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


def test_is_same_selection_ignores_time_paths_and_measured_loss_only(manifest: Manifest) -> None:
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


def test_record_measured_writes_the_loss_and_keeps_the_rest(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.json"
    write_manifest(manifest, path)
    # Other formatting of the file does not matter.
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    assert record_measured(path, manifest, 0.75)
    assert (
        path.read_text(encoding="utf-8")
        == json.dumps(document | {"measured_loss": 0.75}, indent=2, ensure_ascii=False) + "\n"
    )
    before = path.stat()
    assert record_measured(path, manifest, 0.75)
    assert path.stat().st_ino == before.st_ino, "an equal loss is not written"
    assert record_measured(path, manifest, 0.5)
    assert read_manifest(path).measured_loss == 0.5
    assert not record_measured(path, _changed(manifest, name="another"), 0.25)
    assert read_manifest(path).measured_loss == 0.5

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("curator.select.manifest.write_whole", full)
    with pytest.raises(DataError, match=f"^cannot write {path}: .*No space") as caught:
        record_measured(path, manifest, 0.25)
    assert caught.value.hint == "Check write permissions."


def test_now_in_another_time_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    there = datetime.strptime(now(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    monkeypatch.undo()
    time.tzset()
    assert abs((datetime.now(UTC) - there).total_seconds()) < 5


def test_relative_to_sibling_folder_goes_up(tmp_path: Path) -> None:
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


def test_write_manifest_never_replaces_a_pipe(tmp_path: Path, manifest: Manifest) -> None:
    """curator must not replace a device, or wait for a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="not a regular file"):
        write_manifest(manifest, pipe)
    with pytest.raises(OSError, match="not a regular file"):
        write_whole(pipe, b"")
    assert pipe.is_fifo()
    (tmp_path / "out").mkdir()
    pipe.rename(tmp_path / "out" / "curator-export.json")
    with pytest.raises(ConfigError, match="is not an export"):
        export(manifest, tmp_path, format="jsonl", folder=tmp_path / "out")


def test_read_manifest_repeated_task_name_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    document = manifest.model_dump(mode="json")
    for tasks in (document["tasks"] * 2, [document["tasks"][0] | {"name": "target"}]):
        (tmp_path / "m.json").write_text(json.dumps(document | {"tasks": tasks}))
        with pytest.raises(DataError, match="several tasks have the same name"):
            read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        ("tasks", {"examples": 5}, "tasks.0: `examples` is 5, but the rows of the files give 1"),
        ("tasks", {"left_out": {"empty": [1]}}, "`left_out` names row 1, but the files have 1 rows"),
        ("tasks", {"left_out": {"empty": [-1]}}, "`left_out` names row -1"),
        ("tasks", {"left_out": {"empty": [0], "x": [0]}}, "`left_out` names row 0 twice"),
        ("targets", {"examples": 0}, "targets.0: `examples` is 0"),
        ("targets", {"validation_examples": 1}, "`validation_examples` is 1, but the rows of the files give 0"),
        ("targets", {"validation_left_out": [7]}, "`validation_left_out` names row 7"),
        ("targets", {"name": "other"}, "`target` names 'target', and `targets` describes 'other'"),
        ("targets", None, "`target` names 'target', and `targets` describes none"),
    ],
)
def test_read_manifest_counts_and_names_that_disagree_are_refused(
    tmp_path: Path, manifest: Manifest, place: str, changes: dict[str, Any] | None, message: str
) -> None:
    """A person who deletes the held-out rows of a target would train on them."""
    document = manifest.model_dump(mode="json")
    if changes is None:
        document[place] = []
    else:
        if "validation_left_out" in changes:
            changes = changes | {"validation_files": document[place][0]["files"]}
        document[place][0] |= changes
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path / "m.json")


def test_read_manifest_repeated_key_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    text = render(manifest).replace('"selected": true', '"selected": true, "selected": false')
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(DataError, match=r"m\.json: the key 'selected' occurs twice"):
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
def test_recipe_of_invalid_setting_names_it(
    tmp_path: Path, manifest: Manifest, section: str, values: dict[str, Any]
) -> None:
    (name,) = values
    found = manifest.model_copy(update={section: values})
    with pytest.raises(DataError, match=f"invalid setting in the manifest: {section}.{name}: "):
        recipe_of(first_plan(found, tmp_path, format="trl", folder=tmp_path / "out"))


@pytest.mark.parametrize("number", [-1, 10**400])
def test_read_manifest_impossible_count_is_refused(tmp_path: Path, manifest: Manifest, number: int) -> None:
    document = manifest.model_dump(mode="json")
    document["tasks"][0]["files"][0]["rows"] = number
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"tasks\.0\.files\.0\.rows"):
        read_manifest(tmp_path / "m.json")


def test_export_deeply_nested_record_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "curator-export.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="is not an export"):
        export(manifest, tmp_path, format="jsonl", folder=tmp_path / "out")
