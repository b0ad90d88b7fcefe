"""A foreign store reads no file and runs no code of its author. Queries have limits of time and memory."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from conftest import pair_rows, write_rows
from hostile import run_cli

from curator.core.errors import DataError
from curator.select.manifest import stored_manifest


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, tiny_llama_folder: Path) -> Path:
    """Return a project whose examples are stored."""
    folder = tmp_path_factory.mktemp("checked") / "project"
    write_rows(folder / "tasks" / "target.jsonl", pair_rows("target", 6))
    (folder / "curator.toml").write_text(
        f'[model]\nname_or_path = {json.dumps(str(tiny_llama_folder))}\n[data]\ntasks = "tasks/*"\ntarget = "target"\n'
    )
    run_cli("check", "-p", folder, "-q").check(0)
    return folder


def hostile(checked: Path, tmp_path: Path, *statements: str) -> Path:
    """Return a copy of the project whose store an attacker changed."""
    folder = Path(shutil.copytree(checked, tmp_path / "project"))
    with duckdb.connect(str(folder / ".curator" / "store.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)
    return folder


def sql(folder: Path, query: str, *options: str, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
    """Run `curator sql` in another process, which the tests can end."""
    command = [sys.executable, "-P", "-m", "curator", "sql", query, "-p", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)


@pytest.mark.parametrize(
    ("place", "words"),
    [("pipe", "view 'affinities'"), ("project/.curator/pipe", "not a regular file in the results folder")],
)
def test_sql_view_on_pipe_is_refused_at_once(checked: Path, tmp_path: Path, place: str, words: str) -> None:
    pipe = tmp_path / place
    columns = "'' AS estimate_key, '' AS target, content AS task, 0.0 AS affinity, 0.0 AS standard_error"
    # The attacker makes the view while the path is a plain file.
    (tmp_path / "pipe").write_text("x")
    folder = hostile(
        checked,
        tmp_path,
        "DROP TABLE affinities",
        f"CREATE VIEW affinities AS SELECT {columns} FROM read_text('{tmp_path / 'pipe'}')",
    )
    (tmp_path / "pipe").unlink()
    if pipe != tmp_path / "pipe":
        (tmp_path / "pipe").symlink_to(pipe)
    os.mkfifo(pipe)
    done = sql(folder, "FROM affinities", seconds=30)
    assert done.returncode == 3, done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["CREATE VIEW extra AS SELECT content FROM read_text('/etc/hostname')"], "view 'extra'"),
        (["CREATE MACRO extra(x) AS x + 1"], "function 'extra'"),
        (["CREATE MACRO duckdb_views() AS TABLE SELECT 1", "CREATE VIEW hidden AS SELECT 1"], "'duckdb_views'"),
        (["CREATE TYPE extra AS ENUM ('a')"], "type 'extra'"),
        (["CREATE SEQUENCE extra"], "sequence 'extra'"),
        (["CREATE SCHEMA extra"], "schema 'extra'"),
        (["CREATE TABLE extra (a INTEGER)"], "tables"),
        (["DROP TABLE edits"], "tables"),
        (["ALTER TABLE estimates ADD COLUMN extra INTEGER"], "tables"),
        (["DROP TABLE arrays", "CREATE TABLE arrays (key VARCHAR, name VARCHAR AS (upper(key)))"], "tables"),
    ],
)
def test_sql_store_with_foreign_entries_is_refused(
    checked: Path, tmp_path: Path, statements: list[str], words: str
) -> None:
    folder = hostile(checked, tmp_path, *statements)
    done = run_cli("sql", "SELECT 1", "-p", folder).check(3)
    assert words in done.err
    assert "store.duckdb" in done.err


@pytest.mark.parametrize("command", ["status", "check"])
def test_commands_endless_view_in_store_is_refused(checked: Path, tmp_path: Path, command: str) -> None:
    """A view in the place of a table can compute for ever. No command uses the view."""
    folder = hostile(
        checked,
        tmp_path,
        "DROP TABLE schema_version",
        "CREATE VIEW schema_version AS SELECT max(a.range + b.range) AS version"
        " FROM range(1000000000) a, range(1000000000) b",
    )
    words = [sys.executable, "-P", "-m", "curator", command, "-p", str(folder), "-q"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3, done.stderr
    assert "view 'schema_version'" in done.stderr


# -- limits of queries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM range(1000000000000) a, range(1000) b",
        # DuckDB cannot interrupt one call of a function.
        "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))",
    ],
)
def test_sql_query_over_time_limit_ends(checked: Path, query: str) -> None:
    start = time.monotonic()
    done = sql(checked, query, "--timeout", "1")
    assert done.returncode == 2, done.stderr
    assert "longer than 1 second" in done.stderr
    assert "--timeout" in done.stderr
    assert time.monotonic() - start < 30


def test_sql_query_within_time_limit_answers(checked: Path) -> None:
    assert sql(checked, "SELECT 41 + 1 AS answer", "--timeout", "30", "--format", "csv").stdout == "answer\n42\n"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT count(*) FROM (SELECT DISTINCT i FROM range(2000000000) t(i))", "more memory than 1GiB"),
        ("SELECT repeat('x', 20000) || i AS a FROM range(10000000) t(i)", "result is larger than 512 MiB"),
        ("SELECT sum(length(repeat('x', 3000000) || i)) FROM range(2000) t(i)", "more memory"),
    ],
)
def test_sql_query_over_memory_limit_ends(checked: Path, query: str, words: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = sql(checked, query, "--format", "csv", "--timeout", "60", seconds=120)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "error:" in done.stderr
    assert max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, before) < 3 * 2**20, "kB"


@pytest.mark.parametrize("text", ["{}", "[" * 9000, "a"])
def test_stored_manifest_damaged_text_raises_data_error(text: str) -> None:
    with pytest.raises(DataError, match="not a manifest of this version of curator: a selection in the store: "):
        stored_manifest(text)
