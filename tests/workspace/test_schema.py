"""Upgrades from every earlier schema, in one transaction, with a copy of the old store."""

import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pytest

from curator.core.errors import DataError
from curator.workspace.store import access, schema
from curator.workspace.store.tables import Store

SECTIONS = re.split(r"(?m)^-- schema \d+$", (Path(__file__).with_name("store_schemas.sql")).read_text())[1:]
OLDER = range(1, schema.SCHEMA_VERSION)


def make_store(path: Path, version: int) -> Store:
    """Create a store with an older schema."""
    path.parent.mkdir()
    with duckdb.connect(str(path)) as connection:
        for section in SECTIONS[:version]:
            connection.execute(section)
    return Store(path)


def rows_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def layout_of(path: Path) -> list[tuple[object, ...]]:
    """Return tables, columns and types."""
    query = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal ORDER BY ALL"
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".curator" / "store.duckdb"


def test_store_schemas_sql_covers_every_schema() -> None:
    assert len(SECTIONS) == schema.SCHEMA_VERSION, "add the tables of the new schema, with a row, to store_schemas.sql"


@pytest.mark.parametrize("version", OLDER)
def test_store_older_schema_is_upgraded_without_loss(path: Path, tmp_path: Path, version: int) -> None:
    store = make_store(path, version)
    before = rows_of(path)
    # Reading upgrades the store.
    assert store.gradients("set")[0] == ["th"]
    after = rows_of(path)
    added = {row[0] for row in after.pop("schema_version")}
    assert added == set(range(1, schema.SCHEMA_VERSION + 1))
    kept = {name: rows for name, rows in before.items() if name != "schema_version"}
    # Schema 6 adds a column to the right of the others.
    after["file_hashes"] = [row[: len(kept["file_hashes"][0])] for row in after["file_hashes"]]
    assert {name: rows for name, rows in after.items() if rows} == kept
    new = Store(tmp_path / "new" / "store.duckdb")
    new.put_artifact("stage", "key", {}, {})
    assert layout_of(path) == layout_of(new.path)
    (copy,) = store.backups()
    assert copy.name == f"store.schema-{version}.duckdb"
    assert rows_of(copy) == before
    store.put_measurement("r", "target", {}, seed=1, loss=1.0, seconds=1.0)
    assert store.backups() == [copy], "only an upgrade makes a copy"


def test_store_current_schema_is_not_copied(path: Path) -> None:
    store = make_store(path, schema.SCHEMA_VERSION)
    store.put_artifact("stage", "key", {}, {})
    assert store.backups() == []


def test_store_upgrade_copy_replaces_earlier_copy(path: Path) -> None:
    store = make_store(path, schema.SCHEMA_VERSION - 1)
    (path.parent / "store.schema-1.duckdb").write_bytes(b"old")
    store.put_artifact("stage", "key", {}, {})
    assert [copy.name for copy in store.backups()] == [f"store.schema-{schema.SCHEMA_VERSION - 1}.duckdb"]


KILLED = """
import os, signal, sys
from pathlib import Path
from curator.workspace.store.tables import Store; from curator.workspace.store import schema
def killed(connection):
    steps[-1](connection)
    os.kill(os.getpid(), signal.SIGKILL)
steps = schema.MIGRATIONS
schema.MIGRATIONS = (*steps[:-1], killed)
Store(Path(sys.argv[1])).artifacts("task")
"""


def test_store_killed_upgrade_leaves_store_unchanged(path: Path) -> None:
    store = make_store(path, 1)
    before = rows_of(path)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert rows_of(path) == before
    assert rows_of(store.backups()[0]) == before
    assert store.gradients("set")[0] == ["th"]


def test_store_failed_upgrade_leaves_store_unchanged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(path, 1)
    before = rows_of(path)

    def fails(connection: schema.Connection) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS[:-1], fails))
        with pytest.raises(ZeroDivisionError):
            store.artifacts("task")
    assert rows_of(path) == before
    assert len(store.artifacts("task")) == 1


def test_store_upgrade_without_space_raises_data_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(path, 2)
    before = rows_of(path)

    def full(source: Path, there: Path) -> None:
        there.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(access.shutil, "copyfile", full)
        with pytest.raises(DataError, match=r"cannot copy .*No space left") as caught:
            store.artifacts("task")
    assert "MB" in caught.value.hint
    assert rows_of(path) == before
    assert not list(path.parent.glob("*partial"))
    assert len(store.artifacts("task")) == 1
