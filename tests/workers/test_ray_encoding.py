"""Parquet files of rows that a cluster encodes: equal stores, and resuming. test_ray.py uses Ray itself."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import CHAT_TEMPLATE, MakeProject, make_tokenizer, pair_rows, stored_examples

import curator
from curator.core.errors import DataError
from curator.core.file_states import FileChanged
from curator.data.encoding import encode_tasks, load_encoder
from curator.data.left_out import BAD, EMPTY
from curator.data.model_files import identify_model
from curator.data.rows import Row
from curator.workers import ray_cluster, ray_encoding
from curator.workers.ray_cluster import Cluster
from curator.workers.ray_files import Actor


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Encode each file in this process, where Ray would send it to an actor. Return the names of the files."""
    seen: list[str] = []

    def over(
        _: Cluster, files: Sequence[Path], start: Any, arguments: dict[str, Any], *, on_gpu: bool
    ) -> Iterator[tuple[Path, int]]:
        assert not on_gpu
        actor = Actor(start, arguments)
        # Parts end in any order.
        for path in reversed(files):
            (row,) = actor(pa.table({"item": [str(path)]})).to_pylist()
            if row["failed"]:
                raise DataError(row["failed"], hint="")
            seen.append(path.name)
            yield Path(row["path"]), row["examples"]

    monkeypatch.setattr(ray_encoding, "over_files", over)
    monkeypatch.setattr(ray_encoding, "_FILE_CHARACTERS", 300)
    monkeypatch.setattr(ray_cluster, "prepare", lambda _: None)
    monkeypatch.setattr(ray_cluster, "connect", lambda _: Cluster(cpus=2, gpus=0, nodes=1))
    return seen


def _tasks() -> dict[str, list[dict[str, Any]]]:
    """Return tasks with rows of each kind: pairs, chats, a long row, rows without an answer, and a bad row."""
    chats = [
        {"messages": [{"role": "user", "content": f"q {n} é"}, {"role": "assistant", "content": "wörd " * n}]}
        for n in range(6)
    ]
    others = [{"text": "word " * 60}, {"prompt": "none", "completion": " "}, {"prompt": 3}, {"text": "last"}]
    return {"target": pair_rows("target", 12), "alpha": pair_rows("alpha", 40), "chats": chats, "others": others}


def _make(make_project: MakeProject, name: str) -> Path:
    folder = make_project(name, tasks=_tasks(), data={"bad_rows": "skip"}, project={"name": "one"})
    make_tokenizer(bos=True, chat_template=CHAT_TEMPLATE).save_pretrained(folder / "model")
    return folder


def test_check_rows_encoded_away_give_the_store_of_one_process(
    make_project: MakeProject, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = curator.Project.open(_make(make_project, "here"))
    here.check()
    expected = stored_examples(here)
    assert len(expected["examples"]) == 12 + 40 + 6 + 4
    assert {row["left_out"] for row in expected["examples"]} >= {None, BAD, EMPTY}
    folder = _make(make_project, "away")
    read = ray_encoding._read_part

    def killed(path: Path) -> Iterator[Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(ray_encoding, "_read_part", killed)
    with pytest.raises(KeyboardInterrupt):
        curator.Project.open(folder, ray="local").check()
    monkeypatch.setattr(ray_encoding, "_read_part", read)
    # The first part ended last, so all parts were there.
    whole = list(encoded)
    assert len(whole) == 4
    (folder / ".curator" / "encoding" / whole[0]).unlink()
    (folder / ".curator" / "encoding" / whole[-1]).unlink()
    project = curator.Project.open(folder, ray="local")
    project.check()
    assert encoded[len(whole) :] == [whole[0], whole[-1]]
    assert stored_examples(project) == expected
    assert not (folder / ".curator" / "encoding").exists()


def test_check_rows_of_one_file_start_no_cluster(
    make_project: MakeProject, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_encoding, "_FILE_CHARACTERS", 10**6)
    here = curator.Project.open(_make(make_project, "here"))
    here.check()
    project = curator.Project.open(_make(make_project, "away"), ray="local")
    project.check()
    assert encoded == []
    assert stored_examples(project) == stored_examples(here)


def test_encode_equal_rows_of_two_tasks_are_encoded_once(
    make_project: MakeProject, encoded: list[str], tmp_path: Path
) -> None:
    project = curator.Project.open(_make(make_project, "project"))
    model = identify_model(project.workspace)
    contents = [{"text": f"{letter} " * 200} for letter in "abc"]
    rows = [Row(number=n, file="f.jsonl", line=n + 1, content=content) for n, content in enumerate(contents)]
    away = ray_encoding.AwayEncoding(project.config, tmp_path / "parts", lambda: ray_cluster.connect("local"))
    found = list(away(((number, list(rows)) for number in range(2)), model))
    assert len(encoded) == 3
    assert [task.number for task in found] == [0, 1]
    (expected,) = encode_tasks([(0, rows)], load_encoder(model, project.config))
    for task in found:
        assert [example.token_hash for example in task.examples] == [e.token_hash for e in expected.examples]


def test_encode_file_other_tokenizer_in_a_worker_is_refused(make_project: MakeProject) -> None:
    folder = _make(make_project, "project")
    project = curator.Project.open(folder)
    model = identify_model(project.workspace)
    make_tokenizer(bos=False, chat_template=CHAT_TEMPLATE).save_pretrained(folder / "model")
    with pytest.raises(FileChanged, match="model changed"):
        ray_encoding.EncodeFile(project.config, model)
