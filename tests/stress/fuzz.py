"""Read damaged files with each parser of foreign text. A parser returns a result or raises an error of curator.

`tests/security/test_fuzz.py` runs each parser briefly. Set CURATOR_FUZZ_SECONDS=600 for ten minutes each, or run this
script:

    python tests/stress/fuzz.py --seconds 600 --json benchmarks/results/fuzz.json

The script runs all parsers in turns of a minute. Each turn adds to the results in the file, with new texts. Run the
script again to resume.
"""

import argparse
import bz2
import contextlib
import gzip
import json
import lzma
import os
import subprocess
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

from curator.core.config import ModelSection
from curator.core.errors import CuratorError
from curator.core.events import read_events
from curator.core.load_config import load_config
from curator.data.importers.importer import read_trainer_config
from curator.data.layouts import tasks_of_folder
from curator.data.sources import Source
from curator.data.task_rows import read_task
from curator.export.allowed_files import AllowedPlaces
from curator.select.manifest import check_files, read_manifest
from curator.workspace.job_log import read_jobs
from curator.workspace.store.tables import Store

# `tests/security/test_fuzz.py` reads this file without its folder on the path.
sys.path.append(str(Path(__file__).parent))

import fuzz_files
import fuzz_results
import fuzz_served
import fuzz_texts as texts

# A file system in memory. Each text is a file, and a disk with other work needs most of the time.
_MEMORY = Path("/dev/shm")
_TURN = 60.0
_LONGEST_BATCH = 5.0
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


def _rows(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    read_task(Source(name="t", files=(folder / name,)), keep_bad=True)


def _zstd(content: bytes) -> bytes:
    import pyarrow as pa

    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


def _table(folder: Path, content: bytes) -> None:
    _rows(folder, "rows.csv", content)
    _rows(folder, "rows.tsv", content)


def _trainer(folder: Path, name: str, content: bytes) -> None:
    (folder / "a.jsonl").write_bytes(texts.ROWS[0])
    (folder / name).write_bytes(content)
    read_trainer_config(folder / name)


def _config(folder: Path, content: bytes) -> None:
    (folder / "curator.toml").write_bytes(content)
    load_config(folder / "curator.toml")


def _manifest(folder: Path, content: bytes) -> None:
    """Read a manifest, and check its places and files."""
    (folder / "a.jsonl").write_bytes(texts.ROWS[0])
    (folder / "manifest.json").write_bytes(content)
    found, places = read_manifest(folder / "manifest.json"), AllowedPlaces(folder)
    checks: tuple[Callable[[], object], ...] = (
        lambda: places.check(found),
        lambda: places.check_model(ModelSection(name_or_path=found.model.name_or_path)),
        lambda: check_files(found, folder),
    )
    for check in checks:
        with contextlib.suppress(CuratorError):
            check()


def _events(folder: Path, content: bytes) -> None:
    (folder / "events.jsonl").write_bytes(content)
    list(read_events(folder / "events.jsonl"))


def _jobs(folder: Path, content: bytes) -> None:
    (folder / "runs" / "1").mkdir(parents=True, exist_ok=True)
    (folder / "runs" / "1" / "run.json").write_bytes(content)
    read_jobs(folder / "runs")


def _readme(folder: Path, content: bytes) -> None:
    (folder / "a.jsonl").write_bytes(texts.ROWS[0])
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
    "JSON lines": (lambda: texts.ROWS, lambda folder, content: _rows(folder, "rows.jsonl", content)),
    "JSON document": (lambda: texts.ROWS, lambda folder, content: _rows(folder, "rows.json", content)),
    "gzip": (
        lambda: [gzip.compress(texts.ROWS[0])],
        lambda folder, content: _rows(folder, "rows.jsonl.gz", content),
    ),
    "bzip2": (
        lambda: [bz2.compress(texts.ROWS[0])],
        lambda folder, content: _rows(folder, "rows.jsonl.bz2", content),
    ),
    "xz": (
        lambda: [lzma.compress(texts.ROWS[0])],
        lambda folder, content: _rows(folder, "rows.jsonl.xz", content),
    ),
    "zstd": (lambda: [_zstd(texts.ROWS[0])], lambda folder, content: _rows(folder, "rows.jsonl.zst", content)),
    "CSV and TSV": (lambda: texts.TABLES, _table),
    "trainer YAML": (lambda: texts.TRAINERS, lambda folder, content: _trainer(folder, "run.yaml", content)),
    "dataset_info.json": (
        lambda: texts.INFOS,
        lambda folder, content: _trainer(folder, "dataset_info.json", content),
    ),
    "curator.toml": (lambda: texts.CONFIGS, _config),
    "manifest": (lambda: texts.MANIFESTS, _manifest),
    "README of a data set": (lambda: texts.READMES, _readme),
    "events.jsonl": (lambda: texts.EVENTS, _events),
    "run.json": (lambda: texts.JOBS, _jobs),
    "store": (lambda: [_whole_store()], _store),
    **fuzz_files.PARSERS,
    **fuzz_results.PARSERS,
    **fuzz_served.PARSERS,
}
"""Valid texts and the call of a parser, by the name of the parser."""


class Fuzzed(NamedTuple):
    """Result of one parser."""

    texts: int
    """Number of texts."""
    slowest: float
    """Seconds of the text that took longest."""
    seconds: float
    """Seconds of all texts, without imports."""
    processor_seconds: float
    """Processor seconds of all texts, with those of ended children."""
    next_seed: int
    """Seed of the next batch."""


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for the files, in memory if the system has such a place."""
    return tempfile.TemporaryDirectory(dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None)


def fuzz(name: str, folder: Path, seconds: float, *, first_seed: int = 0) -> Fuzzed:
    """Read damaged texts for so many seconds.

    The first texts are whole. They load libraries and models, and show that the parser accepts a text.

    Args:
        name: Key of `PARSERS`.
        folder: Empty folder for the files.
        seconds: Duration. Each batch is finished: 25 texts at first, and more while batches are short.
        first_seed: Seed of the first batch.

    Raises:
        AssertionError: The parser accepts no whole text.
        Exception: The parser crashed. Hypothesis names the smallest text.
    """
    whole, parse = PARSERS[name]
    given_texts = whole()
    assert sum(_is_accepted(parse, folder, text) for text in given_texts), f"{name}: no whole text is accepted"
    drawn = damaged(given_texts)
    began, used = time.monotonic(), _processor_seconds()
    count, number, slowest, size = 0, first_seed, 0.0, 25
    while count == 0 or time.monotonic() < began + seconds:

        @seed(number)
        @settings(
            max_examples=size,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(drawn)
        def check(content: bytes) -> None:
            nonlocal count, slowest
            count, start = count + 1, time.monotonic()
            with contextlib.suppress(CuratorError):
                parse(folder, content)
            slowest = max(slowest, time.monotonic() - start)

        start = time.monotonic()
        check()
        number += 1
        # Hypothesis takes as long to begin a batch as to draw dozens of texts.
        if 2 * (time.monotonic() - start) < min(_LONGEST_BATCH, seconds / 4):
            size *= 2
    return Fuzzed(count, slowest, time.monotonic() - began, _processor_seconds() - used, number)


def _is_accepted(parse: Callable[[Path, bytes], None], folder: Path, text: bytes) -> bool:
    try:
        parse(folder, text)
    except CuratorError:
        return False
    return True


def _processor_seconds() -> float:
    return sum(os.times()[:4])


def main() -> None:
    """Fuzz every parser in turns, and print and store the numbers of texts and the crashes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="duration for each parser, with earlier turns")
    parser.add_argument("--json", type=Path, required=True, help="file of the results")
    parser.add_argument("names", nargs="*", help="parsers; all by default")
    arguments = parser.parse_args()
    left = set(arguments.names or PARSERS)
    while left:
        for name in [name for name in PARSERS if name in left]:
            earlier = _results(arguments.json).get(name, {})
            rest = arguments.seconds - earlier.get("seconds", 0)
            if rest < 1 or earlier.get("crash"):
                left.remove(name)
                continue
            _store_turn(arguments.json, name, earlier, _turn(name, min(rest, _TURN), earlier.get("next_seed", 0)))


def _turn(name: str, seconds: float, first_seed: int) -> tuple[Fuzzed, str]:
    crash, found = "", Fuzzed(0, 0.0, 0.0, 0.0, first_seed)
    with scratch() as folder:
        try:
            found = fuzz(name, Path(folder), seconds, first_seed=first_seed)
        except Exception:
            crash = traceback.format_exc()
    print(f"{name}: {found.texts:,} texts{': CRASH' if crash else ''}", flush=True)
    if crash:
        print(crash, flush=True)
    return found, crash


def _results(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())["parsers"] if path.exists() else {}


def _store_turn(path: Path, name: str, earlier: dict[str, Any], turn: tuple[Fuzzed, str]) -> None:
    """Add a turn to the results. The file is read again, because another process may run other parsers."""
    found, crash = turn
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    results = _results(path) | {
        name: {
            "seconds": round(earlier.get("seconds", 0) + found.seconds, 1),
            "processor_seconds": round(earlier.get("processor_seconds", 0) + found.processor_seconds, 1),
            "texts": earlier.get("texts", 0) + found.texts,
            "slowest_seconds": round(max(earlier.get("slowest_seconds", 0), found.slowest), 3),
            "next_seed": found.next_seed,
            "commits": sorted({*earlier.get("commits", ()), commit}),
            "load": sorted({*earlier.get("load", ()), round(os.getloadavg()[0])}),
            "crash": crash,
        }
    }
    document = {
        "command": "python tests/stress/fuzz.py --seconds SECONDS --json FILE [PARSER …]",
        "versions": {name: version(name) for name in _VERSIONS},
        "machine": "2 x86_64 cores with other work, at a nice value of 10; `load` holds the load at each turn's end",
        "parsers": {name: results[name] for name in PARSERS if name in results},
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(path)


if __name__ == "__main__":
    main()
