"""Test that an export holds the rows that are trained on, is complete or missing, and changes no other file."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pytest
from conftest import MakeProject, pair_rows, write_rows
from manifests import everything, manifest_of, rows_of

from curator import export as exports
from curator.core.errors import ConfigError, DataError, ManifestMismatch
from curator.core.files import sha256_of
from curator.data.rows import Row
from curator.data.sources import Source
from curator.data.tokens import Encoded, Encoder
from curator.export import FORMATS, examples
from curator.export.plan import RECORD_NAME
from curator.export.spool import Spool
from curator.project.project import Project
from curator.results.outputs import ExportReport
from curator.select.manifest import MANIFEST_NAME, TaskEntry, TaskFile, check_files, read_manifest, render

RESERVED = ["../../evil", "a/b", "a\\b", "A/B", "", ".", "..", "con", "NUL.x", "é" * 150, "e\u0301", "\u00e9", "tab\t"]


def export(path: Path, **options: Any) -> ExportReport:
    return exports.export(read_manifest(path), path.parent, **options)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Write a manifest of the target `target` and the tasks `one` and `two`."""
    for name in ("target", "one", "two"):
        write_rows(tmp_path / "data" / f"{name}.jsonl", pair_rows(name, 3))
    path = tmp_path / "data" / "best.json"
    path.write_text(render(manifest_of(path.parent, "target", "one", "two")))
    return path


def test_export_jsonl_holds_the_rows_that_were_trained_on(make_project: MakeProject, tmp_path: Path) -> None:
    shared = pair_rows("target", 12)
    tasks: dict[str, list[dict[str, Any]]] = {
        "target": shared,
        "alpha": [
            *pair_rows("alpha", 6),
            *shared,
            {"prompt": "p", "completion": " "},
            {"prompt": "long " * 99, "completion": "cut off"},
            {"instruction": "i", "input": "x", "output": "o"},
        ],
        "beta": pair_rows("beta", 9),
    }
    folder = make_project(tasks=tasks, data={"max_examples_per_task": 8})
    before = everything(folder)
    project = Project.open(folder)
    project.select(include=["alpha", "beta"], output=tmp_path / "m" / "m.json")
    changed = {name for name, content in everything(folder).items() if before.get(name) != content}
    assert all(name.startswith(".curator" + os.sep) for name in changed), "only .curator/ is written to"
    corpus = project.corpus(("target",))
    report = export(tmp_path / "m" / "m.json", format="jsonl", folder=tmp_path / "out")
    assert [name for name, _ in report.files] == ["target.jsonl", "alpha.jsonl", "beta.jsonl"]
    for task in corpus.tasks:
        got = rows_of(tmp_path / "out" / f"{task.name}.jsonl")
        wanted = [tasks[task.name][number] for number in task.split.train]
        wanted = [{"instruction": "i\n\nx", "output": "o"} if "input" in row else row for row in wanted]
        assert got == wanted
    held_out = [shared[number] for number in corpus.target_tasks[0].split.validation]
    assert held_out
    assert not [row for row in held_out if row in rows_of(tmp_path / "out" / "alpha.jsonl")]
    assert len(rows_of(tmp_path / "out" / "beta.jsonl")) == 8
    # The manifest of the export can be exported again.
    again = read_manifest(tmp_path / "out" / MANIFEST_NAME)
    check_files(again, tmp_path / "out")
    export(tmp_path / "out" / MANIFEST_NAME, format="jsonl", folder=tmp_path / "out2")
    assert {n: c for n, c in everything(tmp_path / "out").items() if n != MANIFEST_NAME} == {
        n: c for n, c in everything(tmp_path / "out2").items() if n != MANIFEST_NAME
    }
    # Without samples, the token counts of the manifest are exact.
    assert [(task.tokens, task.tokens_are_exact) for task in report.tasks] == [
        (corpus_task.tokens, True)
        for name in ("target", "alpha", "beta")
        for corpus_task in corpus.tasks
        if corpus_task.name == name
    ]


def test_export_twice_gives_equal_files_and_removes_old_ones(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    export(manifest, format="jsonl", folder=out)
    before = everything(out)
    export(manifest, format="jsonl", folder=out)
    assert everything(out) == before
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert out.stat().st_mode & 0o777 == out.parent.stat().st_mode & 0o777
    # A selection of fewer tasks removes the files of the earlier export.
    write_rows(manifest.parent / "three.jsonl", pair_rows("three", 1))
    manifest.write_text(render(manifest_of(manifest.parent, "target", "three")))
    export(manifest, format="jsonl", folder=out)
    assert sorted(everything(out)) == [RECORD_NAME, MANIFEST_NAME, "target.jsonl", "three.jsonl"]


def test_export_task_names_of_any_kind_become_valid_file_names(manifest: Path, tmp_path: Path) -> None:
    base = read_manifest(manifest)
    # On some systems, names that differ in case only are one file.
    given = list(dict.fromkeys([*RESERVED, *map(str.swapcase, RESERVED)]))
    tasks = [base.tasks[0].model_copy(update={"name": name}) for name in given]
    manifest.write_text(render(base.model_copy(update={"tasks": tuple(tasks)})))
    report = export(manifest, format="jsonl", folder=tmp_path / "out")
    names = [name for name, _ in report.files]
    assert len({name.casefold() for name in names}) == len(given) + 1
    assert sorted(everything(tmp_path / "out")) == sorted([MANIFEST_NAME, RECORD_NAME, *names])
    for name in names:
        assert len(name.encode()) <= 255
        assert not set(name) & set('/\\:*?"<>|\t')
        assert name.partition(".")[0].upper() not in {"CON", "NUL"}
        assert not name.startswith(".")
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("data", "out")] == []


def test_export_into_a_project_folder_is_refused(manifest: Path, tmp_path: Path) -> None:
    """A project folder holds a manifest too. curator must not replace it as an earlier export."""
    in_project = manifest.with_name(MANIFEST_NAME)
    in_project.write_text(manifest.read_text())
    manifest.unlink()
    before = everything(tmp_path)
    for folder in (in_project.parent, tmp_path):
        with pytest.raises(ConfigError, match=r"is not an export|holds the data"):
            export(in_project, format="jsonl", folder=folder)
    assert everything(tmp_path) == before


def test_export_into_the_current_folder_writes_there(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="is not an export"):
        export(manifest, format="jsonl", folder=Path(".."))
    export(manifest, format="jsonl", folder=Path())
    assert len(rows_of(tmp_path / "here" / "one.jsonl")) == 3


def test_export_folder_with_other_files_is_refused_and_kept(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(manifest, format="jsonl", folder=out)
    (out / "notes.txt").write_text("mine")
    before = everything(out)
    with pytest.raises(ConfigError, match=r"holds 'notes\.txt'"):
        export(manifest, format="jsonl", folder=out)
    assert everything(out) == before
    (tmp_path / "out2.partial").mkdir()
    (tmp_path / "out2.partial" / "mine").write_text("x")
    export(manifest, format="jsonl", folder=tmp_path / "out2")
    assert (tmp_path / "out2.partial" / "mine").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a folder"):
        export(manifest, format="jsonl", folder=tmp_path / "file")


def test_export_bad_rows_leave_the_folder_unchanged(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(manifest, format="jsonl", folder=out)
    before = everything(out)
    (manifest.parent / "two.jsonl").write_text('{"prompt": "broken"}\n')
    with pytest.raises(ManifestMismatch, match="'two'"):
        export(manifest, format="jsonl", folder=out)
    with pytest.raises(DataError, match=r"two\.jsonl:1") as caught:
        export(manifest, format="jsonl", folder=out, allow_changed=True)
    assert "skip" not in caught.value.hint, "`curator export` has no such option"
    assert everything(out) == before
    with pytest.raises(DataError):
        export(manifest, format="jsonl", folder=tmp_path / "new", allow_changed=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "out"]
    write_rows(manifest.parent / "two.jsonl", pair_rows("two", 5))
    report = export(manifest, format="jsonl", folder=out, allow_changed=True)
    assert report.notes == ("changed since the selection, so that left-out rows may be others: two",)
    assert len(rows_of(out / "two.jsonl")) == 5


def test_export_sources_of_every_kind_are_read(manifest: Path, tmp_path: Path) -> None:
    base = read_manifest(manifest)
    data = manifest.parent
    rows = [{"prompt": "p", "completion": "c", "task": kind} for kind in ("", "x")]
    write_rows(data / "state.json", rows)
    datasets.DatasetDict({"dev": datasets.Dataset.from_list(rows[:1])}).save_to_disk(data / "saved")

    def task(name: str, count: int, *paths: Path, **source: Any) -> TaskEntry:
        # The first file of a saved data set counts all rows.
        counts = {path: count if path == min(paths) else 0 for path in sorted(paths)}
        files = tuple(
            TaskFile(path=path.relative_to(data).as_posix(), sha256=sha256_of(path), rows=rows)
            for path, rows in counts.items()
        )
        return base.tasks[0].model_copy(update={"name": name, "examples": count, "files": files, "source": source})

    saved = [path for path in (data / "saved").rglob("*") if path.is_file()]
    tasks = (
        task("named as a part", 2, data / "state.json"),
        task("empty", 1, data / "state.json", column="task", value=""),
        task("saved", 1, *saved, saved_dataset=True, split="dev"),
    )
    manifest.write_text(render(base.model_copy(update={"tasks": tasks})))
    report = export(manifest, format="jsonl", folder=tmp_path / "out")
    assert dict(report.files) == {
        "target.jsonl": 3,
        "named as a part.jsonl": 2,
        "empty.jsonl": 1,
        "saved.jsonl": 1,
    }


def test_export_other_number_of_rows_than_in_the_manifest_is_refused(manifest: Path, tmp_path: Path) -> None:
    """The manifest leaves rows out by number. With other numbers, an export could hold held-out rows."""
    base = read_manifest(manifest)
    one = base.tasks[0]
    longer = one.model_copy(update={"examples": 4, "files": (one.files[0].model_copy(update={"rows": 4}),)})
    manifest.write_text(render(base.model_copy(update={"tasks": (longer,)})))
    with pytest.raises(ManifestMismatch, match="'one': the manifest counts 4 rows in its files, and 3 are read"):
        export(manifest, format="jsonl", folder=tmp_path / "out")
    export(manifest, format="jsonl", folder=tmp_path / "out", allow_changed=True)
    assert len(rows_of(tmp_path / "out" / "one.jsonl")) == 3


def test_export_test_part_of_a_target_is_noted(manifest: Path, tmp_path: Path) -> None:
    base = read_manifest(manifest)
    target = base.targets[0].model_copy(update={"examples": 2, "left_out": {"test": (1,)}})
    manifest.write_text(render(base.model_copy(update={"targets": (target,)})))
    report = export(manifest, format="jsonl", folder=tmp_path / "out")
    assert report.notes == ("target: no file holds the test part (rows: 1)",)
    assert rows_of(tmp_path / "out" / "target.jsonl") == [pair_rows("target", 3)[n] for n in (0, 2)]


def test_export_unknown_format_is_refused_by_name(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown export format: 'x'"):
        export(manifest, format="x", folder=tmp_path / "out")


def test_plan_export_reports_the_files_and_writes_nothing(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = exports.plan_export(read_manifest(manifest), manifest.parent, format="jsonl", folder=out)
    assert not out.exists()
    assert plan == export(manifest, format="jsonl", folder=out)
    prepared = exports.prepare_export(read_manifest(manifest), manifest.parent, format="jsonl", folder=out / "new")
    assert prepared.report.files == plan.files
    assert not (out / "new").exists()
    (out / "foreign").touch()
    with pytest.raises(ConfigError, match="foreign"):
        exports.plan_export(read_manifest(manifest), manifest.parent, format="jsonl", folder=out)


# -- the spool between reading and writing ------------------------------------------------------------------------


@pytest.fixture
def trainable(manifest: Path, tiny_llama_folder: Path) -> Path:
    """Add a model, weights and rows of other kinds to the manifest, for all formats."""
    shutil.copytree(tiny_llama_folder, manifest.parent / "model")
    write_rows(manifest.parent / "two.jsonl", [{"text": "red"}, {"prompt": "🙂", "completion": "é"}])
    made = manifest_of(
        manifest.parent, "target", "one", "two", model={"name_or_path": "model", "revision": "", "sha256": "x"}
    )
    one, two = made.tasks
    weighted = (one.model_copy(update={"weight": 1.5}), two.model_copy(update={"weight": 2.0}))
    manifest.write_text(render(made.model_copy(update={"tasks": weighted})))
    return manifest


@pytest.mark.parametrize("format", FORMATS)
def test_export_any_format_reads_and_encodes_each_row_once(
    trainable: Path, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    read: list[str] = []
    encode, read_task = Encoder.encode, examples.read_task

    def counting_encode(self: Encoder, content: dict[str, Any]) -> Encoded:
        encoded.append(json.dumps(content))
        return encode(self, content)

    def counting_read(source: Source, **options: Any) -> list[Row]:
        read.append(source.name)
        return read_task(source, **options)

    monkeypatch.setattr(Encoder, "encode", counting_encode)
    monkeypatch.setattr(examples, "read_task", counting_read)
    report = export(trainable, format=format, folder=tmp_path / "out")
    assert read == ["target", "one", "two"]
    assert sum(report.rows for report in report.tasks) == 3 + 5 + 4
    # A weight of 1.5 leaves a token count open, so every format encodes.
    rows = [*pair_rows("target", 3), *pair_rows("one", 3), *rows_of(trainable.parent / "two.jsonl")]
    assert encoded == [json.dumps(row) for row in rows]


def test_export_jsonl_writes_weighted_rows_from_the_spool_in_order(trainable: Path, tmp_path: Path) -> None:
    write_rows(trainable.parent / "two.jsonl", [{"text": "red"}, {"text": "🙂é"}])
    report = export(trainable, format="jsonl", folder=tmp_path / "out", allow_changed=True)
    assert rows_of(tmp_path / "out" / "two.jsonl") == [{"text": "red"}] * 2 + [{"text": "🙂é"}] * 2
    one = rows_of(tmp_path / "out" / "one.jsonl")
    assert (len(one), report.tasks[1].rows) == (5, 5)
    assert sorted(one, key=json.dumps) == one
    assert list(map(json.loads, dict.fromkeys(map(json.dumps, one)))) == pair_rows("one", 3)


def test_write_export_success_or_failure_removes_the_spool(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "system"))
    (tmp_path / "system").mkdir()
    found = read_manifest(trainable)
    out = tmp_path / "new" / "out"
    before = sorted(tmp_path.rglob("*"))
    plan = exports.prepare_export(found, trainable.parent, format="parquet", folder=out)
    assert plan.spool is not None
    assert not plan.spool.closed
    assert sorted(tmp_path.rglob("*")) == before, "the file has no name"
    exports.write_export(plan)
    assert plan.spool.closed
    with pytest.raises(DataError, match="cannot write an export twice"):
        exports.write_export(plan)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    plan = exports.prepare_export(found, trainable.parent, format="parquet", folder=out)
    assert plan.spool is not None
    monkeypatch.setattr("curator.export.data_files._write_parquet", full)
    with pytest.raises(DataError, match="No space left"):
        exports.write_export(plan)
    assert plan.spool.closed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_prepare_export_full_disk_reports_it_and_removes_the_spool(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir=None: full)
        with pytest.raises(DataError, match=r"cannot write a temporary file for .*No space left") as caught:
            export(trainable, format="jsonl", folder=tmp_path / "out")
        assert full.closed
    assert caught.value.hint == "Check free disk space and write permissions."
    assert not (tmp_path / "out").exists()


def test_spool_folder_is_not_writable_uses_the_system_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    open_file = tempfile.TemporaryFile

    def refuse(dir: Path | None = None) -> Any:
        tried.append(dir)
        if dir is not None or len(tried) > 2:
            raise PermissionError(13, "Permission denied")
        return open_file()

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    Spool(tmp_path / "new" / "out").close()
    assert tried == [tmp_path, None]
    with pytest.raises(DataError, match="cannot create a temporary file"):
        Spool(tmp_path / "out")
