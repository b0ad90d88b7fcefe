"""DuckDB instances are reused between accesses and do not hold the store in between."""

import os
import threading
from pathlib import Path

import duckdb
import pytest

from curator.workspace.store.instances import Instances
from curator.workspace.store.tables import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / ".curator" / "store.duckdb")
    made.put_artifact("task", "key", {}, {"n": 1})
    return made


def _open_files(name: str) -> list[str]:
    files = Path("/proc/self/fd")
    if not files.exists():
        pytest.skip("/proc does not exist")
    found = [os.readlink(path) for path in files.iterdir() if path.exists()]
    return [path for path in found if name in path]


def test_store_second_access_reuses_instance(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(store.artifacts("task")) == 1
    made = []
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda *given, **named: made.append(given) or connect(*given, **named))
    for number in range(3):
        store.put_artifact("task", f"key {number}", {}, {"n": 1})
        assert len(store.artifacts("task")) == number + 2
    assert made == []
    assert _open_files("store.duckdb") == []


def test_store_four_threads_read_at_once(store: Store) -> None:
    inside, problems = threading.Barrier(4, timeout=30), []

    def look() -> None:
        try:
            with store.read() as connection:
                assert connection is not None
                inside.wait()
                assert connection.execute("SELECT count(*) FROM artifacts").fetchall() == [(1,)]
                inside.wait()
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    store.put_artifact("task", "another", {}, {"n": 1})
    assert len(store.artifacts("task")) == 2


def test_store_forked_process_makes_own_instances(store: Store) -> None:
    assert len(store.artifacts("task")) == 1
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.put_artifact("task", "of the child", {}, {"n": 1})
            code = 0 if len(store.artifacts("task")) == 2 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(store.artifacts("task")) == 2


def test_instances_failed_connection_is_not_reused(store: Store) -> None:
    instances = Instances(store.path)
    with pytest.raises(duckdb.CatalogException), instances.attached(read_only=True) as failed:
        failed.execute("SELECT * FROM missing_table")
    with pytest.raises(duckdb.ConnectionException):
        failed.execute("SELECT 1")
    with instances.attached(read_only=True) as another:
        assert another is not failed
    with instances.attached(read_only=False) as again:
        assert again is another


def test_store_read_cannot_access_other_files(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with store.read() as connection:
        assert connection is not None
        for query in (
            f"SELECT * FROM read_text('{secret}')",
            f"SELECT * FROM read_text('{store.path.parent}/../secret.txt')",
            f"ATTACH '{tmp_path / 'other.duckdb'}'",
            "SET enable_external_access = true",
            "SET allowed_directories = ['/']",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(query).fetchall()
