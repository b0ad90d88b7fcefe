"""`curator check --store` and `curator export-store`: check the store, and save its readable rows."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from curator.core.errors import DataError
from curator.core.files import check_results_folder, find_project
from curator.core.text import clean

if TYPE_CHECKING:
    from curator.workspace.store.check import StoreReport

_WAY_OUT = (
    "Run `curator export-store DIR` to save the readable rows. Then delete `.curator/store.duckdb`."
    " The same commands compute the results again. Your data is not affected."
)


def check(project: Path | None) -> "StoreReport":
    """Read every row of a project's store. The configuration may be invalid.

    Raises:
        ConfigError, DataError, StoreBusy: As `check_store`.
    """
    from curator.workspace.store.check import check_store
    from curator.workspace.store.tables import Store

    return check_store(Store(_path(project)))


def export(project: Path | None, folder: Path) -> "StoreReport":
    """Save the readable rows of a project's store.

    Raises:
        ConfigError, DataError, StoreBusy: As `export_store`.
    """
    from curator.workspace.store.check import export_store
    from curator.workspace.store.tables import Store

    return export_store(Store(_path(project)), folder)


def show(report: "StoreReport") -> None:
    """Print tables with their rows, problems and backups."""
    width = max((len(table.name) for table in report.tables), default=0)
    for table in report.tables:
        lost = "" if not table.lost else "  ✗ some rows are unreadable"
        typer.echo(f"{clean(table.name):<{width}}  {table.rows:>12,} rows{lost}")
    for problem in report.problems:
        typer.echo(f"✗ {clean(problem)}")
    for path, size in report.backups:
        typer.echo(f"backup from before an upgrade, safe to delete: {clean(str(path))}, {size / 1e6:,.1f} MB")
    if report.sound:
        typer.echo("the store is sound")


def fail_unless_sound(report: "StoreReport") -> None:
    """Raise an error if the store has problems.

    Raises:
        DataError: The store has problems.
    """
    if not report.sound:
        raise DataError(f"{report.store}: {report.problems[0]} ({len(report.problems)} problems)", hint=_WAY_OUT)


def _path(project: Path | None) -> Path:
    folder = find_project(project) / ".curator"
    # DuckDB would wait for a pipe for ever.
    check_results_folder(folder)
    return folder / "store.duckdb"
