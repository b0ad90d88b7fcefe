"""Test data sets of a local hub with the libraries that read the real hub."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeProject, pair_rows, write_rows
from hub import local_hub

from curator.core.config import TaskSource
from curator.data.sources import Source


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


TABLES = """
[[data.task]]
name = "target"
path = "target.jsonl"
[[data.task]]
name = "streamed"
hub = "owner/name"
[[data.task]]
name = "sliced"
hub = "owner/name"
split = "train[:5]"
revision = "main"
[[data.task]]
name = "kept"
hub = "owner/name"
streaming = false
split = "test"
[[data.task]]
name = "configured"
hub = "owner/configured"
config = "second"
[[data.task]]
name = "files"
path = "hf://datasets/owner/name/*.jsonl"
[[data.task]]
name = "many"
hub = "owner/collection"
task_column = "kind"
"""

FILES = {
    "owner/name": {
        "train.jsonl": lines(pair_rows("name", 9)),
        "test.jsonl": lines(pair_rows("test", 3)),
    },
    "owner/configured": {
        "README.md": b"---\nconfigs:\n- config_name: first\n  data_files: a.jsonl\n- config_name: second\n"
        b"  data_files: b.jsonl\n---\n",
        "a.jsonl": lines(pair_rows("a", 2)),
        "b.jsonl": lines(pair_rows("b", 4)),
    },
    "owner/collection": {
        "train.jsonl": lines([row | {"kind": ["even", "odd"][n % 2]} for n, row in enumerate(pair_rows("c", 7))])
    },
}

# Print the report of `curator check`, and read the same rows from the sources as a manifest stores them.
PROGRAM = """
import json
from curator.data.sources import Source; from curator.data.task_rows import read_task
from curator.core.files import located
from curator.project.project import Project
project = Project.open(".")
report = project.check()
corpus = project.corpus(("target",))
read = {}
for task in corpus.tasks:
    source = json.loads(json.dumps(task.version.source))
    files = [located(path, project.root) for path, _, _ in task.version.files]
    read[task.name] = [row.hash for row in read_task(Source.described(task.name, source, files))] \
        == list(task.version.index.hashes)
print(json.dumps({
    "rows": {task.name: task.rows for task in report.tasks},
    "same": read,
    "source": {task.name: task.version.source for task in corpus.tasks},
    "files": {task.name: [path for path, _, _ in task.version.files] for task in corpus.tasks},
}))
"""


def test_read_hub_every_kind_of_source_gives_rows(make_project: MakeProject, tmp_path: Path) -> None:
    folder = make_project(data={"tasks": None}, tasks={})
    write_rows(folder / "target.jsonl", pair_rows("target", 6))
    with (folder / "curator.toml").open("a") as file:
        file.write(TABLES)
    with local_hub(FILES) as (address, asked):
        settings = {
            "HF_ENDPOINT": address,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=folder, env=os.environ | settings, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == {
        "configured": 4,
        "files": 9,
        "kept": 3,
        "many-even": 4,
        "many-odd": 3,
        "sliced": 5,
        "streamed": 9,
        "target": 6,
    }
    assert all(found["same"].values()), found["same"]
    assert found["source"]["kept"] == {"hub": "owner/name", "split": "test", "streaming": False}
    assert found["source"]["many-odd"] == {"hub": "owner/collection", "column": "kind", "value": "odd"}
    assert found["files"]["files"] == ["hf://datasets/owner/name/train.jsonl"], "the glob covers a test split, too"
    # One read of the values, one read of the rows of both tasks, and two reads from the manifest's sources.
    reads = [path for path in asked if path.startswith("GET /datasets/owner/collection/resolve/") and "train" in path]
    assert len(reads) <= 2 * (1 + 1 + 2)


def test_source_described_restores_all_settings() -> None:
    source = Source(
        name="t",
        hub="owner/name",
        config="c",
        split="test",
        revision="r",
        streaming=False,
        column="kind",
        value=3,
        columns={"text": "body"},
        roles={"x": "user"},
    )
    assert Source.described("t", json.loads(json.dumps(source.describe())), ["owner/name"]) == source  # type: ignore[list-item]
    assert Source(name="t", files=(Path("a"),)).describe() == {}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hub": "o/n", "split": "train[:9]", "streaming": True}, "cannot stream the split"),
        ({"path": "a.jsonl", "streaming": False}, "`streaming` requires `hub`"),
        ({"path": "a.jsonl", "task_column": "x", "column": "y", "value": 1}, "excludes `column` and `value`"),
        ({"path": "a.jsonl", "columns": {"question": "q"}}, "columns"),
        ({"path": "a.jsonl", "roles": {"x": "narrator"}}, "roles"),
        ({"path": []}, "path"),
    ],
)
def test_task_source_contradicting_keys_raises_value_error(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskSource.model_validate({"name": "t"} | keys)
    with pytest.raises(ValueError, match="a task needs a `name`"):
        TaskSource(path="a.jsonl")
