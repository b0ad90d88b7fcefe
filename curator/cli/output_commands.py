"""Commands that write results for others: export, apply, sql, report, note, selections, export-store."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from curator.cli.options import METRIC_HELP, Shared, app, print_json, shared_options
from curator.core.errors import ConfigError
from curator.export import FORMATS

MANIFEST_HELP = "Manifest file of `curator select`, or the name of a selection."
_WORDS = {"list": 0, "rename": 2, "delete": 1, "restore": 1, "annotate": 2}
_USES = {
    "list": "list",
    "rename": "rename NAME NEW",
    "delete": "delete NAME",
    "restore": "restore NAME",
    "annotate": "annotate NAME NOTE",
}


@app.command(epilog="Example: curator export curator-manifest.json --format trl -o train-data")
@shared_options("project", "as_json", "quiet", "verbose", "log_file")
def export(
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help=MANIFEST_HELP)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Write to this directory.")],
    shared: Shared,
    format: Annotated[
        str, typer.Option("--format", metavar="F", help=f"Write for a trainer: {', '.join(FORMATS)}.")
    ] = "jsonl",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print rows and tokens, and write nothing.")] = False,
    push_to_hub: Annotated[
        str, typer.Option("--push-to-hub", metavar="NAME", help="Send format hf to this private data set of the hub.")
    ] = "",
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Export even if files have changed since the selection.")
    ] = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Read any file and download any data that the manifest names.")
    ] = False,
) -> None:
    """Write the selected tasks and the target's training examples as files that a trainer reads."""
    from curator.cli.tables import show_export, show_exported
    from curator.export import prepare_export, write_export
    from curator.export.hub import check_upload, upload
    from curator.project.project import Project
    from curator.select.manifest import read_manifest

    if push_to_hub:
        check_upload(push_to_hub, format)
    path = Path(manifest)
    # A manifest is complete: it can be exported without its project.
    found, here = (
        (read_manifest(path), path.absolute().parent)
        if os.path.isfile(path)
        else Project.open(shared.project).manifest(manifest)
    )
    with shared.progress() as reporter:
        plan = prepare_export(
            found,
            here,
            format=format,
            folder=output,
            allow_changed=allow_changed,
            allow_outside=allow_outside,
            project=_project(shared.project),
            reporter=reporter,
        )
    if not shared.as_json:
        show_export(plan.report)
    if not dry_run:
        write_export(plan)
        if push_to_hub:
            upload(output, push_to_hub)
    if shared.as_json:
        print_json(plan.report.to_json() | {"dry_run": dry_run})
    else:
        show_exported(plan.report, written=not dry_run)


def _project(wanted: Path | None) -> Path | None:
    """Return the folder of the project in use, or None outside of projects. A manifest needs no project."""
    from curator.core.files import find_project

    if wanted is not None:
        return find_project(wanted)
    with contextlib.suppress(ConfigError):
        return find_project()
    return None


@app.command(epilog="Example: curator apply curator-manifest.json -o adapter")
@shared_options("project", "fresh", "dry_run", "ray", "as_json", "quiet", "verbose", "log_file")
def apply(
    shared: Shared,
    manifests: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MANIFEST]...", help=f"{MANIFEST_HELP} [default: curator-manifest.json]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Write the adapter to this directory, or several to folders in it."
            " [default: in .curator/adapters/applied]",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", min=0, max=2**32 - 1, help="Set the seed. [default: as the first run of verify]"
        ),
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", metavar="M", help=METRIC_HELP)] = None,
    allow_changed: Annotated[
        bool,
        typer.Option("--allow-changed", help="Train on the current data even if the data differs from the manifest."),
    ] = False,
) -> None:
    """Fine-tune the base model on a selection by the project's recipe, and measure the loss of the adapter.

    Several selections run side by side on several GPUs, or on a Ray cluster with --ray.
    """
    from curator.cli.metric_table import show_adapters, show_apply_with_metric

    named = manifests or ["curator-manifest.json"]
    with shared.open() as opened:
        if len(named) > 1:
            several = opened.apply_all(
                named, output=output, seed=seed, metric=metric, allow_changed=allow_changed, fresh=shared.fresh
            )
        else:
            report = opened.apply(
                named[0], output=output, seed=seed, metric=metric, allow_changed=allow_changed, fresh=shared.fresh
            )
    if len(named) > 1:
        shared.show(several, show_adapters)
    else:
        shared.show(report, show_apply_with_metric)


@app.command(epilog="Example: curator sql 'SELECT task, affinity FROM affinities ORDER BY affinity DESC' --format csv")
@shared_options("project", "target", "as_json", "quiet", "verbose", "log_file")
def sql(
    shared: Shared,
    query: Annotated[
        str, typer.Argument(metavar="[QUERY]", help="DuckDB query; - reads standard input. [default: list the views]")
    ] = "",
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="F",
            help="Print as table, csv, json or parquet. [default: as FILE ends, or table]",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to this file.")] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Stop the query after this time.")
    ] = 60.0,
) -> None:
    """Query the store read-only in DuckDB SQL: tasks, examples, affinities, subsets, runs, metrics and selections."""
    from curator.cli.query_output import TABLE_ROWS, pick_format, write_result

    wanted = pick_format("json" if shared.as_json else format, output)
    text = sys.stdin.read() if query == "-" else query
    with shared.open(silent=True) as opened:
        limit = TABLE_ROWS if wanted == "table" and text.strip() else None
        result = opened.sql(text, target=shared.target, limit=limit, timeout=timeout)
    write_result(result, wanted, output, quiet=shared.quiet)


@app.command(epilog="Example: curator report -o report.html")
@shared_options("project", "as_json", "quiet", "verbose")
def report(
    shared: Shared,
    manifest: Annotated[
        str | None, typer.Argument(metavar="[MANIFEST]", help=f"{MANIFEST_HELP} [default: the last selection]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write to this file; .md gives Markdown. [default: curator-report.html in the project]",
        ),
    ] = None,
) -> None:
    """Write one HTML file about a selection: tasks, reasons, plots, verified runs, settings and hashes."""
    from curator.core.text import clean

    with shared.open() as opened:
        path = opened.report(manifest, output=output)
    if shared.as_json:
        print_json({"schema_version": 1, "report": str(path)})
    else:
        typer.echo(clean(f"report: {path}"))


@app.command(epilog="Example: curator note 'two labels are wrong' --task carry")
@shared_options("project", "as_json", "quiet", "verbose")
def note(
    shared: Shared,
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="Note to keep; an empty text removes it. [default: print]")
    ] = None,
    task: Annotated[str, typer.Option("--task", metavar="T", help="Name a task.")] = "",
    example: Annotated[
        str, typer.Option("--example", metavar="HASH", help="Name an example of the task, as `examples --json` does.")
    ] = "",
    selection: Annotated[str, typer.Option("--selection", metavar="NAME", help="Name a selection.")] = "",
) -> None:
    """Keep or print a note on a task, an example or a selection. Without a name, print all notes."""
    from curator.cli.tables import show_notes

    with shared.open(silent=True) as opened:
        report = opened.note(text, task=task, example=example, selection=selection)
    shared.show(report, show_notes)


@app.command(epilog="Example: curator selections rename forward first")
@shared_options("project", "target", "as_json", "quiet", "verbose")
def selections(
    shared: Shared,
    action: Annotated[
        Literal["list", "rename", "delete", "restore", "annotate"],
        typer.Argument(metavar="[ACTION]", help="Choose list, rename, delete, restore or annotate."),
    ] = "list",
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME] [WORDS]...", help="Name a selection, then its new name or its note."),
    ] = None,
) -> None:
    """List the saved selections, or rename, delete, restore or annotate one. Verified runs stay."""
    from curator.cli.tables import show_selections

    given = words or []
    if len(given) != _WORDS[action]:
        raise ConfigError(
            f"{action} takes {_WORDS[action]} words, not {len(given)}",
            hint=f"Use `curator selections {_USES[action]}`.",
        )
    with shared.open(silent=True) as opened:
        if action == "rename":
            opened.rename_selection(given[0], given[1], target=shared.target)
        elif action == "delete":
            opened.delete_selection(given[0], target=shared.target)
        elif action == "restore":
            opened.restore_selection(given[0], target=shared.target)
        elif action == "annotate":
            opened.note(given[1], selection=given[0])
        report = opened.saved_selections()
    shared.show(report, show_selections)


@app.command(epilog="Example: curator export-store saved -p sample_data")
@shared_options("project", "as_json", "quiet", "verbose")
def export_store(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Empty directory; created if missing.")],
    shared: Shared,
) -> None:
    """Save the readable rows of the store, even of a damaged one, as one Parquet file per table."""
    from curator.cli import store_commands

    found = store_commands.export(shared.project, folder)
    print_json(found.to_json()) if shared.as_json else store_commands.show(found)
    store_commands.fail_unless_sound(found)
