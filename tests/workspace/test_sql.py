"""`curator sql`: views match the project and docs/reference/sql.md, and queries access only the views."""

import csv
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest
from conftest import pair_rows, write_rows
from typer.testing import CliRunner

from curator.cli.app import app
from curator.core.errors import ConfigError, DataError, StoreBusy
from curator.core.interpreters import module_command
from curator.project.project import Project
from curator.project.sql_tables import project_tables
from curator.training.fine_tune import recipe_key, subset_content
from curator.workspace.store import query_process
from curator.workspace.store.sql import run_query

MakeProject = Callable[..., Path]
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "sql.md"
_made: dict[str, Path] = {}


@pytest.fixture
def folder(make_project: MakeProject, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a project with a selection, estimates and invented measurements."""
    if not _made:
        tasks: dict[str, list[dict[str, Any]]] = {"target": pair_rows("target", 12)}
        tasks |= {t: pair_rows(t, 8) for t in ("alpha", "beta", "it's \x1b[31m")}
        tasks["alpha"] += [{"prompt": "empty", "completion": " "}]
        made = make_project("made", tasks=tasks, project={"name": "p"}, train={"epochs": 1})
        project = Project.open(made)
        project.select(include=["beta"], exclude=["alpha"], name="mine")
        project.estimate_all([["alpha"], ["beta", "alpha"], []])
        corpus = project.corpus(("target",))
        recipe = recipe_key(project.config, corpus)
        for seed, loss in ((1, 2.0), (2, 2.5)):
            content = subset_content(corpus, {"alpha", "beta"})
            project.store.put_measurement(recipe, "target", content, seed=seed, loss=loss, seconds=3.0)
        project.store.put_measurement("another", "target", {"gone": "x"}, seed=1, loss=9.0, seconds=1.0)
        _made["made"] = Path(shutil.copytree(made, tmp_path_factory.mktemp("sql") / "p"))
    return Path(shutil.copytree(_made["made"], tmp_path / "p"))


def _ask(folder: Path, query: str) -> list[dict[str, Any]]:
    return Project.open(folder).sql(query).rows()


def _invoke(folder: Path, *arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(app, ["sql", *arguments, "-p", str(folder)], catch_exceptions=True, **options)


def test_sql_views_match_documentation(folder: Path) -> None:
    documented: dict[str, list[tuple[str, str]]] = {}
    for part in re.split(r"^## ", DOCS.read_text(encoding="utf-8"), flags=re.M)[1:]:
        columns = re.findall(r"^\| `(\w+)` \| ([A-Z\[\]]+) \| \S.*\|$", part, flags=re.M)
        if columns:
            documented[part.split("\n")[0]] = columns
    found: dict[str, list[tuple[str, str]]] = {}
    for row in _ask(folder, ""):
        found.setdefault(row["view"], []).append((row["column"], row["type"]))
    assert found == documented
    assert set(found) == {"tasks", "examples", "affinities", "subsets", "runs", "metrics", "selections"}
    for view in found:
        described = [(row["column_name"], row["column_type"]) for row in _ask(folder, f"DESCRIBE {view}")]
        assert described == found[view]
    assert "affinities" in _invoke(folder).stdout


def test_sql_views_match_project_results(folder: Path) -> None:
    project = Project.open(folder)
    checked = {task.name: task for task in project.check().tasks}
    tasks = {row["task"]: row for row in _ask(folder, "FROM tasks")}
    assert set(tasks) == set(checked)
    for name, row in tasks.items():
        task = checked[name]
        assert (row["target"], row["rows"], row["examples"], row["validation"], row["tokens"], row["truncated"]) == (
            task.target, task.rows, task.examples, task.validation, task.tokens, task.truncated,
        )  # fmt: skip
        assert row["files"] == [f"tasks/{name}.jsonl"]
        assert row["rows"] == row["examples"] + row["validation"] + row["left_out"]
    counted = _ask(folder, "SELECT task, split, reason, count(*) AS n, sum(tokens) AS t FROM examples GROUP BY ALL")
    assert {(r["task"], r["n"], r["t"]) for r in counted if r["split"] == "train"} == {
        (name, task.examples, task.tokens) for name, task in checked.items()
    }
    assert [(r["task"], r["n"], r["reason"]) for r in counted if r["split"] == "left out"] == [("alpha", 1, "empty")]
    held_out = [number + 1 for number in project.corpus(("target",)).target_tasks[0].split.validation]
    assert [r["row"] for r in _ask(folder, "FROM examples WHERE split = 'validation' ORDER BY row")] == held_out
    (first,) = _ask(folder, "FROM examples WHERE task = 'beta' AND row = 3")
    row = pair_rows("beta", 8)[2]
    assert first["text"].endswith(row["prompt"] + row["completion"] + "</s>") or row["prompt"] in first["text"]
    assert (first["file"], first["line"]) == ("beta.jsonl", 3)
    manifest = json.loads((folder / "curator-manifest.json").read_text())
    affinities = {r["task"]: (r["affinity"], r["standard_error"]) for r in _ask(folder, "FROM affinities")}
    assert affinities == {t["name"]: (t["affinity"], t["affinity_standard_error"]) for t in manifest["tasks"]}
    (selection,) = _ask(folder, "FROM selections")
    assert selection["subset"] == [t["name"] for t in manifest["tasks"] if t["selected"]]
    assert selection["weights"] == [1.0] * len(selection["subset"])
    for name in ("estimated_loss", "estimated_loss_low", "estimated_loss_high", "measured_loss", "name", "method"):
        assert selection[name] == manifest[name]
    assert selection["current"]
    assert json.loads(selection["manifest"])["name"] == "mine"


def test_sql_views_flag_outdated_rows(folder: Path) -> None:
    def subsets() -> dict[tuple[str, ...], tuple[Any, ...]]:
        rows = _ask(folder, "FROM subsets")
        return {tuple(r["subset"]): (r["current"], r["measured_loss"], r["runs"], r["size"]) for r in rows}

    runs = _ask(folder, "FROM runs ORDER BY measured_loss")
    assert [(r["subset"], r["seed"], r["measured_loss"], r["current"]) for r in runs] == [
        (["alpha", "beta"], 1, 2.0, True), (["alpha", "beta"], 2, 2.5, True), (["gone"], 1, 9.0, False),
    ]  # fmt: skip
    # The measurements are newer than the estimates, so the estimates are outdated.
    assert subsets() == {
        ("alpha",): (False, None, 0, 1),
        ("alpha", "beta"): (False, 2.25, 2, 2),
        (): (False, None, 0, 0),
    }
    assert {r["current"] for r in _ask(folder, "FROM affinities")} == {False}
    project = Project.open(folder)
    estimate = project.estimate(["alpha"])
    project.select(method="ensemble")
    assert subsets()[("alpha",)] == (True, None, 0, 1)
    assert {r["current"] for r in _ask(folder, "FROM affinities")} == {True}
    (row,) = _ask(folder, "FROM subsets WHERE size = 1")
    assert row["estimated_loss"] == estimate.estimated_loss
    assert {(r["name"], r["current"]) for r in _ask(folder, "FROM selections")} == {("mine", False), ("ensemble", True)}
    write_rows(folder / "tasks" / "alpha.jsonl", pair_rows("changed", 5))
    with pytest.raises(DataError, match="not read yet") as raised:
        _ask(folder, "FROM tasks")
    assert "curator check" in raised.value.hint
    Project.open(folder).check()
    assert {r["current"] for r in _ask(folder, "FROM runs")} == {False}
    assert subsets()[("alpha",)] == (False, None, 0, 1)
    assert ("alpha", "beta") in subsets(), "an estimate of the subset is stored"
    # The older version of the task is still in the store, but in no view.
    assert _ask(folder, "SELECT count(*) AS n FROM examples WHERE task = 'alpha'") == [{"n": 5}]


REFUSED = [
    ("INSERT INTO tasks VALUES (1)", "INSERT"),
    ("DROP TABLE store.examples", "DROP"),
    ("DELETE FROM store.examples", "DELETE"),
    ("WITH x AS (INSERT INTO present.keys VALUES ('a', 'b') RETURNING 1) FROM x", "read-only"),
    ("WITH x AS (INSERT INTO store.file_hashes VALUES ('a', 1, 1, 1, 'b', 1) RETURNING 1) FROM x", "read-only"),
    ("COPY tasks TO '{place}/out.csv'", "COPY"),
    ("EXPLAIN ANALYZE COPY tasks TO '{place}/out.csv'", "not allowed"),
    ("COPY (SELECT 1) TO '{place}/out.csv'", "COPY"),
    ("EXPORT DATABASE '{place}/out'", "EXPORT"),
    ("ATTACH '{place}/other.duckdb'", "ATTACH"),
    ("FROM read_csv('{place}/secret.csv')", "not allowed"),
    ("FROM '{place}/secret.csv'", "not allowed"),
    ("FROM read_text('{place}/secret.csv')", "not allowed"),
    ("FROM read_blob('{place}/secret.csv')", "not allowed"),
    ("FROM sniff_csv('{place}/secret.csv')", "not allowed"),
    ("FROM glob('{place}/*')", "not allowed"),
    ("FROM query('COPY tasks TO ''{place}/out.csv''')", "SELECT"),
    ("FROM 'https://example.org/x.parquet'", ""),
    ("SELECT getenv('HOME')", "getenv"),
    ("INSTALL httpfs", "LOAD"),
    ("LOAD httpfs", "LOAD"),
    ("SET enable_external_access = true", "SET"),
    ("RESET lock_configuration", ""),
    ("PRAGMA enable_external_access", ""),
    ("CALL pragma_version()", "CALL"),
    ("BEGIN", "TRANSACTION"),
    ("SELECT 1; SELECT 2", "2 statements"),
    ("SELECT 1; DROP TABLE store.examples", "2 statements"),
    ("-- nothing", "0 statements"),
    ("SELEC 1", "syntax error"),
    ("SELECT nope FROM tasks", "nope"),
    ("SELECT $1", ""),
    ("FROM folder", "folder"),
]


def test_sql_refused_statement_reads_and_writes_nothing(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.csv").write_text("a\nswordfish\n")
    project = Project.open(folder)
    now = project_tables(project.workspace, project.corpus(("target",)))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.suffix not in (".duckdb", ".lock")}
    for query, words in REFUSED:
        with pytest.raises(ConfigError) as raised:
            run_query(project.store.path, query.format(place=tmp_path), now, None)
        assert raised.value.exit_code == 2
        assert words in raised.value.message + raised.value.hint, query
        assert raised.value.hint
        assert "swordfish" not in raised.value.message
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.suffix not in (".duckdb", ".lock")}
    assert after == before
    assert len(_ask(folder, "FROM tasks")) == 4


@pytest.mark.parametrize("row", [0, 100_000])
def test_sql_failed_cast_blames_the_query_in_every_batch(folder: Path, row: int) -> None:
    query = f"SELECT CASE i WHEN {row} THEN 'x' ELSE '1' END::INT AS n FROM range(200000) t(i)"
    with pytest.raises(ConfigError, match="query failed: Conversion Error: Could not convert string 'x'"):
        _ask(folder, query)


def test_sql_formats_have_equal_rows(folder: Path, tmp_path: Path) -> None:
    query = "SELECT task, tags, affinity, NULL AS nothing, 1 AS a, 2 AS a FROM affinities JOIN tasks USING (task)"
    query += " ORDER BY task"
    document = json.loads(_invoke(folder, query, "--json").stdout)
    assert document["schema_version"] == 1
    assert document["total"] == 3
    rows = document["rows"]
    assert [row["task"] for row in rows] == ["alpha", "beta", "it's \x1b[31m"]
    assert [column["name"] for column in document["columns"]] == ["task", "tags", "affinity", "nothing", "a", "a_2"]
    lines = list(csv.DictReader(io.StringIO(_invoke(folder, query, "--format", "csv").stdout)))
    assert [(line["task"], float(line["affinity"]), line["nothing"], line["tags"]) for line in lines] == [
        (row["task"], row["affinity"], "", "[]") for row in rows
    ]
    out = tmp_path / "out.parquet"
    assert _invoke(folder, query, "-o", str(out)).exit_code == 0
    assert pyarrow.parquet.read_table(out).to_pylist() == rows
    piped = _invoke(folder, query, "--format", "parquet").stdout_bytes
    assert piped == out.read_bytes()
    shown = _invoke(folder, "-", input=query).stdout
    assert "NULL" in shown
    assert "\x1b" not in shown
    assert "it's \N{REPLACEMENT CHARACTER}[31m" in shown
    frame = Project.open(folder).sql(query).to_pandas()
    assert frame["affinity"].tolist() == [row["affinity"] for row in rows]
    assert str(Project.open(folder).sql("SELECT sum(tokens) AS t FROM tasks").to_pandas()["t"].dtype) == "int64"


def test_sql_table_shows_first_rows(folder: Path, tmp_path: Path) -> None:
    done = _invoke(folder, "SELECT range AS n FROM range(20000)")
    assert done.stdout.count("\n") < 110
    assert "showing 100 of 20,000 rows" in done.stderr
    assert "first" not in _invoke(folder, "SELECT range AS n FROM range(20000)", "-q").stderr
    assert _invoke(folder, "SELECT range AS n FROM range(20000)", "--format", "csv").stdout.count("\n") == 20001
    for arguments, words in (
        (["--format", "xml"], "unknown format"),
        (["-o", str(tmp_path / "x.txt")], "cannot write a table"),
    ):
        done = _invoke(folder, "FROM tasks", *arguments)
        assert isinstance(done.exception, ConfigError)
        assert words in done.exception.message


def test_sql_missing_store_suggests_commands(make_project: MakeProject) -> None:
    with pytest.raises(DataError, match="store does not exist") as raised:
        _ask(make_project(), "FROM tasks")
    assert "curator check" in raised.value.hint
    assert "curator select" in raised.value.hint


def test_sql_busy_store_names_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.open(folder)
    monkeypatch.setattr("curator.workspace.store.locks._LOCK_SECONDS", 0.1)
    with project.store.write(), pytest.raises(StoreBusy, match=str(os.getpid())):
        Project.open(folder).sql("FROM tasks")


def _running_queries() -> list[psutil.Process]:
    # A killed process is a zombie until Python looks at it.
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if any("query_worker" in word for word in child.cmdline())]


def test_sql_long_query_can_be_interrupted(folder: Path) -> None:
    project = Project.open(folder)
    threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        project.sql("SELECT count(*) FROM range(1000000000000) WHERE range % 7 = 3")
    assert not _running_queries()

    # DuckDB raises this error for an interrupt in one of curator's queries.
    with pytest.raises(KeyboardInterrupt), project.store.read():
        raise RuntimeError("Query interrupted")
    assert project.sql("SELECT 1 AS one").rows() == [{"one": 1}]


def test_sql_call_that_cannot_be_interrupted_leaves_nothing_behind(folder: Path) -> None:
    project, before = Project.open(folder), resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(ConfigError, match="longer than 1 second"):
        project.sql("SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))", timeout=1)
    assert not _running_queries()
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert project.sql("SELECT 1 AS one").rows() == [{"one": 1}]
    with project.store.write():
        pass


def test_sql_process_whose_parent_is_gone_ends(folder: Path) -> None:
    project = Project.open(folder)
    request = {"path": str(project.store.path), "sql": "SELECT count(*) FROM range(1000000000000)", "limit": None}
    present = project_tables(project.workspace, project.corpus(("target",)))
    text = json.dumps(request | {"seconds": 0.5}).encode() + b"\n" + query_process._streams(present)
    done = subprocess.run(
        [*module_command("curator.workspace.store.query_worker")], input=text, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGALRM


def test_sql_process_that_dies_is_named_with_its_signal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_process, "module_command", lambda _: ["sh", "-c", "cat > /dev/null; kill -ABRT $$"])
    with pytest.raises(ConfigError, match="SIGABRT"):
        Project.open(folder).sql("SELECT 1")
