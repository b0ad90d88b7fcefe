"""`curator check --store` and `curator export-store`: whether the store is sound, and what can be saved of it."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from curator.core.errors import DataError
from curator.core.files import find_project
from curator.core.text import clean

if TYPE_CHECKING:
    from curator.workspace.store.check import StoreReport

_WAY_OUT = (
    "`curator export-store DIR` saves what can be read. Then delete `.curator/store.duckdb`: results are lost, and made"
    " again by the same commands; your data is not."
)


def check(project: Path | None) -> "StoreReport":
    """Read all of a project's store; its configuration need not be right.

    Raises:
        ConfigError, DataError, StoreBusy: As `check_store`.
    """
    from curator.workspace.store.check import check_store
    from curator.workspace.store.tables import Store

    return check_store(Store(_path(project)))


def export(project: Path | None, folder: Path) -> "StoreReport":
    """Save what can be read of a project's store.

    Raises:
        ConfigError, DataError, StoreBusy: As `export_store`.
    """
    from curator.workspace.store.check import export_store
    from curator.workspace.store.tables import Store

    return export_store(Store(_path(project)), folder)


def show(report: "StoreReport") -> None:
    """Print tables with their rows, and what else there is to know."""
    width = max((len(table.name) for table in report.tables), default=0)
    for table in report.tables:
        lost = "" if not table.lost else "  ✗ not all can be read"
        typer.echo(f"{clean(table.name):<{width}}  {table.rows:>12,} rows{lost}")
    for problem in report.problems:
        typer.echo(f"✗ {clean(problem)}")
    for path, size in report.backups:
        typer.echo(f"copy from before an upgrade, which may be deleted: {clean(str(path))}, {size / 1e6:,.1f} MB")
    if report.sound:
        typer.echo("the store is sound")


def fail_unless_sound(report: "StoreReport") -> None:
    """End with exit code 3 where something is wrong.

    Raises:
        DataError: Something is.
    """
    if not report.sound:
        raise DataError(f"{report.store}: {report.problems[0]} ({len(report.problems)} problems)", hint=_WAY_OUT)


def _path(project: Path | None) -> Path:
    return find_project(project) / ".curator" / "store.duckdb"
