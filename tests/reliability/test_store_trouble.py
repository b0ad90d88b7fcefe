"""Damaged stores, missing locks and interrupts: error messages, `check_store` and `export_store`."""

import errno
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from curator.core.errors import ConfigError, DataError, ExitCode
from curator.core.files import take_lock
from curator.core.interval import Interval
from curator.estimate.task_sums import TaskSums
from curator.workspace.store.check import UNREADABLE_NAME, check_store, export_store
from curator.workspace.store.locks import FileLock
from curator.workspace.store.records import StoredExample, StoredTask
from curator.workspace.store.tables import Store

ROWS = 6000


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a store with rows in most tables and several blocks of gradients."""
    store = Store(tmp_path_factory.mktemp("sound") / "store.duckdb")
    example = StoredExample(
        number=0, file="a.jsonl", line=1, hash="h", token_hash="0", text="one", spans=(0, 3), input_ids=(1, 2),
        labels=(-100, 2), completion_tokens=1, truncated=False, left_out=None,
    )  # fmt: skip
    store.put_tasks([StoredTask(key="t", name="a", examples=[example], inputs={}, outputs={"rows": [1]})])
    gradients = np.random.default_rng(0).random((ROWS, 64), np.float32)
    store.put_gradients("set", [str(n) for n in range(ROWS)], np.zeros(ROWS), gradients)
    sums = TaskSums.empty(1, 4)
    store.put_sums("set", ["c"], sums)
    store.put_affinities("e", "t", [("a", 0.5, float("nan"))], inputs={}, outputs={})
    store.put_estimates("e", "t", [(["a"], Interval(1.0, 0.5, 1.5))])
    store.put_measurement("r", "t", {"a": "c"}, seed=1, loss=0.5, seconds=1.0)
    return store.path.read_bytes()


@pytest.fixture
def store(sound: bytes, tmp_path: Path) -> Store:
    (tmp_path / ".curator").mkdir()
    (tmp_path / "curator.toml").write_text("")
    (tmp_path / ".curator" / "store.duckdb").write_bytes(sound)
    return Store(tmp_path / ".curator" / "store.duckdb")


def curator(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "curator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# -- damage -------------------------------------------------------------------------------------------------------


def _checksum(content: bytes) -> int:
    """Compute DuckDB's checksum of a block of 64-bit words."""
    found = 5381
    for (word,) in struct.iter_unpack("<Q", content):
        found ^= word * 0xBF58476D1CE4E5B9 % 2**64
    return found


def _other_storage(content: bytearray, version: int) -> None:
    """Change the storage version in the header of a DuckDB file."""
    assert struct.unpack_from("<Q", content)[0] == _checksum(bytes(content[8:4096])), "DuckDB has changed the header"
    struct.pack_into("<Q", content, 12, version)
    struct.pack_into("<Q", content, 0, _checksum(bytes(content[8:4096])))


@pytest.mark.parametrize("damage", ["empty", "text", "head", "short", "newer duckdb", "older duckdb"])
def test_store_unopenable_file_is_left_unchanged(store: Store, damage: str) -> None:
    content = bytearray(store.path.read_bytes())
    if damage == "empty":
        content.clear()
    elif damage == "text":
        content = bytearray(b"this is not a database\n" * 500)
    elif damage == "head":
        content[4096:12288] = os.urandom(8192)
    elif damage == "short":
        del content[9000:]
    else:
        _other_storage(content, 998 if damage == "newer duckdb" else 20)
    store.path.write_bytes(content)
    for use in (lambda: store.artifacts("task"), lambda: store.put_artifact("task", "b", {}, {})):
        with pytest.raises(DataError, match=r"store\.duckdb") as caught:
            use()
        if "duckdb" in damage:
            assert "another version of DuckDB" in caught.value.message
            assert "move `.curator/` away" in caught.value.hint
        else:
            assert "export-store" in caught.value.hint
    assert store.path.read_bytes() == content, "a damaged file is left unchanged"
    report = check_store(store)
    assert not report.sound
    assert "cannot open the store: " in report.problems[0]


def _damage_gradients(store: Store) -> None:
    content = bytearray(store.path.read_bytes())
    # Most of the file holds gradients.
    content[len(content) // 2 : len(content) // 2 + 64] = os.urandom(64)
    store.path.write_bytes(content)


def test_export_store_damaged_block_saves_other_rows(store: Store, tmp_path: Path) -> None:
    _damage_gradients(store)
    with pytest.raises(DataError, match=r"cannot read .*store\.duckdb: Corrupt") as caught:
        store.gradients("set")
    assert "export-store" in caught.value.hint
    assert store.affinities("e"), "other tables are still readable"

    checked = curator("check", "--store", "-p", str(tmp_path), "--json")
    assert checked.returncode == ExitCode.DATA
    assert "export-store DIR" in checked.stderr
    report = json.loads(checked.stdout)
    assert not report["sound"]
    (table,) = [table for table in report["tables"] if table["lost"]]
    assert table["name"] == "gradients"

    saved = tmp_path / "saved"
    done = curator("export-store", str(saved), "-p", str(tmp_path))
    assert done.returncode == ExitCode.DATA
    rows = pq.read_table(saved / "gradients.parquet")
    assert ROWS - 3 * 2048 <= rows.num_rows == table["rows"] < ROWS
    assert len(set(rows.column("token_hash").to_pylist())) == rows.num_rows
    assert sum(end - begin + 1 for begin, end in table["lost"]) == ROWS - rows.num_rows
    assert pq.read_table(saved / "affinities.parquet").num_rows == 1
    assert json.loads((saved / UNREADABLE_NAME).read_text())["problems"] == report["problems"]


def test_export_store_duckdb_crash_saves_other_tables(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash is simulated: no damage is known that crashes DuckDB."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, signal, sys\n"
        "from curator.workspace.store import salvage\nread = salvage._read\n"
        "def dies(connection, table, folder):\n"
        "    if table == 'gradients': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return read(connection, table, folder)\n"
        "salvage._read = dies\nsys.exit(salvage.main(sys.argv[4:]))\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    report = export_store(store, tmp_path / "saved")
    assert report.problems == (f"gradients: cannot read all rows: DuckDB crashed with signal {signal.SIGSEGV}",)
    assert {table.name: table.rows for table in report.tables}["affinities"] == 1
    assert pq.read_table(tmp_path / "saved" / "measurements.parquet").num_rows == 1


def test_check_store_sound_store_has_no_problems(store: Store, tmp_path: Path) -> None:
    before = store.path.read_bytes()
    report = export_store(store, tmp_path / "saved")
    assert report.sound
    assert {t.name: t.rows for t in report.tables}["gradients"] == ROWS
    assert check_store(store).sound
    assert store.path.read_bytes() == before
    with pytest.raises(ConfigError, match="folder is not empty"):
        export_store(store, tmp_path / "saved")
    with pytest.raises(DataError, match="store does not exist"):
        check_store(Store(tmp_path / "none.duckdb"))


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("INSERT INTO gradients SELECT * FROM gradients LIMIT 2", "gradients: 2 duplicate gradients"),
        ("UPDATE gradients SET loss = 'nan' WHERE token_hash = '7'", "gradients: 1 gradients or losses that are not"),
        ("INSERT INTO gradients VALUES ('set', 'x', 1, ['inf'])", "gradients: 1 gradients or losses that are not"),
        ("INSERT INTO gradients VALUES ('set', 'x', 1, [1])", "gradients: 1 sets with gradients of different lengths"),
        ("DELETE FROM examples", "examples: 1 tasks whose number of examples differs"),
        ("DELETE FROM artifacts WHERE stage = 'task'", "examples: 1 examples without a task"),
        ("DELETE FROM gradients", "statistics: 1 sums without gradients"),
        ("DELETE FROM triangles WHERE piece = 1", "triangles: 1 sums with missing or extra pieces"),
        ("DELETE FROM statistics", "triangles: 2 pieces that are duplicate or have no sum"),
        ("UPDATE affinities SET affinity = 'inf'", "affinities: 1 affinities that are null or infinite"),
        ("UPDATE measurements SET subset = '{'", "measurements: 1 subsets that are not JSON"),
        ("UPDATE artifacts SET inputs = '{' WHERE stage = 'estimate'", "artifacts: 1 artifacts that are not JSON"),
    ],
)
def test_check_store_inconsistent_rows_are_reported(
    store: Store, statement: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests cover unreadable rows.
    monkeypatch.setattr("curator.workspace.store.check._read_all", lambda path: ([], []))
    with store.write() as connection:
        connection.execute(statement)
    assert any(found.startswith(problem) for found in check_store(store).problems), check_store(store).problems


# -- locks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["store.duckdb", "store.duckdb.wal"])
def test_store_pipe_as_file_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    store = Store(tmp_path / "store.duckdb")
    with pytest.raises(DataError, match=f"not a regular file: .*{name}$"):
        store.artifacts("task")
    with pytest.raises(DataError, match=f"not a regular file: .*{name}$"):
        store.put_file_hashes([])


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_store_without_locks_suggests_local_disk(store: Store, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors of `flock` are simulated: such a file system is not available in tests."""

    def without(descriptor: int, mode: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    for use in (lambda: store.artifacts("task"), lambda: store.put_artifact("task", "b", {}, {})):
        with pytest.raises(DataError, match=r"file system of .*store\.duckdb has no locks") as caught:
            use()
        assert "local disk" in caught.value.hint
    with store.path.open("rb") as file, pytest.raises(DataError, match="has no locks"):
        take_lock(file.fileno(), store.path)


def test_store_in_linked_folder_works(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".curator").symlink_to(tmp_path / "elsewhere")
    store = Store(tmp_path / ".curator" / "store.duckdb")
    store.put_artifact("task", "a", {}, {})
    assert len(store.artifacts("task")) == 1
    assert (tmp_path / "elsewhere" / "store.duckdb").exists()


def test_file_lock_overlapping_readers_do_not_block_writer(tmp_path: Path) -> None:
    lock, over = FileLock(tmp_path / "store.duckdb"), threading.Event()
    reads = [0] * 4

    def read(number: int) -> None:
        time.sleep(0.01 * number)
        while not over.is_set():
            with lock.held(exclusive=False):
                time.sleep(0.04)
            reads[number] += 1

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(reads))]
    for thread in threads:
        thread.start()
    try:
        waited = []
        for _ in range(4):
            before, began = sum(reads), time.monotonic()
            with lock.held(exclusive=True):
                waited.append(time.monotonic() - began)
            while sum(reads) == before:
                time.sleep(0.01)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert max(waited) < 2


def test_store_interrupted_query_raises_keyboard_interrupt(store: Store) -> None:
    """DuckDB replaces the interrupt by its own error, which would look like a bug."""

    def ask(how: str) -> None:
        with getattr(store, how)() as connection:
            assert connection is not None
            if how == "write":
                connection.execute("DELETE FROM artifacts")
            connection.execute("SELECT count(*) FROM range(200000000) t(n) WHERE hash(n) % 7 = 1").fetchall()

    before = len(store.artifacts("task"))
    for how in ("read", "write"):
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ask(how)
        timer.join()
    assert len(store.artifacts("task")) == before
