"""Remote files in fsspec's memory file system: formats, globs, hashes, changes and secrets."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pytest
from conftest import MakeProject, pair_rows, write_rows

from curator.core.config import DataSection, TaskSource
from curator.core.errors import DataError, ManifestMismatch
from curator.core.events import Event, Reporter
from curator.core.files import located, relative_to
from curator.core.load_config import load_config
from curator.core.remote import RemoteFile, has_wildcards, is_remote, matches, without_secrets
from curator.data.corpus import Corpus, read_corpus
from curator.data.discovery import find_tasks
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.export import export
from curator.project.new_project import write_project
from curator.project.project import Project
from curator.select.manifest import check_files

ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def bucket() -> Iterator[Any]:
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def parquet(folder: Path) -> bytes:
    datasets.Dataset.from_list(ROWS).to_parquet(folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


def test_read_task_remote_formats_are_read(bucket: Any, tmp_path: Path) -> None:
    files = {
        "a.jsonl": lines(ROWS),
        "b.json": json.dumps(ROWS, indent=1).encode(),
        "c.csv": b"prompt,completion\na,b\nc,d\n",
        "d.tsv.gz": gzip.compress(b"prompt\tcompletion\na\tb\nc\td\n"),
        "e.parquet": parquet(tmp_path),
        "f.jsonl.gz": gzip.compress(lines(ROWS)),
        "notes.txt": b"x",
        ".hidden.jsonl": b"x",
    }
    for name, content in files.items():
        bucket.pipe(f"/bucket/{name}", content)
    for pattern in ("memory://bucket/*", "memory:///bucket/*"):
        sources = find_tasks(DataSection(tasks=pattern), tmp_path)
        assert [source.name for source in sources] == ["a", "b", "c", "d", "e", "f"]
        for source in sources:
            assert [row.content for row in read_task(source)] == ROWS, source.name
    write_rows(tmp_path / "here.jsonl", ROWS)
    table = TaskSource(name="t", path=("memory://bucket", "here.jsonl"))
    (source,) = find_tasks(DataSection(task=(table,)), tmp_path)
    assert [file.name for file in source.files] == [*sorted(n for n in files if n[0] in "abcdef"), "here.jsonl"]
    with pytest.raises(DataError, match=r"duplicate file: .*here\.jsonl"):
        find_tasks(DataSection(task=(TaskSource(name="t", path=("here.jsonl", "*.jsonl")),)), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "t.jsonl",
            b'{"prompt": "a", "completion": "b"}\n{"prompt": 1}\n',
            "memory://b/t.jsonl:2: unknown row format",
        ),
        ("t.jsonl", b"{", "memory://b/t.jsonl:1: not valid JSON"),
        ("t.csv", b"prompt,completion\na\n", "memory://b/t.csv:2: 1 cells"),
        ("t.jsonl.gz", b"hello", "cannot read memory://b/t.jsonl.gz: BadGzipFile"),
        ("t.parquet", b"hello", "cannot load memory://b/t.parquet: "),
        ("t.jsonl", None, "file does not exist: memory://b/t.jsonl"),
        ("t.parquet", None, "file does not exist: memory://b/t.parquet"),
    ],
)
def test_read_task_invalid_remote_file_names_address(
    bucket: Any, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        bucket.pipe(f"/b/{name}", content)
    with pytest.raises(DataError) as caught:
        read_task(Source(name="t", files=(RemoteFile(f"memory://b/{name}"),)))
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def read(folder: Path, events: list[Event] | None = None) -> Corpus:
    project = Project.open(folder)
    corpus = read_corpus(project.workspace.reporting_to(Reporter((events or []).append)), ("target",))
    assert corpus is not None
    return corpus


def test_project_remote_files_select_and_export(bucket: Any, make_project: MakeProject, tmp_path: Path) -> None:
    bucket.pipe("/b/target.jsonl", lines(pair_rows("target", 6)))
    bucket.pipe("/b/sub/alpha.jsonl", lines(pair_rows("alpha", 4)))
    for hidden in ("/b/.cache/old.jsonl", "/b/sub/.old.jsonl", "/b/sub/.cache/x/old.jsonl"):
        bucket.pipe(hidden, lines(pair_rows("old", 4)))
    folder = make_project(tasks={}, data={"tasks": "memory://b/**/*.jsonl"})
    corpus = read(folder)
    assert [(task.name, task.version.files[0][0]) for task in corpus.tasks] == [
        ("alpha", "memory:///b/sub/alpha.jsonl"),
        ("target", "memory:///b/target.jsonl"),
    ]
    events: list[Event] = []
    read(folder, events)
    assert events == []
    path = Project.open(folder).select().manifest
    assert path is not None
    from curator.select.manifest import read_manifest

    manifest = read_manifest(Path(path))
    assert manifest.tasks[0].files[0].path == "memory:///b/sub/alpha.jsonl"
    check_files(manifest, folder)
    report = export(
        manifest.model_copy(update={"tasks": (manifest.tasks[0].model_copy(update={"selected": True}),)}),
        folder,
        format="jsonl",
        folder=tmp_path / "out",
    )
    assert dict(report.files)["alpha.jsonl"] == 4
    moved = read_manifest(tmp_path / "out" / "curator-manifest.json")
    assert moved.tasks[0].files[0].path == "memory:///b/sub/alpha.jsonl"
    bucket.pipe("/b/target.jsonl", lines(pair_rows("target", 7)))
    with pytest.raises(ManifestMismatch, match=r"memory:///b/target\.jsonl has changed"):
        check_files(manifest, folder)
    assert len(next(task for task in read(folder).tasks if task.name == "target").version.index.hashes) == 7


def test_write_project_remote_sources_lists_tasks(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        bucket.pipe(f"/b/{name}.jsonl", lines(pair_rows(name, 2)))
    for number, sources in enumerate(
        (["memory://b/*.jsonl"], ["memory://b"], ["memory://b/a.jsonl", "memory://b/b.jsonl"])
    ):
        written = write_project(tmp_path / str(number), sources, model=None, target=None)
        assert written.tasks == ["a", "b"]
        assert [s.name for s in find_tasks(load_config(written.path).data, tmp_path)] == ["a", "b"]
    with pytest.raises(DataError, match="no task file found"):
        write_project(tmp_path / "p", ["memory://nothing/*"], model=None, target=None)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://bucket/a/x.jsonl", "s3://bucket/a/x.jsonl"),
        ("s3://KEY:SECRET@bucket/x.jsonl", "s3://bucket/x.jsonl"),
        ("https://user:SECRET@host:8/x.jsonl?X-Signature=SECRET&y=1#SECRET", "https://host:8/x.jsonl"),
        ("hf://datasets/owner/name@main/x.jsonl", "hf://datasets/owner/name@main/x.jsonl"),
        ("gs://bucket/a@b/x.jsonl", "gs://bucket/a@b/x.jsonl"),
    ],
)
def test_remote_file_text_contains_no_secret(address: str, shown: str) -> None:
    file = RemoteFile(address)
    assert str(file) == without_secrets(address) == shown
    assert "SECRET" not in f"{file!r} {file.name}"
    cleaned = file.without_secrets(f"403 for {address}: {address.partition('://')[2]} is not allowed")
    assert "SECRET" not in cleaned
    assert shown in cleaned
    assert file.suffix == ".jsonl"


def test_remote_file_missing_package_names_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    for protocol, extra in (("s3", "s3"), ("gs", "gcs")):
        for act in (lambda f: f.sha256(), lambda f: f.state(), lambda f: matches(f.address.replace("x.", "*."))):
            with pytest.raises(DataError, match=f"{protocol}:// needs a package") as caught:
                act(RemoteFile(f"{protocol}://KEY:SECRET@bucket/x.jsonl"))
            assert caught.value.hint == f"Run `pip install 'curator-tasks[{extra}]'`."
            assert "SECRET" not in caught.value.message
    with pytest.raises(DataError, match="Protocol not known: nope"):
        RemoteFile("nope://x/y.jsonl").state()


@pytest.mark.parametrize("address", ["https://\x1b[31m/x.jsonl", "https://[::1/x.jsonl", "https://a\u2100b/x.jsonl"])
def test_read_task_invalid_address_names_it(address: str, tmp_path: Path) -> None:
    for table in (DataSection(tasks=address), DataSection(task=(TaskSource(name="t", path=address),))):
        with pytest.raises(DataError) as caught:
            read_task(find_tasks(table, tmp_path)[0])
        assert address in caught.value.message
        assert caught.value.hint


def test_is_remote_distinguishes_paths_and_addresses() -> None:
    assert is_remote("s3://a/b")
    assert not any(map(is_remote, ("a/b", "/a/b", "C:\\a", "a:b", "owner/name")))
    assert relative_to("s3://a/b", Path("/x")) == "s3://a/b"
    assert located("s3://a/b", Path("/x")) == RemoteFile("s3://a/b")
    assert located("../b", Path("/x/y")) == Path("/x/b")
    assert has_wildcards("s3://a/?.jsonl")
    assert not has_wildcards("https://h/x.jsonl?sig=1")


def test_read_task_remote_error_contains_no_secret(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        raise PermissionError(f"no access to {path} for user:SECRET at memory://user:SECRET@b/t.jsonl")

    monkeypatch.setattr(type(bucket), "open", refuse)
    for file in ("memory://user:SECRET@b/t.jsonl", "memory://user:SECRET@b/t.csv"):
        with pytest.raises(DataError) as caught:
            read_task(Source(name="t", files=(RemoteFile(file),)))
        assert "SECRET" not in caught.value.message
        assert "PermissionError" in caught.value.message
