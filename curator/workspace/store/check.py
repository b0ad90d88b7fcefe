"""Whether a store is sound, and what of one that is not can be saved."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from curator.core.errors import ConfigError, DataError
from curator.core.files import write_whole
from curator.workspace.store.access import Database
from curator.workspace.store.schema import Connection

UNREADABLE_NAME = "unreadable.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """What is left of one table."""

    name: str
    rows: int
    """Rows that can be read."""
    lost: tuple[tuple[int, int | None], ...] = ()
    """First and last number of rows that cannot, from 0; None where not even their number is known."""
    words: str = ""
    """What DuckDB says of the first of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """Whether a store is sound."""

    store: Path
    tables: tuple[TableReport, ...]
    problems: tuple[str, ...]
    """What is wrong, in words; none where all is well."""
    backups: tuple[tuple[Path, int], ...] = ()
    """Copies from before an upgrade, and their bytes."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """As one JSON document."""
        return {
            "schema_version": 1,
            "store": str(self.store),
            "sound": self.sound,
            "tables": [asdict(table) for table in self.tables],
            "problems": list(self.problems),
            "backups": [{"path": str(path), "bytes": size} for path, size in self.backups],
        }


# What must hold of rows that can be read: table, what is wrong with those that are counted, and the count.
_FACTS = (
    ("schema_version", "versions given twice", "SELECT count(*) - count(DISTINCT version) FROM schema_version"),
    ("examples", "examples twice", "SELECT count(*) - count(DISTINCT (task_key, number)) FROM examples"),
    (
        "examples",
        "examples of no task",
        "SELECT count(*) FROM examples WHERE task_key NOT IN (SELECT key FROM artifacts WHERE stage = 'task')",
    ),
    (
        "examples",
        "tasks with other than the rows that were read",
        "SELECT count(*) FROM (SELECT key, list_sum(from_json(outputs -> 'rows', '[\"BIGINT\"]')) AS n FROM artifacts"
        " WHERE stage = 'task') t LEFT JOIN (SELECT task_key, count(*) AS m FROM examples GROUP BY 1) e"
        " ON t.key = e.task_key WHERE coalesce(t.n, 0) <> coalesce(e.m, 0)",
    ),
    (
        "examples",
        "examples with other tokens than labels can be of",
        "SELECT count(*) FROM examples WHERE left_out IS NULL AND (len(labels) = 0 OR completion_tokens < 1)",
    ),
    ("gradients", "gradients twice", "SELECT count(*) - count(DISTINCT (set_key, token_hash)) FROM gradients"),
    (
        "gradients",
        "sets whose gradients have several lengths",
        "SELECT count(*) FROM (SELECT set_key FROM gradients GROUP BY 1 HAVING count(DISTINCT len(gradient)) > 1)",
    ),
    (
        "gradients",
        "gradients or losses that are no numbers",
        "SELECT count(*) FROM gradients WHERE loss IS NULL OR gradient IS NULL OR NOT isfinite(loss)"
        " OR NOT coalesce(isfinite(list_sum(gradient)), true)",
    ),
    ("affinities", "affinities twice", "SELECT count(*) - count(DISTINCT (estimate_key, task)) FROM affinities"),
    (
        "affinities",
        "affinities that are no numbers",
        "SELECT count(*) FROM affinities WHERE affinity IS NULL OR isinf(affinity)",
    ),
    ("estimates", "estimates twice", "SELECT count(*) - count(DISTINCT (estimate_key, subset)) FROM estimates"),
    (
        "estimates",
        "estimates that are no numbers",
        "SELECT count(*) FROM estimates WHERE loss IS NULL OR NOT isfinite(loss)",
    ),
    (
        "measurements",
        "measured losses that are no numbers",
        "SELECT count(*) FROM measurements WHERE loss IS NULL OR NOT isfinite(loss)",
    ),
    ("statistics", "sums twice", "SELECT count(*) - count(DISTINCT (set_key, content)) FROM statistics"),
    (
        "statistics",
        "sums over gradients that are not there",
        "SELECT count(*) FROM statistics WHERE set_key NOT IN (SELECT set_key FROM gradients)",
    ),
    (
        "triangles",
        "pieces of no sum, or twice",
        "SELECT count(*) - count(DISTINCT (number, piece)) FILTER (number IN (SELECT number FROM statistics))"
        " FROM triangles",
    ),
    (
        "triangles",
        "sums with other than all of their pieces",
        "SELECT count(*) FROM (SELECT number, octet_length(pull) // 8 AS k FROM statistics) s LEFT JOIN (SELECT number,"
        " sum(octet_length(numbers)) AS size FROM triangles GROUP BY 1) t USING (number)"
        " WHERE coalesce(t.size, 0) <> 2 * k * (k + 1)",
    ),
    (
        "artifacts",
        "artifacts that are no JSON",
        "SELECT count(*) FROM artifacts WHERE NOT (json_valid(inputs) AND json_valid(outputs))",
    ),
    ("selections", "manifests that are no JSON", "SELECT count(*) FROM selections WHERE NOT json_valid(manifest)"),
    ("edits", "edits that are no JSON", "SELECT count(*) FROM edits WHERE NOT json_valid(changes)"),
    ("measurements", "subsets that are no JSON", "SELECT count(*) FROM measurements WHERE NOT json_valid(subset)"),
)


def check_store(database: Database) -> StoreReport:
    """Read every row, and see whether what is in one table agrees with what is in others. Changes nothing.

    Raises:
        DataError: There is no store, or it is from a newer version.
        StoreBusy: A writer held it for ten seconds.
    """
    with database.lock.held(exclusive=False):
        tables, problems = _read_all(database.path)
    if not problems:
        with database.read() as connection:
            if connection is not None:
                problems = _broken_facts(connection)
    return StoreReport(
        store=database.path,
        tables=tuple(tables),
        problems=tuple(problems),
        backups=tuple((path, path.stat().st_size) for path in database.backups()),
    )


def export_store(database: Database, folder: Path) -> StoreReport:
    """Save what can be read: one Parquet file for each table, and `unreadable.json`, which says what is lost.

    Args:
        database: The store, which may be damaged; it is not changed.
        folder: Where to; made if need be, and empty.

    Raises:
        ConfigError: The folder is not empty.
        DataError: There is no store, or the folder cannot be written.
        StoreBusy: A writer held the store for ten seconds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder}: is not empty", hint="Name a new folder.")
        with database.lock.held(exclusive=False):
            tables, problems = _read_all(database.path, folder)
        report = StoreReport(store=database.path, tables=tuple(tables), problems=tuple(problems))
        write_whole(folder / UNREADABLE_NAME, (json.dumps(report.to_json(), indent=1) + "\n").encode())
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}", hint="Is the disk full or read-only?") from error
    return report


def _read_all(path: Path, folder: Path | None = None) -> tuple[list[TableReport], list[str]]:
    """Read all tables in a process of its own; begin another one after the table at which one died."""
    if not path.exists():
        raise DataError(f"{path}: there is no store", hint="Run `curator check`, which makes one.")
    tables: dict[str, TableReport] = {}
    problems: list[str] = []
    while True:
        done = subprocess.run(  # noqa: S603 - starts this interpreter, from a list of words
            [sys.executable, "-P", "-m", "curator.workspace.store.salvage", str(path), str(folder or ""), *tables],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        said = [json.loads(line) for line in done.stdout.splitlines()]
        for words in said:
            if "error" in words:
                problems.append(f"cannot be opened: {words['error']}")
            elif "read" in words:
                lost = tuple((begin, end) for begin, end in words["lost"])
                name = words["table"]
                tables[name] = TableReport(name=name, rows=words["read"], lost=lost, words=words["words"])
                if lost:
                    problems.append(f"{name}: {_count(lost)} cannot be read: {words['words']}")
        if done.returncode in (0, 1) and (done.returncode == 0 or problems):
            return list(tables.values()), problems
        at = next((words["table"] for words in reversed(said) if "table" in words), None)
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if done.returncode > 0 or at is None or at in tables:
            # It did not die of the file: the disk that is written to is full, perhaps.
            raise DataError(f"{path}: reading it failed: {last}", hint="Is the disk full or read-only?")
        tables[at] = TableReport(name=at, rows=0, lost=((0, None),), words=f"DuckDB ended by signal {-done.returncode}")
        problems.append(f"{at}: DuckDB dies of it (signal {-done.returncode})")


def _count(lost: Sequence[tuple[int, int | None]]) -> str:
    if any(end is None for _, end in lost):
        return "all rows"
    return f"{sum((end or 0) - begin + 1 for begin, end in lost)} rows"


def _broken_facts(connection: Connection) -> list[str]:
    found = []
    for table, words, query in _FACTS:
        try:
            (count,) = connection.execute(query).fetchall()[0]
        except duckdb.Error as error:
            # What was said of the JSON may be in the way of another question.
            found.append(f"{table}: {words}: cannot be told: {str(error).splitlines()[0]}")
            continue
        if count:
            found.append(f"{table}: {count} {words}")
    return found
