"""Read damaged files with each parser of foreign text. A parser returns a result or raises an error of curator.

`tests/security/test_fuzz.py` runs each parser briefly. Set CURATOR_FUZZ_SECONDS=600 for ten minutes each, or run this
script:

    python tests/stress/fuzz.py --seconds 600 --json benchmarks/results/fuzz.json
"""

import argparse
import contextlib
import gzip
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from curator.core.errors import CuratorError
from curator.core.events import read_events
from curator.core.load_config import load_config
from curator.data.importers.importer import read_trainer_config
from curator.data.layouts import tasks_of_folder
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.select.manifest import read_manifest
from curator.workspace.job_log import read_jobs
from curator.workspace.store.tables import Store

# `tests/security/test_fuzz.py` reads this file without its folder on the path.
sys.path.append(str(Path(__file__).parent))

import fuzz_files
import fuzz_served

_VERSIONS = ("aiohttp", "duckdb", "hypothesis", "pyarrow", "pyyaml", "tokenizers", "transformers")
# Texts that parsers treat specially.
_SPECIAL = [
    *(
        b'"',
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\n",
        b"\r",
        b"\t",
        b"\0",
        b"\\",
        b"- ",
        b"---\n",
        b"&a ",
        b"*a",
    ),
    *(b"null", b"true", b"NaN", b"-1", b"0", b"1e999", b"9" * 400, b"9" * 5000, b"[" * 2000, b'{"a":' * 500),
    *(
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\\ud800",
        "é".encode(),
        "\u202e".encode(),
        b"\x1b[31m",
        b"!!python/x ",
    ),
    *(b"messages", b"role", b"content", b"prompt", b"path", b"../..", b"/dev/zero", b"<<: ", b"? ", b"|\n", b"%s"),
]


def damaged(whole: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Draw a valid text with a few changes."""
    change = st.tuples(st.floats(0, 1), st.integers(0, 20), st.one_of(st.sampled_from(_SPECIAL), st.binary(max_size=4)))

    def apply(text: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
        for place, cut, new in changes:
            start = int(place * len(text))
            text = text[:start] + new + text[start + cut :]
        return text

    return st.builds(apply, st.sampled_from(whole), st.lists(change, min_size=1, max_size=6))


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


_CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
_ROWS = [
    b'{"prompt": "a", "completion": "b"}\n{"instruction": "a", "input": "", "output": "b"}\n',
    json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}).encode()
    + b"\n",
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "assistant", "content": "", "tool_calls": [_CALL]},
                {"role": "tool", "content": "b", "name": "f"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        }
    ).encode(),
    _json([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]),
    _json({"examples": [{"input": "a", "target_scores": {"b": 1, "c": 0}}]}),
    _json({"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "b", "answers": [{"text": "c"}]}]}]}]}),
    _json({"question": "a", "choices": {"text": ["b", "c"], "label": ["A", "B"]}, "answerKey": "A"}),
    _json(
        {"prompt": {"text": "a", "role": "prompter", "replies": [{"text": "b", "role": "assistant", "replies": []}]}}
    ),
    _json({"columns": ["prompt", "completion"], "data": [["a", "b"]]}),
]
_TABLES = [b'prompt,completion\na,b\n"c, d",e\n', b"sep=;\na;b\nc;d\n", b"a\tb\n1\t2\n", b'text\n"a ""b"""\n']
_TRAINERS = [
    b"base_model: m\ndatasets:\n  - path: a.jsonl\n    type: chat_template\n    field_messages: messages\n",
    b"model_name_or_path: m\ndataset: a,b\ndataset_dir: .\ntemplate: llama3\ncutoff_len: 512\n",
    b"model_name_or_path: m\ndataset_name: a\ndatasets:\n  - path: a.jsonl\n    split: train\n",
    b"model:\n  model_name: m\ndata:\n  train:\n    datasets:\n      - dataset_name: text_sft\n"
    b"        dataset_path: a.jsonl\n",
    b"model: m\ndataset:\n  - a.jsonl#100\nmax_length: 512\n",
]
_INFOS = [_json({"a": {"file_name": "a.jsonl", "formatting": "sharegpt", "columns": {"messages": "conversations"}}})]
_CONFIGS = [
    b'[model]\nname_or_path = "m"\n[data]\ntasks = "tasks/*"\ntarget = "t"\n[lora]\nr = 2\n',
    b'[[data.task]]\nname = "a"\npath = "a.jsonl"\ncolumns = { prompt = "a.b" }\ncsv = { delimiter = ";" }\n',
]
_MANIFESTS = [
    _json(
        {
            "schema_version": 1,
            "created": "2026-01-01T00:00:00Z",
            "method": "forward",
            "targets": [{"name": "t", "files": [{"path": "t.jsonl", "sha256": "0" * 64, "rows": 1}], "source": {}}],
            "tasks": [{"name": "a", "selected": True, "weight": 1.0, "files": [], "source": {"hub": "a/b"}}],
            "model": {"name_or_path": "m", "sha256": "0" * 64},
        }
    )
]
_EVENTS = [
    b'{"event": "StageStarted", "stage": "train", "total": 3, "unit": "steps", "done": 0, "time": 1.0}\n'
    b'{"event": "Note", "message": "a", "level": "info", "time": 2.0}\n'
]
_JOBS = [
    _json(
        {
            "command": "curator train",
            "arguments": ["train"],
            "cwd": "/",
            "host": "h",
            "pid": 1,
            "started": "2026-01-01T00:00:00+00:00",
            "ended": None,
            "state": "running",
            "message": "",
        }
    )
]
_READMES = [b"---\nconfigs:\n- config_name: a\n  data_files:\n  - split: train\n    path: a.jsonl\n---\n# Data\n"]


def _rows(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    read_task(Source(name="t", files=(folder / name,)), keep_bad=True)


def _table(folder: Path, content: bytes) -> None:
    _rows(folder, "rows.csv", content)
    _rows(folder, "rows.tsv", content)


def _trainer(folder: Path, name: str, content: bytes) -> None:
    (folder / "a.jsonl").write_bytes(_ROWS[0])
    (folder / name).write_bytes(content)
    read_trainer_config(folder / name)


def _config(folder: Path, content: bytes) -> None:
    (folder / "curator.toml").write_bytes(content)
    load_config(folder / "curator.toml")


def _manifest(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    read_manifest(folder / "manifest.json")


def _events(folder: Path, content: bytes) -> None:
    (folder / "events.jsonl").write_bytes(content)
    list(read_events(folder / "events.jsonl"))


def _jobs(folder: Path, content: bytes) -> None:
    (folder / "runs" / "1").mkdir(parents=True, exist_ok=True)
    (folder / "runs" / "1" / "run.json").write_bytes(content)
    read_jobs(folder / "runs")


def _readme(folder: Path, content: bytes) -> None:
    (folder / "a.jsonl").write_bytes(_ROWS[0])
    (folder / "README.md").write_bytes(content)
    tasks_of_folder(folder)


def _store(folder: Path, content: bytes) -> None:
    path = folder / "store.duckdb"
    for left in folder.iterdir():
        left.unlink()
    path.write_bytes(content)
    store = Store(path)
    store.artifacts("task")
    store.file_hashes(["a"])
    store.selections()


def _whole_store() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "store.duckdb")
        store.put_artifact("task", "key", {"a": 1}, {"rows": [1]})
        return store.path.read_bytes()


PARSERS: dict[str, tuple[Callable[[], Sequence[bytes]], Callable[[Path, bytes], None]]] = {
    "JSON lines": (lambda: _ROWS, lambda folder, content: _rows(folder, "rows.jsonl", content)),
    "JSON document": (lambda: _ROWS, lambda folder, content: _rows(folder, "rows.json", content)),
    "gzip": (lambda: [gzip.compress(_ROWS[0])], lambda folder, content: _rows(folder, "rows.jsonl.gz", content)),
    "CSV and TSV": (lambda: _TABLES, _table),
    "trainer YAML": (lambda: _TRAINERS, lambda folder, content: _trainer(folder, "run.yaml", content)),
    "dataset_info.json": (lambda: _INFOS, lambda folder, content: _trainer(folder, "dataset_info.json", content)),
    "curator.toml": (lambda: _CONFIGS, _config),
    "manifest": (lambda: _MANIFESTS, _manifest),
    "README of a data set": (lambda: _READMES, _readme),
    "events.jsonl": (lambda: _EVENTS, _events),
    "run.json": (lambda: _JOBS, _jobs),
    "store": (lambda: [_whole_store()], _store),
    **fuzz_files.PARSERS,
    **fuzz_served.PARSERS,
}
"""Valid texts and the call of a parser, by the name of the parser."""


class Fuzzed(NamedTuple):
    """Result of one parser."""

    texts: int
    """Number of texts."""
    slowest: float
    """Seconds of the text that took longest."""


def fuzz(name: str, folder: Path, seconds: float, *, first_seed: int = 0) -> Fuzzed:
    """Read damaged texts for so many seconds.

    Args:
        name: Key of `PARSERS`.
        folder: Empty folder for the files.
        seconds: Duration. Each batch of 25 texts is finished.
        first_seed: Seed of the first batch.

    Raises:
        Exception: The parser crashed. Hypothesis names the smallest text.
    """
    whole, parse = PARSERS[name]
    texts = damaged(whole())
    count, number, slowest, end = 0, first_seed, 0.0, time.monotonic() + seconds
    while count == 0 or time.monotonic() < end:

        @seed(number)
        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(texts)
        def check(content: bytes) -> None:
            nonlocal count, slowest
            count, began = count + 1, time.monotonic()
            with contextlib.suppress(CuratorError):
                parse(folder, content)
            slowest = max(slowest, time.monotonic() - began)

        check()
        number += 1
    return Fuzzed(count, slowest)


def main() -> None:
    """Fuzz every parser, and print and store the numbers of texts and the crashes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="duration for each parser")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first batch")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("names", nargs="*", help="parsers; all by default")
    given_ = parser.parse_args()
    earlier = json.loads(given_.json.read_text()) if given_.json and given_.json.exists() else {}
    results: dict[str, Any] = earlier.get("parsers", {})
    for name in given_.names or PARSERS:
        crash, found, began, used = "", Fuzzed(0, 0.0), time.monotonic(), time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = fuzz(name, Path(folder), given_.seconds, first_seed=given_.seed)
            except Exception:
                crash = traceback.format_exc()
        results[name] = {
            "seconds": round(time.monotonic() - began),
            "processor_seconds": round(time.process_time() - used),
            "texts": found.texts,
            "slowest_seconds": round(found.slowest, 3),
            "crash": crash,
        }
        print(f"{name}: {found.texts:,} texts{': CRASH' if crash else ''}", flush=True)
        if crash:
            print(crash)
        if given_.json:
            document = {
                "command": "python tests/stress/fuzz.py --seconds SECONDS --json FILE [PARSER …]",
                "versions": {name: version(name) for name in _VERSIONS},
                "parsers": results,
            }
            given_.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
