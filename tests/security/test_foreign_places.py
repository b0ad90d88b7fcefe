"""Ids that are paths, and manifests that name places: curator reads and downloads only what the user allowed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeProject, pair_rows, write_rows
from hostile import run_cli
from hub import local_hub
from manifests import everything, manifest_of

from curator.core.config import TaskSource
from curator.core.errors import ConfigError, DataError
from curator.data.readers import read_hub, read_saved
from curator.export import export
from curator.export.hub import check_upload
from curator.select.manifest import Manifest, read_manifest

PATHS = [
    "/absolute/folder",
    "./name",
    "../name",
    "owner/..",
    "~/name",
    "owner/name/more",
    "name",
    "json",
    "hf://datasets/owner/name",
    "file:///tmp/name",
    "owner\\name",
    "owner/na me",
    "owner/name\n",
    "-owner/name",
    ".owner/name",
]
SECRET = {"prompt": "the secret is", "completion": " 1234"}


def save(manifest: Manifest, folder: Path) -> Path:
    """Write a manifest without checks, as an attacker does."""
    path = folder / "curator-manifest.json"
    path.write_text(manifest.model_dump_json())
    return path


def changed(manifest: Manifest, kind: str, **values: Any) -> Manifest:
    """Return a manifest with changed values of its first target or task."""
    first, *rest = getattr(manifest, kind)
    return manifest.model_copy(update={kind: (first.model_copy(update=values), *rest)})


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Return a manifest of the folder `given`. The folder `elsewhere` holds secrets of the user."""
    for name in ("target", "task"):
        write_rows(tmp_path / "given" / f"{name}.jsonl", pair_rows(name, 3))
    write_rows(tmp_path / "elsewhere" / "train.jsonl", [SECRET] * 3)
    return manifest_of(tmp_path / "given", "target", "task")


def exported(tmp_path: Path) -> bytes:
    """Return all bytes of the export folder."""
    return b"".join(everything(tmp_path / "out").values()) if (tmp_path / "out").exists() else b""


# -- ids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hub", PATHS)
def test_read_manifest_hub_id_that_is_no_id_is_refused(manifest: Manifest, tmp_path: Path, hub: str) -> None:
    path = save(changed(manifest, "tasks", source={"hub": hub}), tmp_path / "given")
    with pytest.raises(DataError, match="not a hub id"):
        read_manifest(path)
    held_out = changed(manifest, "targets", validation_source={"hub": hub}, validation_files=manifest.tasks[0].files)
    with pytest.raises(DataError, match="not a hub id"):
        read_manifest(save(held_out, tmp_path / "given"))


def test_export_manifest_with_folder_as_hub_id_reads_nothing(manifest: Manifest, tmp_path: Path) -> None:
    found = changed(manifest, "tasks", source={"hub": str(tmp_path / "elsewhere")})
    path = save(found, tmp_path / "given")
    done = run_cli("export", path, "--format", "jsonl", "-o", tmp_path / "out", "--allow-changed", "-q").check(3)
    assert "not a hub id" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("hub", PATHS)
def test_task_source_hub_id_that_is_no_id_is_refused(hub: str) -> None:
    with pytest.raises(ValueError, match="not a hub id"):
        TaskSource(name="t", hub=hub)


def test_check_folder_as_hub_id_names_path_as_fix(make_project: MakeProject, tmp_path: Path) -> None:
    write_rows(tmp_path / "elsewhere" / "train.jsonl", [SECRET] * 3)
    folder = make_project(data={"tasks": None})
    with (folder / "curator.toml").open("a") as file:
        file.write(f'[[data.task]]\nname = "target"\nhub = "{tmp_path / "elsewhere"}"\n')
    done = run_cli("check", "-p", folder, "-q").check(2)
    assert "not a hub id" in done.err
    assert "`path`" in done.err


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("place", ["owner/name", "hf:/datasets/owner/name"])
def test_read_hub_folder_with_name_of_id_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, streaming: bool
) -> None:
    write_rows(tmp_path / place / "train.jsonl", [SECRET] * 3)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="owner/name"):
        list(read_hub("owner/name", "", "train", "", streaming=streaming))


# -- the hub ------------------------------------------------------------------------------------------------------


def with_hub(program: str, files: dict[str, dict[str, bytes]], folder: Path, cwd: Path) -> tuple[Any, list[str]]:
    """Run a program that may download from a hub with these files. Return its printed JSON and the requests."""
    with local_hub(files) as (address, asked):
        settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "home")}
        done = subprocess.run(
            [sys.executable, "-P", "-c", program], cwd=cwd, env=os.environ | settings, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), asked


READ_HUB = """
import json
from curator.core.errors import ConfigError, DataError
from curator.data.readers import read_hub
try:
    print(json.dumps([row for _, row in read_hub("owner/name", "", "train", "")]))
except DataError as error:
    print(json.dumps(error.message))
"""


def _lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_read_hub_folder_with_name_of_id_gives_rows_of_hub(tmp_path: Path) -> None:
    write_rows(tmp_path / "owner" / "name" / "train.jsonl", [SECRET] * 3)
    rows = pair_rows("hub", 4)
    found, _ = with_hub(READ_HUB, {"owner/name": {"train.jsonl": _lines(rows)}}, tmp_path, tmp_path)
    assert found == rows


@pytest.mark.parametrize("place", ["{}/elsewhere/train.jsonl", "http://127.0.0.1:9/train.jsonl", "../../x/*.jsonl"])
def test_read_hub_readme_that_names_other_places_is_refused(tmp_path: Path, place: str) -> None:
    """The README of a hub data set names its files. An address or a path of this machine is refused."""
    write_rows(tmp_path / "elsewhere" / "train.jsonl", [SECRET] * 3)
    readme = f"---\nconfigs:\n- config_name: default\n  data_files: {place.format(tmp_path)}\n---\n"
    files = {"owner/name": {"README.md": readme.encode(), "train.jsonl": _lines(pair_rows("hub", 2))}}
    found, _ = with_hub(READ_HUB, files, tmp_path, tmp_path)
    assert isinstance(found, str), found
    assert "secret" not in found


EXPORT = """
import json
from pathlib import Path
from curator.core.errors import CuratorError
from curator.export import export
from curator.export.hub import check_upload
from curator.select.manifest import read_manifest
try:
    found = export(read_manifest(Path("given/curator-manifest.json")), Path("given").absolute(), format="{}",
                   folder=Path("out"), allow_changed=True, allow_outside={})
    print(json.dumps(""))
except CuratorError as error:
    print(json.dumps(error.message + " " + error.hint))
"""
HUB = {"owner/name": {"train.jsonl": _lines(pair_rows("hub", 3)), "test.jsonl": _lines(pair_rows("test", 3))}}


def _project(folder: Path, model: str = "m", **keys: str) -> None:
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    (folder / "curator.toml").write_text(
        f'[model]\nname_or_path = "{model}"\n[data]\n[[data.task]]\nname = "far"\n{lines}'
    )


@pytest.mark.parametrize("keys", [None, {"hub": "owner/name", "split": "test"}])
def test_export_hub_source_that_no_config_names_downloads_nothing(
    manifest: Manifest, tmp_path: Path, keys: dict[str, str] | None
) -> None:
    save(changed(manifest, "tasks", source={"hub": "owner/name"}), tmp_path / "given")
    if keys is not None:
        _project(tmp_path / "given", **keys)
    words, asked = with_hub(EXPORT.format("jsonl", False), HUB, tmp_path, tmp_path)
    assert "owner/name" in words
    assert "--allow-outside" in words
    assert asked == []


def test_export_hub_source_that_config_names_is_downloaded(manifest: Manifest, tmp_path: Path) -> None:
    save(changed(manifest, "tasks", source={"hub": "owner/name"}), tmp_path / "given")
    _project(tmp_path / "given", hub="owner/name")
    words, asked = with_hub(EXPORT.format("jsonl", False), HUB, tmp_path, tmp_path)
    assert (words, bool(asked)) == ("", True)
    assert b"hub 0 " in exported(tmp_path)


def test_export_hub_source_allowed_by_option_is_downloaded(manifest: Manifest, tmp_path: Path) -> None:
    save(changed(manifest, "tasks", source={"hub": "owner/name"}), tmp_path / "given")
    assert with_hub(EXPORT.format("jsonl", True), HUB, tmp_path, tmp_path)[0] == ""


@pytest.mark.parametrize(("model", "asks"), [("m", False), ("owner/model", True)])
def test_export_hub_model_that_no_config_names_downloads_nothing(
    manifest: Manifest, tmp_path: Path, model: str, asks: bool
) -> None:
    identity = manifest.model.model_copy(update={"name_or_path": "owner/model"})
    save(manifest.model_copy(update={"model": identity}), tmp_path / "given")
    _project(tmp_path / "given", model=model, path="target.jsonl")
    words, asked = with_hub(EXPORT.format("trl", False), HUB, tmp_path, tmp_path)
    assert "owner/model" in words
    assert bool(asked) == asks
    assert ("--allow-outside" in words) != asks


# -- places of a manifest -----------------------------------------------------------------------------------------


def _refused(manifest: Manifest, tmp_path: Path, words: str, *, format: str = "jsonl") -> None:
    path = save(manifest, tmp_path / "given")
    options = ("--format", format, "-o", tmp_path / "out", "--allow-changed", "-q")
    done = run_cli("export", path, *options).check(3)
    assert words in done.err
    assert b"1234" not in exported(tmp_path)


def test_export_validation_file_next_to_hub_source_is_checked(manifest: Manifest, tmp_path: Path) -> None:
    """The rows come from the hub, and the held-out rows from a file. Each is checked by its own source."""
    secret = manifest.tasks[0].files[0].model_copy(update={"path": "../elsewhere/train.jsonl"})
    found = changed(manifest, "targets", source={"hub": "owner/name"}, validation_files=(secret,))
    _project(tmp_path / "given", hub="owner/name")
    _refused(found, tmp_path, "lies outside")


def test_export_validation_source_on_hub_is_checked(manifest: Manifest, tmp_path: Path) -> None:
    found = changed(
        manifest, "targets", validation_files=manifest.tasks[0].files, validation_source={"hub": "owner/name"}
    )
    _refused(found, tmp_path, "owner/name")


def test_export_changed_validation_file_of_hub_source_is_found(manifest: Manifest, tmp_path: Path) -> None:
    wrong = manifest.tasks[0].files[0].model_copy(update={"sha256": "0" * 64})
    found = changed(manifest, "targets", source={"hub": "owner/name"}, validation_files=(wrong,))
    _project(tmp_path / "given", hub="owner/name")
    path = save(found, tmp_path / "given")
    done = run_cli("export", path, "--format", "jsonl", "-o", tmp_path / "out", "-q").check(4)
    assert "task.jsonl has changed" in done.err


def _saved_dataset(folder: Path, rows: list[dict[str, str]]) -> None:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(folder))


def test_export_saved_dataset_between_allowed_files_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    """The common folder of two allowed files can hold another data set."""
    _saved_dataset(tmp_path / "all", [SECRET] * 3)
    given = tmp_path / "all" / "given"
    for place in (given, tmp_path / "all" / "mine"):
        write_rows(place / "target.jsonl", pair_rows("target", 3))
    (tmp_path / "all" / "mine" / "curator.toml").write_text('[model]\nname_or_path = "m"\n[data]\ntasks = "*.jsonl"\n')
    file = manifest.tasks[0].files[0]
    paths = ("target.jsonl", "../mine/target.jsonl")
    files = tuple(file.model_copy(update={"path": path}) for path in paths)
    rows = sum(file.rows for file in files)
    path = save(changed(manifest, "tasks", files=files, examples=rows, source={"saved_dataset": True}), given)
    done = run_cli("export", path, "--format", "jsonl", "-o", tmp_path / "out", "--allow-changed", "-q").check(3)
    assert "lies outside" in done.err
    assert b"1234" not in exported(tmp_path)


def test_export_saved_dataset_with_link_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    _saved_dataset(tmp_path / "elsewhere" / "saved", [SECRET] * 3)
    shown = tmp_path / "given" / "saved"
    shown.mkdir()
    for part in (tmp_path / "elsewhere" / "saved").iterdir():
        if part.suffix == ".arrow":
            (shown / part.name).symlink_to(part)
        else:
            (shown / part.name).write_bytes(part.read_bytes())
    file = manifest.tasks[0].files[0].model_copy(update={"path": "saved/state.json"})
    _refused(changed(manifest, "tasks", files=(file,), source={"saved_dataset": True}), tmp_path, "lies outside")


def test_export_saved_dataset_at_address_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    file = manifest.tasks[0].files[0].model_copy(update={"path": "s3://bucket/state.json"})
    found = changed(manifest, "tasks", files=(file,), source={"saved_dataset": True})
    _refused(found, tmp_path, "a saved data set needs local files")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/rows.jsonl?key=other", "http://me@127.0.0.1:9/rows.jsonl"])
def test_export_address_with_other_query_than_config_is_refused(
    manifest: Manifest, tmp_path: Path, address: str
) -> None:
    """The project names the address without a query. Another query can name another file."""
    _project(tmp_path / "given", path="http://127.0.0.1:9/rows.jsonl")
    file = manifest.tasks[0].files[0].model_copy(update={"path": address})
    _refused(changed(manifest, "tasks", files=(file,)), tmp_path, "lies outside")


def test_export_model_folder_outside_is_not_read(manifest: Manifest, tmp_path: Path, tiny_llama_folder: Path) -> None:
    """An export carries the chat template of its model. A manifest must not name any folder as the model."""
    identity = manifest.model.model_copy(update={"name_or_path": str(tiny_llama_folder)})
    found = manifest.model_copy(update={"model": identity})
    _refused(found, tmp_path, "lies outside", format="trl")
    _project(tmp_path / "given", model=str(tiny_llama_folder), path="target.jsonl")
    export(found, tmp_path / "given", format="trl", folder=tmp_path / "trl", allow_changed=True)


# -- saved data sets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["../../elsewhere/saved/{}", "{}/elsewhere/saved/data"])
def test_check_saved_dataset_that_names_other_files_is_refused(
    make_project: MakeProject, tmp_path: Path, place: str
) -> None:
    _saved_dataset(tmp_path / "elsewhere" / "saved", [SECRET] * 6)
    (arrow,) = (tmp_path / "elsewhere" / "saved").glob("*.arrow")
    folder = make_project()
    _saved_dataset(folder / "tasks" / "saved", pair_rows("saved", 4))
    state = folder / "tasks" / "saved" / "state.json"
    name = place.format(arrow.name) if place.startswith("..") else str(arrow)
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_data_files": [{"filename": name}]}))
    (folder / "curator.toml").write_text((folder / "curator.toml").read_text().replace("tasks/*.jsonl", "tasks/*"))
    assert "outside" in run_cli("check", "-p", folder, "-q").check(3).err


def test_read_saved_dataset_that_names_too_long_a_file_raises_data_error(tmp_path: Path) -> None:
    _saved_dataset(tmp_path / "saved", pair_rows("saved", 4))
    state = tmp_path / "saved" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_data_files": [{"filename": "9" * 300}]}))
    with pytest.raises(DataError, match="name too long"):
        list(read_saved(tmp_path / "saved", "train"))


@pytest.mark.timeout(120)
def test_check_saved_dataset_with_a_pipe_does_not_wait(make_project: MakeProject) -> None:
    folder = make_project()
    _saved_dataset(folder / "tasks" / "saved", pair_rows("saved", 4))
    (arrow,) = (folder / "tasks" / "saved").glob("*.arrow")
    arrow.unlink()
    os.mkfifo(arrow)
    (folder / "curator.toml").write_text((folder / "curator.toml").read_text().replace("tasks/*.jsonl", "tasks/*"))
    assert f"not a regular file: {arrow}" in run_cli("check", "-p", folder, "-q").check(3).err


def test_check_dataset_dict_that_names_other_folder_is_refused(make_project: MakeProject, tmp_path: Path) -> None:
    _saved_dataset(tmp_path / "elsewhere", [SECRET] * 6)
    folder = make_project(data={"tasks": "tasks/*"})
    (folder / "tasks" / "saved").mkdir()
    (folder / "tasks" / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "../../../elsewhere"]}')
    _saved_dataset(folder / "tasks" / "saved" / "train", pair_rows("saved", 4))
    assert "outside" in run_cli("check", "-p", folder, "-q").check(3).err


@pytest.mark.parametrize("name", ["name", "/etc", "../name", "owner/..", "a/../b", "owner/name;x", "owner/na\nme", ""])
def test_check_upload_name_that_is_no_hub_id_is_refused(name: str) -> None:
    check_upload("owner/name", "hf")
    with pytest.raises(ConfigError, match="not the name of a hub data set"):
        check_upload(name, "hf")
