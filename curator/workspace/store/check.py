"""Check whether a store is sound, and save the readable rows of a damaged store."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from curator.core.errors import ConfigError, DataError
from curator.core.files import CHECK_DISK, write_whole
from curator.core.interpreters import module_command
from curator.workspace.store.access import Database
from curator.workspace.store.schema import Connection

UNREADABLE_NAME = "unreadable.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """Readable and lost rows of one table."""

    name: str
    rows: int
    """Rows that can be read."""
    lost: tuple[tuple[int, int | None], ...] = ()
    """First and last number of each range of unreadable rows, from 0. None stands for an unknown last number."""
    words: str = ""
    """DuckDB's error for the first unreadable row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """Result of `check_store` or `export_store`."""

    store: Path
    tables: tuple[TableReport, ...]
    problems: tuple[str, ...]
    """One message for each problem. Empty if the store is sound."""
    backups: tuple[tuple[Path, int], ...] = ()
    """Copies that upgrades made, and their size in bytes."""

    @property
    def sound(self) -> bool:
        """Return whether the store has no problem."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON document."""
        return {
            "schema_version": 1,
            "store": str(self.store),
            "sound": self.sound,
            "tables": [asdict(table) for table in self.tables],
            "problems": list(self.problems),
            "backups": [{"path": str(path), "bytes": size} for path, size in self.backups],
        }


# Conditions on readable rows: table, description of the rows that violate the condition, and a query that counts them.
_FACTS = (
    ("schema_version", "duplicate versions", "SELECT count(*) - count(DISTINCT version) FROM schema_version"),
    ("examples", "duplicate examples", "SELECT count(*) - count(DISTINCT (task_key, number)) FROM examples"),
    (
        "examples",
        "examples without a task",
        "SELECT count(*) FROM examples WHERE task_key NOT IN (SELECT key FROM artifacts WHERE stage = 'task')",
    ),
    (
        "examples",
        "tasks whose number of examples differs from the number of rows read",
        "SELECT count(*) FROM (SELECT key, list_sum(from_json(outputs -> 'rows', '[\"BIGINT\"]')) AS n FROM artifacts"
        " WHERE stage = 'task') t LEFT JOIN (SELECT task_key, count(*) AS m FROM examples GROUP BY 1) e"
        " ON t.key = e.task_key WHERE coalesce(t.n, 0) <> coalesce(e.m, 0)",
    ),
    (
        "examples",
        "examples with invalid labels or completion tokens",
        "SELECT count(*) FROM examples WHERE left_out IS NULL AND (len(labels) = 0 OR completion_tokens < 1)",
    ),
    ("gradients", "duplicate gradients", "SELECT count(*) - count(DISTINCT (set_key, token_hash)) FROM gradients"),
    (
        "gradients",
        "sets with gradients of different lengths",
        "SELECT count(*) FROM (SELECT set_key FROM gradients GROUP BY 1 HAVING count(DISTINCT len(gradient)) > 1)",
    ),
    (
        "gradients",
        "gradients or losses that are not finite",
        # Training captures gradients without losses.
        "SELECT count(*) FROM gradients WHERE gradient IS NULL OR NOT coalesce(isfinite(loss), true)"
        " OR NOT coalesce(isfinite(list_sum(gradient)), true)",
    ),
    ("affinities", "duplicate affinities", "SELECT count(*) - count(DISTINCT (estimate_key, task)) FROM affinities"),
    (
        "affinities",
        "affinities that are null or infinite",
        "SELECT count(*) FROM affinities WHERE affinity IS NULL OR isinf(affinity)",
    ),
    ("estimates", "duplicate estimates", "SELECT count(*) - count(DISTINCT (estimate_key, subset)) FROM estimates"),
    (
        "estimates",
        "estimates that are not finite",
        "SELECT count(*) FROM estimates WHERE loss IS NULL OR NOT isfinite(loss)",
    ),
    (
        "measurements",
        "measured losses that are not finite",
        "SELECT count(*) FROM measurements WHERE loss IS NULL OR NOT isfinite(loss)",
    ),
    (
        "metric_values",
        "values of a metric that are not finite",
        "SELECT count(*) FROM metric_values WHERE value IS NULL OR NOT isfinite(value)",
    ),
    (
        "metric_values",
        "subsets that are not JSON",
        "SELECT count(*) FROM metric_values WHERE NOT json_valid(subset)",
    ),
    (
        "run_details",
        "details without a run",
        "SELECT count(*) FROM run_details ANTI JOIN measurements USING (recipe, subset, seed)",
    ),
    ("statistics", "duplicate sums", "SELECT count(*) - count(DISTINCT (set_key, content)) FROM statistics"),
    (
        "statistics",
        "sums without gradients",
        "SELECT count(*) FROM statistics WHERE set_key NOT IN (SELECT set_key FROM gradients)",
    ),
    (
        "triangles",
        "pieces that are duplicate or have no sum",
        "SELECT count(*) - count(DISTINCT (number, piece)) FILTER (number IN (SELECT number FROM statistics))"
        " FROM triangles",
    ),
    (
        "triangles",
        "sums with missing or extra pieces",
        "SELECT count(*) FROM (SELECT number, octet_length(pull) // 8 AS k FROM statistics) s LEFT JOIN (SELECT number,"
        " sum(octet_length(numbers)) AS size FROM triangles GROUP BY 1) t USING (number)"
        " WHERE coalesce(t.size, 0) <> 2 * k * (k + 1)",
    ),
    ("segment_sums", "duplicate sums", "SELECT count(*) - count(DISTINCT (set_key, content)) FROM segment_sums"),
    (
        "segment_sums",
        "sums of different sizes in one segment",
        "SELECT coalesce(sum(sizes - 1), 0) FROM (SELECT count(DISTINCT (octet_length(gradient_sum),"
        " octet_length(curvature))) AS sizes FROM segment_sums GROUP BY set_key)",
    ),
    (
        "arrays",
        "arrays whose size differs from their shape",
        "SELECT count(*) FROM arrays WHERE octet_length(numbers) <> 4 * list_product(shape)",
    ),
    (
        "artifacts",
        "artifacts that are not JSON",
        "SELECT count(*) FROM artifacts WHERE NOT (json_valid(inputs) AND json_valid(outputs))",
    ),
    (
        "selections",
        "manifests that are not JSON",
        "SELECT count(*) FROM selections WHERE NOT json_valid(manifest)",
    ),
    ("edits", "edits that are not JSON", "SELECT count(*) FROM edits WHERE NOT json_valid(changes)"),
    (
        "measurements",
        "subsets that are not JSON",
        "SELECT count(*) FROM measurements WHERE NOT json_valid(subset)",
    ),
    (
        "run_details",
        "losses of tasks that are not JSON",
        "SELECT count(*) FROM run_details WHERE NOT json_valid(task_losses)",
    ),
)


def check_store(database: Database) -> StoreReport:
    """Read every row and check that the tables agree. The store is not changed.

    Raises:
        DataError: The store does not exist, or is from a newer version.
        StoreBusy: A writer held the store for ten seconds.
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
    """Save the readable rows: one Parquet file for each table, and `unreadable.json` with the lost rows.

    Args:
        database: The store, which may be damaged. The store is not changed.
        folder: Output folder. Created if missing. Must be empty.

    Raises:
        ConfigError: The folder is not empty.
        DataError: The store does not exist, or the folder cannot be written.
        StoreBusy: A writer held the store for ten seconds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"folder is not empty: {folder}", hint="Pass a new or an empty folder.")
        with database.lock.held(exclusive=False):
            tables, problems = _read_all(database.path, folder)
        report = StoreReport(store=database.path, tables=tuple(tables), problems=tuple(problems))
        write_whole(folder / UNREADABLE_NAME, (json.dumps(report.to_json(), indent=1) + "\n").encode())
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error}", hint=CHECK_DISK) from error
    return report


def _read_all(path: Path, folder: Path | None = None) -> tuple[list[TableReport], list[str]]:
    """Read all tables in a child process. If the child dies at a table, another child reads the next tables."""
    if not path.exists():
        raise DataError(f"store does not exist: {path}", hint="Run `curator check` to create the store.")
    tables: dict[str, TableReport] = {}
    problems: list[str] = []
    while True:
        done = subprocess.run(  # noqa: S603 - starts this interpreter, from a list of words
            [*module_command("curator.workspace.store.salvage", str(path), str(folder or ""), *tables)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        replies = [json.loads(line) for line in done.stdout.splitlines()]
        for reply in replies:
            if "error" in reply:
                problems.append(f"cannot open the store: {reply['error']}")
            elif "read" in reply:
                lost = tuple((begin, end) for begin, end in reply["lost"])
                name = reply["table"]
                tables[name] = TableReport(name=name, rows=reply["read"], lost=lost, words=reply["words"])
                if lost:
                    problems.append(f"{name}: cannot read {_count(lost)}: {reply['words']}")
        if done.returncode in (0, 1) and (done.returncode == 0 or problems):
            return list(tables.values()), problems
        at = next((reply["table"] for reply in reversed(replies) if "table" in reply), None)
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if done.returncode > 0 or at is None or at in tables:
            # The store is not the cause. The disk of the output folder may be full.
            raise DataError(f"cannot read {path}: {last}", hint=CHECK_DISK)
        crash = f"DuckDB crashed with signal {-done.returncode}"
        tables[at] = TableReport(name=at, rows=0, lost=((0, None),), words=crash)
        problems.append(f"{at}: cannot read all rows: {crash}")


def _count(lost: Sequence[tuple[int, int | None]]) -> str:
    if any(end is None for _, end in lost):
        return "all rows"
    return f"{sum((end or 0) - begin + 1 for begin, end in lost)} rows"


def _broken_facts(connection: Connection) -> list[str]:
    found = []
    for table, violation, query in _FACTS:
        try:
            (count,) = connection.execute(query).fetchall()[0]
        except duckdb.Error as error:
            # Invalid JSON can break a query of another condition.
            found.append(f"{table}: cannot check for {violation}: {str(error).splitlines()[0]}")
            continue
        if count:
            found.append(f"{table}: {count} {violation}")
    return found
