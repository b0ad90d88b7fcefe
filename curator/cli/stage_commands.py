"""Commands of the stages: init, check, train, gradients, status."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from curator.cli.options import Shared, app, print_json, shared_options


@app.command(epilog="Example: curator init my-project --from 'data/*.jsonl' --target qa --model my-model")
@shared_options("quiet")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to create.")],
    shared: Shared,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="FILE/GLOB/HUB-ID",
            help="Add the tasks of files, a hub data set, or a configuration of another trainer; repeatable.",
        ),
    ] = None,
    task_column: Annotated[
        str, typer.Option("--task-column", metavar="COLUMN", help="Make one task of each value of this column.")
    ] = "",
    model: Annotated[
        str | None,
        typer.Option("--model", help="Set the hub id or folder of the model. [default: model, or as --from names it]"),
    ] = None,
    target: Annotated[str | None, typer.Option("--target", metavar="T", help="Set the task to improve.")] = None,
    group: Annotated[
        int | None,
        typer.Option(
            "--group", metavar="N", min=2, help="Split each auxiliary task into N groups of similar examples."
        ),
    ] = None,
) -> None:
    """Write a commented curator.toml."""
    from curator.core.text import clean
    from curator.project.new_project import write_groups, write_project

    written = write_project(folder, sources or [], model=model, target=target, task_column=task_column)
    tasks = written.tasks
    if written.left_out and not shared.quiet:
        typer.echo("not imported:", err=True)
        for line in written.left_out:
            typer.echo(f"  {clean(line)}", err=True)
    if group is not None:
        with shared.open(folder=folder) as opened:
            tasks = write_groups(opened.config, opened.root, opened.group(group), written)
    found = f" with {len(tasks)} tasks" if tasks else ""
    typer.echo(f"wrote {written.path}{found}; next: curator check -p {folder}")


@app.command(epilog="Example: curator check -p sample_data")
@shared_options("project", "rehash", "ray", "as_json", "skip_bad_rows", "quiet", "verbose", "log_file")
def check(
    shared: Shared,
    store: Annotated[bool, typer.Option("--store", help="Check the store instead: every row of every table.")] = False,
    details: Annotated[
        bool, typer.Option("--details", help="List every task, every problem and the rows of near duplicates.")
    ] = False,
) -> None:
    """Read configuration and data, and print tasks, sizes, token counts and problems."""
    from curator.cli import store_commands
    from curator.cli.check_table import show_check
    from curator.data.check import CheckFailed

    if store:
        found = store_commands.check(shared.project)
        print_json(found.to_json()) if shared.as_json else store_commands.show(found)
        store_commands.fail_unless_sound(found)
        return
    table = partial(show_check, details=details)
    try:
        with shared.open() as opened:
            report = opened.check()
    except CheckFailed as error:
        shared.show(error.report, table)
        raise
    shared.show(report, table)


@app.command(epilog="Example: curator train --fresh")
@shared_options("project", "target", "fresh", "dry_run", "as_json", "skip_bad_rows", "quiet", "verbose", "log_file")
def train(shared: Shared) -> None:
    """Meta-train: fine-tune one LoRA adapter on all tasks together."""
    from curator.cli.tables import show_train

    with shared.open() as opened:
        report = opened.train(target=shared.target, fresh=shared.fresh)
    shared.show(report, show_train)


@app.command(epilog="Example: PYTHONSAFEPATH=1 accelerate launch --num_processes 2 -m curator gradients")
@shared_options(
    "project", "target", "fresh", "dry_run", "ray", "as_json", "skip_bad_rows", "quiet", "verbose", "log_file"
)
def gradients(shared: Shared) -> None:
    """Compute the projected gradients, and their sums, that estimates need."""
    from curator.cli.tables import show_gradients

    with shared.open() as opened:
        report = opened.gradients(target=shared.target, fresh=shared.fresh)
    shared.show(report, show_gradients)


@app.command(epilog="Example: curator status --json")
@shared_options("project", "as_json", "quiet", "verbose", "log_file")
def status(shared: Shared) -> None:
    """Print the state of every stage, the reason if a stage is stale, and recent selections and jobs."""
    from curator.cli.tables import show_status

    with shared.open(silent=True) as opened:
        report = opened.status()
    shared.show(report, show_status)
