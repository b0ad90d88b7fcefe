"""`Store`: round trips, transactions, locks, and damaged or unusual files."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.core.errors import DataError, ExitCode, StoreBusy
from curator.core.file_states import FileState
from curator.core.interval import Interval
from curator.estimate.task_sums import TaskSums
from curator.workspace.store import access, locks, schema
from curator.workspace.store.measured import RunDetails
from curator.workspace.store.metric_values import StoredMetric
from curator.workspace.store.records import StoredEdit, StoredExample, StoredSession, StoredTask
from curator.workspace.store.tables import Store

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
int32 = st.integers(-(2**31), 2**31 - 1)
examples = st.builds(
    StoredExample,
    number=st.just(0),
    file=texts,
    line=st.integers(0, 2**31 - 1),
    hash=texts,
    token_hash=texts,
    text=texts,
    spans=st.lists(int32, max_size=4).map(tuple),
    input_ids=st.lists(int32, max_size=5).map(tuple),
    labels=st.lists(int32, max_size=5).map(tuple),
    completion_tokens=st.integers(0, 100),
    truncated=st.booleans(),
    left_out=st.none() | texts,
)


METRIC = StoredMetric(
    metric="m", part="", version="1", value=1.0, standard_error=None, examples=1, higher_is_better=True
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".curator" / "store.duckdb")


def python(code: str, *args: str, **options: object) -> "subprocess.Popen[str]":
    """Start a process that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


# -- round trips --------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.lists(examples, min_size=1, max_size=5), texts)
def test_store_examples_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rows: list[StoredExample], name: str
) -> None:
    store = Store(tmp_path_factory.mktemp("store") / "store.duckdb")
    rows = [StoredExample(**{f: getattr(row, f) for f in row.__slots__} | {"number": n}) for n, row in enumerate(rows)]
    other = StoredTask(key="other", name=name, examples=rows, inputs={}, outputs={})
    for _ in range(2):
        mine = StoredTask(key="key", name=name, examples=rows[::-1], inputs={"name": name}, outputs={"rows": [1]})
        store.put_tasks([other, mine])
        assert store.example_texts("key").to_pylist() == [
            {"text": r.text, "spans": list(r.spans), "file": r.file, "line": r.line} for r in rows
        ]
        tokens = [(list(r.input_ids), list(r.labels)) for r in rows]
        assert store.tokens("key") == tokens
        assert [store.tokens_of("key", number) for number in range(len(rows) + 1)] == [*tokens, ([], [])]
        index = store.example_indexes(["key"])["key"]
        assert index.hashes == [r.hash for r in rows]
        assert index.token_hashes == [r.token_hash for r in rows]
        assert index.lengths == [len(r.input_ids) for r in rows]
        assert index.completion_tokens == [r.completion_tokens for r in rows]
        assert index.left_out == [r.left_out for r in rows]
        assert index.truncated == [r.truncated for r in rows]
    artifact = store.artifact("task", "key")
    assert artifact is not None
    assert artifact.inputs == {"name": name}


def test_store_missing_examples_are_empty(store: Store) -> None:
    for _ in range(2):
        found = store.example_texts("key")
        assert found.column_names == ["text", "spans", "file", "line"]
        assert found.num_rows == 0
        assert store.tokens_of("key", 0) == ([], [])
        store.put_artifact("stage", "key", {}, {})


@settings(max_examples=15)
@given(st.lists(st.integers(0, 9), min_size=0, max_size=12), st.integers(1, 40))
def test_store_gradients_round_trip_keeps_first(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], dim: int
) -> None:
    """Repeated examples are stored once, with their first values."""
    store = Store(tmp_path_factory.mktemp("store") / "store.duckdb")
    rng = np.random.default_rng(len(numbers))
    expected: dict[str, tuple[float, np.ndarray]] = {}
    for part in (numbers[:6], numbers[6:], numbers):
        hashes = [f"h{n}" for n in part]
        losses, gradients = rng.random(len(part)), rng.standard_normal((len(part), dim)).astype(np.float32)
        store.put_gradients("set", hashes, losses, gradients)
        for row, h in enumerate(hashes):
            expected.setdefault(h, (losses[row], gradients[row]))
    store.put_gradients("other set", ["h0"], np.zeros(1), np.zeros((1, dim), np.float32))
    hashes, losses, gradients = store.gradients("set")
    assert sorted(hashes) == sorted(expected)
    assert store.gradient_hashes("set") == set(expected)
    for row, h in enumerate(hashes):
        assert losses[row] == expected[h][0]
        np.testing.assert_array_equal(gradients[row], expected[h][1])
    store.drop_gradients(["set"])
    assert store.gradients("set")[0] == []
    assert store.gradient_hashes("other set") == {"h0"}


def _sums(tasks: int, dim: int) -> TaskSums:
    rng = np.random.default_rng(tasks)
    sums = TaskSums.empty(tasks, dim)
    sums.weights[:], sums.examples[:] = rng.random(tasks), rng.integers(0, 99, tasks)
    sums.gradient_sums[:], sums.packed_curvatures[:] = (
        rng.random(sums.gradient_sums.shape),
        rng.random(sums.packed_curvatures.shape),
    )
    return sums


@pytest.mark.parametrize("dim", [1, 2, 7, 8, 64])
def test_store_sums_round_trip_keeps_first(store: Store, dim: int) -> None:
    """Sums are read in any order, repeated or missing. The first stored values are kept."""
    assert not store.sums("set", ["a"], dim).packed_curvatures.any()
    sums, other = _sums(5, dim), _sums(3, dim)
    store.put_sums("set", list("abcde"), sums)
    store.put_sums("set", ["b", "f", "a"], other)
    store.put_sums("other set", ["a"], _sums(1, dim))
    assert store.stored_sums("set") == set("abcdef")
    found = store.sums("set", ["f", "e", "nothing", "a", "e"], dim)
    for row, (expected, number) in enumerate([(other, 1), (sums, 4), (None, 0), (sums, 0), (sums, 4)]):
        for name in ("weights", "examples", "gradient_sums", "packed_curvatures"):
            value = getattr(found, name)[row]
            wanted = np.zeros_like(value) if expected is None else getattr(expected, name)[number]
            np.testing.assert_array_equal(value, wanted)
    store.drop_gradients(["set"])
    assert store.stored_sums("set") == set()
    np.testing.assert_array_equal(
        store.sums("other set", ["a"], dim).packed_curvatures, _sums(1, dim).packed_curvatures
    )
    with store.read() as connection:
        assert connection is not None
        assert connection.execute("SELECT count(DISTINCT number) FROM triangles").fetchall() == [(1,)]


def test_put_sums_all_stored_keeps_first(store: Store) -> None:
    """Two processes may compute the same sums at the same time."""
    other = _sums(1, 4)
    other.gradient_sums[:] = 0
    store.put_sums("set", ["a"], _sums(1, 4))
    store.put_sums("set", ["a"], other)
    np.testing.assert_array_equal(store.sums("set", ["a"], 4).gradient_sums, _sums(1, 4).gradient_sums)


def test_store_schema_2_is_upgraded_for_sums(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
        for module in (schema, access):
            patched.setattr(module, "SCHEMA_VERSION", 2)
        store.put_gradients("set", ["a"], np.ones(1), np.ones((1, 4), np.float32))
        with store.read() as connection:
            assert connection is not None
            assert schema.version_of(connection) == 2
    assert store.stored_sums("set") == set()
    store.put_sums("set", ["a"], _sums(1, 4))
    assert store.stored_sums("set") == {"a"}
    assert store.gradient_hashes("set") == {"a"}


def test_store_edits_round_trip(store: Store) -> None:
    made = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    edits = [
        StoredEdit(number=n, kind="toggle", label="'; DROP \x1b", changes={"é": [0, n]}, loss=None, made=made)
        for n in range(3)
    ]
    assert store.sessions("t") == []
    store.put_edits("first", "t", edits[:2])
    store.put_edits("other", "u", edits)
    store.put_edits("first", "t", [edits[1], edits[2]])
    assert store.sessions("t") == [StoredSession(id="first", edits=tuple(edits))]
    # A later loss is added. A known loss is kept.
    known = [replace(edits[1], loss=0.5)]
    store.put_edits("first", "t", known)
    store.put_edits("first", "t", [edits[1]])
    assert store.sessions("t")[0].edits[1].loss == 0.5
    store.put_edits("second", "t", [replace(edits[0], made=made + timedelta(seconds=1))])
    assert [session.id for session in store.sessions("t")] == ["second", "first"]
    assert [session.id for session in store.sessions("t", most=1)] == ["second"]


def test_store_transposed_gradients_round_trip(store: Store) -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4).T
    store.put_gradients("set", list("abcd"), np.arange(4.0), matrix)
    hashes, _, found = store.gradients("set")
    np.testing.assert_array_equal(found[np.argsort(hashes)], matrix)


def test_store_results_round_trip(store: Store) -> None:
    store.put_affinities("e", "t", [("a", 0.5, float("nan")), ("'; DROP", 1.0, 0.1)], inputs={}, outputs={})
    found = store.affinities("e")
    assert found["'; DROP"] == (1.0, 0.1)
    assert np.isnan(found["a"][1])
    store.put_estimates(
        "e",
        "t",
        [(["b", "a"], Interval(1.0, 0.5, 1.5)), (["a", "b"], Interval(2.0, 1.5, 2.5)), ([], Interval(3.0, 3.0, 3.0))],
    )
    store.put_estimates("e", "t", [([], Interval(4.0, 4.0, 4.0))])
    with store.read() as connection:
        assert connection is not None
        rows = connection.execute("SELECT subset, loss FROM estimates ORDER BY loss").fetchall()
    assert rows == [('["a", "b"]', 2.0), ("[]", 4.0)]
    for loss in (1.0, 2.0):
        store.put_selection("k", "n", target="t", method="m", loss=loss, manifest="{}", inputs={}, outputs={})
    assert [kept.loss for kept in store.selections()] == [2.0]
    assert store.selection("k") == "{}"
    old, new = FileState(1, 2, 3, 4), FileState(5, 6, 7, 8)
    store.put_file_hashes([("/a", old, "x"), ("/b", old, "y")])
    store.put_file_hashes([("/a", new, "z")])
    assert store.file_hashes(["/a", "/c"]) == {"/a": (new, "z")}
    store.forget_file_hashes(["/a"])
    assert store.file_hashes(["/a", "/b"]) == {"/b": (old, "y")}
    store.forget_file_hashes()
    assert store.file_hashes(["/b"]) == {}


def test_store_measurements_round_trip_keeps_first(store: Store) -> None:
    assert store.measurements("r") == []
    assert not store.path.parent.exists(), "reading creates no files"
    content = {"b'; DROP \x1b": "2", "a": "1"}
    store.put_measurement("r", "t", content, seed=1, loss=0.5, seconds=2.0)
    store.put_measurement("r", "t", {}, seed=1, loss=0.75, seconds=2.5)
    store.put_measurement("r", "t", content, seed=2, loss=0.25, seconds=3.0)
    store.put_measurement("other", "t", content, seed=1, loss=9.0, seconds=1.0)
    store.put_measurement("r", "t", {**content, "a": "changed"}, seed=1, loss=8.0, seconds=1.0)
    # The same run with another order of tasks: the first loss is kept.
    store.put_measurement("r", "t", dict(reversed(content.items())), seed=1, loss=7.0, seconds=1.0)
    found = store.measurements("r")
    assert [(m.subset, m.seed, m.loss, m.seconds) for m in found] == [
        (content, 1, 0.5, 2.0),
        ({}, 1, 0.75, 2.5),
        (content, 2, 0.25, 3.0),
        ({**content, "a": "changed"}, 1, 8.0, 1.0),
    ]
    assert [m.made for m in found] == sorted(m.made for m in found)
    assert all(m.made.tzinfo is UTC and m.made <= datetime.now(UTC) for m in found)
    assert [m.loss for m in store.measurements("other")] == [9.0]
    for loss in (0.1, 1e-300, 5e-324):
        store.put_measurement("exact", "t", {}, seed=int(-np.log10(loss)), loss=loss, seconds=0.0)
    assert {m.loss for m in store.measurements("exact")} == {0.1, 1e-300, 5e-324}
    store.put_measurement("large seed", "t", {}, seed=2**32 - 1, loss=1.0, seconds=0.0)
    assert store.measurements("large seed")[0].seed == 2**32 - 1


def test_store_schema_3_is_upgraded_for_measurements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:3])
        for module in (schema, access):
            patched.setattr(module, "SCHEMA_VERSION", 3)
        store.put_sums("set", ["a"], _sums(1, 4))
        store.put_artifact("train", "a", {"x": 1}, {})
        with store.read() as connection:
            assert connection is not None
            assert schema.version_of(connection) == 3
    assert store.measurements("r") == []
    store.put_measurement("r", "t", {"a": "1"}, seed=0, loss=0.5, seconds=1.0)
    assert [m.loss for m in store.measurements("r")] == [0.5]
    assert store.stored_sums("set") == {"a"}
    assert [artifact.inputs for artifact in store.artifacts("train")] == [{"x": 1}]


def test_store_killed_process_keeps_measurement(store: Store) -> None:
    writer = python(
        """
        import os, signal, sys
        from pathlib import Path
        from curator.workspace.store.tables import Store
        store = Store(Path(sys.argv[1]))
        store.put_measurement("r", "t", {"a": "1"}, seed=3, loss=0.5, seconds=1.0)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        str(store.path),
    )
    assert writer.wait(timeout=60) == -signal.SIGKILL
    assert [(m.seed, m.loss) for m in store.measurements("r")] == [(3, 0.5)]


def test_store_read_before_first_write_is_empty(store: Store) -> None:
    assert store.artifacts("train") == []
    assert store.selection("k") is None
    assert store.selections() == []
    assert store.gradients("s")[0] == []
    assert store.tokens("t") == []
    assert store.example_indexes(["t"]) == {}
    assert store.affinities("e") == {}
    assert store.file_hashes(["/a"]) == {}
    assert not store.path.parent.exists(), "reading creates no files"


# -- transactions -------------------------------------------------------------------------------------------------


def test_store_write_error_rolls_back(store: Store) -> None:
    store.put_artifact("train", "a", {}, {})

    def interrupted() -> None:
        with store.write() as connection:
            connection.execute("DELETE FROM artifacts")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.artifact("train", "a") is not None


def test_store_killed_writer_keeps_commits(store: Store) -> None:
    writer = python(
        """
        import sys
        from pathlib import Path
        import numpy as np
        from curator.workspace.store.tables import Store
        store = Store(Path(sys.argv[1]))
        for n in range(1000):
            store.put_gradients("set", [f"{n}-{i}" for i in range(50)], np.full(50, n), np.full((50, 64), n, "f4"))
            print(n, flush=True)
        """,
        str(store.path),
    )
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) == 4:
            break
    time.sleep(0.02)
    writer.kill()
    acknowledged = [4, *(int(line) for line in writer.stdout.read().split("\n")[:-1])]
    writer.wait()
    hashes, losses, gradients = store.gradients("set")
    assert {f"{n}-{i}" for n in range(max(acknowledged) + 1) for i in range(50)} <= set(hashes)
    assert len(hashes) % 50 == 0, "transactions are atomic"
    assert (gradients == losses[:, None]).all()
    store.put_gradients("set", ["new"], np.zeros(1), np.zeros((1, 64), np.float32))
    assert "new" in store.gradient_hashes("set")


def test_store_empty_database_file_is_usable(store: Store) -> None:
    store.path.parent.mkdir()
    duckdb.connect(str(store.path)).close()
    assert store.artifacts("train") == []
    assert store.gradients("set")[0] == []
    store.put_artifact("train", "a", {}, {})
    assert len(store.artifacts("train")) == 1


def _write(path: Path, name: str) -> None:
    store = Store(path)
    for n in range(15):
        store.put_gradients("set", [f"{name}{n}"], np.zeros(1), np.zeros((1, 4), np.float32))
        assert f"{name}{n}" in store.gradient_hashes("set")


def test_store_two_writers_both_succeed(store: Store) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_write, args=(store.path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert store.gradient_hashes("set") == {f"{name}{n}" for name in "ab" for n in range(15)}


HOLD = """
import sys, time
from pathlib import Path
from curator.workspace.store.tables import Store
with getattr(Store(Path(sys.argv[1])), sys.argv[2])():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["read", "write"])
def test_store_locked_names_process(store: Store, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_LOCK_SECONDS", 0.2)
    store.put_artifact("train", "a", {}, {})
    holder = python(HOLD, str(store.path), how)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreBusy, match=f"by process {holder.pid}$") as caught:
            store.put_artifact("train", "b", {}, {})
        assert caught.value.exit_code == ExitCode.BUSY
        if how == "read":
            assert len(store.artifacts("train")) == 1, "readers do not block each other"
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    store.put_artifact("train", "b", {}, {})


def test_store_lock_slow_turns_of_others_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, the turns of many processes take longer together than the longest wait for one of them."""
    monkeypatch.setattr(locks, "_LOCK_SECONDS", 1.0)
    lock, waits, errors = locks.FileLock(tmp_path / "store.duckdb"), list[float](), list[StoreBusy]()

    def take() -> None:
        began = time.monotonic()
        try:
            with lock.held(exclusive=True):
                waits.append(time.monotonic() - began)
                time.sleep(0.3)
        except StoreBusy as error:
            errors.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert max(waits) > 1.0


def test_store_lock_endless_turns_of_others_end_after_queue_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_QUEUE_SECONDS", 0.0)
    lock = locks.FileLock(tmp_path / "store.duckdb")
    with lock.held(exclusive=True), pytest.raises(StoreBusy, match="is locked for over"), lock.held(exclusive=True):
        pass


def test_store_open_in_other_program_names_process(store: Store) -> None:
    store.put_artifact("train", "a", {}, {})
    holder = python(
        "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('held', flush=True); time.sleep(60)",
        str(store.path),
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StoreBusy, match=str(holder.pid)):
            store.artifacts("train")
    finally:
        holder.kill()
        holder.wait()


# -- damaged and unusual files --------------------------------------------------------------------------------------


def test_store_newer_schema_is_refused(store: Store) -> None:
    store.put_artifact("train", "a", {}, {})
    with store.write() as connection:
        connection.execute("INSERT INTO schema_version VALUES (99, current_timestamp)")
    for use in (lambda: store.artifacts("train"), lambda: store.put_artifact("train", "b", {}, {})):
        with pytest.raises(DataError, match="newer curator: schema 99"):
            use()


def test_store_older_schema_is_upgraded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_artifact("train", "a", {"x": 1}, {})
    more = (*schema.MIGRATIONS, lambda connection: connection.execute("CREATE TABLE new (x INTEGER)"))
    monkeypatch.setattr(schema, "MIGRATIONS", more)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", len(more))
    monkeypatch.setattr(access, "SCHEMA_VERSION", len(more))
    assert [artifact.inputs for artifact in store.artifacts("train")] == [{"x": 1}]
    with store.read() as connection:
        assert connection is not None
        assert schema.version_of(connection) == len(more)
        assert connection.execute("SELECT * FROM new").fetchall() == []


@pytest.mark.parametrize("where", ["header", "blocks", "short", "other"])
def test_store_damaged_file_raises_data_error(store: Store, where: str) -> None:
    rng = np.random.default_rng(0)
    store.put_gradients("set", [str(n) for n in range(3000)], np.zeros(3000), rng.random((3000, 64), np.float32))
    content = bytearray(store.path.read_bytes())
    if where == "header":
        content[:4096] = b"\xff" * 4096
    elif where == "blocks":
        content[3 * 4096 :] = bytes(rng.integers(0, 256, len(content) - 3 * 4096, dtype=np.uint8))
    elif where == "short":
        del content[len(content) // 3 :]
    else:
        content = bytearray(b"not a database at all")
    store.path.write_bytes(content)
    with pytest.raises(DataError, match=r"store\.duckdb") as caught:
        store.gradients("set")
    assert caught.value.exit_code == ExitCode.DATA
    assert ".curator" in caught.value.hint


def test_store_full_disk_keeps_committed_rows(store: Store) -> None:
    """A limit on file sizes stands in for a full disk, because a test without root can set it."""
    store.put_gradients("set", ["kept"], np.zeros(1), np.ones((1, 256), np.float32))
    size = store.path.stat().st_size
    full = python(
        """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from curator.core.errors import DataError
        from curator.workspace.store.tables import Store
        limit = int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        store = Store(Path(sys.argv[1]))
        rows = np.random.default_rng(0).random((20000, 256), np.float32)
        try:
            store.put_gradients("set", [str(n) for n in range(20000)], np.zeros(20000), rows)
        except DataError as error:
            print(error.message, error.hint)
            sys.exit(error.exit_code)
        """,
        str(store.path),
        str(size + 300_000),
    )
    out, err = full.communicate(timeout=60)
    assert full.returncode == ExitCode.DATA, err
    assert "cannot write" in out
    assert "free disk space" in out
    assert store.gradient_hashes("set") == {"kept"}
    store.put_gradients("set", ["more"], np.zeros(1), np.ones((1, 256), np.float32))
    assert store.gradient_hashes("set") == {"kept", "more"}


def test_store_folder_is_file_raises_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot create "):
        Store(tmp_path / "file" / "store.duckdb").put_artifact("train", "a", {}, {})


def test_store_invalid_sql_is_not_converted(store: Store) -> None:
    with pytest.raises(duckdb.CatalogException), store.write() as connection:
        connection.execute("SELECT * FROM nothing")


@pytest.mark.parametrize(
    ("update", "read"),
    [
        ("UPDATE artifacts SET outputs = '{\"a\": '", lambda store: store.artifacts("task")),
        ("UPDATE artifacts SET created = NULL", lambda store: store.artifacts("task")),
        ("UPDATE selections SET name = NULL", lambda store: store.selections()),
        ("UPDATE selections SET created = NULL", lambda store: store.selections()),
        ("UPDATE edits SET changes = 'a'", lambda store: store.sessions("t")),
        ("UPDATE edits SET label = NULL", lambda store: store.sessions("t")),
        ("UPDATE measurements SET subset = '[]'", lambda store: store.measurements("recipe")),
        ("UPDATE measurements SET made = NULL", lambda store: store.measurements("recipe")),
        ("UPDATE run_details SET task_losses = '[1]'", lambda store: store.measurements("recipe")),
        ('UPDATE run_details SET task_losses = \'{"a": {"b": 1}}\'', lambda store: store.measurements("recipe")),
        ("UPDATE metric_values SET subset = repeat('[', 9000)", lambda store: store.metrics("recipe")),
        ("UPDATE notes SET text = NULL", lambda store: store.notes()),
    ],
)
def test_store_unexpected_value_raises_data_error(
    store: Store, update: str, read: Callable[[Store], list[Any]]
) -> None:
    store.put_selection(
        "key", "name", target="t", method="forward", loss=1.0, manifest="{}", inputs={}, outputs={"a": 1}
    )
    store.put_artifact("task", "key", {}, {"a": 1})
    edit = StoredEdit(number=0, kind="set", label="a", changes={}, loss=None, made=datetime.now(UTC))
    store.put_edits("session", "t", [edit])
    store.put_measurement("recipe", "t", {"a": "0"}, seed=0, loss=1.0, seconds=1.0, details=RunDetails())
    store.put_metrics("recipe", "t", {"a": "0"}, seed=0, values=[METRIC])
    store.put_note("task", "a", "", "text")
    assert len(read(store)) == 1
    with store.write() as connection:
        connection.execute(update)
    with pytest.raises(DataError, match=r"unexpected value in|not a JSON object") as raised:
        read(store)
    assert str(store.path) in str(raised.value)
